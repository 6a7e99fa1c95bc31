//! SQL of the table `users`.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, FromQueryResult as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Statement, sea_query::Expr, sea_query::ExprTrait as _,
    sea_query::LockType,
};
use uuid::Uuid;

use super::{Email, User};
use crate::entity::user::{ActiveModel, COLUMN, Column, Entity, Model};

pub(super) async fn user_by_email(db: &impl ConnectionTrait, email: &Email) -> Result<Option<User>, DbErr> {
    Entity::find().filter(COLUMN.email_canonical.eq(email.canonical())).one(db).await
}

pub(super) async fn users_after(db: &impl ConnectionTrait, after: i64, limit: u64) -> Result<Vec<User>, DbErr> {
    Entity::find().filter(COLUMN.id.gt(after)).order_by_asc(Column::Id).limit(limit).all(db).await
}

/// The user, and whether the session is theirs and has not ended.
pub(super) async fn user_in_session(
    db: &impl ConnectionTrait,
    user_id: i64,
    session_id: Uuid,
) -> Result<Option<(User, bool)>, DbErr> {
    // Each column by its name: what is prepared with `*` breaks when a newer release adds a column while this one serves.
    const SQL: &str = "SELECT u.id, u.subject, u.email, u.email_canonical, u.hashed_password, u.password_version, \
        u.full_name, u.is_superuser, u.is_active, u.created_at, u.updated_at, s.id IS NOT NULL AS is_live FROM users u \
        LEFT JOIN auth_sessions s ON s.id = $2 AND s.user_id = u.id AND s.revoked_at IS NULL WHERE u.id = $1";
    let query = Statement::from_sql_and_values(db.get_database_backend(), SQL, [user_id.into(), session_id.into()]);
    let Some(row) = db.query_one_raw(query).await? else {
        return Ok(None);
    };
    Ok(Some((Model::from_query_result(&row, "")?, row.try_get("", "is_live")?)))
}

pub(super) async fn insert_user(
    tx: &impl ConnectionTrait,
    subject: Uuid,
    email: &Email,
    full_name: Option<String>,
    hashed_password: String,
    now: DateTime<Utc>,
) -> Result<User, DbErr> {
    let row = ActiveModel {
        subject: Set(subject),
        email: Set(email.shown().to_owned()),
        email_canonical: Set(email.canonical().to_owned()),
        hashed_password: Set(hashed_password),
        password_version: Set(0),
        full_name: Set(full_name),
        is_superuser: Set(false),
        is_active: Set(true),
        created_at: Set(now),
        updated_at: Set(now),
        ..Default::default()
    };
    Entity::insert(row).exec_with_returning(tx).await
}

/// Locks the user's row against sign-in, password change and deactivation (`FOR NO KEY UPDATE`; on SQLite the transaction is the
/// lock). A session that is inserted meanwhile still finds the row.
pub(super) async fn lock_user(tx: &impl ConnectionTrait, id: i64) -> Result<(), DbErr> {
    Entity::find_by_id(id)
        .select_only()
        .column(Column::Id)
        .lock(LockType::NoKeyUpdate)
        .into_tuple::<i64>()
        .one(tx)
        .await?;
    Ok(())
}

/// Locks the row of an active user whose password is still the one that was verified; false when it is not.
pub(super) async fn lock_unchanged_user(
    tx: &impl ConnectionTrait,
    id: i64,
    password_version: i64,
) -> Result<bool, DbErr> {
    let locked = Entity::find_by_id(id)
        .filter(Column::IsActive.eq(true))
        .filter(COLUMN.password_version.eq(password_version))
        .select_only()
        .column(Column::Id)
        .lock(LockType::NoKeyUpdate)
        .into_tuple::<i64>()
        .one(tx)
        .await?;
    Ok(locked.is_some())
}

/// Stores the same password hashed anew. Not a change: `password_version` stays.
pub(super) async fn renew_hash(tx: &impl ConnectionTrait, id: i64, hash: &str) -> Result<(), DbErr> {
    Entity::update_many().col_expr(Column::HashedPassword, Expr::value(hash)).filter(COLUMN.id.eq(id)).exec(tx).await?;
    Ok(())
}

pub(super) async fn set_password(
    tx: &impl ConnectionTrait,
    id: i64,
    hash: &str,
    now: DateTime<Utc>,
) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::HashedPassword, Expr::value(hash))
        .col_expr(Column::PasswordVersion, Expr::col(Column::PasswordVersion).add(1))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(COLUMN.id.eq(id))
        .exec(tx)
        .await?;
    Ok(())
}

/// Returns false when the user was so already.
pub(super) async fn set_active(
    tx: &impl ConnectionTrait,
    id: i64,
    is_active: bool,
    now: DateTime<Utc>,
) -> Result<bool, DbErr> {
    let done = Entity::update_many()
        .col_expr(Column::IsActive, Expr::value(is_active))
        .col_expr(Column::UpdatedAt, Expr::value(now))
        .filter(COLUMN.id.eq(id))
        .filter(Column::IsActive.ne(is_active))
        .exec(tx)
        .await?;
    Ok(done.rows_affected > 0)
}
