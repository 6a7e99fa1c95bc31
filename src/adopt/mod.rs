//! Taking over the database of the FastAPI service in place: users, sessions and live refresh tokens go on.
//!
//! One transaction, so that a crash leaves the old database and a second run begins anew. Nothing is changed while an address cannot
//! be taken over and the operator has not chosen what becomes of it. The old tables stay, renamed.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ConnectionTrait, DatabaseTransaction, DbErr};
use secrecy::SecretString;
use serde_json::json;
use tokio::task::JoinSet;

use crate::accounts::{Email, EmailError, HashError, Hasher};
use crate::audit::{self, Actor, Event};
use crate::config::Config;
use crate::db::Db;
use crate::keys;
use crate::random;

mod choices;
mod store;

pub use choices::{Choice, Choices};

/// Users read or written at once.
const BATCH: i64 = 2000;

/// Why the takeover did not happen. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database is not one to take over.
    #[error(transparent)]
    Migration(#[from] migration::Error),
    /// The keys do not fit.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// No private key was found.
    #[error(
        "the private key of the old service is needed: put private.pem (mode 0600) into {0} or set keys.private_key_path"
    )]
    NoKey(String),
    /// Addresses cannot be taken over as they are.
    #[error("{} address(es) cannot be taken over as they are; nothing was changed", .0.len())]
    Conflicts(Vec<Conflict>),
    /// The file of choices is not readable.
    #[error("{0}")]
    Choices(String),
    /// A password was not hashed.
    #[error(transparent)]
    Password(#[from] HashError),
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] random::Error),
}

/// An address that needs a choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Row number of the user.
    pub user_id: i64,
    /// The address as the old service has it.
    pub email: String,
    /// What is wrong with it.
    pub reason: String,
}

/// What was, or would be, taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users taken over.
    pub users: i64,
    /// Users left behind by choice.
    pub skipped: i64,
    /// Passwords that lay there in plain text and are hashed now.
    pub plain_text_passwords: i64,
    /// Sessions that go on.
    pub live_sessions: i64,
    /// Sessions taken over ended.
    pub ended_sessions: i64,
}

/// Called with what is being done, how far it is, and how much there is.
pub type Progress<'a> = &'a (dyn Fn(&str, i64, i64) + Sync);

/// Says what would be taken over, and which addresses need a choice. Changes and locks nothing.
pub async fn dry_run(db: &Db, choices: &Choices, now: DateTime<Utc>, progress: Progress<'_>) -> Result<Counts, Error> {
    migration::require_seed(db.writer()).await?;
    count(db.writer(), choices, now, progress).await
}

/// Takes the database over. The old service must be stopped: its tables are locked.
pub async fn apply(
    db: &Db,
    config: &Config,
    choices: &Choices,
    now: DateTime<Utc>,
    progress: Progress<'_>,
) -> Result<Counts, Error> {
    let kid = keys::imported_kid(&config.keys)?;
    let kid = kid.ok_or_else(|| Error::NoKey(config.keys.directory.display().to_string()))?;
    let tx = migration::begin_takeover(db.writer()).await?;
    let counts = count(&tx, choices, now, progress).await?;
    let computer = Arc::new(Hasher::new(&config.passwords, db.metrics())?);
    let hashes = hash_plain_passwords(&tx, &computer, choices, counts.plain_text_passwords, progress).await?;
    migration::set_aside(&tx).await?;
    move_users(&tx, choices, hashes, counts.users + counts.skipped, progress).await?;
    progress("moving sessions", 0, 1);
    let absolute_end = now + TimeDelta::seconds(config.refresh.absolute_ttl_seconds);
    let (client_id, scope) = (&config.tokens.client_id, &config.tokens.scope);
    store::move_sessions(&tx, client_id, scope, &kid, absolute_end, now).await?;
    store::finish(&tx, &kid, &counts, now).await?;
    audit::record_uncounted(&tx, now, Event::DatabaseAdopted, entry(&kid, &counts)).await?;
    tx.commit().await?;
    progress("moving sessions", 1, 1);
    Ok(counts)
}

fn entry(kid: &str, counts: &Counts) -> audit::Entry<'static> {
    let details = json!({
        "kid": kid,
        "users": counts.users,
        "skipped": counts.skipped,
        "plain_text_passwords": counts.plain_text_passwords,
        "live_sessions": counts.live_sessions,
        "ended_sessions": counts.ended_sessions,
    });
    audit::Entry { details: Some(Actor::Operator.of(details)), ..audit::Entry::default() }
}

/// Counts, and errors with every address that needs a choice.
async fn count(
    db: &impl ConnectionTrait,
    choices: &Choices,
    now: DateTime<Utc>,
    progress: Progress<'_>,
) -> Result<Counts, Error> {
    let total = store::count_users(db, "users").await?;
    let mut counts = Counts::default();
    (counts.live_sessions, counts.ended_sessions) = store::count_sessions(db, None, now).await?;
    let mut conflicts = Vec::new();
    let mut owners: HashMap<String, (i64, String)> = HashMap::new();
    let (mut cursor, mut seen) = (0, 0);
    loop {
        let batch = store::users_after(db, "users", cursor, BATCH).await?;
        let Some(last) = batch.last() else { break };
        cursor = last.id;
        seen += i64::try_from(batch.len()).unwrap_or_default();
        for user in batch {
            let is_plain = !user.hashed_password.starts_with("$2");
            let email = match choices.of(user.id) {
                Some(Choice::Skip) => {
                    let (live, ended) = store::count_sessions(db, Some(user.id), now).await?;
                    counts.skipped += 1;
                    counts.live_sessions -= live;
                    counts.ended_sessions -= ended;
                    continue;
                }
                Some(Choice::Email(email)) => email.clone(),
                None => user.email,
            };
            let conflict = |reason: String| Conflict { user_id: user.id, email: email.clone(), reason };
            counts.users += 1;
            counts.plain_text_passwords += i64::from(is_plain);
            match Email::parse(&email) {
                Err(refusal) => conflicts.push(conflict(refusal.to_string())),
                Ok(parsed) => match owners.entry(parsed.canonical().to_owned()) {
                    Entry::Vacant(free) => {
                        free.insert((user.id, email));
                    }
                    Entry::Occupied(taken) => {
                        let (id, other) = taken.get();
                        conflicts.push(conflict(format!("is the same address as {other} of user {id}")));
                    }
                },
            }
        }
        progress("checking addresses", seen, total);
    }
    if !conflicts.is_empty() {
        return Err(Error::Conflicts(conflicts));
    }
    Ok(counts)
}

/// Hashes the passwords that lie in plain text, as many at once as there are cores.
async fn hash_plain_passwords(
    tx: &DatabaseTransaction,
    hasher: &Arc<Hasher>,
    choices: &Choices,
    total: i64,
    progress: Progress<'_>,
) -> Result<HashMap<i64, String>, Error> {
    let mut done = HashMap::new();
    let plain = store::plain_passwords(tx).await?;
    for few in plain.chunks(hasher.concurrency()) {
        let mut running = JoinSet::new();
        for (id, password) in few.iter().filter(|(id, _)| choices.of(*id) != Some(&Choice::Skip)).cloned() {
            let hasher = Arc::clone(hasher);
            running.spawn(async move { (id, hasher.hash(SecretString::from(password)).await) });
        }
        while let Some(joined) = running.join_next().await {
            let (id, hash) = joined.map_err(|died| HashError::Failed(died.to_string()))?;
            done.insert(id, hash?);
        }
        progress("hashing plain-text passwords", i64::try_from(done.len()).unwrap_or_default(), total);
    }
    Ok(done)
}

async fn move_users(
    tx: &DatabaseTransaction,
    choices: &Choices,
    mut hashes: HashMap<i64, String>,
    total: i64,
    progress: Progress<'_>,
) -> Result<(), Error> {
    let (mut cursor, mut seen) = (0, 0);
    loop {
        let batch = store::users_after(tx, "seed_users", cursor, BATCH).await?;
        let Some(last) = batch.last() else { return Ok(()) };
        cursor = last.id;
        seen += i64::try_from(batch.len()).unwrap_or_default();
        let mut rows = Vec::new();
        for mut user in batch {
            match choices.of(user.id) {
                Some(Choice::Skip) => continue,
                Some(Choice::Email(email)) => user.email.clone_from(email),
                None => {}
            }
            if let Some(hash) = hashes.remove(&user.id) {
                user.hashed_password = hash;
            }
            let refused = |refusal: EmailError| Error::Choices(refusal.to_string());
            let canonical = Email::parse(&user.email).map_err(refused)?.canonical().to_owned();
            rows.push((user, random::uuid()?, canonical));
        }
        store::insert_users(tx, rows).await?;
        progress("moving users", seen, total);
    }
}
