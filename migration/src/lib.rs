//! The database schema: an ordered list of migrations, and the only ways to apply them.
//!
//! The migrator of sea-orm takes no lock, and N replicas start at once: [`up`] takes one, so that exactly one replica applies
//! what is missing and the others wait and then find nothing to do. All of it is one transaction: a killed migrator leaves
//! nothing half-done, and the next one finishes.

use std::time::{Duration, Instant};

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr,
    SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait,
};

mod m20261124_000001_baseline;
mod m20261124_000002_adoption;
mod m20261124_000003_service_clock;
mod m20261124_000004_key_rotation;
mod m20261124_000005_rate_limits;
mod m20261124_000006_audit_listing;
mod m20261124_000007_database_identity;
mod m20261124_000008_schema_compatibility;
mod seed;

pub use seed::{PREFIX, begin_takeover, require_seed, set_aside};

/// The ordered list of migrations.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_baseline::Migration),
            Box::new(m20261124_000002_adoption::Migration),
            Box::new(m20261124_000003_service_clock::Migration),
            Box::new(m20261124_000004_key_rotation::Migration),
            Box::new(m20261124_000005_rate_limits::Migration),
            Box::new(m20261124_000006_audit_listing::Migration),
            Box::new(m20261124_000007_database_identity::Migration),
            Box::new(m20261124_000008_schema_compatibility::Migration),
        ]
    }
}

/// The newest migration that a binary must know to run on this schema. Leave it alone with a migration that only adds what the releases
/// before it need not know (tables, indexes, columns that are nullable or have a default); name the new migration with any
/// other. The database keeps it, and an older binary reads it there (docs/decisions/0016-rolling-back-a-release.md).
const OLDEST: &str = "m20261124_000008_schema_compatibility";

/// Why the schema is not usable by this binary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database holds migrations that this binary does not know, and is not said to be usable without them.
    #[error("the database schema is newer than this binary: it holds the unknown migration {0}; run the newer release")]
    Newer(String),
    /// Migrations are missing, and the caller did not ask to apply them.
    #[error("the database schema is behind this binary: {0} migration(s) are missing; run `authservice migrate up`")]
    Behind(usize),
    /// The database was made by the FastAPI service that this one replaces.
    #[error("this is a database of the FastAPI service (it has the table {0}); take it over with `authservice adopt`")]
    Seed(&'static str),
    /// A takeover was asked for, and there is nothing to take over.
    #[error("this is not a database of the FastAPI service: {0}")]
    NotASeed(&'static str),
    /// A backup was made by a newer release.
    #[error(
        "the backup is newer than this binary: it holds the unknown migration {0}; restore it with the newer release"
    )]
    NewerBackup(String),
    /// A backup tells of migrations that no release has applied in this order.
    #[error("the backup's list of migrations is not that of any release")]
    NoRelease,
    /// The database answered with an error.
    #[error("migration: {0}")]
    Database(#[from] DbErr),
}

/// One migration, and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the migration, as stored in `seaql_migrations`.
    pub name: String,
    /// Where it is.
    pub state: State,
}

/// Where a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the database.
    Applied,
    /// Not yet in the database.
    Missing,
    /// In the database only: a newer release has applied it, and this binary may run nevertheless.
    Newer,
}

/// Key of the advisory lock on PostgreSQL: the bytes of "authmigr". Waiting for it ends after [`LOCK_WAIT`].
const LOCK_KEY: i64 = 0x6175_7468_6d69_6772;
/// How long a replica waits while another one migrates.
const LOCK_WAIT: &str = "60s";
/// How long a migration waits for each table that requests use. They wait behind it meanwhile, and after PostgreSQL's `deadlock_timeout`
/// (1 s) it may be they who are ended: it gives way before, also with several tables, and begins anew after a pause.
const TABLE_WAIT: &str = "100ms";
const PAUSE: Duration = Duration::from_millis(200);
/// How long it tries before it gives up.
const PATIENCE: Duration = Duration::from_mins(2);

/// Applies what is missing, under a lock, and returns the names of what it applied. Leaves a newer schema alone on which this binary
/// may run; refuses any other, and a database of the seed, without changing them.
pub async fn up(db: &DatabaseConnection) -> Result<Vec<String>, Error> {
    let attempts = Attempts::default();
    loop {
        let tx = attempts.begin(db).await?;
        match apply_missing(&tx).await {
            Ok(pending) => {
                tx.commit().await?;
                return Ok(pending);
            }
            Err(error) => attempts.give_way(tx, error).await?,
        }
    }
}

async fn apply_missing(tx: &DatabaseTransaction) -> Result<Vec<String>, Error> {
    let steps = check(tx).await?.into_iter();
    let pending: Vec<String> = steps.filter(|step| step.state == State::Missing).map(|step| step.name).collect();
    if !pending.is_empty() {
        complete(tx).await?;
    }
    Ok(pending)
}

/// Attempts at changing the schema while servers of the release before serve: on PostgreSQL all of it is rolled back and done anew when it
/// is in the way of a request, or a request in its way.
#[derive(Debug)]
pub struct Attempts {
    since: Instant,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { since: Instant::now() }
    }
}

impl Attempts {
    /// Begins a transaction that holds the lock of migrations and waits for no table for long.
    pub async fn begin(&self, db: &DatabaseConnection) -> Result<DatabaseTransaction, Error> {
        let tx = lock(db).await?;
        if db.get_database_backend() == DatabaseBackend::Postgres {
            tx.execute_unprepared(&format!("SET LOCAL lock_timeout = '{TABLE_WAIT}'")).await?;
        }
        Ok(tx)
    }

    /// Rolls back, and returns after a pause when another attempt is due. Any other error is returned.
    pub async fn give_way(&self, tx: DatabaseTransaction, error: Error) -> Result<(), Error> {
        match error {
            Error::Database(error) if self.since.elapsed() < PATIENCE && is_in_the_way(&error) => {
                tx.rollback().await?;
                tokio::time::sleep(PAUSE).await;
                Ok(())
            }
            error => Err(error),
        }
    }
}

/// `lock_not_available` and `deadlock_detected`.
fn is_in_the_way(error: &DbErr) -> bool {
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) = error else {
        return false;
    };
    let is_in_the_way = |code: &str| ["55P03", "40P01"].contains(&code);
    error.as_database_error().is_some_and(|error| error.code().as_deref().is_some_and(is_in_the_way))
}

/// Lists every migration of this binary and of the database. Errors as [`up`] does.
pub async fn status(db: &DatabaseConnection) -> Result<Vec<Step>, Error> {
    check(db).await
}

/// Errors unless the schema is this binary's, or a newer one on which it may run.
pub async fn require_current(db: &DatabaseConnection) -> Result<(), Error> {
    match check(db).await?.iter().filter(|step| step.state == State::Missing).count() {
        0 => Ok(()),
        missing => Err(Error::Behind(missing)),
    }
}

/// Names of the migrations that the database has, in their order.
pub async fn applied(db: &impl ConnectionTrait) -> Result<Vec<String>, Error> {
    Ok(check(db).await?.into_iter().filter(|step| step.state != State::Missing).map(|step| step.name).collect())
}

/// Begins a transaction that holds the lock of migrations and has no time limits, for whoever replaces all data: it is the only one.
pub async fn begin(db: &DatabaseConnection) -> Result<DatabaseTransaction, Error> {
    Ok(lock(db).await?)
}

/// Makes the schema anew as it was after these migrations, without any row, within the caller's transaction; [`begin`] made it.
/// Errors without a change when a release with these migrations cannot have been.
pub async fn rebuild(tx: &DatabaseTransaction, migrations: &[String]) -> Result<(), Error> {
    let steps = check(tx).await?;
    if let Some(newer) = steps.iter().find(|step| step.state == State::Newer) {
        return Err(Error::Newer(newer.name.clone()));
    }
    let known: Vec<String> = steps.into_iter().map(|step| step.name).collect();
    if let Some(unknown) = migrations.iter().find(|name| !known.contains(name)) {
        return Err(Error::NewerBackup(unknown.clone()));
    }
    if migrations.is_empty() || !known.starts_with(migrations) {
        return Err(Error::NoRelease);
    }
    let steps: u32 = migrations.len().try_into().map_err(|_| Error::NoRelease)?;
    Migrator::down(tx, None).await?;
    Ok(Migrator::up(tx, Some(steps)).await?)
}

/// Applies what is missing, also after [`rebuild`], and says which older binaries may run on it.
pub async fn complete(tx: &DatabaseTransaction) -> Result<(), Error> {
    Migrator::up(tx, None).await?;
    let sql = "INSERT INTO schema_compatibility (id, oldest) VALUES (1, $1) \
               ON CONFLICT (id) DO UPDATE SET oldest = excluded.oldest";
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, [OLDEST.into()])).await?;
    Ok(())
}

/// Takes the whole schema back, newest migration first. For tests: nothing in the server calls it.
pub async fn down(db: &DatabaseConnection) -> Result<(), Error> {
    let tx = lock(db).await?;
    Migrator::down(&tx, None).await?;
    tx.commit().await?;
    Ok(())
}

async fn lock(db: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    if db.get_database_backend() != DatabaseBackend::Postgres {
        // The busy timeout of the connection is the wait.
        let sqlite_transaction_mode = Some(SqliteTransactionMode::Immediate);
        return db.begin_with_options(TransactionOptions { sqlite_transaction_mode, ..Default::default() }).await;
    }
    let tx = db.begin().await?;
    tx.execute_unprepared(&format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'")).await?;
    tx.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
    tx.execute_unprepared("SET LOCAL idle_in_transaction_session_timeout = 0").await?;
    tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK_KEY})")).await?;
    Ok(tx)
}

async fn check(db: &impl ConnectionTrait) -> Result<Vec<Step>, Error> {
    let tables = tables(db).await?;
    for seed in ["authsessions", "alembic_version"] {
        if tables.iter().any(|name| name == seed) && !tables.iter().any(|name| name == "auth_sessions") {
            return Err(Error::Seed(seed));
        }
    }
    let texts = async |sql: &str| {
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql.to_owned())).await?;
        rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<Vec<_>, _>>()
    };
    let has = |table| tables.iter().any(|name| name == table);
    let applied = if has("seaql_migrations") {
        texts("SELECT version FROM seaql_migrations ORDER BY version").await?
    } else {
        Vec::new()
    };
    let known: Vec<String> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let unknown: Vec<String> = applied.iter().filter(|name| !known.contains(name)).cloned().collect();
    if let Some(newer) = unknown.first() {
        let is_compatible = has("schema_compatibility")
            && texts("SELECT oldest FROM schema_compatibility").await?.iter().any(|name| known.contains(name));
        if !is_compatible || !known.iter().all(|name| applied.contains(name)) {
            return Err(Error::Newer(newer.clone()));
        }
    }
    let known = known.into_iter().map(|name| {
        let state = if applied.contains(&name) { State::Applied } else { State::Missing };
        Step { name, state }
    });
    Ok(known.chain(unknown.into_iter().map(|name| Step { name, state: State::Newer })).collect())
}

async fn tables(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let sql = match db.get_database_backend() {
        DatabaseBackend::Postgres => "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema()",
        _ => "SELECT name FROM sqlite_master WHERE type = 'table'",
    };
    let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql.to_owned())).await?;
    rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is not listed would never run, and one listed twice would stop every start.
    #[test]
    fn every_migration_file_is_listed_once_and_in_order() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = std::fs::read_dir(folder).expect("the folder of this crate");
        let stem = |path: std::path::PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
        let mut written: Vec<String> =
            files.flatten().filter_map(|file| stem(file.path())).filter(|name| name.starts_with("m2")).collect();
        written.sort();

        let listed: Vec<String> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();

        assert_eq!(listed, written);
    }
}
