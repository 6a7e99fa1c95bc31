//! Deleting rows of sessions that ended or expired long enough ago: small batches, one replica at a time, steered by the primary
//! key, so that no column that a rotation writes needs an index.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{Error, Sessions, store};
use crate::db::Db;

/// Rows looked at in one transaction.
const BATCH: u64 = 1000;
/// Transactions in one run; the next run goes on from there.
const BATCHES: usize = 100;

/// Held by whoever sweeps: the bytes of "authswee".
const LOCK: i64 = 0x6175_7468_7377_6565;

/// What one run did.
#[derive(Debug)]
pub struct Swept {
    /// How many sessions went.
    pub deleted: usize,
    /// Where the next run begins; nil at the end of the table.
    pub next: Uuid,
    /// True when another process sweeps, so that this one stopped.
    pub is_taken: bool,
}

impl Sessions {
    /// Walks on from `cursor`, deletes what is over, and returns how many sessions went and where the next run begins.
    pub async fn sweep(&self, cursor: Uuid, now: DateTime<Utc>) -> Result<(usize, Uuid), Error> {
        let swept = sweep(&self.db, self.retention, cursor, now).await?;
        Ok((swept.deleted, swept.next))
    }
}

/// Walks on from `cursor` and deletes sessions that were over `retention` ago. For commands too, which need no key for it.
pub async fn sweep(db: &Db, retention: TimeDelta, cursor: Uuid, now: DateTime<Utc>) -> Result<Swept, Error> {
    let mut swept = Swept { deleted: 0, next: cursor, is_taken: false };
    for _ in 0..BATCHES {
        let tx = db.begin().await?;
        if !tx.try_lock(LOCK).await? {
            swept.is_taken = true;
            break;
        }
        let (rows, last) = store::rows_from(&tx, swept.next, BATCH).await?;
        let over: Vec<Uuid> =
            rows.iter().filter(|row| row.ended_at() + retention <= now).map(|row| row.session_id).collect();
        swept.deleted += over.len();
        store::delete_sessions(&tx, over).await?;
        tx.commit().await?;
        swept.next = last.unwrap_or_default();
        if swept.next.is_nil() {
            break;
        }
    }
    Ok(swept)
}
