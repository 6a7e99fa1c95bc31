//! Deleting rows that say nothing any more, in small batches; replicas that do it at once share the work.

use chrono::{DateTime, Utc};

use super::{Error, Limits, store};

/// Rows deleted in one transaction.
const BATCH: u32 = 1000;
/// Transactions in one run.
const BATCHES: usize = 100;

impl Limits {
    /// Deletes rows that have expired, and returns how many went.
    pub async fn sweep(&self, now: DateTime<Utc>) -> Result<u64, Error> {
        let mut deleted = 0;
        for _ in 0..BATCHES {
            let tx = self.db.begin().await?;
            let gone = store::delete_expired(&tx, BATCH.into(), now).await?;
            tx.commit().await?;
            deleted += gone;
            if gone < BATCH.into() {
                break;
            }
        }
        Ok(deleted)
    }
}
