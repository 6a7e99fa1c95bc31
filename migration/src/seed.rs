//! Setting aside the tables of the FastAPI service, so that ours can take their names. PostgreSQL only, as the service was.

use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{
    ConnectionTrait, DatabaseBackend, DatabaseConnection, DatabaseTransaction, Statement,
};

use crate::{Error, Migrator, lock};

/// The newest of the two Alembic revisions of that service.
const REVISION: &str = "b791a564d5ca";
/// Its tables; each is kept under its name with [`PREFIX`] before it.
const TABLES: [&str; 4] = ["users", "authsessions", "refreshtokens", "alembic_version"];
/// Before the names of what is set aside.
pub const PREFIX: &str = "seed_";

/// Errors unless this is a database of that service at its newest revision.
pub async fn require_seed(db: &impl ConnectionTrait) -> Result<(), Error> {
    if db.get_database_backend() != DatabaseBackend::Postgres {
        return Err(Error::NotASeed("it is not PostgreSQL"));
    }
    let names = crate::tables(db).await?;
    if !TABLES.iter().all(|table| names.iter().any(|name| name == table)) {
        return Err(Error::NotASeed("its tables are not all there"));
    }
    let revision = Statement::from_string(DatabaseBackend::Postgres, "SELECT version_num::text FROM alembic_version");
    let row = db.query_one_raw(revision).await?;
    let revision = row.map(|row| row.try_get_by_index::<String>(0)).transpose()?;
    if revision.as_deref() != Some(REVISION) {
        return Err(Error::NotASeed("its Alembic revision is not b791a564d5ca; run its own migrations first"));
    }
    Ok(())
}

/// Begins a transaction that holds the migration lock and the service's tables, so that neither it nor another takeover writes
/// meanwhile.
pub async fn begin_takeover(db: &DatabaseConnection) -> Result<DatabaseTransaction, Error> {
    require_seed(db).await?;
    let tx = lock(db).await?;
    // Another takeover may have been first.
    require_seed(&tx).await?;
    tx.execute_unprepared("SET LOCAL lock_timeout = '10s'").await?;
    tx.execute_unprepared("LOCK TABLE users, authsessions, refreshtokens IN ACCESS EXCLUSIVE MODE").await?;
    Ok(tx)
}

/// Renames the service's tables, their indexes, constraints and sequences, and makes ours.
pub async fn set_aside(tx: &DatabaseTransaction) -> Result<(), Error> {
    // Indexes and sequences have names of their own, which ours need too; constraints follow their indexes.
    let owned = "SELECT c.relkind::text, c.relname::text FROM pg_class c \
        LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_depend d ON d.objid = c.oid AND d.deptype IN ('a', 'i') \
        JOIN pg_class t ON t.oid = COALESCE(i.indrelid, d.refobjid) \
        WHERE c.relkind IN ('i', 'S') AND t.relnamespace = current_schema()::regnamespace \
        AND t.relname IN ('users', 'authsessions', 'refreshtokens', 'alembic_version')";
    for row in tx.query_all_raw(Statement::from_string(DatabaseBackend::Postgres, owned)).await? {
        let (kind, name): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
        let kind = if kind == "S" { "SEQUENCE" } else { "INDEX" };
        tx.execute_unprepared(&format!("ALTER {kind} \"{name}\" RENAME TO \"{PREFIX}{name}\"")).await?;
    }
    for table in TABLES {
        tx.execute_unprepared(&format!("ALTER TABLE {table} RENAME TO {PREFIX}{table}")).await?;
    }
    Migrator::up(tx, None).await?;
    Ok(())
}
