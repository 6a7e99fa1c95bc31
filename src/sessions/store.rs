//! SQL of the tables `auth_sessions` and `refresh_tokens`.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait as _, FromQueryResult, QueryFilter as _, Statement, Value,
    sea_query::Expr,
};
use uuid::Uuid;

use super::{Reason, Session};
use crate::db::Db;
use crate::entity::{auth_session, refresh_token};

/// A family's row with what its user and session say.
#[derive(Clone, FromQueryResult)]
#[expect(clippy::struct_field_names, reason = "fields are named as the columns")]
pub(super) struct Family {
    pub(super) family_id: Uuid,
    pub(super) session_id: Uuid,
    pub(super) user_id: i64,
    pub(super) client_id: String,
    pub(super) scope: String,
    pub(super) generation: i64,
    pub(super) family_secret: Vec<u8>,
    pub(super) key_id: String,
    pub(super) rotated_at: DateTime<Utc>,
    pub(super) idle_end: DateTime<Utc>,
    pub(super) absolute_end: DateTime<Utc>,
    pub(super) revoked_at: Option<DateTime<Utc>>,
    pub(super) legacy_hash: Option<Vec<u8>>,
    pub(super) subject: Uuid,
    pub(super) is_active: bool,
    pub(super) auth_time: DateTime<Utc>,
    pub(super) user_agent: String,
    pub(super) ip_address: Option<String>,
}

impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Family").field("family_id", &self.family_id).finish_non_exhaustive()
    }
}

/// What a rotation set.
#[derive(Debug, FromQueryResult)]
pub(super) struct Step {
    pub(super) rotated_at: DateTime<Utc>,
    pub(super) idle_end: DateTime<Utc>,
}

/// The one row that tells when the service was up.
#[derive(Debug, Clone, PartialEq, Eq, FromQueryResult)]
pub(super) struct ServiceClock {
    pub(super) seen_at: DateTime<Utc>,
    pub(super) down_from: Option<DateTime<Utc>>,
    pub(super) recovered_at: Option<DateTime<Utc>>,
}

/// The ends of one family, for the sweep.
#[derive(Debug, FromQueryResult)]
pub(super) struct Ends {
    pub(super) session_id: Uuid,
    idle_end: DateTime<Utc>,
    absolute_end: DateTime<Utc>,
    revoked_at: Option<DateTime<Utc>>,
}

impl Ends {
    /// When the family ended, or will end if nobody refreshes it.
    pub(super) fn ended_at(&self) -> DateTime<Utc> {
        let end = self.idle_end.min(self.absolute_end);
        self.revoked_at.map_or(end, |revoked_at| revoked_at.min(end))
    }
}

/// Numbered parameters are the same text on both engines.
fn statement<const N: usize>(db: &impl ConnectionTrait, sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

pub(super) async fn family(db: &impl ConnectionTrait, id: Uuid) -> Result<Option<Family>, DbErr> {
    const SQL: &str = "SELECT r.family_id, r.session_id, r.user_id, r.client_id, r.scope, r.generation, r.family_secret, r.key_id, \
        r.rotated_at, r.idle_end, r.absolute_end, COALESCE(r.revoked_at, s.revoked_at) AS revoked_at, r.legacy_hash, u.subject, u.is_active, \
        s.created_at AS auth_time, s.user_agent, s.ip_address \
        FROM refresh_tokens r JOIN users u ON u.id = r.user_id JOIN auth_sessions s ON s.id = r.session_id \
        WHERE r.family_id = $1";
    Family::find_by_statement(statement(db, SQL, [id.into()])).one(db).await
}

/// Takes the next generation: the one statement on which rotation, reuse, logout and deactivation meet. `None` when the row
/// is not what it was. `rotated_at` never goes back; the absolute end never moves.
pub(super) async fn take_refresh(
    db: &Db,
    family: &Family,
    key_id: &str,
    idle_end: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<Step>, DbErr> {
    const SQL: &str = "UPDATE refresh_tokens SET generation = generation + 1, key_id = $3, \
        rotated_at = CASE WHEN rotated_at > $4 THEN rotated_at ELSE $4 END, \
        idle_end = CASE WHEN absolute_end < $5 THEN absolute_end ELSE $5 END \
        WHERE family_id = $1 AND generation = $2 AND revoked_at IS NULL AND absolute_end > $4 AND idle_end > $4 \
        AND EXISTS (SELECT 1 FROM users u WHERE u.id = refresh_tokens.user_id AND u.is_active) \
        AND EXISTS (SELECT 1 FROM auth_sessions s WHERE s.id = refresh_tokens.session_id AND s.revoked_at IS NULL) \
        RETURNING rotated_at, idle_end";
    let values = [family.family_id.into(), family.generation.into(), key_id.into(), now.into(), idle_end.into()];
    let rows = db.write(statement(db.reader(), SQL, values)).await?;
    rows.first().map(|row| Step::from_query_result(row, "")).transpose()
}

pub(super) async fn insert_session(tx: &impl ConnectionTrait, family: &Family) -> Result<(), DbErr> {
    let session = auth_session::ActiveModel {
        id: Set(family.session_id),
        user_id: Set(family.user_id),
        user_agent: Set(family.user_agent.clone()),
        ip_address: Set(family.ip_address.clone()),
        created_at: Set(family.auth_time),
        revoked_at: Set(None),
        revoked_reason: Set(None),
    };
    auth_session::Entity::insert(session).exec_without_returning(tx).await?;
    let row = refresh_token::ActiveModel {
        family_id: Set(family.family_id),
        session_id: Set(family.session_id),
        user_id: Set(family.user_id),
        client_id: Set(family.client_id.clone()),
        scope: Set(family.scope.clone()),
        generation: Set(family.generation),
        family_secret: Set(family.family_secret.clone()),
        key_id: Set(family.key_id.clone()),
        rotated_at: Set(family.rotated_at),
        idle_end: Set(family.idle_end),
        absolute_end: Set(family.absolute_end),
        revoked_at: Set(None),
        revoked_reason: Set(None),
        legacy_hash: Set(None),
    };
    refresh_token::Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}

/// What "live" means: neither ended nor idle too long nor past its absolute end.
const LIVE: &str =
    "s.user_id = $1 AND s.revoked_at IS NULL AND r.revoked_at IS NULL AND r.idle_end > $2 AND r.absolute_end > $2";

/// The live sessions of a user that were seen last, at most so many.
pub(super) async fn live_sessions(
    db: &impl ConnectionTrait,
    user_id: i64,
    most: u64,
    now: DateTime<Utc>,
) -> Result<Vec<Session>, DbErr> {
    let sql = format!(
        "SELECT s.id, s.user_agent, s.ip_address, s.created_at, r.rotated_at AS last_seen_at \
         FROM auth_sessions s JOIN refresh_tokens r ON r.session_id = s.id WHERE {LIVE} \
         ORDER BY r.rotated_at DESC, s.created_at DESC, s.id LIMIT $3"
    );
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Session::find_by_statement(statement(db, &sql, [user_id.into(), now.into(), most.into()])).all(db).await
}

/// The least recently seen live sessions, so many that one more fits under the cap.
pub(super) async fn sessions_beyond_cap(
    tx: &impl ConnectionTrait,
    user_id: i64,
    cap: u64,
    now: DateTime<Utc>,
) -> Result<Vec<Uuid>, DbErr> {
    let kept = usize::try_from(cap.saturating_sub(1)).unwrap_or(usize::MAX);
    Ok(live_sessions(tx, user_id, u64::MAX, now).await?.into_iter().skip(kept).map(|session| session.id).collect())
}

/// True when the user has this session and it is live.
pub(super) async fn is_live(
    db: &impl ConnectionTrait,
    user_id: i64,
    id: Uuid,
    now: DateTime<Utc>,
) -> Result<bool, DbErr> {
    let sql = format!(
        "SELECT 1 FROM auth_sessions s JOIN refresh_tokens r ON r.session_id = s.id WHERE {LIVE} AND s.id = $3"
    );
    let row = db.query_one_raw(statement(db, &sql, [user_id.into(), now.into(), id.into()])).await?;
    Ok(row.is_some())
}

/// Ends one session, then its families. Returns false when it had ended already.
pub(super) async fn end_session(
    tx: &impl ConnectionTrait,
    id: Uuid,
    reason: Reason,
    now: DateTime<Utc>,
) -> Result<bool, DbErr> {
    let sessions = auth_session::Entity::update_many()
        .col_expr(auth_session::Column::RevokedAt, Expr::value(now))
        .col_expr(auth_session::Column::RevokedReason, Expr::value(reason.label()))
        .filter(auth_session::COLUMN.id.eq(id))
        .filter(auth_session::COLUMN.revoked_at.is_null())
        .exec(tx)
        .await?;
    refresh_token::Entity::update_many()
        .col_expr(refresh_token::Column::RevokedAt, Expr::value(now))
        .col_expr(refresh_token::Column::RevokedReason, Expr::value(reason.label()))
        .filter(refresh_token::COLUMN.session_id.eq(id))
        .filter(refresh_token::COLUMN.revoked_at.is_null())
        .exec(tx)
        .await?;
    Ok(sessions.rows_affected > 0)
}

/// Ends every session of a user, then every family.
pub(super) async fn end_sessions_of(
    tx: &impl ConnectionTrait,
    user_id: i64,
    reason: Reason,
    now: DateTime<Utc>,
) -> Result<(), DbErr> {
    for table in ["auth_sessions", "refresh_tokens"] {
        let sql = format!(
            "UPDATE {table} SET revoked_at = $2, revoked_reason = $3 WHERE user_id = $1 AND revoked_at IS NULL"
        );
        tx.execute_raw(statement(tx, &sql, [user_id.into(), now.into(), reason.label().into()])).await?;
    }
    Ok(())
}

/// Ends every session, then every family, and returns how many sessions ended.
pub(super) async fn end_every_session(
    tx: &impl ConnectionTrait,
    reason: Reason,
    now: DateTime<Utc>,
) -> Result<u64, DbErr> {
    let mut ended = Vec::new();
    for table in ["auth_sessions", "refresh_tokens"] {
        let sql = format!("UPDATE {table} SET revoked_at = $1, revoked_reason = $2 WHERE revoked_at IS NULL");
        let done = tx.execute_raw(statement(tx, &sql, [now.into(), reason.label().into()])).await?;
        ended.push(done.rows_affected());
    }
    Ok(ended[0])
}

/// `None` in a database that no server has used yet.
pub(super) async fn service_clock(db: &impl ConnectionTrait) -> Result<Option<ServiceClock>, DbErr> {
    let sql = "SELECT seen_at, down_from, recovered_at FROM service_clock WHERE id = 1";
    ServiceClock::find_by_statement(statement(db, sql, [])).one(db).await
}

/// Writes the row, unless another replica has stamped it since it was read: then false.
pub(super) async fn stamp(db: &Db, read: Option<&ServiceClock>, new: &ServiceClock) -> Result<bool, DbErr> {
    const SQL: &str = "INSERT INTO service_clock (id, seen_at, down_from, recovered_at) VALUES (1, $1, $2, $3) \
        ON CONFLICT (id) DO UPDATE SET seen_at = $1, down_from = $2, recovered_at = $3 WHERE service_clock.seen_at = $4 \
        RETURNING id";
    let read = read.map(|read| read.seen_at);
    let values = [new.seen_at.into(), new.down_from.into(), new.recovered_at.into(), read.into()];
    db.write(statement(db.reader(), SQL, values)).await.map(|rows| !rows.is_empty())
}

/// The next `limit` rows after `cursor`, and where to go on; `None` at the end of the table.
pub(super) async fn rows_from(
    tx: &impl ConnectionTrait,
    cursor: Uuid,
    limit: u64,
) -> Result<(Vec<Ends>, Option<Uuid>), DbErr> {
    const SQL: &str = "SELECT session_id, idle_end, absolute_end, revoked_at FROM refresh_tokens \
        WHERE session_id > $1 ORDER BY session_id LIMIT $2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = Ends::find_by_statement(statement(tx, SQL, [cursor.into(), limit.into()])).all(tx).await?;
    let is_last = i64::try_from(rows.len()).is_ok_and(|length| length < limit);
    let next = rows.last().filter(|_| !is_last).map(|row| row.session_id);
    Ok((rows, next))
}

/// Deletes sessions; their families go with them.
pub(super) async fn delete_sessions(tx: &impl ConnectionTrait, ids: Vec<Uuid>) -> Result<(), DbErr> {
    if !ids.is_empty() {
        auth_session::Entity::delete_many().filter(auth_session::COLUMN.id.is_in(ids)).exec(tx).await?;
    }
    Ok(())
}
