//! Time limits of our own for what a request asks: a database that hangs does not keep its own either. On SQLite writers wait in
//! line instead (`group.rs`).

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DbErr, ExecResult, QueryResult, RuntimeErr, Statement,
};

use super::primary::Primary;
use super::{Transaction, fault, system};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;

/// Connections for statements that only read, outside a transaction.
#[derive(Debug, Clone)]
pub struct Reader {
    pub(super) pool: DatabaseConnection,
    pub(super) limit: Limit,
}

impl Reader {
    async fn read<T>(&self, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        let trace = traces::database("read", system(self.pool.get_database_backend()));
        trace.judge(self.limit.within(work).await)
    }
}

/// How long anything may take, where it is counted that something failed, and who is told of it.
#[derive(Debug, Clone)]
pub(super) struct Limit {
    pub(super) time: Duration,
    pub(super) metrics: Arc<Metrics>,
    /// `None` on SQLite.
    pub(super) primary: Option<Arc<Primary>>,
}

impl Limit {
    /// Errors when `work` takes longer. The connection goes back to its pool when the database has answered it, and is closed when it
    /// does not.
    pub(super) async fn within<T>(&self, work: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        let late = |_| Err(DbErr::Conn(RuntimeErr::Internal(format!("no answer within {:?}", self.time))));
        let result = self.counted(tokio::time::timeout(self.time, work).await.unwrap_or_else(late));
        if let (Err(error), Some(primary)) = (&result, &self.primary) {
            primary.hear(error);
        }
        result
    }

    /// Counts an error.
    pub(super) fn counted<T>(&self, result: Result<T, DbErr>) -> Result<T, DbErr> {
        if let Some(kind) = result.as_ref().err().and_then(fault::kind) {
            // Whoever waits for a place in a pool that is not full waits for a connection to be opened.
            let is_unopened = kind == fault::ACQUIRE && self.primary.as_ref().is_some_and(|primary| primary.has_room());
            self.metrics.db_errors.count(if is_unopened { fault::CONNECTION } else { kind });
        }
        result
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.pool.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.read(self.pool.execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.read(self.pool.execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.read(self.pool.query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.read(self.pool.query_all_raw(statement)).await
    }
}

#[async_trait::async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DatabaseBackend {
        self.inner().get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.limit.within(self.inner().execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.limit.within(self.inner().execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.limit.within(self.inner().query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.limit.within(self.inner().query_all_raw(statement)).await
    }
}
