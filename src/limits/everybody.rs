//! The budget of everybody together: so many sign-ins and registrations a second, refilled evenly.
//!
//! Every attempt writes its row, so nobody may hold it from one statement to the next: a replica that froze in between would stop
//! all others. One statement takes a unit or finds none (`store::take`). Therefore time is counted in ticks, one for each
//! unit that is refilled, and the row keeps in `in_flight` the tick up to which all are spent: in SQL both engines add numbers alike,
//! and times not at all. Ticks begin with the hour, so that they fit into the column, and so does the row.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::budget::SKEW;
use super::{EVERYBODY, gate::Refusal, subject};
use crate::entity::rate_limit::Model as Row;

const HOUR: i64 = 3600;

/// What was found when a unit was to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Nothing,
    Unit,
    /// The last one for strangers, which nobody has told of in this hour.
    LastUnit,
}

/// The budget at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Everybody {
    pub(super) key: Uuid,
    pub(super) now: DateTime<Utc>,
    pub(super) expires_at: DateTime<Utc>,
    per_second: i64,
    /// The tick that it is.
    tick: i64,
    /// So many units fit in.
    size: i64,
}

impl Everybody {
    /// `None` for 0, which means no limit.
    pub(super) fn at(per_second: u32, now: DateTime<Utc>) -> Option<Self> {
        let hour = now.timestamp().div_euclid(HOUR);
        let begin = DateTime::from_timestamp(hour * HOUR, 0)?;
        let per_second = Some(i64::from(per_second)).filter(|number| *number > 0)?;
        let tick = (now - begin).num_microseconds()? * per_second / 1_000_000;
        let key = subject::everybody(per_second, hour);
        Some(Self { key, now, expires_at: begin + TimeDelta::seconds(HOUR), per_second, tick, size: per_second })
    }

    /// Holds a fifth more at once, and is refilled no faster.
    pub(super) fn with_reserve(self) -> Self {
        Self { size: self.per_second + self.per_second / 5, ..self }
    }

    /// What is spent when one unit is.
    pub(super) fn first(&self) -> i64 {
        self.tick + 1
    }

    /// There is no room for strangers when units are spent up to here.
    pub(super) fn spent(&self) -> i64 {
        self.tick + self.per_second
    }

    /// Nor for who asks.
    pub(super) fn full(&self) -> i64 {
        self.tick + self.size
    }

    /// What is spent beyond is from before the clock was set back, and says nothing.
    pub(super) fn ahead(&self) -> i64 {
        self.full() + SKEW.num_seconds() * self.per_second
    }

    pub(super) fn is_full(&self, row: &Row) -> bool {
        (self.full()..=self.ahead()).contains(&row.in_flight.into())
    }

    /// There is room again within a second.
    pub(super) fn refusal() -> Refusal {
        Refusal::Closed(EVERYBODY, TimeDelta::seconds(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(per_second: u32, seconds: i64, micros: u32) -> Everybody {
        let now = DateTime::from_timestamp(1_795_341_600 + seconds, micros * 1000).expect("a time");
        Everybody::at(per_second, now).expect("a budget")
    }

    #[test]
    fn a_unit_comes_back_with_each_tick() {
        for (per_second, seconds, micros, tick) in [
            (50, 0, 0, 0),
            (50, 0, 19_999, 0),
            (50, 0, 20_000, 1),
            (50, 1, 0, 50),
            (3, 0, 333_333, 0),
            (3, 0, 333_334, 1),
            (1, 3599, 999_999, 3599),
            // The most that may be set, in the last moment of the hour.
            (100_000, 3599, 999_999, 359_999_999),
        ] {
            let budget = at(per_second, seconds, micros);
            assert_eq!(budget.first(), tick + 1, "{per_second} {seconds} {micros}");
            assert!(i32::try_from(budget.with_reserve().ahead()).is_ok(), "the column holds it");
        }
        assert!(Everybody::at(0, at(1, 0, 0).now).is_none(), "no limit");
    }

    #[test]
    fn it_is_full_when_a_second_is_spent_and_a_fifth_later_for_who_is_known() {
        let row = |in_flight| Row { in_flight, ..Row::fresh(Uuid::nil(), at(10, 0, 0).now) };
        let budget = at(10, 7, 0);
        for (spent, is_full, is_full_for_known) in [
            (0, false, false),
            (70, false, false),
            (79, false, false),
            (80, true, false),
            (81, true, false),
            (82, true, true),
            (680, true, true),
            (681, false, true),
            (683, false, false),
        ] {
            let found = (budget.is_full(&row(spent)), budget.with_reserve().is_full(&row(spent)));
            assert_eq!(found, (is_full, is_full_for_known), "{spent}");
        }
    }

    #[test]
    fn each_hour_and_each_setting_has_a_row() {
        assert_eq!(at(50, 0, 0).key, at(50, 3599, 999_999).key);
        assert_ne!(at(50, 0, 0).key, at(50, 3600, 0).key);
        assert_ne!(at(50, 0, 0).key, at(51, 0, 0).key);
        assert_eq!(at(50, 17, 0).expires_at, at(50, 3600, 0).now);
    }
}
