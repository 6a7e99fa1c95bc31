//! The application: one field per domain, built once. Surfaces hold it; domains do not know it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::accounts::{self, Accounts};
use crate::audit::{Event, Trail};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::keys::{self, Keyring};
use crate::limits::Limits;
use crate::sessions::Sessions;
use crate::telemetry::metrics::Metrics;
use crate::tokens::Tokens;

/// Everything that a surface may call.
#[derive(Debug)]
#[expect(missing_docs, reason = "each field is its type")]
pub struct App {
    pub config: Config,
    pub clock: Arc<dyn Clock>,
    pub db: Db,
    pub keyring: Arc<Keyring>,
    pub sessions: Arc<Sessions>,
    pub limits: Arc<Limits>,
    pub accounts: Accounts,
    pub trail: Trail,
    pub metrics: Arc<Metrics>,
    is_stopping: AtomicBool,
}

/// Why the application cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key ring is not usable.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// Accounts cannot be served.
    #[error(transparent)]
    Accounts(#[from] accounts::Error),
}

impl App {
    /// Builds every domain on a migrated database.
    pub async fn new(config: Config, db: Db, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Error> {
        let metrics = Arc::clone(db.metrics());
        metrics.audit_events.declare(Event::all().map(Event::name));
        let trail = Trail::new(db.clone(), &config);
        let keyring = Arc::new(Keyring::open(db.clone(), &config, clock.now()).await?);
        let tokens = Tokens::new(Arc::clone(&keyring), &config);
        let sessions = Arc::new(Sessions::new(db.clone(), tokens.clone(), &config));
        let limits = Arc::new(Limits::new(db.clone(), &config.limits));
        let accounts = Accounts::new(db.clone(), Arc::clone(&sessions), Arc::clone(&limits), tokens, &config)?;
        let is_stopping = AtomicBool::new(false);
        Ok(Arc::new(Self { config, clock, db, keyring, sessions, limits, accounts, trail, metrics, is_stopping }))
    }

    /// From now on the server is not ready for new requests.
    pub fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// True once [`App::stop`] was called.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}
