//! SQL of the table `rate_limits`.
//!
//! Rows of one transaction are locked in one order: account, account at an address, address. Whatever deletes rows waits for nobody,
//! so that no circle of waiting arises. Everybody's row is in no transaction.

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DatabaseBackend, DbErr, EntityTrait as _, IntoActiveModel as _, Iterable as _, QueryFilter as _,
    Statement, Value,
    sea_query::{Expr, OnConflict},
};
use uuid::Uuid;

use super::everybody::{Everybody, Taken};
use crate::db::Db;
use crate::entity::rate_limit::{COLUMN, Column, Entity, Model as Row};

pub(super) async fn rows(db: &impl ConnectionTrait, keys: Vec<Uuid>) -> Result<Vec<Row>, DbErr> {
    Entity::find().filter(COLUMN.key.is_in(keys)).all(db).await
}

/// Locks the rows in the order of their keys' list, and makes those that are missing.
pub(super) async fn lock(tx: &impl ConnectionTrait, keys: &[Uuid], now: DateTime<Utc>) -> Result<Vec<Row>, DbErr> {
    // An update that changes nothing, since only an updated row is locked and returned.
    let as_it_was = Expr::col((Entity, Column::TouchedAt));
    let keep = OnConflict::column(Column::Key).value(Column::TouchedAt, as_it_was).to_owned();
    let rows = keys.iter().map(|key| Row::fresh(*key, now).into_active_model());
    Entity::insert_many(rows).on_conflict(keep).exec_with_returning(tx).await
}

/// Stores rows that are locked.
pub(super) async fn put(tx: &impl ConnectionTrait, rows: Vec<Row>) -> Result<(), DbErr> {
    let columns = Column::iter().filter(|column| !matches!(column, Column::Key));
    let replace = OnConflict::column(Column::Key).update_columns(columns).to_owned();
    let rows = rows.into_iter().map(sea_orm::IntoActiveModel::into_active_model);
    Entity::insert_many(rows).on_conflict(replace).exec_without_returning(tx).await.map(|_| ())
}

/// Takes a unit of everybody's budget. When there is none, nothing is written.
pub(super) async fn take(db: &Db, budget: &Everybody) -> Result<Taken, DbErr> {
    const SQL: &str = "INSERT INTO rate_limits \
        (key, touched_at, failures, closed_until, in_flight, spent_until, is_reported, expires_at) \
        VALUES ($1, $2, 0, $2, $3, $2, FALSE, $6) \
        ON CONFLICT (key) DO UPDATE SET touched_at = $2, \
            in_flight = CASE WHEN rate_limits.in_flight BETWEEN $3 AND $5 THEN rate_limits.in_flight + 1 ELSE $3 END \
        WHERE rate_limits.in_flight NOT BETWEEN $4 AND $5 \
        RETURNING in_flight >= $7 AND NOT is_reported";
    let (first, full, ahead) = (budget.first().into(), budget.full().into(), budget.ahead().into());
    let (key, now, end, spent) =
        (budget.key.into(), budget.now.into(), budget.expires_at.into(), budget.spent().into());
    let rows = db.write(statement(db, SQL, [key, now, first, full, ahead, end, spent])).await?;
    let Some(row) = rows.first() else { return Ok(Taken::Nothing) };
    Ok(if row.try_get_by_index(0)? { Taken::LastUnit } else { Taken::Unit })
}

/// Says in everybody's row that it was told; false when another did so before.
pub(super) async fn set_reported(db: &Db, budget: &Everybody) -> Result<bool, DbErr> {
    const SQL: &str = "UPDATE rate_limits SET is_reported = TRUE WHERE key = $1 AND NOT is_reported RETURNING key";
    Ok(!db.write(statement(db, SQL, [budget.key.into()])).await?.is_empty())
}

/// Gives a unit of everybody's budget back.
pub(super) async fn give_back(db: &Db, budget: &Everybody) -> Result<(), DbErr> {
    const SQL: &str = "UPDATE rate_limits SET in_flight = in_flight - 1 WHERE key = $1";
    db.write(statement(db, SQL, [budget.key.into()])).await.map(|_| ())
}

fn statement<const N: usize>(db: &Db, sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(db.reader().get_database_backend(), sql, values)
}

/// Forgets all but the `kept` addresses of a user that were seen last.
pub(super) async fn forget_addresses(tx: &impl ConnectionTrait, user_id: i64, kept: i64) -> Result<(), DbErr> {
    let rest = match tx.get_database_backend() {
        DatabaseBackend::Postgres => "OFFSET $2 FOR UPDATE SKIP LOCKED",
        _ => "LIMIT -1 OFFSET $2",
    };
    let sql = format!(
        "DELETE FROM rate_limits WHERE key IN \
         (SELECT key FROM rate_limits WHERE user_id = $1 ORDER BY known_until DESC, key {rest})"
    );
    tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), sql, [user_id.into(), kept.into()]))
        .await?;
    Ok(())
}

/// Forgets all addresses of a user.
pub(super) async fn forget_user(tx: &impl ConnectionTrait, user_id: i64) -> Result<(), DbErr> {
    Entity::delete_many().filter(COLUMN.user_id.eq(user_id)).exec(tx).await.map(|_| ())
}

/// Deletes rows that say nothing any more, at most `limit`; returns how many went.
pub(super) async fn delete_expired(tx: &impl ConnectionTrait, limit: i64, now: DateTime<Utc>) -> Result<u64, DbErr> {
    let lock = match tx.get_database_backend() {
        DatabaseBackend::Postgres => "FOR UPDATE SKIP LOCKED",
        _ => "",
    };
    let sql = format!(
        "DELETE FROM rate_limits WHERE key IN \
         (SELECT key FROM rate_limits WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 {lock})"
    );
    let statement = Statement::from_sql_and_values(tx.get_database_backend(), sql, [now.into(), limit.into()]);
    Ok(tx.execute_raw(statement).await?.rows_affected())
}
