//! What makes a restored database fit to serve again: nobody goes on with what was alive when the backup was made, and may have ended
//! since.

use chrono::{DateTime, Utc};
use serde_json::json;

use super::Error;
use crate::audit::{self, Actor, Entry, Event};
use crate::config::Config;
use crate::db::Db;
use crate::keys::{Management, Purpose};
use crate::sessions;

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The database lacks nothing: it was moved while no server ran. Sessions and keys stay.
    pub keep_sessions: bool,
    /// Keys that were revoked since the backup are alive again, and nobody knows which: end them all.
    pub revoke_keys: bool,
    /// Do it also when no restore was noticed.
    pub force: bool,
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The database is the one that it was; nothing was changed.
    Known,
    /// Servers may go on.
    Done {
        /// Sessions that ended.
        sessions: u64,
        /// Keys that were revoked, each purpose with the key that follows.
        revoked: Vec<(Purpose, usize, String)>,
        /// How often the database was restored.
        epoch: i64,
    },
}

/// Accepts a restored database. The last step lets servers go on: who is cut off before runs it again.
pub async fn after_restore(db: &Db, config: &Config, plan: Plan, now: DateTime<Utc>) -> Result<Accepted, Error> {
    migration::require_current(db.writer()).await?;
    if !plan.force && db.is_known().await? {
        return Ok(Accepted::Known);
    }
    let mut revoked = Vec::new();
    if !plan.keep_sessions || plan.revoke_keys {
        let management = Management::new(db.clone(), config)?;
        for (purpose, is_wanted) in [(Purpose::Refresh, !plan.keep_sessions), (Purpose::Signing, plan.revoke_keys)] {
            let replaced = if is_wanted { management.replace(purpose, now).await? } else { None };
            revoked.extend(replaced.map(|(count, kid)| (purpose, count, kid)));
        }
    }
    let tx = migration::begin(db.writer()).await?;
    let ended = if plan.keep_sessions { 0 } else { sessions::end_everybody(&tx, now).await? };
    let epoch = db.accept_identity(&tx).await?;
    let keys: usize = revoked.iter().map(|(_, count, _)| count).sum();
    let details = json!({"epoch": epoch, "sessions": ended, "keys": keys});
    let entry = Entry { details: Some(Actor::Operator.of(details)), ..Entry::default() };
    audit::record_uncounted(&tx, now, Event::AfterRestore, entry).await?;
    tx.commit().await?;
    Ok(Accepted::Done { sessions: ended, revoked, epoch })
}
