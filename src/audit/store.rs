//! SQL of the table `audit_events`.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, Condition, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Statement, Value,
};

use super::{Entry, Event, Filter};
use crate::entity::audit_event::{ActiveModel, COLUMN, Column, Entity, Model};

pub(super) async fn insert(
    tx: &impl ConnectionTrait,
    now: DateTime<Utc>,
    event: Event,
    entry: Entry<'_>,
) -> Result<(), DbErr> {
    let row = ActiveModel {
        at: Set(now),
        event: Set(event.name().to_owned()),
        user_id: Set(entry.user_id),
        session_id: Set(entry.session_id),
        ip_address: Set(entry.origin.and_then(|origin| origin.ip_address).map(|address| address.to_string())),
        user_agent: Set(entry.origin.map(|origin| origin.user_agent.clone())),
        details: Set(entry.details.map(|details| details.to_string())),
        ..Default::default()
    };
    Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

pub(super) async fn event(db: &impl ConnectionTrait, id: i64) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// Newest first; of those of one time, the one written last first. `before` is where a page ended.
pub(super) async fn events(
    db: &impl ConnectionTrait,
    filter: &Filter,
    before: Option<(DateTime<Utc>, i64)>,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    // The first half lets an index find the place, the second leaves out what the page before has shown.
    let older = before.map(|(at, id)| {
        let half = Condition::any().add(COLUMN.at.lt(at)).add(COLUMN.id.lt(id));
        Condition::all().add(COLUMN.at.lte(at)).add(half)
    });
    let wanted = Condition::all()
        .add_option(filter.user_id.map(|id| COLUMN.user_id.eq(id)))
        .add_option(filter.session_id.map(|id| COLUMN.session_id.eq(id)))
        .add_option(filter.event.map(|event| COLUMN.event.eq(event.name())))
        .add_option(filter.since.map(|since| COLUMN.at.gte(since)))
        .add_option(filter.until.map(|until| COLUMN.at.lt(until)))
        .add_option(older);
    Entity::find().filter(wanted).order_by_desc(Column::At).order_by_desc(Column::Id).limit(limit).all(db).await
}

/// Deletes the oldest events up to `end`, `limit` at most, and returns how many.
pub(super) async fn delete_until(tx: &impl ConnectionTrait, end: DateTime<Utc>, limit: u64) -> Result<u64, DbErr> {
    const SQL: &str = "DELETE FROM audit_events WHERE id IN \
        (SELECT id FROM audit_events WHERE at <= $1 ORDER BY at LIMIT $2)";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    Ok(tx.execute_raw(statement(tx, SQL, [end.into(), limit.into()])).await?.rows_affected())
}

fn statement<const N: usize>(db: &impl ConnectionTrait, sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}
