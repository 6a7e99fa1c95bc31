//! Time: one clock for the whole server, cut to microseconds, moved by hand in tests.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Instant;

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// Reads the current time. `now` is read once per request and passed on.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current time, cut to whole microseconds (what both database engines keep).
    fn now(&self) -> DateTime<Utc>;
}

/// The database's clock as last measured, carried on by the host's monotonic one: replicas with wrong clocks agree, and a clock
/// that is set does nothing until it is measured again. The host's own clock until something was measured.
#[derive(Debug, Default)]
pub struct DatabaseClock {
    measured: RwLock<Option<(Instant, DateTime<Utc>)>>,
}

impl DatabaseClock {
    /// Takes one measurement: the database said `theirs` at some moment between `before` and now. Returns how far it is from the
    /// host's clock.
    pub fn measured(&self, before: Instant, theirs: DateTime<Utc>) -> TimeDelta {
        let waited = before.elapsed();
        let now = theirs + TimeDelta::from_std(waited / 2).unwrap_or_default();
        *self.measured.write().unwrap_or_else(PoisonError::into_inner) = Some((before + waited, now));
        now - local()
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> DateTime<Utc> {
        let measured = *self.measured.read().unwrap_or_else(PoisonError::into_inner);
        to_micros(
            measured.map_or_else(local, |(at, time)| time + TimeDelta::from_std(at.elapsed()).unwrap_or_default()),
        )
    }
}

/// The host's own clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the host's clock")]
pub fn local() -> DateTime<Utc> {
    Utc::now()
}

/// A clock that stands still until a test moves it.
#[derive(Debug)]
pub struct TestClock {
    micros: AtomicI64,
}

impl TestClock {
    /// A clock that shows `start`.
    #[must_use]
    pub fn new(start: DateTime<Utc>) -> Self {
        Self { micros: AtomicI64::new(start.timestamp_micros()) }
    }

    /// Moves the clock, backwards when `by` is negative.
    pub fn advance(&self, by: TimeDelta) {
        self.micros.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.micros.load(Ordering::SeqCst)).expect("a test's time is in range")
    }
}

fn to_micros(time: DateTime<Utc>) -> DateTime<Utc> {
    time.duration_trunc(TimeDelta::microseconds(1)).unwrap_or(time)
}
