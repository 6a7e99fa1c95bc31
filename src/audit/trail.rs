//! Reading the trail, and deleting what was kept long enough: small batches, one replica at a time.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;
use uuid::Uuid;

use super::{Event, Recorded, store};
use crate::config::Config;
use crate::db::Db;

/// Rows deleted in one transaction.
const BATCH: u64 = 1000;
/// Transactions in one run; the next run goes on.
const BATCHES: usize = 100;
/// Held by whoever deletes: the bytes of "authaudi".
const LOCK: i64 = 0x6175_7468_6175_6469;

/// Why the trail tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A page cannot begin at an event that is not there.
    #[error("there is no event {0}: it never was, or is older than events are kept")]
    NoSuchEvent(i64),
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
}

/// Which events are asked for: those that every field that is set allows.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this user, who may be deleted.
    pub user_id: Option<i64>,
    /// Of this session.
    pub session_id: Option<Uuid>,
    /// Of this kind.
    pub event: Option<Event>,
    /// At or after this time.
    pub since: Option<DateTime<Utc>>,
    /// Before this time.
    pub until: Option<DateTime<Utc>>,
}

/// Everything that was recorded.
#[derive(Debug)]
pub struct Trail {
    db: Db,
    /// `None`: for ever.
    retention: Option<TimeDelta>,
}

impl Trail {
    /// Reads its settings from the configuration.
    #[must_use]
    pub fn new(db: Db, config: &Config) -> Self {
        let days = config.audit.retention_days;
        Self { db, retention: (days > 0).then(|| TimeDelta::days(days)) }
    }

    /// Lists events, newest first. `before` is the event after which the page begins: the last of the page before.
    pub async fn list(&self, filter: &Filter, before: Option<i64>, limit: u64) -> Result<Vec<Recorded>, Error> {
        let reader = self.db.reader();
        let place = match before {
            Some(id) => {
                let event = store::event(reader, id).await?.ok_or(Error::NoSuchEvent(id))?;
                Some((event.at, event.id))
            }
            None => None,
        };
        Ok(store::events(reader, filter, place, limit).await?)
    }

    /// Deletes what was kept long enough, and returns how many events went.
    pub async fn sweep(&self, now: DateTime<Utc>) -> Result<u64, Error> {
        let Some(end) = self.retention.and_then(|retention| now.checked_sub_signed(retention)) else {
            return Ok(0);
        };
        let mut deleted = 0;
        for _ in 0..BATCHES {
            let tx = self.db.begin().await?;
            if !tx.try_lock(LOCK).await? {
                break;
            }
            let batch = store::delete_until(&tx, end, BATCH).await?;
            tx.commit().await?;
            deleted += batch;
            if batch < BATCH {
                break;
            }
        }
        Ok(deleted)
    }
}
