//! The database schema: an ordered list of migrations, and the only ways to apply them.
//!
//! The migrator of sea-orm takes no lock, and N replicas start at once: [`up`] takes one, so that exactly one replica applies
//! what is missing and the others wait and then find nothing to do. All of it is one transaction: a killed migrator leaves
//! nothing half-done, and the next one finishes.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, DbErr, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait,
};

mod m20261124_000001_baseline;
mod m20261124_000002_adoption;
mod m20261124_000003_service_clock;
mod m20261124_000004_key_rotation;
mod m20261124_000005_rate_limits;
mod m20261124_000006_audit_listing;
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
        ]
    }
}

/// Why the schema is not usable by this binary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database holds migrations that this binary does not know: a newer release has run here.
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
    /// The database answered with an error.
    #[error("migration: {0}")]
    Database(#[from] DbErr),
}

/// One migration and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Name of the migration, as stored in `seaql_migrations`.
    pub name: String,
    /// True when the database has it.
    pub is_applied: bool,
}

/// Key of the advisory lock on PostgreSQL: the bytes of "authmigr". Waiting for it ends after [`LOCK_WAIT`].
const LOCK_KEY: i64 = 0x6175_7468_6d69_6772;
/// How long a replica waits while another one migrates.
const LOCK_WAIT: &str = "60s";

/// Applies what is missing, under a lock, and returns the names of what it applied. Refuses a newer schema and a database
/// of the seed without changing them.
pub async fn up(db: &DatabaseConnection) -> Result<Vec<String>, Error> {
    let tx = lock(db).await?;
    let pending: Vec<String> =
        check(&tx).await?.into_iter().filter(|step| !step.is_applied).map(|step| step.name).collect();
    if !pending.is_empty() {
        Migrator::up(&tx, None).await?;
    }
    tx.commit().await?;
    Ok(pending)
}

/// Lists every migration of this binary. Errors as [`up`] does on a newer schema and on a database of the seed.
pub async fn status(db: &DatabaseConnection) -> Result<Vec<Step>, Error> {
    check(db).await
}

/// Errors unless the schema is exactly this binary's.
pub async fn require_current(db: &DatabaseConnection) -> Result<(), Error> {
    match check(db).await?.iter().filter(|step| !step.is_applied).count() {
        0 => Ok(()),
        missing => Err(Error::Behind(missing)),
    }
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
    let applied = if tables.iter().any(|name| name == "seaql_migrations") {
        let query = Statement::from_string(
            db.get_database_backend(),
            "SELECT version FROM seaql_migrations ORDER BY version".to_owned(),
        );
        let rows = db.query_all_raw(query).await?;
        rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<Vec<_>, _>>()?
    } else {
        Vec::new()
    };
    let known: Vec<String> = Migrator::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    if let Some(unknown) = applied.iter().find(|name| !known.contains(name)) {
        return Err(Error::Newer(unknown.clone()));
    }
    Ok(known.into_iter().map(|name| Step { is_applied: applied.contains(&name), name }).collect())
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
