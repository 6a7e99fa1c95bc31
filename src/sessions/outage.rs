//! Outages: while the service is down nobody can retry, so that time does not count against the retry window.
//!
//! Every replica stamps one row while it is up. The stamp that finds the row old has found an outage, and notes its two ends. A
//! retry that comes too late by the clock is held against them before anybody is called a thief.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;

use super::Sessions;
use super::store::{self, Family, ServiceClock};
use crate::db::Db;

/// What is known of the times at which the service was up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uptime {
    /// When a server last said that it is up.
    pub seen_at: DateTime<Utc>,
    /// The last outage: from when to when.
    pub outage: Option<(DateTime<Utc>, DateTime<Utc>)>,
}

/// Reads it, and stamps nothing; `None` before the first start.
pub async fn uptime(db: &Db) -> Result<Option<Uptime>, DbErr> {
    let read = store::service_clock(db.reader()).await?;
    Ok(read.map(|read| Uptime { seen_at: read.seen_at, outage: read.down_from.zip(read.recovered_at) }))
}

impl Sessions {
    pub(super) fn retry_window(&self) -> TimeDelta {
        TimeDelta::seconds(self.settings.retry_window_seconds)
    }

    /// How often [`Sessions::stamp`] is to be called: several times within the shortest outage that counts.
    #[must_use]
    pub fn stamp_interval(&self) -> std::time::Duration {
        (shortest_outage(self.retry_window()) / 3).to_std().unwrap_or(std::time::Duration::from_secs(5))
    }

    /// Notes that the service is up. Call it before the first request is served, and then regularly.
    pub async fn stamp(&self, now: DateTime<Utc>) -> Result<(), DbErr> {
        self.stamped(now).await.map(|_| ())
    }

    /// True when an outage explains why this retry comes so late. Stamps first: it may be the first that is heard of the outage.
    pub(super) async fn was_down(&self, family: &Family, now: DateTime<Utc>) -> Result<bool, DbErr> {
        let was_down = self.stamped(now).await?.explains(family.rotated_at, self.retry_window(), now);
        if was_down {
            tracing::info!(session.id = %family.session_id, "a retry came late because of an outage");
        }
        Ok(was_down)
    }

    async fn stamped(&self, now: DateTime<Utc>) -> Result<ServiceClock, DbErr> {
        let read = store::service_clock(self.db.reader()).await?;
        let new = ServiceClock::stamped(read.as_ref(), self.retry_window(), now);
        let is_ours = store::stamp(&self.db, read.as_ref(), &new).await?;
        let is_noticed = new.recovered_at != read.and_then(|read| read.recovered_at) && new.recovered_at.is_some();
        if is_ours && is_noticed {
            self.db.metrics().outages.inc();
        }
        Ok(new)
    }
}

/// A request may hold a time that is as old as it may wait.
const OLDEST: TimeDelta = TimeDelta::seconds(15);

/// Shorter outages fit into the window, which should be longer than twice this; between 3 and 15 seconds.
fn shortest_outage(window: TimeDelta) -> TimeDelta {
    (window / 2).clamp(TimeDelta::seconds(3), TimeDelta::seconds(15))
}

impl ServiceClock {
    /// The row after a stamp at `now`. Outages with less than a window between them are one: a client may have found no
    /// moment to retry.
    fn stamped(read: Option<&Self>, window: TimeDelta, now: DateTime<Utc>) -> Self {
        let Some(read) = read else {
            return Self { seen_at: now, down_from: None, recovered_at: None };
        };
        let (gap, shortest) = (now - read.seen_at, shortest_outage(window));
        if gap < -shortest.max(OLDEST) {
            // The clock was set back: what was noted with the wrong time explains nothing.
            return Self { seen_at: now, down_from: None, recovered_at: None };
        }
        if gap <= shortest {
            return Self { seen_at: read.seen_at.max(now), ..read.clone() };
        }
        let goes_on = read.recovered_at.is_some_and(|recovered_at| read.seen_at - recovered_at < window);
        let down_from = if goes_on { read.down_from } else { Some(read.seen_at) };
        Self { seen_at: now, down_from, recovered_at: Some(now) }
    }

    /// True when a generation taken at `rotated_at` could not be retried in time because of the outage, and the window since its end
    /// is not over.
    fn explains(&self, rotated_at: DateTime<Utc>, window: TimeDelta, now: DateTime<Utc>) -> bool {
        let (Some(down_from), Some(recovered_at)) = (self.down_from, self.recovered_at) else {
            return false;
        };
        down_from - window <= rotated_at && rotated_at < recovered_at && now - recovered_at < window
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: TimeDelta = TimeDelta::seconds(30);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
    }

    /// The row after stamps at these seconds.
    fn stamps(seconds: &[i64]) -> ServiceClock {
        let stamp =
            |row: Option<ServiceClock>, second: &i64| Some(ServiceClock::stamped(row.as_ref(), WINDOW, at(*second)));
        seconds.iter().fold(None, stamp).expect("a stamp")
    }

    #[test]
    fn an_outage_is_what_lies_between_two_stamps_that_are_far_apart() {
        let rows = [
            ("first stamp", vec![0], None),
            ("regular", vec![0, 5, 10, 15], None),
            ("exactly the shortest", vec![0, 15], None),
            ("longer", vec![0, 5, 21], Some((5, 21))),
            ("the last one counts", vec![0, 100, 105, 110, 115, 120, 125, 130, 200], Some((130, 200))),
            ("two with little between", vec![0, 100, 110, 120, 200], Some((0, 200))),
            ("a clock that went back a little", vec![0, 100, 90, 95], Some((0, 100))),
            ("a clock that was set forth and back", vec![0, 5, 3605, 10, 15], None),
        ];
        for (name, seconds, outage) in rows {
            let row = stamps(&seconds);
            assert_eq!(row.down_from.zip(row.recovered_at), outage.map(|(from, to)| (at(from), at(to))), "{name}");
        }
        assert_eq!(stamps(&[0, 100, 90]).seen_at, at(100));
        assert_eq!(stamps(&[0, 3600, 10]).seen_at, at(10));
    }

    #[test]
    fn a_retry_is_explained_only_by_an_outage_that_was_in_its_way() {
        let clock = stamps(&[1000, 2000]);
        let rows = [
            ("taken a window before the outage", 970, 2000, true),
            ("taken earlier", 969, 2000, false),
            ("taken during the outage", 1500, 2000, true),
            ("taken at the recovery", 2000, 2029, false),
            ("retried within the window since the recovery", 1000, 2029, true),
            ("retried later", 1000, 2030, false),
        ];
        for (name, rotated_at, now, expected) in rows {
            assert_eq!(clock.explains(at(rotated_at), WINDOW, at(now)), expected, "{name}");
        }
        assert!(!stamps(&[1000]).explains(at(1000), WINDOW, at(1000)));
    }
}
