//! Letting a guess at a password in.

use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::everybody::Everybody;
use super::gate::{Gate, Refusal, Rows};
use super::subject::Subjects;
use super::{Attempt, DELAY, Error, Limits, OF_ADDRESS, Spent, store};
use crate::audit::Origin;
use crate::clock::Clock;

/// How long a sign-in waits for others of its account that are being verified, and how often it looks.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

impl Limits {
    /// Lets a guess at the password of an account in, or says when to come again; `account` is whatever names it, also one that is
    /// nobody's. While others of the account are in flight it waits for what becomes of them: devices of one person that
    /// start together are not refused, guesses that start together are.
    pub async fn sign_in(&self, account: &str, origin: &Origin, clock: &dyn Clock) -> Result<Attempt, Error> {
        if !self.is_enabled {
            return Ok(Attempt::default());
        }
        let subjects = Subjects::of(account, origin.ip_address);
        let started = Instant::now();
        let mut place = None;
        loop {
            match self.begin(&subjects, origin, clock.now()).await {
                Err(Refusal::Crowded(_)) if started.elapsed() < PATIENCE => {}
                begun => return begun.map_err(|refusal| self.refused(refusal)),
            }
            if place.is_none() {
                let acquired = self.waiting.try_acquire();
                place = Some(acquired.map_err(|_| self.refused(Refusal::Crowded(DELAY)))?);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn begin(&self, subjects: &Subjects, origin: &Origin, now: DateTime<Utc>) -> Result<Attempt, Refusal> {
        let everybody = Everybody::at(self.sign_ins_per_second, now);
        let keys = [Some(subjects.account), subjects.known, subjects.address, everybody.map(|budget| budget.key)];
        let read = store::rows(self.db.reader(), keys.into_iter().flatten().collect()).await?;
        let mut rows = Rows::new(read, now);
        let known = subjects.known.filter(|_| self.known_for.is_some());
        let lane = known.filter(|key| rows.of(*key).known_until.is_some());
        let address = subjects.address.zip(self.failures_of_address);
        let gate = Gate {
            lane: Some(lane.unwrap_or(subjects.account)),
            is_known: lane.is_some(),
            address: address.map(|(key, rate)| Spent { key, rate, budget: OF_ADDRESS }),
            // Strangers in any number leave room for those who are known.
            everybody: everybody.map(|budget| if lane.is_some() { budget.with_reserve() } else { budget }),
        };
        gate.enter(self, rows, origin).await?;
        Ok(Attempt { lane: gate.lane, known, spent: gate.address })
    }
}
