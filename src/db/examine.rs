//! What a database says about itself, for whoever examines it. Reads only, and leaves no file behind.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, Database, DbErr, FromQueryResult, Statement};

use super::open::{AFTER_TIMEOUT, BUSY_TIMEOUT, sqlite};
use super::primary::Access;
use super::{Db, Groups, Reader, Writer};
use crate::config;
use crate::entity::{MADE_ANEW, MIGRATIONS, TABLES};

/// What PostgreSQL says of itself, of our connection and of our role.
#[derive(Debug, Clone, FromQueryResult)]
#[expect(clippy::struct_excessive_bools, reason = "each is a column of one row")]
pub struct Facts {
    /// Major version, for example 17.
    pub major: i32,
    /// Version as the server writes it.
    pub version: String,
    /// Protocol of the encrypted connection; `None` when it is not encrypted.
    pub tls: Option<String>,
    /// Client and server are one machine.
    pub is_local: bool,
    /// A standby, or a role or database that may only read.
    pub is_read_only: bool,
    /// Our role is a superuser.
    pub is_superuser: bool,
    /// Our role may make tables in the current schema, which migrations need.
    pub may_create: bool,
    /// Connections that the server lets others than superusers open.
    pub places: i64,
    /// Connections that others than AuthService have open now.
    pub others: i64,
    /// Connections that our role may have, -1 for any number.
    pub role_limit: i32,
}

const FACTS: &str = "SELECT current_setting('server_version_num')::int / 10000 AS major, \
    current_setting('server_version') AS version, \
    (SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl) AS tls, \
    COALESCE(inet_client_addr() = inet_server_addr(), true) AS is_local, \
    pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' AS is_read_only, \
    rolsuper AS is_superuser, \
    COALESCE(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create, \
    current_setting('max_connections')::bigint - (SELECT sum(setting::bigint)::bigint FROM pg_settings \
        WHERE name IN ('superuser_reserved_connections', 'reserved_connections')) AS places, \
    (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL AND COALESCE(backend_type, 'client backend') = 'client backend' AND application_name <> 'authservice') AS others, \
    rolconnlimit AS role_limit \
    FROM pg_roles WHERE rolname = current_user";

impl Db {
    /// Connects as [`Db::connect`] does, and so that nothing is changed; `None` when there is no `SQLite` file yet. A `SQLite` file that
    /// nobody has open is read without making the files that belong to it.
    pub async fn connect_to_examine(config: &config::Database) -> Result<Option<Self>, DbErr> {
        let Some(file) = config.sqlite_file() else {
            let few = config::Database { max_connections: 1, ..config.clone() };
            let metrics = std::sync::Arc::new(super::Metrics::new(config.engine()));
            return Self::open(&few, metrics, Access::Examine).await.map(Some);
        };
        if !file.exists() {
            return Ok(None);
        }
        let stamp = Some(super::identity::Stamp::beside(&file));
        let is_closed = !wal_of(&file).exists();
        // Two: the long check of all pages does not keep the others waiting.
        let mut options = sqlite(config, 2);
        options.min_connections(0).map_sqlx_sqlite_opts(move |_| {
            sea_orm::sqlx::sqlite::SqliteConnectOptions::new()
                .filename(&file)
                .read_only(true)
                .immutable(is_closed)
                .busy_timeout(BUSY_TIMEOUT)
        });
        let pool = Database::connect(options).await?;
        let time = Duration::from_secs(config.statement_timeout_seconds) + AFTER_TIMEOUT;
        let metrics = std::sync::Arc::new(super::Metrics::new(config.engine()));
        let limit = super::Limit { time, metrics, primary: None };
        let writer = Writer::Sqlite(Groups::new(pool.clone(), BUSY_TIMEOUT));
        Ok(Some(Self { reader: Reader { pool, limit }, writer, stamp, max_connections: 2 }))
    }

    /// `None` on `SQLite`.
    pub async fn facts(&self) -> Result<Option<Facts>, DbErr> {
        if self.is_sqlite() {
            return Ok(None);
        }
        Facts::find_by_statement(self.statement(FACTS)).one(&self.reader).await
    }

    /// Of several round trips the one in the middle.
    pub async fn latency(&self) -> Result<Duration, DbErr> {
        let mut trips = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            self.reader.query_one_raw(self.statement("SELECT 1")).await?;
            trips.push(started.elapsed());
        }
        trips.sort();
        Ok(trips[trips.len() / 2])
    }

    /// Our tables that our role may not read or not write; on `SQLite` the file decides.
    pub async fn denied_tables(&self) -> Result<Vec<String>, DbErr> {
        if self.is_sqlite() {
            return Ok(Vec::new());
        }
        // The migrator writes its own, which may be another role's.
        let ours = TABLES.iter().chain(&MADE_ANEW).filter(|table| **table != MIGRATIONS);
        let tables = ours.map(|table| format!("'{table}'")).collect::<Vec<_>>().join(", ");
        let denied =
            ["SELECT", "INSERT", "UPDATE", "DELETE"].map(|right| format!("NOT has_table_privilege(oid, '{right}')"));
        self.texts(&format!(
            "SELECT relname::text FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relname IN ({tables}) \
             AND ({}) ORDER BY 1",
            denied.join(" OR ")
        ))
        .await
    }

    /// Tables whose names begin so.
    pub async fn tables_with(&self, prefix: &str) -> Result<Vec<String>, DbErr> {
        let tables = if self.is_sqlite() {
            self.texts("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY 1").await?
        } else {
            self.texts("SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1").await?
        };
        Ok(tables.into_iter().filter(|table| table.starts_with(prefix)).collect())
    }

    /// What is damaged in a `SQLite` file; empty when nothing is. Reads all of it: the caller limits the time.
    pub async fn damage(&self) -> Result<Vec<String>, DbErr> {
        let rows = self.reader.pool.query_all_raw(self.statement("PRAGMA quick_check(3)")).await?;
        let found: Vec<String> = rows.iter().map(|row| row.try_get_by_index(0)).collect::<Result<_, _>>()?;
        Ok(found.into_iter().filter(|line| line != "ok").collect())
    }

    async fn texts(&self, sql: &str) -> Result<Vec<String>, DbErr> {
        let rows = self.reader.query_all_raw(self.statement(sql)).await?;
        rows.iter().map(|row| row.try_get_by_index(0)).collect()
    }

    fn statement(&self, sql: &str) -> Statement {
        Statement::from_string(self.reader.get_database_backend(), sql)
    }
}

/// The write-ahead log that belongs to a `SQLite` file.
#[must_use]
pub fn wal_of(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
