//! Grouped commits on SQLite: writers that come while another one commits share the next commit.
//!
//! SQLite has one writer, and with `synchronous=FULL` a commit waits for the disk. So writers take turns within one transaction,
//! each behind a savepoint, and the commit waits in the same line: whoever came before it belongs to the group. Nobody is
//! answered before the commit has succeeded; when it fails, every member has failed.
//!
//! A writer may go away at any await. What is then not known for certain ends the group as failed: answers of "not committed" are
//! safe, since the same request may be sent again. The savepoint is ours and not the ORM's, whose nested transactions roll back
//! the outer one when they are dropped at the wrong moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbErr, QueryResult, SqliteTransactionMode,
    Statement, TransactionOptions, TransactionTrait as _, error::ConnAcquireErr,
};
use tokio::sync::{Mutex, OwnedMutexGuard, watch};

/// `None` until it is known whether the group was committed.
type Outcome = Option<Result<(), DbErr>>;

/// The one connection that writes, and the line of those who want to.
#[derive(Debug, Clone)]
pub(super) struct Groups {
    writer: DatabaseConnection,
    /// First come, first served; cancelling a wait leaves the line.
    turn: Arc<Mutex<Option<Group>>>,
    /// How long a writer waits for its turn.
    patience: Duration,
    /// The connection is to be replaced before anybody writes with it.
    is_suspect: Arc<AtomicBool>,
}

/// The transaction that is open.
#[derive(Debug)]
struct Group {
    tx: DatabaseTransaction,
    savepoint: Savepoint,
    outcome: watch::Sender<Outcome>,
}

/// What the last turn left behind.
#[derive(Debug, Clone, Copy)]
enum Savepoint {
    /// There was no turn yet.
    Absent,
    /// Its work belongs to the group.
    Kept,
    /// Its work must be undone.
    Undone,
    /// It went away while the savepoint was being set.
    Unknown,
}

/// A turn: whoever has it is the only one that uses the connection. Dropping it undoes what was done, and nothing else.
#[derive(Debug)]
pub(super) struct Turn {
    groups: Groups,
    /// Holds a group.
    guard: OwnedMutexGuard<Option<Group>>,
}

impl Groups {
    pub(super) fn new(writer: DatabaseConnection, patience: Duration) -> Self {
        Self { writer, turn: Arc::default(), patience, is_suspect: Arc::default() }
    }

    pub(super) fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// Waits for a turn, which begins with a savepoint.
    pub(super) async fn begin(&self) -> Result<Turn, DbErr> {
        let mut turn = self.join().await?;
        match turn.group_mut().set_savepoint().await {
            Ok(()) => Ok(turn),
            Err(error) => Err(turn.fail(error)),
        }
    }

    /// Runs one statement in a turn of its own, and returns its rows when they are committed.
    pub(super) async fn write(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        let mut turn = self.join().await?;
        let group = turn.group_mut();
        let written = match group.clear_savepoint().await {
            Ok(()) => group.tx.query_all_raw(statement).await,
            Err(error) => Err(error),
        };
        match written {
            Ok(rows) => turn.committed().await.map(|()| rows),
            // It depends on the error whether SQLite has rolled back the statement or the transaction.
            Err(error) => Err(turn.fail(error)),
        }
    }

    /// Waits in line, and opens a group when none is open.
    async fn join(&self) -> Result<Turn, DbErr> {
        let waiting = Arc::clone(&self.turn).lock_owned();
        let Ok(mut guard) = tokio::time::timeout(self.patience, waiting).await else {
            return Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout));
        };
        if guard.is_none() {
            if self.is_suspect.load(Ordering::SeqCst) {
                self.replace_connection().await?;
            }
            let mode = Some(SqliteTransactionMode::Immediate);
            let options = TransactionOptions { sqlite_transaction_mode: mode, ..Default::default() };
            let tx = self.writer.begin_with_options(options).await?;
            *guard = Some(Group { tx, savepoint: Savepoint::Absent, outcome: watch::Sender::new(None) });
            // In a task of its own: a caller that goes away must not leave the others waiting.
            tokio::spawn(self.clone().commit());
        }
        Ok(Turn { groups: self.clone(), guard })
    }

    /// Commits the group that is open when this turn comes.
    async fn commit(self) {
        let mut guard = Arc::clone(&self.turn).lock_owned().await;
        let Some(mut group) = guard.take() else {
            return;
        };
        let result = match group.clear_savepoint().await {
            Ok(()) => group.tx.commit().await,
            Err(error) => {
                // Gives the connection back, so that it can be replaced.
                drop(group.tx);
                Err(error)
            }
        };
        if result.is_err() {
            self.give_up_connection().await;
        }
        group.outcome.send_replace(Some(result));
    }

    /// After an error nobody knows which transactions and savepoints are still open on the connection: nobody may write with it.
    async fn give_up_connection(&self) {
        self.is_suspect.store(true, Ordering::SeqCst);
        if let Err(error) = self.replace_connection().await {
            tracing::warn!(error = %error, "the connection that writes is not replaced yet");
        }
    }

    /// Closes the connection; whoever writes next opens another.
    async fn replace_connection(&self) -> Result<(), DbErr> {
        let acquired = self.writer.get_sqlite_connection_pool().acquire().await;
        let connection = acquired.map_err(|_| DbErr::ConnectionAcquire(ConnAcquireErr::Timeout))?;
        if let Err(error) = connection.close().await {
            tracing::debug!(error = %error, "closing the connection that writes");
        }
        self.is_suspect.store(false, Ordering::SeqCst);
        Ok(())
    }
}

impl Group {
    async fn set_savepoint(&mut self) -> Result<(), DbErr> {
        let sql = match std::mem::replace(&mut self.savepoint, Savepoint::Unknown) {
            Savepoint::Absent => "SAVEPOINT turn",
            Savepoint::Kept => "RELEASE turn; SAVEPOINT turn",
            Savepoint::Undone => "ROLLBACK TO turn",
            Savepoint::Unknown => return Err(DbErr::Custom("a writer went away".to_owned())),
        };
        self.tx.execute_unprepared(sql).await?;
        self.savepoint = Savepoint::Undone;
        Ok(())
    }

    /// Undoes what must be undone before the connection is used without a savepoint.
    async fn clear_savepoint(&mut self) -> Result<(), DbErr> {
        if matches!(self.savepoint, Savepoint::Undone | Savepoint::Unknown) {
            self.set_savepoint().await?;
            self.savepoint = Savepoint::Kept;
        }
        Ok(())
    }
}

impl Turn {
    pub(super) fn tx(&self) -> &DatabaseTransaction {
        &self.group().tx
    }

    /// Keeps what was done, and returns when the group has been committed.
    pub(super) async fn commit(mut self) -> Result<(), DbErr> {
        self.group_mut().savepoint = Savepoint::Kept;
        self.committed().await
    }

    /// Gives the turn to the next writer, and waits for the commit.
    async fn committed(self) -> Result<(), DbErr> {
        let mut outcome = self.group().outcome.subscribe();
        drop(self);
        match outcome.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            // The runtime is shutting down.
            Err(_) => Err(DbErr::ConnectionAcquire(ConnAcquireErr::ConnectionClosed)),
        }
    }

    /// Ends the group without a commit: every member gets the error, which is returned.
    fn fail(mut self, error: DbErr) -> DbErr {
        if let Some(Group { tx, outcome, .. }) = self.guard.take() {
            let result = Some(Err(error.clone()));
            // The next turn must find a new connection, also when this caller goes away.
            tokio::spawn(async move {
                drop(tx);
                self.groups.give_up_connection().await;
                drop(self.guard);
                outcome.send_replace(result);
            });
        }
        error
    }

    fn group(&self) -> &Group {
        self.guard.as_ref().expect("a turn's group is open")
    }

    fn group_mut(&mut self) -> &mut Group {
        self.guard.as_mut().expect("a turn's group is open")
    }
}
