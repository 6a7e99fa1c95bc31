//! What time does to the ring: a key that has signed for long enough gets a successor, plans follow longer lives of tokens, and what is
//! gone is forgotten.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::plan::{Fitness, Retirement, State};
use super::succession::{Succession, is_live, newest};
use super::{Error, Keyring, Purpose, store};
use crate::audit::Event;
use crate::entity::signing_key::Model;

/// The life of the keys that sign access tokens, at one moment.
#[derive(Debug, Clone)]
pub struct Signing {
    /// How many there are in each state that a published key can be in.
    pub counts: [(State, usize); 3],
    /// When the key that signs began to; `None` when none signs.
    pub since: Option<DateTime<Utc>>,
    /// When the next one begins to; `None` when none is planned.
    pub next: Option<DateTime<Utc>>,
}

impl Keyring {
    /// What becomes of the keys that sign access tokens, as far as they could be opened.
    #[must_use]
    pub fn signing(&self, now: DateTime<Utc>) -> Signing {
        let ring = self.current();
        let states: Vec<_> = ring.signing_plans().map(|plan| (plan.state(now), plan.signing_at)).collect();
        let of = |state| states.iter().filter(move |(is, _)| *is == state).map(|(_, signing_at)| *signing_at);
        let counts = [State::Announced, State::Signing, State::Retained].map(|state| (state, of(state).count()));
        let since = of(State::Signing).max();
        let announced = of(State::Announced).min();
        let due = || self.succession.schedule.succession(since?).map(|(_, successor_at)| successor_at);
        Signing { counts, since, next: announced.or_else(due) }
    }

    /// Does what is due; every replica may try, one does it. A killed one leaves it to the next.
    pub async fn upkeep(&self, now: DateTime<Utc>) -> Result<(), Error> {
        let reader = self.succession.db.reader();
        let (mut live, gone): (Vec<Model>, Vec<Model>) =
            store::keys(reader).await?.into_iter().partition(|row| is_live(row, now));
        for purpose in Purpose::ALL {
            if self.succession.settle(&live, purpose, None, now).await? {
                live = store::live_keys(reader, now).await?;
            }
            self.succession.rotate(&live, purpose, now).await?;
        }
        self.succession.extend(&live, now).await?;
        self.succession.forget(&gone, now).await?;
        self.poll(now).await;
        Ok(())
    }

    /// How often [`Keyring::upkeep`] must be done.
    #[must_use]
    pub fn upkeep_interval(&self) -> Duration {
        self.succession.schedule.interval().to_std().unwrap_or_default()
    }
}

impl Succession {
    /// Announces the successor of the newest key when that has signed for long enough.
    async fn rotate(&self, rows: &[Model], purpose: Purpose, now: DateTime<Utc>) -> Result<(), Error> {
        let Some(newest) = newest(rows, purpose) else {
            return Ok(());
        };
        let Some((announced_at, signing_at)) = self.schedule.succession(newest.signing_at) else {
            return Ok(());
        };
        if now < announced_at {
            return Ok(());
        }
        if now >= signing_at {
            let overdue = (now - signing_at).num_seconds();
            tracing::warn!(
                key.id = newest.kid,
                purpose = newest.purpose,
                overdue_seconds = overdue,
                "a rotation is overdue"
            );
        }
        if self.fitness(newest) == Fitness::Usable {
            let successor = self.make(purpose).await?;
            self.succeed(successor, &newest.kid, signing_at.max(now + self.schedule.announce), now).await?;
        }
        Ok(())
    }

    /// Tokens may live longer than when an end was planned: a key is published and kept until the last one is dead. Never shortens.
    async fn extend(&self, rows: &[Model], now: DateTime<Utc>) -> Result<(), Error> {
        if !rows.iter().any(|row| self.longer_end(row, now).is_some()) {
            return Ok(());
        }
        let (tx, rows) = self.begin(now).await?;
        for row in &rows {
            if let Some(end) = self.longer_end(row, now) {
                store::set_end(&tx, &row.kid, Some(end)).await?;
                tracing::info!(key.id = row.kid, gone_at = %end.gone_at, "a key is kept for longer than was planned");
            }
        }
        Ok(tx.commit().await?)
    }

    fn longer_end(&self, row: &Model, now: DateTime<Utc>) -> Option<Retirement> {
        let purpose = Purpose::named(&row.purpose)?;
        let mut end = self.schedule.retirement(purpose, row.retained_at?);
        // Nobody needs a key again that has left the set already.
        let is_published = row.unpublished_at.is_some_and(|at| at > now);
        end.unpublished_at = if is_published { end.unpublished_at.max(row.unpublished_at) } else { row.unpublished_at };
        end.gone_at = end.gone_at.max(row.gone_at?);
        let is_longer = end.unpublished_at > row.unpublished_at || Some(end.gone_at) > row.gone_at;
        is_longer.then_some(end)
    }

    /// Deletes keys that are gone. One that was revoked, or whose file may lie around still, leaves its kid, so that it is never imported
    /// again.
    async fn forget(&self, gone: &[Model], now: DateTime<Utc>) -> Result<(), Error> {
        let due: Vec<&Model> = gone.iter().filter(|row| !(leaves_kid(row) && row.sealed_private.is_empty())).collect();
        if due.is_empty() {
            return Ok(());
        }
        let tx = self.db.begin().await?;
        for row in due {
            let is_done = if leaves_kid(row) {
                store::wipe_key(&tx, &row.kid).await?
            } else {
                store::delete_key(&tx, &row.kid).await?
            };
            if is_done {
                self.record(&tx, now, Event::KeyForgotten, json!({"kid": row.kid, "purpose": row.purpose})).await?;
                tracing::info!(key.id = row.kid, purpose = row.purpose, "a key that is gone is forgotten");
            }
        }
        Ok(tx.commit().await?)
    }
}

fn leaves_kid(row: &Model) -> bool {
    row.is_imported || row.revoked_at.is_some()
}
