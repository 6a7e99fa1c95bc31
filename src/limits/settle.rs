//! What became of an attempt that was let in.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr};
use serde_json::json;

use super::everybody::Everybody;
use super::gate::Rows;
use super::{Attempt, DELAY, EVERYBODY, Limits, OF_ACCOUNT, OF_ADDRESS, store};
use crate::audit::{self, Entry, Event, Origin};
use crate::db::Transaction;

/// Addresses that one user is known at: more would let a user fill the table.
const ADDRESSES: i64 = 20;

impl Limits {
    /// Counts a failure within the caller's transaction, which must be committed before it is answered. Audits a budget that is spent
    /// with it.
    pub async fn failed(
        &self,
        tx: &Transaction,
        attempt: &Attempt,
        user_id: Option<i64>,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), DbErr> {
        let Some(lane) = attempt.lane else { return Ok(()) };
        let keys: Vec<_> = [Some(lane), attempt.spent.map(|spent| spent.key)].into_iter().flatten().collect();
        let mut rows = Rows::new(store::lock(tx, &keys, now).await?, now);
        let row = rows.of(lane);
        row.land();
        row.spend(self.failures_of_account, now);
        let begins_delays = row.fail(now);
        let is_day_spent = row.is_newly_spent(self.failures_of_account, now);
        let is_address_spent =
            attempt.spent.is_some_and(|spent| rows.of(spent.key).is_newly_spent(Some(spent.rate), now));
        store::put(tx, rows.touched()).await?;
        for (is_spent, budget, user_id) in
            [(begins_delays, DELAY, user_id), (is_day_spent, OF_ACCOUNT, user_id), (is_address_spent, OF_ADDRESS, None)]
        {
            if is_spent {
                report(tx, budget, user_id, origin, now).await?;
            }
        }
        Ok(())
    }

    /// Settles a success within the caller's transaction, which holds the user's row: the lane that it came through is as new, the
    /// unit is given back, and the user is known at the address.
    pub async fn succeeded(
        &self,
        tx: &impl ConnectionTrait,
        attempt: &Attempt,
        user_id: i64,
        now: DateTime<Utc>,
    ) -> Result<(), DbErr> {
        let Some(lane) = attempt.lane else { return Ok(()) };
        let is_new = attempt.known.is_some_and(|known| known != lane);
        let keys = [Some(lane), attempt.known.filter(|_| is_new), attempt.spent.map(|spent| spent.key)];
        let keys: Vec<_> = keys.into_iter().flatten().collect();
        let mut rows = Rows::new(store::lock(tx, &keys, now).await?, now);
        rows.of(lane).land();
        rows.of(lane).succeed(now);
        if let Some((known, time)) = attempt.known.zip(self.known_for) {
            let row = rows.of(known);
            row.user_id = Some(user_id);
            row.known_until = Some(now + time);
        }
        if let Some(spent) = attempt.spent {
            rows.of(spent.key).give_back(Some(spent.rate));
        }
        store::put(tx, rows.touched()).await?;
        if is_new {
            store::forget_addresses(tx, user_id, ADDRESSES).await?;
        }
        Ok(())
    }

    /// Settles an attempt that neither failed nor succeeded. What cannot be given back now comes back by itself.
    pub async fn give_back(&self, attempt: Attempt, now: DateTime<Utc>) {
        let keys: Vec<_> = [attempt.lane, attempt.spent.map(|spent| spent.key)].into_iter().flatten().collect();
        if keys.is_empty() {
            return;
        }
        let given_back = async {
            let tx = self.db.begin().await?;
            let mut rows = Rows::new(store::lock(&tx, &keys, now).await?, now);
            if let Some(lane) = attempt.lane {
                rows.of(lane).land();
            }
            if let Some(spent) = attempt.spent {
                rows.of(spent.key).give_back(Some(spent.rate));
            }
            store::put(&tx, rows.touched()).await?;
            tx.commit().await
        };
        if let Err(error) = given_back.await {
            tracing::warn!(error = %error, "an attempt was not given back");
        }
    }

    /// Audits once an hour that everybody's budget is spent.
    pub(super) async fn report_everybody(&self, budget: &Everybody, origin: &Origin) {
        let reported = async {
            // Before, and not in one transaction: none holds this row.
            if !store::set_reported(&self.db, budget).await? {
                return Ok(());
            }
            let tx = self.db.begin().await?;
            report(&tx, EVERYBODY, None, origin, budget.now).await?;
            tx.commit().await
        };
        if let Err::<(), DbErr>(error) = reported.await {
            tracing::warn!(error = %error, "the spent budget of everybody was not audited");
        }
    }
}

/// Forgets where the user is known, and the budgets of these addresses.
pub async fn forget(tx: &impl ConnectionTrait, user_id: i64) -> Result<(), DbErr> {
    store::forget_user(tx, user_id).await
}

/// Writes down that a budget is spent; it is named as its setting is.
pub(super) async fn report(
    tx: &Transaction,
    budget: &str,
    user_id: Option<i64>,
    origin: &Origin,
    now: DateTime<Utc>,
) -> Result<(), DbErr> {
    let details = Some(json!({"budget": budget}));
    audit::record(tx, now, Event::BudgetSpent, Entry { user_id, session_id: None, origin: Some(origin), details }).await
}
