//! SQL of the takeover. PostgreSQL only, as the old service was.

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, ConnectionTrait, DatabaseBackend, DatabaseTransaction, DbErr, EntityTrait as _, FromQueryResult,
    Statement, Value,
};
use uuid::Uuid;

use super::Counts;
use crate::entity::user;

/// A row of the old table `users`.
#[derive(Clone, FromQueryResult)]
pub(super) struct OldUser {
    pub(super) id: i64,
    pub(super) email: String,
    pub(super) hashed_password: String,
    full_name: Option<String>,
    is_superuser: bool,
    is_active: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// The newest token of each family that has not expired, with its session: live when nothing of it was used up or revoked.
const FAMILIES: &str = "SELECT DISTINCT ON (t.family_id) t.family_id, t.session_id, t.user_id, t.issued_at, t.expires_at, \
    t.token_hash, s.user_agent, host(s.ip_address) AS ip_address, s.created_at, \
    COALESCE(s.revoked_at, t.revoked_at, t.used_at) AS revoked_at, \
    COALESCE(s.revoked_reason, t.revoked_reason)::text AS revoked_reason \
    FROM {p}refreshtokens t JOIN {p}authsessions s ON s.session_id = t.session_id AND s.user_id = t.user_id \
    ORDER BY t.family_id, t.issued_at DESC, t.id DESC";

const SESSIONS: &str = "INSERT INTO auth_sessions (id, user_id, user_agent, ip_address, created_at, revoked_at, revoked_reason) \
    SELECT DISTINCT ON (session_id) session_id, user_id, COALESCE(user_agent, ''), ip_address, created_at, revoked_at, \
    revoked_reason FROM taken ORDER BY session_id, revoked_at NULLS FIRST";
// Two random UUIDs are 244 bits from the operating system's generator, in 32 bytes.
const TOKENS: &str = "INSERT INTO refresh_tokens (family_id, session_id, user_id, client_id, scope, generation, family_secret, \
    key_id, rotated_at, idle_end, absolute_end, revoked_at, revoked_reason, legacy_hash) \
    SELECT family_id, session_id, user_id, $1, $2, 0, \
    decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'), \
    $3, issued_at, LEAST(expires_at, $4), $4, revoked_at, revoked_reason, decode(token_hash, 'hex') FROM taken";
const NOTE: &str = "INSERT INTO adoptions (adopted_at, kid, users, sessions) VALUES ($1, $2, $3, $4)";

fn statement<const N: usize>(sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(DatabaseBackend::Postgres, sql, values)
}

async fn number(db: &impl ConnectionTrait, sql: &str) -> Result<i64, DbErr> {
    let row = db.query_one_raw(statement(sql, [])).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index(0))
}

pub(super) async fn count_users(db: &impl ConnectionTrait, table: &str) -> Result<i64, DbErr> {
    number(db, &format!("SELECT COUNT(*) FROM {table}")).await
}

pub(super) async fn users_after(
    db: &impl ConnectionTrait,
    table: &str,
    after: i64,
    limit: i64,
) -> Result<Vec<OldUser>, DbErr> {
    let sql = format!(
        "SELECT id, email, hashed_password, full_name, is_superuser, is_active, created_at, updated_at \
         FROM {table} WHERE id > $1 ORDER BY id LIMIT $2"
    );
    OldUser::find_by_statement(statement(&sql, [after.into(), limit.into()])).all(db).await
}

/// The old service compared these with what was typed.
pub(super) async fn plain_passwords(tx: &DatabaseTransaction) -> Result<Vec<(i64, String)>, DbErr> {
    const SQL: &str = "SELECT id, hashed_password FROM users WHERE hashed_password NOT LIKE '$2%' ORDER BY id";
    let rows = tx.query_all_raw(statement(SQL, [])).await?;
    rows.iter().map(|row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?))).collect()
}

/// Live ones, then ended ones: of one user or of all.
pub(super) async fn count_sessions(
    db: &impl ConnectionTrait,
    user_id: Option<i64>,
    now: DateTime<Utc>,
) -> Result<(i64, i64), DbErr> {
    let families = FAMILIES.replace("{p}", "");
    let sql = format!(
        "SELECT COUNT(*) FILTER (WHERE revoked_at IS NULL), COUNT(*) FILTER (WHERE revoked_at IS NOT NULL) \
         FROM ({families}) f WHERE expires_at > $1 AND ($2::bigint IS NULL OR user_id = $2)"
    );
    let row = db.query_one_raw(statement(&sql, [now.into(), user_id.into()])).await?;
    row.map_or(Ok((0, 0)), |row| Ok((row.try_get_by_index(0)?, row.try_get_by_index(1)?)))
}

pub(super) async fn insert_users(tx: &DatabaseTransaction, rows: Vec<(OldUser, Uuid, String)>) -> Result<(), DbErr> {
    let rows = rows.into_iter().map(|(old, subject, canonical)| user::ActiveModel {
        id: Set(old.id),
        subject: Set(subject),
        email: Set(old.email),
        email_canonical: Set(canonical),
        hashed_password: Set(old.hashed_password),
        password_version: Set(0),
        full_name: Set(old.full_name),
        is_superuser: Set(old.is_superuser),
        is_active: Set(old.is_active),
        created_at: Set(old.created_at),
        updated_at: Set(old.updated_at),
    });
    user::Entity::insert_many(rows).exec_without_returning(tx).await?;
    Ok(())
}

/// Moves every family that has not expired: with its one token still good, or ended.
pub(super) async fn move_sessions(
    tx: &DatabaseTransaction,
    client_id: &str,
    scope: &str,
    kid: &str,
    absolute_end: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<(), DbErr> {
    let families = FAMILIES.replace("{p}", migration::PREFIX);
    let taken = format!(
        "CREATE TEMPORARY TABLE taken ON COMMIT DROP AS SELECT f.* FROM ({families}) f \
         JOIN users u ON u.id = f.user_id WHERE f.expires_at > $1"
    );
    // A statement that makes a table takes no parameters; this one is our own clock.
    let taken = taken.replace("$1", &format!("'{}'::timestamptz", now.to_rfc3339()));
    tx.execute_unprepared(&taken).await?;
    tx.execute_raw(statement(SESSIONS, [])).await?;
    let values = [client_id.into(), scope.into(), kid.into(), absolute_end.into()];
    tx.execute_raw(statement(TOKENS, values)).await?;
    Ok(())
}

/// Sets the sequence of users and notes the takeover, by which tokens of the old service are known.
pub(super) async fn finish(
    tx: &DatabaseTransaction,
    kid: &str,
    counts: &Counts,
    now: DateTime<Utc>,
) -> Result<(), DbErr> {
    const SEQUENCE: &str =
        "SELECT setval(pg_get_serial_sequence('users', 'id'), GREATEST((SELECT MAX(id) FROM seed_users), 1))";
    tx.query_one_raw(statement(SEQUENCE, [])).await?;
    let values = [now.into(), kid.into(), counts.users.into(), counts.live_sessions.into()];
    tx.execute_raw(statement(NOTE, values)).await?;
    Ok(())
}
