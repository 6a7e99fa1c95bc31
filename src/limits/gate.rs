//! What an attempt must pass to begin: at most one lane, the budget of its address, and everybody's.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;
use uuid::Uuid;

use super::budget::{Rate, Verdict};
use super::everybody::{Everybody, Taken};
use super::settle::report;
use super::{DELAY, Limits, OF_ACCOUNT, OF_ADDRESS, Spent, store};
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
    pub(super) everybody: Option<Everybody>,
}

impl Gate {
    /// Lets an attempt in, which counts as one that fails until it is settled. `rows` have been read and are not locked.
    pub(super) async fn enter(&self, limits: &Limits, mut rows: Rows, origin: &Origin) -> Result<(), Refusal> {
        // Most refusals end here, having written nothing.
        self.judge(&mut rows, limits.failures_of_account)?;
        let Some(everybody) = &self.everybody else {
            return self.enter_lane(limits, origin, rows.now).await;
        };
        if everybody.is_full(rows.of(everybody.key)) {
            return Err(Everybody::refusal());
        }
        match store::take(&limits.db, everybody).await? {
            Taken::Nothing => return Err(Everybody::refusal()),
            Taken::Unit => {}
            Taken::LastUnit => limits.report_everybody(everybody, origin).await,
        }
        let entered = self.enter_lane(limits, origin, rows.now).await;
        // Many at once may have read that there is room where only few find it. They cost everybody nothing, or guesses at one account
        // that nobody verifies would keep all others out.
        if matches!(entered, Err(Refusal::Crowded(_) | Refusal::Closed(..)))
            && let Err(error) = store::give_back(&limits.db, everybody).await
        {
            tracing::warn!(error = %error, "a unit of everybody's was not given back: it comes back by itself");
        }
        entered
    }

    /// Passes what is locked: the lane and the budget of the address.
    async fn enter_lane(&self, limits: &Limits, origin: &Origin, now: DateTime<Utc>) -> Result<(), Refusal> {
        let keys: Vec<_> = self.lane.into_iter().chain(self.address.map(|spent| spent.key)).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let tx = limits.db.begin().await?;
        let mut rows = Rows::new(store::lock(&tx, &keys, now).await?, now);
        self.judge(&mut rows, limits.failures_of_account)?;
        if let Some(key) = self.lane {
            rows.of(key).take_off();
        }
        let mut told = None;
        if let Some(spent) = self.address {
            let row = rows.of(spent.key);
            row.spend(Some(spent.rate), now);
            // What a guess has spent is told if it fails; a registration is not given back unless we are in trouble.
            told = Some(spent.budget).filter(|_| self.lane.is_none() && row.is_newly_spent(Some(spent.rate), now));
        }
        store::put(&tx, rows.touched()).await?;
        if let Some(budget) = told {
            report(&tx, budget, None, origin, now).await?;
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
        let address = self.address.filter(|_| !self.is_known).map_or((Verdict::Open, OF_ADDRESS), |spent| {
            (rows.of(spent.key).admits(Some(spent.rate), 1, now), spent.budget)
        });
        let worst = if address.0 > lane.0 { address } else { lane };
        match worst {
            (Verdict::Open, _) => Ok(()),
            (Verdict::Crowded, budget) => Err(Refusal::Crowded(budget)),
            (Verdict::Closed(wait), budget) => Err(Refusal::Closed(budget, wait)),
        }
    }
}
