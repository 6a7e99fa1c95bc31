//! Opening the database: what every connection is asked for, and how many there are before anybody waits for one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sea_orm::sqlx::postgres::PgConnectOptions;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sea_orm::sqlx::{self, ConnectOptions as _};
use sea_orm::{ConnectOptions, Database, DbErr};
use secrecy::ExposeSecret as _;

use super::group::Groups;
use super::limited::{Limit, Reader};
use super::primary::{Access, Primary};
use super::{Db, Writer, identity};
use crate::config;
use crate::telemetry::metrics::Metrics;

/// How long a SQLite writer waits for another process that writes, and for its turn.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How much later than PostgreSQL's own time limit for a statement ours is.
pub(super) const AFTER_TIMEOUT: Duration = Duration::from_millis(500);
/// A pooled connection that has been idle for longer is tested before use.
const TEST_IF_IDLE_FOR: Duration = Duration::from_secs(30);
/// Most connections to PostgreSQL that are opened before anybody waits for one: a burst of requests finds them, and a PostgreSQL of
/// the usual 100 has room for several replicas of them.
const WARM: u32 = 10;
/// How long they may take together. One alone may take as long as a request would wait for it.
const WARMING: Duration = Duration::from_secs(5);

impl Db {
    /// Opens the database that the configuration names; a missing SQLite file is made, readable by its owner only.
    pub async fn connect(config: &config::Database) -> Result<Self, DbErr> {
        Self::connect_counted(config, Arc::new(Metrics::new(config.engine()))).await
    }

    /// As `connect`, with metrics that were there before: those of an application that is to use it.
    pub async fn connect_counted(config: &config::Database, metrics: Arc<Metrics>) -> Result<Self, DbErr> {
        Self::open(config, metrics, Access::Write).await
    }

    pub(super) async fn open(config: &config::Database, metrics: Arc<Metrics>, access: Access) -> Result<Self, DbErr> {
        let time = Duration::from_secs(config.statement_timeout_seconds) + AFTER_TIMEOUT;
        let max_connections = config.max_connections;
        if let Some(file) = config.sqlite_file() {
            create_private(config, &file);
            // The writer comes first: it makes the files that the readers then share.
            let writer = Database::connect(sqlite(config, 1)).await?;
            let mut readers = sqlite(config, config.max_connections);
            readers.map_sqlx_sqlite_opts(|options| tuned(options).pragma("query_only", "ON"));
            let writer = Writer::Sqlite(Groups::new(writer, BUSY_TIMEOUT));
            let stamp = Some(identity::Stamp::beside(&file));
            let limit = Limit { time, metrics, primary: None };
            let reader = Reader { pool: Database::connect(readers).await?, limit };
            return Ok(Self { reader, writer, stamp, max_connections: max_connections + 1 });
        }
        let (url, primary) =
            Primary::find(config.url.expose_secret(), Duration::from_secs(config.acquire_timeout_seconds)).await?;
        let (watching, asked) = (Arc::clone(&primary), Arc::clone(&primary));
        let mut options = ConnectOptions::new(url);
        common(&mut options, config)
            .map_sqlx_postgres_pool_opts(move |options| watching.watch(options, access))
            .map_sqlx_postgres_before_acquire(move |_, connection| {
                let is_current = asked.is_current(&connection);
                Box::pin(async move { Ok(is_current) })
            })
            .max_connections(config.max_connections)
            // The driver would try to open those for itself, during an outage ever more seldom, each in a place of the pool: after a
            // long outage such a place was missing for up to a minute, and a pool of one had no other.
            .min_connections(0)
            .idle_timeout(Duration::from_mins(10))
            .max_lifetime(Duration::from_mins(30))
            .map_sqlx_postgres_opts({
                let config = config.clone();
                move |options| asking(options, &config)
            });
        let pool = Database::connect(options).await?;
        primary.is_used_by(pool.get_postgres_connection_pool());
        let limit = Limit { time, metrics, primary: Some(primary) };
        let reader = Reader { pool: pool.clone(), limit };
        Ok(Self { reader, writer: Writer::Postgres(pool), stamp: None, max_connections })
    }

    /// Opens some of PostgreSQL's connections, so that the first requests need not wait for them: one that is opened while a burst
    /// wants the processor can take longer than a request waits. A server without room for them is no fault.
    pub async fn warm(&self) {
        let Writer::Postgres(pool) = &self.writer else { return };
        let (pool, wanted) = (pool.get_postgres_connection_pool(), self.max_connections.div_ceil(2).min(WARM));
        // Held, as the pool would give the same one again. One after the other: together they would slow each other down.
        let mut open = Vec::new();
        let opening = async {
            while open.len() < wanted as usize {
                match pool.acquire().await {
                    Ok(connection) => open.push(connection),
                    // The machine is busy, or the server is full: either may pass.
                    Err(sqlx::Error::PoolTimedOut) => {}
                    Err(error) => return Err(error.to_string()),
                }
            }
            Ok(())
        };
        let opened = tokio::time::timeout(WARMING, opening).await;
        if let Err(error) = opened.unwrap_or_else(|_| Err(format!("it took longer than {WARMING:?}"))) {
            let open = open.len();
            tracing::warn!(open, wanted, error, "fewer connections to the database are open than shall be");
        }
        // A drop would return without giving them back: whoever asks next would find none, and open another.
        let giving_back = async {
            for connection in &mut open {
                connection.return_to_pool().await;
            }
        };
        let _ = tokio::time::timeout(WARMING, giving_back).await;
    }

    /// Connects with the credentials and options of this configuration from now on, once they have worked. False, and nothing
    /// changes, when it names another server or database.
    pub async fn renew(&self, config: &config::Database) -> Result<bool, DbErr> {
        match &self.reader.limit.primary {
            Some(primary) if !config.is_sqlite() => {
                primary.renew(config.url.expose_secret(), |options| asking(options, config)).await
            }
            _ => Ok(false),
        }
    }
}

/// What every connection to PostgreSQL asks for at its start.
fn asking(options: PgConnectOptions, config: &config::Database) -> PgConnectOptions {
    let options = options.application_name("authservice").disable_statement_logging();
    // A connection is whoever's has the next transaction: what it starts with would be another's too, and PgBouncer refuses it.
    // The role's own settings stand instead.
    if config.transaction_pooling {
        return options.extra_float_digits(None);
    }
    // The answer to COMMIT is a promise: a server default of `off` must not weaken it.
    options.options([
        ("statement_timeout", format!("{}s", config.statement_timeout_seconds).as_str()),
        ("synchronous_commit", "on"),
        // A replica that is frozen in the middle keeps its locks no longer.
        ("idle_in_transaction_session_timeout", "10s"),
    ])
}

pub(super) fn sqlite(config: &config::Database, connections: u32) -> ConnectOptions {
    let mut options = ConnectOptions::new(config.url.expose_secret());
    common(&mut options, config)
        .max_connections(connections)
        .min_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .map_sqlx_sqlite_opts(tuned);
    options
}

fn tuned(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .foreign_keys(true)
}

fn common<'a>(options: &'a mut ConnectOptions, config: &config::Database) -> &'a mut ConnectOptions {
    let timeout = Duration::from_secs(config.acquire_timeout_seconds);
    options
        .acquire_timeout(timeout)
        .connect_timeout(timeout)
        .test_before_acquire_if_idle_for(TEST_IF_IDLE_FOR)
        .sqlx_logging(false)
}

/// Makes a missing SQLite file with mode 0600: it will hold password hashes. Errors are left to the connection.
fn create_private(config: &config::Database, file: &Path) {
    use std::os::unix::fs::OpenOptionsExt as _;

    if config.url.expose_secret().contains("mode=rwc") && !file.exists() {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
        if let Err(error) = made {
            tracing::debug!(error = %error, "the database file was not made here");
        }
    }
}
