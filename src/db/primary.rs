//! Which PostgreSQL takes our writes: connections to one that does not are refused and given up, and of several hosts the one
//! that does is found again after a failover.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sea_orm::sqlx::pool::{PoolConnectionMetadata, PoolOptions};
use sea_orm::sqlx::postgres::{PgConnectOptions, PgConnection, PgPool};
use sea_orm::sqlx::{self, Connection as _, Postgres, Row as _};
use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::Notify;

use crate::config::each_host;

/// What a connection that was given up may take to come to rest before it is closed instead. On a network that swallows packets it
/// would else be missing from the pool until TCP gives up, which takes a quarter of an hour.
const REST: Duration = Duration::from_secs(5);
/// Between two searches.
const PAUSE: Duration = Duration::from_millis(250);

/// What connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// A server that only reads is refused.
    Write,
    /// Any server will do.
    Examine,
}

/// What must be there besides a server that takes writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tables {
    /// Nothing.
    Any,
    /// Our tables, which the role may change as far as one right on one of them tells.
    Ours,
}

/// The hosts of the URL, and what is known of the connections to the one in use.
#[derive(Debug)]
pub(super) struct Primary {
    /// Host and port, in the order of the URL.
    hosts: Vec<(String, u16)>,
    /// How long a host may take to say what it is.
    patience: Duration,
    /// Connections that were opened earlier are used no more.
    since: Mutex<Instant>,
    given_up: Notify,
    pool: OnceLock<PgPool>,
    is_searching: AtomicBool,
    /// Held while what new connections ask for is changed: a failover and new credentials may come together.
    changing: Mutex<()>,
}

impl Primary {
    /// Returns the URL of the host that takes writes. A URL with one host is not looked at: the pool will.
    pub(super) async fn find(url: &str, patience: Duration) -> Result<(String, Arc<Self>), DbErr> {
        let mut urls = each_host(url);
        let options = parsed(&urls)?;
        let primary = Arc::new(Self {
            hosts: options.iter().map(address).collect(),
            patience,
            since: Mutex::new(Instant::now()),
            given_up: Notify::new(),
            pool: OnceLock::new(),
            is_searching: AtomicBool::new(false),
            changing: Mutex::new(()),
        });
        if urls.len() == 1 {
            return Ok((urls.remove(0), primary));
        }
        for (url, options) in urls.into_iter().zip(options) {
            if primary.examine(&options, Tables::Any).await.is_ok() {
                return Ok((url, primary));
            }
        }
        let none = format!("none of the {} hosts answers and takes writes", primary.hosts.len());
        Err(DbErr::Conn(RuntimeErr::Internal(none)))
    }

    /// What the pool does with its connections.
    pub(super) fn watch(self: &Arc<Self>, options: PoolOptions<Postgres>, access: Access) -> PoolOptions<Postgres> {
        let primary = Arc::clone(self);
        options
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    if access == Access::Write { require_writes(connection).await } else { Ok(()) }
                })
            })
            .after_release(move |connection, known| {
                let primary = Arc::clone(&primary);
                Box::pin(async move {
                    if !primary.is_current(&known) {
                        return Ok(false);
                    }
                    // Rests at once unless somebody did not wait for an answer.
                    tokio::select! {
                        biased;
                        rested = connection.flush() => rested.map(|()| true),
                        () = primary.given_up.notified() => Ok(false),
                        () = tokio::time::sleep(REST) => Err(sqlx::Error::Protocol(format!("still no answer after {REST:?}"))),
                    }
                })
            })
    }

    /// False for a connection that was opened before a failover.
    pub(super) fn is_current(&self, connection: &PoolConnectionMetadata) -> bool {
        Instant::now().checked_sub(connection.age).is_none_or(|opened| opened >= *self.since())
    }

    /// The pool whose connections these are.
    pub(super) fn is_used_by(&self, pool: &PgPool) {
        let _ = self.pool.set(pool.clone());
    }

    /// True when the pool may open more connections than it has.
    pub(super) fn has_room(&self) -> bool {
        self.pool.get().is_some_and(|pool| pool.size() < pool.options().get_max_connections())
    }

    /// An error of a statement may tell that the server is not what it was.
    pub(super) fn hear(self: &Arc<Self>, error: &DbErr) {
        let trouble = Trouble::of(error);
        if trouble == Trouble::Gone {
            self.give_up_connections();
        }
        let is_alone = self.hosts.len() < 2;
        if trouble == Trouble::None || is_alone || self.is_searching.swap(true, Ordering::SeqCst) {
            return;
        }
        let primary = Arc::clone(self);
        tokio::spawn(async move {
            primary.search().await;
            tokio::time::sleep(PAUSE).await;
            primary.is_searching.store(false, Ordering::SeqCst);
        });
    }

    /// The next user of each connection opens another.
    pub(super) fn give_up_connections(&self) {
        *self.since() = Instant::now();
        self.given_up.notify_waiters();
    }

    /// Connects as this URL says from now on, once a connection that may write was opened so; `asking` adds what every connection asks
    /// for. False when the URL names other servers or another database.
    ///
    /// Whoever has connected has proved who he is: a new password leaves the connections that there are, which end in half an hour
    /// anyway. Those of another role are given up, as whoever gives out roles for a time will drop it.
    pub(super) async fn renew(
        self: &Arc<Self>,
        url: &str,
        asking: impl Fn(PgConnectOptions) -> PgConnectOptions,
    ) -> Result<bool, DbErr> {
        let Some(pool) = self.pool.get() else { return Ok(false) };
        let current = pool.connect_options();
        let mut options = parsed(&each_host(url))?;
        let is_elsewhere = |options: &PgConnectOptions| {
            options.get_socket() != current.get_socket() || database(options) != database(&current)
        };
        if !options.iter().map(address).eq(self.hosts.iter().cloned()) || options.iter().any(is_elsewhere) {
            return Ok(false);
        }
        // The one in use first; another one when it has failed since: the search has only the credentials before these.
        options.sort_by_key(|options| address(options) != address(&current));
        let mut refusal = None;
        for options in options.into_iter().map(asking) {
            match self.examine(&options, Tables::Ours).await {
                Ok(()) => {
                    let ((host, port), is_other) =
                        (address(&options), options.get_username() != current.get_username());
                    self.change(pool, |now| {
                        // A failover that came meanwhile stands.
                        let is_moved = address(&now) != address(&current);
                        if is_moved { options.host(now.get_host()).port(now.get_port()) } else { options }
                    });
                    if (host.as_str(), port) != (current.get_host(), current.get_port()) {
                        self.moved(&host, port);
                    }
                    if is_other {
                        self.give_up_role();
                    }
                    return Ok(true);
                }
                // Of the host that is in use: the others are standbys.
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        Err(of_connection(refusal.unwrap_or(sqlx::Error::PoolClosed)))
    }

    /// One that is just being opened for the role before seems new when it is, so they are given up once more.
    fn give_up_role(self: &Arc<Self>) {
        self.give_up_connections();
        let primary = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(primary.patience).await;
            primary.give_up_connections();
        });
    }

    fn moved(&self, host: &str, port: u16) {
        self.give_up_connections();
        tracing::warn!(host, port, "another database server takes the writes now");
    }

    fn change(&self, pool: &PgPool, to: impl FnOnce(PgConnectOptions) -> PgConnectOptions) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        pool.set_connect_options(to(PgConnectOptions::clone(&pool.connect_options())));
    }

    async fn search(&self) {
        let Some(pool) = self.pool.get() else { return };
        let current = pool.connect_options();
        // One that was only slow is not left for another that happens to come before it.
        if self.examine(&current, Tables::Any).await.is_ok() {
            return;
        }
        for (host, port) in &self.hosts {
            let options = PgConnectOptions::clone(&current).host(host).port(*port);
            if self.examine(&options, Tables::Any).await.is_err() {
                continue;
            }
            if address(&current) != (host.clone(), *port) {
                self.change(pool, |options| options.host(host).port(*port));
                self.moved(host, *port);
            }
            return;
        }
        tracing::warn!(hosts = self.hosts.len(), "no host of the database answers and takes writes");
    }

    /// Errors unless a connection is opened in time by a server that takes writes.
    async fn examine(&self, options: &PgConnectOptions, tables: Tables) -> Result<(), sqlx::Error> {
        let asked = async {
            let mut connection = PgConnection::connect_with(options).await?;
            require_writes(&mut connection).await?;
            if tables == Tables::Ours {
                require_rights(&mut connection).await?;
            }
            connection.close().await
        };
        let silent = |_| Err(sqlx::Error::Protocol(format!("no answer within {:?}", self.patience)));
        tokio::time::timeout(self.patience, asked).await.unwrap_or_else(silent)
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parsed(urls: &[String]) -> Result<Vec<PgConnectOptions>, DbErr> {
    urls.iter().map(|url| url.parse().map_err(of_connection)).collect()
}

fn of_connection(error: sqlx::Error) -> DbErr {
    DbErr::Conn(RuntimeErr::SqlxError(Arc::new(error)))
}

fn address(options: &PgConnectOptions) -> (String, u16) {
    (options.get_host().to_owned(), options.get_port())
}

/// PostgreSQL takes the one named as the role when none is.
fn database(options: &PgConnectOptions) -> &str {
    options.get_database().unwrap_or_else(|| options.get_username())
}

/// Errors on a standby, and where the role or the database may only read.
async fn require_writes(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::raw_sql("SHOW transaction_read_only").fetch_one(connection).await?;
    if row.try_get::<String, _>(0)? == "on" {
        return Err(sqlx::Error::Protocol("the database server is read-only: a standby?".to_owned()));
    }
    Ok(())
}

/// Errors for a role that may connect and not change our tables.
async fn require_rights(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::raw_sql("SELECT has_table_privilege('users', 'UPDATE')").fetch_one(connection).await?;
    if row.try_get(0)? { Ok(()) } else { Err(sqlx::Error::Protocol("the role may not change our tables".to_owned())) }
}

/// What an error tells about the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// Nothing: the statement was wrong.
    None,
    /// It did not answer in time, ended this connection, or no connection was free. Others may be fine, and opening all of them anew
    /// is dear on a busy machine.
    Silent,
    /// It has crashed, or takes no writes any more.
    Gone,
}

impl Trouble {
    fn of(error: &DbErr) -> Self {
        let (DbErr::Conn(error) | DbErr::Exec(error) | DbErr::Query(error)) = error else {
            return if matches!(error, DbErr::ConnectionAcquire(_)) { Self::Silent } else { Self::None };
        };
        let RuntimeErr::SqlxError(error) = error else { return Self::Silent };
        match &**error {
            // PostgreSQL's manual, Appendix A: read_only_sql_transaction, crash_shutdown; admin_shutdown, cannot_connect_now.
            sqlx::Error::Database(error) => match error.code().as_deref() {
                Some("25006" | "57P02") => Self::Gone,
                Some("57P01" | "57P03") => Self::Silent,
                _ => Self::None,
            },
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => {
                Self::Silent
            }
            _ => Self::None,
        }
    }
}
