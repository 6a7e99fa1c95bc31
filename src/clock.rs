//! Time: one clock for the whole server, cut to microseconds, moved by hand in tests.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};

/// Reads the current time. `now` is read once per request and passed on.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The current time, cut to whole microseconds (what both database engines keep).
    fn now(&self) -> DateTime<Utc>;
}

/// The local clock plus an offset measured against the database, so that replicas with wrong clocks agree.
#[derive(Debug, Default)]
pub struct DatabaseClock {
    offset_micros: AtomicI64,
}

impl DatabaseClock {
    /// Sets the offset from one measurement: the database said `theirs` at some moment between `before` and `after`.
    /// Returns the new offset.
    pub fn measured(&self, before: DateTime<Utc>, theirs: DateTime<Utc>, after: DateTime<Utc>) -> TimeDelta {
        let offset = theirs - (before + (after - before) / 2);
        self.offset_micros.store(offset.num_microseconds().unwrap_or(0), Ordering::Relaxed);
        offset
    }
}

impl Clock for DatabaseClock {
    fn now(&self) -> DateTime<Utc> {
        to_micros(local() + TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed)))
    }
}

/// The host's own clock, for measuring the offset.
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
