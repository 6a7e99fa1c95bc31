//! Deleting rows of sessions that ended or expired long enough ago: small batches, one replica at a time, steered by the primary
//! key, so that no column that a rotation writes needs an index.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Error, Sessions, store};

/// Rows looked at in one transaction.
const BATCH: u64 = 1000;
/// Transactions in one run; the next run goes on from there.
const BATCHES: usize = 100;

impl Sessions {
    /// Walks on from `cursor`, deletes what is over, and returns how many sessions went and where the next run begins.
    pub async fn sweep(&self, mut cursor: Uuid, now: DateTime<Utc>) -> Result<(usize, Uuid), Error> {
        let mut deleted = 0;
        for _ in 0..BATCHES {
            let tx = self.db.begin().await?;
            if !store::try_sweep_lock(&tx).await? {
                break;
            }
            let (rows, last) = store::rows_from(&tx, cursor, BATCH).await?;
            let over: Vec<Uuid> =
                rows.iter().filter(|row| row.ended_at() + self.retention <= now).map(|row| row.session_id).collect();
            deleted += over.len();
            store::delete_sessions(&tx, over).await?;
            tx.commit().await?;
            let Some(last) = last else {
                return Ok((deleted, Uuid::nil()));
            };
            cursor = last;
        }
        Ok((deleted, cursor))
    }
}
