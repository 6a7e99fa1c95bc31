//! What an attempt must pass to begin: at most one lane, the budget of its address, and everybody's.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::budget::{Rate, Verdict};
use super::{Attempt, DELAY, OF_ACCOUNT, Spent};
use crate::entity::rate_limit::Model as Row;

/// Rows by their key, as they count at one time; one that is missing is fresh.
pub(super) struct Rows {
    rows: BTreeMap<Uuid, Row>,
    now: DateTime<Utc>,
}

impl Rows {
    pub(super) fn new(rows: Vec<Row>, now: DateTime<Utc>) -> Self {
        Self { rows: rows.into_iter().map(|row| (row.key, row.at(now))).collect(), now }
    }

    pub(super) fn of(&mut self, key: Uuid) -> &mut Row {
        self.rows.entry(key).or_insert_with(|| Row::fresh(key, self.now))
    }

    /// All of them, to be stored.
    pub(super) fn touched(self) -> Vec<Row> {
        self.rows.into_values().map(|row| row.touched(self.now)).collect()
    }
}

/// The budgets that an attempt is about.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) lane: Option<Uuid>,
    /// The lane is that of an address that the account is known at. It is not refused for what others did from there.
    pub(super) is_known: bool,
    pub(super) address: Option<Spent>,
    pub(super) everybody: Option<Spent>,
}

impl Gate {
    /// In the order in which they are locked.
    pub(super) fn keys(&self) -> Vec<Uuid> {
        let spent = [self.address, self.everybody].into_iter().flatten().map(|spent| spent.key);
        self.lane.into_iter().chain(spent).collect()
    }

    /// Whether an attempt may begin, and which budget says so; `slow` is the lane's rate of failures.
    pub(super) fn verdict(&self, rows: &mut Rows, slow: Option<Rate>) -> (Verdict, &'static str) {
        let now = rows.now;
        let lane = self.lane.map_or((Verdict::Open, DELAY), |key| {
            let row = rows.of(key);
            let is_day_spent = row.admits(slow, 1, now) != Verdict::Open;
            (row.admits_guess(slow, now), if is_day_spent { OF_ACCOUNT } else { DELAY })
        });
        let asked = [self.address.filter(|_| !self.is_known), self.everybody];
        let rates = asked.into_iter().flatten().map(|spent| {
            let verdict = rows.of(spent.key).admits(Some(spent.rate), 1, now);
            (verdict, spent.budget)
        });
        rates.fold(lane, |worst, next| if next.0 > worst.0 { next } else { worst })
    }

    /// Counts an attempt as one that fails, until it is settled.
    pub(super) fn pass(&self, rows: &mut Rows) {
        let now = rows.now;
        if let Some(key) = self.lane {
            rows.of(key).take_off();
        }
        for spent in [self.address, self.everybody].into_iter().flatten() {
            rows.of(spent.key).spend(Some(spent.rate), now);
        }
    }

    pub(super) fn attempt(&self, known: Option<Uuid>) -> Attempt {
        Attempt { lane: self.lane, known, spent: self.address }
    }
}
