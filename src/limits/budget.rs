//! What a row says at some time, and how it changes: pure functions.
//!
//! A row is a *lane* (guesses at the password of one account) or a *rate* (so many in a window, refilled evenly), or both: a lane
//! has a slow rate beside its delay. `spent_until` is the virtual time of a leaky bucket: a unit moves it on by its share of the
//! window, and there is room while it is less than a window ahead.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::entity::rate_limit::Model as Row;

/// Seconds to wait after so many failures in a row; the last is the cap.
const DELAYS: [i64; 9] = [0, 0, 0, 0, 1, 2, 5, 10, 30];
/// So many failures in a row cost no delay yet, whether they have happened or are in flight.
const FREE: i32 = 3;
/// A row that nobody touched for this long has nothing in flight: a replica was killed.
const FLIGHT: TimeDelta = TimeDelta::seconds(30);
/// How long after their delay failures are remembered.
const MEMORY: TimeDelta = TimeDelta::minutes(15);
/// How much older the time of an attempt may be than a row that it finds: attempts wait for connections and locks, and the clocks of
/// replicas differ a little. A row from further ahead was written before the clock was set back.
pub(super) const SKEW: TimeDelta = TimeDelta::minutes(1);

/// So many units in a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    unit: TimeDelta,
    window: TimeDelta,
}

impl Rate {
    /// `None` for 0, which means no limit.
    pub(super) fn new(units: u32, window: TimeDelta) -> Option<Self> {
        let micros = window.num_microseconds()?.checked_div(units.into())?;
        Some(Self { unit: TimeDelta::microseconds(micros), window })
    }
}

/// Whether an attempt may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// It may.
    Open,
    /// Not while others are in flight, which may succeed or fail.
    Crowded,
    /// Not before so much time has passed.
    Closed(TimeDelta),
}

impl Row {
    pub(super) fn fresh(key: Uuid, now: DateTime<Utc>) -> Self {
        Self {
            key,
            user_id: None,
            touched_at: now,
            failures: 0,
            closed_until: now,
            in_flight: 0,
            spent_until: now,
            is_reported: false,
            known_until: None,
            expires_at: now,
        }
    }

    /// The row as it counts now. One that has expired says nothing; one from the future only where the account is known: a clock
    /// that is set back keeps nobody waiting.
    pub(super) fn at(self, now: DateTime<Utc>) -> Self {
        if self.expires_at <= now {
            return Self::fresh(self.key, now);
        }
        if self.touched_at > now + SKEW {
            return Self { user_id: self.user_id, known_until: self.known_until, ..Self::fresh(self.key, now) };
        }
        Self {
            failures: if self.closed_until + MEMORY <= now { 0 } else { self.failures },
            in_flight: if self.touched_at + FLIGHT <= now { 0 } else { self.in_flight },
            is_reported: self.is_reported && self.spent_until > now,
            known_until: self.known_until.filter(|until| *until > now),
            ..self
        }
    }

    /// The row as it is stored.
    pub(super) fn touched(self, now: DateTime<Utc>) -> Self {
        let failures_until = if self.failures > 0 { self.closed_until + MEMORY } else { now };
        let flight_until = if self.in_flight > 0 { now + FLIGHT } else { now };
        let until = failures_until.max(flight_until).max(self.spent_until);
        Self { touched_at: now, expires_at: self.known_until.map_or(until, |known| known.max(until)), ..self }
    }

    /// Whether one more guess may begin in this lane.
    pub(super) fn admits_guess(&self, slow: Option<Rate>, now: DateTime<Utc>) -> Verdict {
        if self.closed_until > now {
            // Not longer than the cap, although the failure may have been seen by a clock that is ahead.
            return Verdict::Closed((self.closed_until - now).min(TimeDelta::seconds(DELAYS[DELAYS.len() - 1])));
        }
        let next = self.admits(slow, 1, now);
        if next != Verdict::Open {
            return next;
        }
        let is_crowded = self.in_flight > 0
            && (self.failures + self.in_flight > FREE || self.admits(slow, self.in_flight + 1, now) != Verdict::Open);
        if is_crowded { Verdict::Crowded } else { Verdict::Open }
    }

    /// Whether there is room for so many units.
    pub(super) fn admits(&self, rate: Option<Rate>, units: i32, now: DateTime<Utc>) -> Verdict {
        let Some(rate) = rate else { return Verdict::Open };
        let wait = self.spent_until.max(now) + rate.unit * units - rate.window - now;
        if wait > TimeDelta::zero() { Verdict::Closed(wait) } else { Verdict::Open }
    }

    pub(super) fn spend(&mut self, rate: Option<Rate>, now: DateTime<Utc>) {
        if let Some(rate) = rate {
            self.spent_until = self.spent_until.max(now) + rate.unit;
        }
    }

    pub(super) fn give_back(&mut self, rate: Option<Rate>) {
        if let Some(rate) = rate {
            self.spent_until -= rate.unit;
        }
    }

    /// True when there is no room for another unit and this was not told before.
    pub(super) fn is_newly_spent(&mut self, rate: Option<Rate>, now: DateTime<Utc>) -> bool {
        let is_spent = self.admits(rate, 1, now) != Verdict::Open;
        is_spent && !std::mem::replace(&mut self.is_reported, true)
    }

    pub(super) fn take_off(&mut self) {
        self.in_flight += 1;
    }

    pub(super) fn land(&mut self) {
        self.in_flight = (self.in_flight - 1).max(0);
    }

    /// Counts a failure; true when it is the one with which delays begin.
    pub(super) fn fail(&mut self, now: DateTime<Utc>) -> bool {
        self.failures = self.failures.saturating_add(1);
        let step = usize::try_from(self.failures).unwrap_or(0).min(DELAYS.len() - 1);
        self.closed_until = now + TimeDelta::seconds(DELAYS[step]);
        self.failures == FREE + 1
    }

    pub(super) fn succeed(&mut self, now: DateTime<Utc>) {
        self.failures = 0;
        self.closed_until = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_795_341_943, 0).expect("a time")
    }

    fn row(failures: i32, in_flight: i32) -> Row {
        let later = now() + TimeDelta::days(1);
        Row { failures, in_flight, expires_at: later, ..Row::fresh(Uuid::nil(), now()) }
    }

    /// NIST SP 800-63B-4 3.2.2: guesses in flight count as much as those that failed.
    #[test]
    fn four_guesses_are_free_whether_they_failed_or_are_in_flight() {
        for (failures, in_flight, expected) in [
            (0, 0, Verdict::Open),
            (0, 3, Verdict::Open),
            (0, 4, Verdict::Crowded),
            (3, 0, Verdict::Open),
            (3, 1, Verdict::Crowded),
            (2, 1, Verdict::Open),
            (2, 2, Verdict::Crowded),
            (9, 0, Verdict::Open),
            (9, 1, Verdict::Crowded),
        ] {
            assert_eq!(row(failures, in_flight).admits_guess(None, now()), expected, "{failures} {in_flight}");
        }
    }

    #[test]
    fn a_rate_is_refilled_evenly() {
        let rate = Rate::new(4, TimeDelta::hours(1));
        let mut row = row(0, 0);
        for _ in 0..4 {
            assert_eq!(row.admits(rate, 1, now()), Verdict::Open);
            row.spend(rate, now());
        }
        assert_eq!(row.admits(rate, 1, now()), Verdict::Closed(TimeDelta::minutes(15)));
        assert_eq!(row.admits(rate, 1, now() + TimeDelta::minutes(14)), Verdict::Closed(TimeDelta::minutes(1)));
        assert_eq!(row.admits(rate, 1, now() + TimeDelta::minutes(15)), Verdict::Open);
        assert_eq!(row.admits(rate, 2, now() + TimeDelta::minutes(15)), Verdict::Closed(TimeDelta::minutes(15)));
        assert!(row.is_newly_spent(rate, now()) && !row.is_newly_spent(rate, now()), "it is told once");
        row.give_back(rate);
        assert_eq!(row.admits(rate, 1, now()), Verdict::Open);
        assert_eq!(row.admits(Rate::new(0, TimeDelta::hours(1)), 100, now()), Verdict::Open, "no limit");
    }

    /// What fails can still be waited for, so that nobody is told to come again in vain.
    #[test]
    fn a_lane_does_not_let_in_more_than_its_rate_has_room_for() {
        let rate = Rate::new(2, TimeDelta::days(1));
        let mut row = row(0, 1);
        row.spend(rate, now());
        assert_eq!(row.admits_guess(rate, now()), Verdict::Crowded);
        row.spend(rate, now());
        assert_eq!(row.admits_guess(rate, now()), Verdict::Closed(TimeDelta::hours(12)));
    }

    #[test]
    fn what_was_left_behind_is_forgotten() {
        let left = || Row { closed_until: now(), ..row(9, 4) };
        let rows = [
            (TimeDelta::seconds(30) - TimeDelta::microseconds(1), 9, 4),
            (TimeDelta::seconds(30), 9, 0),
            (TimeDelta::minutes(15), 0, 0),
            // An attempt that waited for long, and a clock that was set back.
            (-TimeDelta::minutes(1), 9, 4),
            (-TimeDelta::hours(1), 0, 0),
        ];
        for (later, failures, in_flight) in rows {
            let row = left().at(now() + later);
            assert_eq!((row.failures, row.in_flight), (failures, in_flight), "{later}");
        }
        let known_until = Some(now() + TimeDelta::days(30));
        assert_eq!(Row { known_until, ..left() }.at(now() - TimeDelta::hours(1)).known_until, known_until);
        assert_eq!(Row { known_until, ..left() }.at(now() + TimeDelta::days(30)).known_until, None);
    }
}
