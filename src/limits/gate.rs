//! What an attempt must pass to begin: at most one lane, the budget of its address, and everybody's.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;
use uuid::Uuid;

use super::budget::{Rate, Verdict};
use super::settle::report;
use super::{DELAY, Limits, OF_ACCOUNT, Spent, store};
use crate::audit::Origin;
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

/// Why a gate lets nobody in.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Others are in flight, and nobody knows yet what becomes of them.
    Crowded(&'static str),
    /// This budget is spent for so long.
    Closed(&'static str, TimeDelta),
    Storage(DbErr),
}

impl From<DbErr> for Refusal {
    fn from(error: DbErr) -> Self {
        Self::Storage(error)
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

    /// Lets an attempt in, which counts as one that fails until it is settled. `rows` have been read and are not locked.
    pub(super) async fn enter(&self, limits: &Limits, mut rows: Rows, origin: &Origin) -> Result<(), Refusal> {
        let (slow, now) = (limits.failures_of_account, rows.now);
        // Most refusals end here, having locked nothing.
        self.judge(&mut rows, slow)?;
        let tx = limits.db.begin().await?;
        let mut rows = Rows::new(store::lock(&tx, &self.keys(), now).await?, now);
        self.judge(&mut rows, slow)?;
        self.pass(&mut rows);
        // What a guess has spent is told if it fails; others are not given back unless we are in trouble.
        let told = self
            .address
            .filter(|spent| self.lane.is_none() && rows.of(spent.key).is_newly_spent(Some(spent.rate), now));
        store::put(&tx, rows.touched()).await?;
        if let Some(spent) = told {
            report(&tx, spent.budget, None, origin, now).await?;
        }
        Ok(tx.commit().await?)
    }

    /// Refuses by the budget that is spent for longest; `slow` is the lane's rate of failures.
    fn judge(&self, rows: &mut Rows, slow: Option<Rate>) -> Result<(), Refusal> {
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
        match rates.fold(lane, |worst, next| if next.0 > worst.0 { next } else { worst }) {
            (Verdict::Open, _) => Ok(()),
            (Verdict::Crowded, budget) => Err(Refusal::Crowded(budget)),
            (Verdict::Closed(wait), budget) => Err(Refusal::Closed(budget, wait)),
        }
    }

    fn pass(&self, rows: &mut Rows) {
        let now = rows.now;
        if let Some(key) = self.lane {
            rows.of(key).take_off();
        }
        for spent in [self.address, self.everybody].into_iter().flatten() {
            rows.of(spent.key).spend(Some(spent.rate), now);
        }
    }
}
