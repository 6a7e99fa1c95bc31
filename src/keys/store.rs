//! SQL of the tables `signing_keys` and `adoptions`.

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectionTrait, DbErr, EntityTrait as _, FromQueryResult as _, IntoActiveModel as _, QueryFilter as _,
    QuerySelect as _, Statement, sea_query::Expr, sea_query::ExprTrait as _,
};

use super::Adoption;
use crate::entity::signing_key::{COLUMN, Column, Entity, Model};

/// The keys that are not gone at `now`.
pub(super) async fn live_keys(db: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(COLUMN.gone_at.is_null().or(COLUMN.gone_at.gt(now))).all(db).await
}

/// The kids of all keys, also of those that are gone.
pub(super) async fn kids(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    Entity::find().select_only().column(Column::Kid).into_tuple().all(db).await
}

/// Adds a key. A unique violation means that another replica added one first.
pub(super) async fn insert_key(tx: &impl ConnectionTrait, key: Model) -> Result<(), DbErr> {
    Entity::insert(key.into_active_model()).exec_without_returning(tx).await?;
    Ok(())
}

/// Plans the end of the newest key's life. Returns false when another replica did it first.
pub(super) async fn retain_key(tx: &impl ConnectionTrait, kid: &str, plan: &Retirement) -> Result<bool, DbErr> {
    let done = Entity::update_many()
        .col_expr(Column::RetainedAt, Expr::value(plan.end_of_signing))
        .col_expr(Column::UnpublishedAt, Expr::value(plan.unpublished_at))
        .col_expr(Column::GoneAt, Expr::value(plan.gone_at))
        .filter(COLUMN.kid.eq(kid))
        .filter(COLUMN.retained_at.is_null())
        .exec(tx)
        .await?;
    Ok(done.rows_affected == 1)
}

/// The newest takeover of the old service's database.
pub(super) async fn adoption(db: &impl ConnectionTrait) -> Result<Option<Adoption>, DbErr> {
    let sql = "SELECT kid, adopted_at FROM adoptions ORDER BY id DESC LIMIT 1";
    Adoption::find_by_statement(Statement::from_string(db.get_database_backend(), sql)).one(db).await
}

/// When a key stops signing, leaves the JWK Set, and is forgotten.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retirement {
    pub(super) end_of_signing: DateTime<Utc>,
    pub(super) unpublished_at: DateTime<Utc>,
    pub(super) gone_at: DateTime<Utc>,
}
