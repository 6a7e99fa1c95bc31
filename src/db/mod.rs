//! Connections: two handles on SQLite (one writer, several readers), the same pool twice on PostgreSQL.
//!
//! Durability is not a setting: what was answered 200 survives a crash. SQLite runs in WAL mode with `synchronous=FULL`, and
//! every transaction that writes begins IMMEDIATE, so that none fails half-way for the lock, and commits together with others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use prometheus::IntCounter;
use sea_orm::{
    AccessMode, ConnectionTrait as _, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, IsolationLevel,
    QueryResult, RuntimeErr, Statement, TransactionTrait as _,
};

use crate::clock::{self, DatabaseClock};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::{self, Child};

mod examine;
mod fault;
mod group;
mod identity;
mod limited;
mod open;
mod primary;

pub use examine::{Facts, wal_of};
pub use identity::{forget_identity, restore_detected};
pub use limited::Reader;

use group::{Groups, Turn};
use limited::Limit;

/// The database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    reader: Reader,
    writer: Writer,
    /// Beside the file of SQLite: what tells that the file is another one.
    stamp: Option<identity::Stamp>,
    max_connections: u32,
}

/// How many connections there are.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// That do something.
    pub used: u32,
    /// That wait for something to do.
    pub idle: u32,
    /// That there may be.
    pub max: u32,
}

#[derive(Debug, Clone)]
enum Writer {
    Sqlite(Groups),
    Postgres(DatabaseConnection),
}

/// A transaction that writes. Dropping it rolls back.
#[derive(Debug)]
pub struct Transaction {
    open: Open,
    limit: Limit,
    /// From the wait for a connection to the commit.
    trace: Child,
    /// What has happened once this is committed.
    counted: Mutex<Vec<IntCounter>>,
}

#[derive(Debug)]
enum Open {
    Sqlite(Turn),
    Postgres(DatabaseTransaction),
}

impl Transaction {
    fn inner(&self) -> &DatabaseTransaction {
        match &self.open {
            Open::Sqlite(turn) => turn.tx(),
            Open::Postgres(tx) => tx,
        }
    }

    /// Takes the lock of this number until the transaction ends, or returns false when another transaction has it. On SQLite the
    /// transaction itself is the lock.
    pub async fn try_lock(&self, number: i64) -> Result<bool, DbErr> {
        const SQL: &str = "SELECT pg_try_advisory_xact_lock($1)";
        if matches!(self.open, Open::Sqlite(_)) {
            return Ok(true);
        }
        let lock = Statement::from_sql_and_values(DatabaseBackend::Postgres, SQL, [number.into()]);
        let row = self.query_one_raw(lock).await?;
        row.map_or(Ok(false), |row| row.try_get_by_index(0))
    }

    /// Counts one once the transaction is committed.
    pub fn count(&self, counter: IntCounter) {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner).push(counter);
    }

    /// The metrics of the application.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.limit.metrics
    }

    /// Returns when what was done is durable. An error says that nobody knows: it may be.
    pub async fn commit(self) -> Result<(), DbErr> {
        let committed = match self.open {
            Open::Sqlite(turn) => self.limit.counted(turn.commit().await),
            Open::Postgres(tx) => self.limit.within(tx.commit()).await,
        };
        self.trace.judge(committed)?;
        let counted = self.counted.into_inner().unwrap_or_else(PoisonError::into_inner);
        counted.iter().for_each(IntCounter::inc);
        Ok(())
    }
}

impl Db {
    /// For statements that only read, outside a transaction.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The connection itself, for migrations and commands that serve nobody meanwhile.
    #[must_use]
    pub fn writer(&self) -> &DatabaseConnection {
        match &self.writer {
            Writer::Sqlite(groups) => groups.writer(),
            Writer::Postgres(pool) => pool,
        }
    }

    /// Runs one statement that writes, and returns its rows when they are durable.
    pub async fn write(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let (trace, limit) = (traces::database("write", self.system()), &self.reader.limit);
        trace.judge(match &self.writer {
            Writer::Sqlite(groups) => limit.counted(groups.write(statement).await),
            Writer::Postgres(pool) => limit.within(pool.query_all_raw(statement)).await,
        })
    }

    /// Begins a transaction that writes. Hold it no longer than its statements take: on SQLite others wait for it.
    pub async fn begin(&self) -> Result<Transaction, DbErr> {
        let (limit, trace) = (self.reader.limit.clone(), traces::database("transaction", self.system()));
        let open = match &self.writer {
            Writer::Sqlite(groups) => limit.counted(groups.begin().await).map(Open::Sqlite),
            Writer::Postgres(pool) => limit.within(pool.begin()).await.map(Open::Postgres),
        };
        Ok(Transaction { open: trace.judge(open)?, limit, trace, counted: Mutex::default() })
    }

    fn system(&self) -> &'static str {
        system(self.writer().get_database_backend())
    }

    /// Begins a transaction that reads everything as it is at its first statement, however long that takes, and writes nothing.
    pub async fn snapshot(&self) -> Result<DatabaseTransaction, DbErr> {
        let pool = &self.reader.pool;
        if self.is_sqlite() {
            // In WAL mode a reader sees one state until it ends.
            return pool.begin().await;
        }
        let read_only = Some(AccessMode::ReadOnly);
        let tx = pool.begin_with_config(Some(IsolationLevel::RepeatableRead), read_only).await?;
        // Counting a large table takes its time, and so may whoever takes what is read.
        tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        tx.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
        Ok(tx)
    }

    /// The metrics of the application that uses the database.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.reader.limit.metrics
    }

    /// How many connections there are at this moment; on SQLite the one that writes belongs to them.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let idle = |idle: usize| u32::try_from(idle).unwrap_or(u32::MAX);
        let (open, idle) = match &self.writer {
            Writer::Sqlite(groups) => {
                let pools = [groups.writer(), &self.reader.pool].map(DatabaseConnection::get_sqlite_connection_pool);
                pools.iter().fold((0, 0), |(open, free), pool| (open + pool.size(), free + idle(pool.num_idle())))
            }
            Writer::Postgres(pool) => {
                let pool = pool.get_postgres_connection_pool();
                (pool.size(), idle(pool.num_idle()))
            }
        };
        Connections { used: open.saturating_sub(idle), idle, max: self.max_connections }
    }

    /// True on the embedded engine.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        matches!(self.writer, Writer::Sqlite(_))
    }

    /// Errors when the database does not answer, or takes no writes: a server that has become a standby still reads.
    pub async fn ping(&self) -> Result<(), DbErr> {
        let Some(primary) = &self.reader.limit.primary else {
            return self.reader.pool.ping().await;
        };
        let query = Statement::from_string(DatabaseBackend::Postgres, "SHOW transaction_read_only");
        let row = self.reader.query_one_raw(query).await?;
        if row.is_some_and(|row| row.try_get_by_index::<String>(0).is_ok_and(|text| text == "on")) {
            let error = DbErr::Conn(RuntimeErr::Internal("the database takes no writes".to_owned()));
            primary.give_up_connections();
            primary.hear(&error);
            return Err(error);
        }
        Ok(())
    }

    /// Settings of the server that let it lose what it has acknowledged; on SQLite they are ours.
    pub async fn unsafe_settings(&self) -> Result<Vec<String>, DbErr> {
        const SQL: &str = "SELECT name FROM pg_settings WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') \
            AND setting = 'off' ORDER BY name";
        self.named_settings(SQL).await
    }

    /// Time limits that PostgreSQL does not hold: ours to ask for, or the role's behind a pooler.
    pub async fn missing_timeouts(&self) -> Result<Vec<String>, DbErr> {
        const SQL: &str = "SELECT name FROM pg_settings WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout') \
            AND setting = '0' ORDER BY name";
        self.named_settings(SQL).await
    }

    async fn named_settings(&self, sql: &str) -> Result<Vec<String>, DbErr> {
        if self.is_sqlite() {
            return Ok(Vec::new());
        }
        let rows = self.reader.query_all_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await?;
        rows.iter().map(|row| row.try_get_by_index(0)).collect()
    }

    /// Reads the database's clock and tells `clock`; false when it took so long that it tells nothing. SQLite's is the host's.
    pub async fn measure_clock(&self, clock: &DatabaseClock) -> Result<bool, DbErr> {
        let before = Instant::now();
        if self.is_sqlite() {
            clock.measured(before, clock::local());
            self.metrics().db_clock_offset.show(Some(0.0));
            return Ok(true);
        }
        let query = Statement::from_string(DatabaseBackend::Postgres, "SELECT clock_timestamp()");
        let Some(row) = self.reader.query_one_raw(query).await? else {
            return Ok(false);
        };
        // Who had to wait for a connection has measured the wait.
        if before.elapsed() > Duration::from_secs(1) {
            return Ok(false);
        }
        let skew = clock.measured(before, row.try_get_by_index(0)?);
        self.metrics().db_clock_offset.show(Some(skew.as_seconds_f64()));
        if skew.abs() > TimeDelta::seconds(10) {
            tracing::warn!(skew_ms = skew.num_milliseconds(), "this host's clock differs from the database's");
        }
        Ok(true)
    }

    /// Closes every connection after its statement has ended.
    pub async fn close(self) {
        for pool in [self.reader.pool.clone(), self.writer().clone()] {
            if let Err(error) = pool.close().await {
                tracing::warn!(error = %error, "closing the database");
            }
        }
    }
}

/// What OpenTelemetry calls the engine.
fn system(backend: DatabaseBackend) -> &'static str {
    if backend == DatabaseBackend::Sqlite { "sqlite" } else { "postgresql" }
}
