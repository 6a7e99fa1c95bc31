//! How often one session may be refreshed, counted by each replica in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use moka::future::Cache;
use uuid::Uuid;

const WINDOW: TimeDelta = TimeDelta::minutes(1);

/// When a window began and how many refreshes came in it.
type Window = Arc<Mutex<(DateTime<Utc>, u32)>>;

/// Fixed windows of a minute.
#[derive(Debug)]
pub(super) struct PerSession {
    per_minute: u32,
    windows: Cache<Uuid, Window>,
}

impl PerSession {
    pub(super) fn new(per_minute: u32) -> Self {
        let windows = Cache::builder().max_capacity(1_000_000).time_to_idle(Duration::from_mins(2)).build();
        Self { per_minute, windows }
    }

    /// Counts one refresh. When there were too many, returns the seconds until the window ends.
    pub(super) async fn count(&self, family_id: Uuid, now: DateTime<Utc>) -> Result<(), u64> {
        let window = self.windows.get_with(family_id, async { Arc::new(Mutex::new((now, 0))) }).await;
        let mut window = window.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if now >= window.0 + WINDOW || now < window.0 {
            *window = (now, 0);
        }
        window.1 = window.1.saturating_add(1);
        if window.1 <= self.per_minute {
            return Ok(());
        }
        Err(u64::try_from((window.0 + WINDOW - now).num_seconds()).unwrap_or(0).max(1))
    }
}
