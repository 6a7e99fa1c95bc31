//! SQL of the tables `signing_keys` and `adoptions`.

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait as _, FromQueryResult, IntoActiveModel as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Statement, UpdateMany, sea_query::Expr, sea_query::ExprTrait as _,
};

use super::Adoption;
use super::plan::Retirement;
use crate::entity::signing_key::{COLUMN, Column, Entity, Model};

/// Every key that the ring remembers, in the order in which they sign.
pub(super) async fn keys(db: &impl ConnectionTrait) -> Result<Vec<Model>, DbErr> {
    Entity::find().order_by_asc(Column::SigningAt).order_by_asc(Column::Kid).all(db).await
}

/// The keys that are not gone at `now`.
pub(super) async fn live_keys(db: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(COLUMN.gone_at.is_null().or(COLUMN.gone_at.gt(now)))
        .filter(COLUMN.revoked_at.is_null())
        .order_by_asc(Column::SigningAt)
        .order_by_asc(Column::Kid)
        .all(db)
        .await
}

/// What is planned for a key, and which key-encryption key sealed it.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub(super) struct Plan {
    pub(super) kid: String,
    pub(super) encryption_key_id: String,
    pub(super) signing_at: DateTime<Utc>,
    pub(super) retained_at: Option<DateTime<Utc>>,
    pub(super) unpublished_at: Option<DateTime<Utc>>,
    pub(super) gone_at: Option<DateTime<Utc>>,
}

impl From<&Model> for Plan {
    fn from(row: &Model) -> Self {
        Self {
            kid: row.kid.clone(),
            encryption_key_id: row.encryption_key_id.clone(),
            signing_at: row.signing_at,
            retained_at: row.retained_at,
            unpublished_at: row.unpublished_at,
            gone_at: row.gone_at,
        }
    }
}

/// The plans of the keys that [`live_keys`] returns, in its order, without the keys themselves.
pub(super) async fn plans(db: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<Vec<Plan>, DbErr> {
    Entity::find()
        .select_only()
        .columns([
            Column::Kid,
            Column::EncryptionKeyId,
            Column::SigningAt,
            Column::RetainedAt,
            Column::UnpublishedAt,
            Column::GoneAt,
        ])
        .filter(COLUMN.gone_at.is_null().or(COLUMN.gone_at.gt(now)))
        .filter(COLUMN.revoked_at.is_null())
        .order_by_asc(Column::SigningAt)
        .order_by_asc(Column::Kid)
        .into_model()
        .all(db)
        .await
}

/// Makes every other writer of keys wait until the transaction ends. On `SQLite` there is one writer anyway.
pub(super) async fn lock(tx: &impl ConnectionTrait) -> Result<(), DbErr> {
    let kids = Entity::find().select_only().column(Column::Kid).order_by_asc(Column::Kid).lock_exclusive();
    kids.into_tuple::<String>().all(tx).await?;
    Ok(())
}

/// Adds a key. A unique violation means that another replica added one first.
pub(super) async fn insert_key(tx: &impl ConnectionTrait, key: Model) -> Result<(), DbErr> {
    Entity::insert(key.into_active_model()).exec_without_returning(tx).await?;
    Ok(())
}

/// Plans the end of a key's life, or makes a planned one void.
pub(super) async fn set_end(tx: &impl ConnectionTrait, kid: &str, end: Option<Retirement>) -> Result<(), DbErr> {
    one(kid)
        .col_expr(Column::RetainedAt, Expr::value(end.map(|end| end.retained_at)))
        .col_expr(Column::UnpublishedAt, Expr::value(end.and_then(|end| end.unpublished_at)))
        .col_expr(Column::GoneAt, Expr::value(end.map(|end| end.gone_at)))
        .exec(tx)
        .await?;
    Ok(())
}

/// Lets an announced key sign from `at` on.
pub(super) async fn set_signing(tx: &impl ConnectionTrait, kid: &str, at: DateTime<Utc>) -> Result<(), DbErr> {
    one(kid).col_expr(Column::SigningAt, Expr::value(at)).exec(tx).await?;
    Ok(())
}

/// Ends a key at `now` and forgets its private half.
pub(super) async fn revoke_key(tx: &impl ConnectionTrait, kid: &str, now: DateTime<Utc>) -> Result<(), DbErr> {
    let update = [Column::RetainedAt, Column::UnpublishedAt, Column::GoneAt, Column::RevokedAt]
        .into_iter()
        .fold(one(kid), |update, column| update.col_expr(column, Expr::value(now)));
    update.col_expr(Column::SealedPrivate, Expr::value(Vec::<u8>::new())).exec(tx).await?;
    Ok(())
}

/// Replaces the sealed half of a key.
pub(super) async fn seal_key(tx: &impl ConnectionTrait, kid: &str, sealed: Vec<u8>, id: &str) -> Result<(), DbErr> {
    one(kid)
        .col_expr(Column::SealedPrivate, Expr::value(sealed))
        .col_expr(Column::EncryptionKeyId, Expr::value(id))
        .exec(tx)
        .await?;
    Ok(())
}

/// Forgets the private half of a key and remembers its kid. False when another replica was first.
pub(super) async fn wipe_key(tx: &impl ConnectionTrait, kid: &str) -> Result<bool, DbErr> {
    let empty = Vec::<u8>::new();
    let wiped = one(kid)
        .col_expr(Column::SealedPrivate, Expr::value(empty.clone()))
        .filter(COLUMN.sealed_private.ne(empty))
        .exec(tx)
        .await?;
    Ok(wiped.rows_affected == 1)
}

/// Forgets a key. False when another replica was first.
pub(super) async fn delete_key(tx: &impl ConnectionTrait, kid: &str) -> Result<bool, DbErr> {
    let deleted = Entity::delete_many().filter(COLUMN.kid.eq(kid)).exec(tx).await?;
    Ok(deleted.rows_affected == 1)
}

fn one(kid: &str) -> UpdateMany<Entity> {
    Entity::update_many().filter(COLUMN.kid.eq(kid))
}

/// The newest takeover of the old service's database.
pub(super) async fn adoption(db: &impl ConnectionTrait) -> Result<Option<Adoption>, DbErr> {
    let sql = "SELECT kid, adopted_at FROM adoptions ORDER BY id DESC LIMIT 1";
    Adoption::find_by_statement(Statement::from_string(db.get_database_backend(), sql)).one(db).await
}
