//! The database, read and changed past the server. Statements have no parameters: proofs write literals that both engines read.

use std::time::Duration;

use sea_orm::sqlx::sqlite::SqliteConnectOptions;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseBackend, DatabaseConnection, Statement};

use crate::Result;

/// A connection of our own.
#[derive(Debug, Clone)]
pub struct Sql(DatabaseConnection);

impl Sql {
    /// Connects to a database by the same URL as the server.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut options = ConnectOptions::new(url);
        let patience = Duration::from_secs(20);
        options.max_connections(1).connect_timeout(patience).acquire_timeout(patience).sqlx_logging(false);
        options.map_sqlx_sqlite_opts(|options: SqliteConnectOptions| options.busy_timeout(Duration::from_secs(20)));
        Ok(Self(Database::connect(options).await?))
    }

    /// Runs statements.
    pub async fn run(&self, sql: &str) -> Result<()> {
        self.0.execute_unprepared(sql).await?;
        Ok(())
    }

    /// The first column of the first row as a number.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let row = self.0.query_one_raw(self.statement(sql)).await?.ok_or("no row")?;
        Ok(row.try_get_by_index(0)?)
    }

    /// All rows as text; select only what is text. NULL is empty.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<String>>> {
        let rows = self.0.query_all_raw(self.statement(sql)).await?;
        let read = |row: &sea_orm::QueryResult| -> Result<Vec<String>> {
            let columns = row.column_names();
            let cell =
                |index| -> Result<String> { Ok(row.try_get_by_index::<Option<String>>(index)?.unwrap_or_default()) };
            (0..columns.len()).map(cell).collect()
        };
        rows.iter().map(read).collect()
    }

    /// True on the embedded engine.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.0.get_database_backend() == DatabaseBackend::Sqlite
    }

    /// Closes the connection.
    pub async fn close(self) {
        let _ = self.0.close().await;
    }

    fn statement(&self, sql: &str) -> Statement {
        Statement::from_string(self.0.get_database_backend(), sql)
    }
}
