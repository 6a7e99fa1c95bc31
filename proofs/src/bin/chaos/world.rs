//! Everything that one fault is tried on: a fresh folder, a fresh database, its servers, a ledger.

use std::collections::HashSet;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use proofs::Result;
use proofs::dice::Dice;
use proofs::postgres::Cluster;
use proofs::server::{self, Server, Settings};
use proofs::sql::Sql;

use crate::ledger::Ledger;
use crate::report::{LeftOut, Report, Row, say};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// How much is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) is_short: bool,
    seconds: Option<u64>,
    kills: Option<usize>,
    clients: Option<usize>,
}

impl Size {
    pub(crate) fn new(is_short: bool, seconds: Option<u64>, kills: Option<usize>, clients: Option<usize>) -> Self {
        Self { is_short, seconds, kills, clients }
    }

    fn pick<T>(self, chosen: Option<T>, short: T, long: T) -> T {
        chosen.unwrap_or(if self.is_short { short } else { long })
    }

    pub(crate) fn seconds(self, short: u64, long: u64) -> std::time::Duration {
        std::time::Duration::from_secs(self.pick(self.seconds, short, long))
    }

    pub(crate) fn times(self, short: usize, long: usize) -> usize {
        self.pick(self.kills, short, long)
    }

    pub(crate) fn clients(self, short: usize, long: usize) -> usize {
        self.pick(self.clients, short, long)
    }
}

/// Where a fault is tried.
pub(crate) struct World {
    pub(crate) fault: &'static str,
    pub(crate) engine: Engine,
    pub(crate) size: Size,
    pub(crate) dice: Dice,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) report: Report,
    pub(crate) url: String,
    /// Settings that take a protection away, to see that its loss is noticed.
    pub(crate) overrides: Vec<(String, String)>,
    /// Statements that do the same to a database.
    pub(crate) sabotage: Vec<String>,
    sabotaged: Mutex<HashSet<String>>,
    directory: PathBuf,
    cluster: Option<Arc<Cluster>>,
}

impl World {
    pub(crate) async fn new(
        fault: &'static str,
        engine: Engine,
        size: Size,
        dice: Dice,
        directory: &Path,
        cluster: Option<Arc<Cluster>>,
    ) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let url = match &cluster {
            Some(cluster) if engine == Engine::Postgres => cluster.database().await?,
            _ => format!("sqlite://{}/authservice.db?mode=rwc", directory.display()),
        };
        Ok(Self {
            fault,
            engine,
            size,
            dice,
            ledger: Arc::new(Ledger::new(fault, engine.label())),
            report: Report::default(),
            url,
            overrides: Vec::new(),
            sabotage: Vec::new(),
            sabotaged: Mutex::default(),
            directory: directory.to_owned(),
            cluster,
        })
    }

    /// Settings of a server on this database. Limits are off: clients refresh much faster than people.
    pub(crate) fn settings(&self, name: &str) -> Result<Settings> {
        let settings = Settings::new(&server::binary()?, &self.directory, name, &self.url)?
            .with("AUTHSERVICE__LIMITS__ENABLED", "false")
            .with("AUTHSERVICE__REFRESH__MAX_SESSIONS_PER_USER", "1000");
        Ok(self.overrides.iter().fold(settings, |settings, (name, text)| settings.with(name, text)))
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(&self, settings: &Settings) -> Result<Server> {
        let server = Server::start(settings).await?;
        let url = settings.database_url().to_owned();
        let is_first = self.sabotaged.lock().unwrap_or_else(PoisonError::into_inner).insert(url.clone());
        if is_first && !self.sabotage.is_empty() {
            let sql = Sql::connect(&url).await?;
            for statement in &self.sabotage {
                sql.run(statement).await?;
            }
            sql.close().await;
        }
        Ok(server)
    }

    /// Writes a line of progress.
    pub(crate) fn tell(&self, what: impl Display) {
        say(&format!("    {} {}: {what}", self.fault, self.engine.label()));
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        self.engine == Engine::Sqlite
    }

    /// The PostgreSQL that the database is on.
    pub(crate) fn cluster(&self) -> Result<Arc<Cluster>> {
        self.cluster.clone().ok_or_else(|| "there is no PostgreSQL in this run".into())
    }

    /// A connection past the server.
    pub(crate) async fn sql(&self) -> Result<Sql> {
        Sql::connect(&self.url).await
    }

    /// Notes what was seen of a promise.
    pub(crate) fn promise(&mut self, promise: &str, figure: impl Display, is_kept: bool) {
        let (fault, engine) = (self.fault, self.engine.label());
        self.report.add(Row {
            fault,
            engine,
            promise: promise.to_owned(),
            figure: figure.to_string().replace('\n', " "),
            is_kept,
        });
    }

    /// Notes that this fault, or a part of it, is not tried here. It is no success: the end of the run names it.
    pub(crate) fn leave_out(&mut self, why: &str) {
        self.tell(format!("not tried: {why}"));
        self.report.left_out.push(LeftOut { fault: self.fault, engine: self.engine.label(), why: why.to_owned() });
    }

    /// Begins the next part of a fault with an empty ledger; what was broken before is in the report already.
    pub(crate) fn new_ledger(&mut self) {
        self.ledger = Arc::new(Ledger::new(self.fault, self.engine.label()));
    }
}
