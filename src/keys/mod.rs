//! The key ring: who signs, who verifies, what the world may see. The database holds it; no message passes between replicas.
//!
//! A key's life is four timestamps that are planned ahead: it is **announced** (published, not yet signing), **signs** from
//! `signing_at`, is **retained** from `retained_at` (published until the last access token it signed is dead, then kept for our own
//! verification until the last refresh token is), and **gone** at `gone_at`. A state is a comparison with the clock, so a planned
//! change happens everywhere at once. A partial unique index keeps one key of each purpose without a planned end: the newest.
//!
//! What is not planned, a revoked key, is known by polling: every replica reads the plans twice a second, and a replica that could
//! not signs nothing. Knows no HTTP and no claims.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use moka::future::Cache;
use sea_orm::{DbErr, FromQueryResult};

use crate::config;
use crate::entity::signing_key::Model;
use crate::telemetry::traces;

mod directory;
mod exchange;
mod key;
mod mac;
mod management;
mod open;
mod plan;
mod ring;
mod rotation;
mod seal;
mod store;
mod succession;

pub use key::{Fault, Key};
pub use mac::MacKey;
pub use management::{Exported, Listed, Management, Resealed, Revoked, Succeeded};
pub use open::imported_kid;
pub use plan::State;
pub use ring::AnyKey;
pub use rotation::Signing;
pub use seal::{EncryptionKeys, SealedBy};

use ring::Ring;
use succession::Succession;

/// How often the plans of the keys are read, so that a revoked key is refused within a second.
pub const POLL: Duration = Duration::from_millis(500);
/// How often a kid that is not in the ring may make it be read anew.
const RELOAD: Duration = Duration::from_secs(1);
/// Whoever has not read the ring for longer does not sign.
const LEASE: TimeDelta = TimeDelta::seconds(1);

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Signs JWTs.
    Signing,
    /// Authenticates opaque refresh tokens.
    Refresh,
}

impl Purpose {
    /// Every purpose.
    pub const ALL: [Self; 2] = [Self::Signing, Self::Refresh];

    /// The purpose with this name.
    fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == name)
    }

    /// The word in the database and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Refresh => "refresh",
        }
    }
}

/// Why the ring is not usable, or not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files, settings and rows do not fit together: an operator must act. The process exits with 78.
    #[error("the keys have {} fault(s):\n  {}", .0.len(), .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n  "))]
    Faults(Vec<Fault>),
    /// A key could not be made or used.
    #[error("key: {0}")]
    Key(#[from] Fault),
    /// What an operator asked for cannot be done; nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
    /// No key may sign now.
    #[error("no key may sign now")]
    NoSigner,
    /// The ring could not be read to look for a key.
    #[error("the key ring could not be read")]
    Unread,
}

/// When, and with which key, the database of the old service was taken over.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Adoption {
    /// The key that signed the old tokens, which name none.
    pub kid: String,
    /// Old access tokens were issued before.
    pub adopted_at: DateTime<Utc>,
}

/// The key ring.
pub struct Keyring {
    adoption: Option<Adoption>,
    succession: Succession,
    /// The ring as last read: what every request uses, also while the database is away.
    ring: RwLock<Reading>,
    /// Numbers the readings, so that a slow one does not undo a later one.
    readings: AtomicU64,
    /// The last poll failed: reported once.
    is_unread: AtomicBool,
    /// Lets one caller at a time read the ring, once a second at most.
    reload: Cache<(), bool>,
    /// Keys by kid, so that a reading parses only what is new.
    parsed: Cache<String, AnyKey>,
    /// JWK Sets by the kids that are published.
    rendered: Cache<Vec<String>, Bytes>,
}

#[derive(Default)]
struct Reading {
    number: u64,
    read_at: DateTime<Utc>,
    ring: Arc<Ring>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    fn new(succession: Succession, adoption: Option<Adoption>) -> Self {
        Self {
            adoption,
            succession,
            ring: RwLock::default(),
            readings: AtomicU64::new(0),
            is_unread: AtomicBool::new(false),
            reload: Cache::builder().max_capacity(1).time_to_live(RELOAD).build(),
            parsed: Cache::builder().max_capacity(1024).build(),
            rendered: Cache::builder().max_capacity(16).build(),
        }
    }

    /// The key that signs JWTs at `now`.
    pub fn signer(&self, now: DateTime<Utc>) -> Result<Arc<Key>, Error> {
        self.current().active(now).find_map(AnyKey::signing).cloned().ok_or(Error::NoSigner)
    }

    /// The key that authenticates new opaque refresh tokens at `now`.
    pub fn mac(&self, now: DateTime<Utc>) -> Result<Arc<MacKey>, Error> {
        self.current().active(now).find_map(AnyKey::mac).cloned().ok_or(Error::NoSigner)
    }

    /// Where the old tokens come from; `None` in a database that was not taken over.
    #[must_use]
    pub fn adoption(&self) -> Option<&Adoption> {
        self.adoption.as_ref()
    }

    /// The key with this kid, unless it is gone. A kid that is not in the ring makes it be read anew, once a second at most; when
    /// that fails nobody knows whether there is such a key.
    pub async fn find(&self, kid: &str, now: DateTime<Utc>) -> Result<Option<AnyKey>, Error> {
        if let Some(key) = self.current().find(kid, now) {
            return Ok(Some(key));
        }
        if !self.reload(now).await {
            return Err(Error::Unread);
        }
        Ok(self.current().find(kid, now))
    }

    /// Errors unless the ring was read within the last second or can be read now: whoever cannot know whether a key was revoked
    /// meanwhile must not sign with it.
    pub async fn confirm(&self, now: DateTime<Utc>) -> Result<(), Error> {
        let is_fresh = || {
            let read_at = self.ring.read().unwrap_or_else(PoisonError::into_inner).read_at;
            // A request that waited holds an older time than the reading; a clock that stepped back proves nothing.
            (-TimeDelta::minutes(1)..LEASE).contains(&(now - read_at))
        };
        // What others have just read may have been asked for long before.
        let is_known = is_fresh() || (self.reload(now).await && is_fresh()) || (self.poll(now).await && is_fresh());
        if is_known { Ok(()) } else { Err(Error::Unread) }
    }

    /// The JWK Set of the public keys that are published at `now`.
    pub async fn jwk_set(&self, now: DateTime<Utc>) -> Bytes {
        let ring = self.current();
        let published = ring.published(now);
        let kids = published.iter().map(|key| key.kid.clone()).collect();
        self.rendered.get_with(kids, async move { ring::render(&published) }).await
    }

    /// Reads the ring anew; many callers at once read it once. A database that does not answer leaves it as it was: false.
    pub async fn reload(&self, now: DateTime<Utc>) -> bool {
        self.reload.get_with((), self.poll(now)).await
    }

    /// Reads what is planned, and the keys when that has changed. A database that does not answer leaves the ring as it was: false.
    pub async fn poll(&self, now: DateTime<Utc>) -> bool {
        let read = traces::span("read key ring").judge(self.read(now).await);
        if read.is_err() {
            self.succession.db.metrics().key_ring_failures.inc();
        }
        let was_unread = self.is_unread.swap(read.is_err(), Ordering::Relaxed);
        match &read {
            Err(error) if !was_unread => tracing::warn!(error = %error, "the key ring was not read anew"),
            Ok(()) if was_unread => tracing::info!("the key ring is read again"),
            _ => {}
        }
        read.is_ok()
    }

    async fn read(&self, now: DateTime<Utc>) -> Result<(), DbErr> {
        let number = self.readings.fetch_add(1, Ordering::SeqCst) + 1;
        let reader = self.succession.db.reader();
        // Before anything is opened: another exchange of them makes it be opened anew.
        let encryption_keys = self.succession.encryption_keys();
        let ring = self.current();
        let ring = if store::plans(reader, now).await? == ring.plans && ring.is_opened_with(encryption_keys.as_ref()) {
            ring
        } else {
            Arc::new(self.ring_of(&store::live_keys(reader, now).await?, encryption_keys).await)
        };
        let mut reading = self.ring.write().unwrap_or_else(PoisonError::into_inner);
        if reading.number < number {
            *reading = Reading { number, read_at: now, ring };
        }
        Ok(())
    }

    fn current(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner).ring)
    }

    /// Opens what is new. A row that cannot be opened is left out and reported; the others work on.
    async fn ring_of(&self, rows: &[Model], encryption_keys: Option<Arc<EncryptionKeys>>) -> Ring {
        let mut keys = Vec::new();
        for row in rows {
            let opened = match self.parsed.get(&row.kid).await {
                Some(key) => Ok(key),
                None => ring::open(row, encryption_keys.as_deref()).and_then(|private| Ok(private.prepare()?)),
            };
            match opened {
                Ok(key) => {
                    self.parsed.insert(row.kid.clone(), key.clone()).await;
                    keys.push((key, row.into()));
                }
                Err(error) => tracing::error!(key.id = row.kid, error = %error, "a key of the ring cannot be used"),
            }
        }
        Ring::new(rows.iter().map(Into::into).collect(), keys, encryption_keys)
    }
}
