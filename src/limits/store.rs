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

use super::everybody::Everybody;
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

/// Takes a unit of everybody's budget; false when there is none, and nothing is written then.
pub(super) async fn take(db: &Db, budget: &Everybody) -> Result<bool, DbErr> {
    const SQL: &str = "INSERT INTO rate_limits \
        (key, touched_at, failures, closed_until, in_flight, spent_until, is_reported, expires_at) \
        VALUES ($1, $2, 0, $2, $3, $2, FALSE, $6) \
        ON CONFLICT (key) DO UPDATE SET touched_at = $2, \
            in_flight = CASE WHEN rate_limits.in_flight BETWEEN $3 AND $5 THEN rate_limits.in_flight + 1 ELSE $3 END \
        WHERE rate_limits.in_flight NOT BETWEEN $4 AND $5 \
        RETURNING key";
    let (first, full, ahead) = (budget.first(), budget.full(), budget.ahead());
    let values: [Value; 6] =
        [budget.key.into(), budget.now.into(), first.into(), full.into(), ahead.into(), budget.expires_at.into()];
    let taken = db.write(Statement::from_sql_and_values(db.reader().get_database_backend(), SQL, values)).await?;
    Ok(!taken.is_empty())
}

/// Gives a unit of everybody's budget back.
pub(super) async fn give_back(db: &Db, budget: &Everybody) -> Result<(), DbErr> {
    const SQL: &str = "UPDATE rate_limits SET in_flight = in_flight - 1 WHERE key = $1";
    let values = [budget.key.into()];
    db.write(Statement::from_sql_and_values(db.reader().get_database_backend(), SQL, values)).await.map(|_| ())
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
