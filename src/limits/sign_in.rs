//! Letting a guess at a password in.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;
use tokio::time::Instant;

use super::budget::Verdict;
use super::gate::{Gate, Rows};
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
            match self.begin(&subjects, clock.now()).await? {
                Ok(attempt) => return Ok(attempt),
                Err((Verdict::Closed(wait), budget)) => return Err(self.refused(budget, wait)),
                Err((_, budget)) if started.elapsed() >= PATIENCE => {
                    return Err(self.refused(budget, TimeDelta::zero()));
                }
                Err(_) => {}
            }
            if place.is_none() {
                let acquired = self.waiting.try_acquire();
                place = Some(acquired.map_err(|_| self.refused(DELAY, TimeDelta::zero()))?);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// `Ok(Err(_))` is a refusal.
    async fn begin(
        &self,
        subjects: &Subjects,
        now: DateTime<Utc>,
    ) -> Result<Result<Attempt, (Verdict, &'static str)>, DbErr> {
        let everybody = self.of_everybody();
        let keys = [Some(subjects.account), subjects.known, subjects.address, everybody.map(|spent| spent.key)];
        let read = store::rows(self.db.reader(), keys.into_iter().flatten().collect()).await?;
        let mut rows = Rows::new(read, now);
        let known = subjects.known.filter(|_| self.known_for.is_some());
        let lane = known.filter(|key| rows.of(*key).known_until.is_some());
        let gate = Gate {
            lane: Some(lane.unwrap_or(subjects.account)),
            is_known: lane.is_some(),
            address: subjects.address.zip(self.failures_of_address).map(|(key, rate)| Spent {
                key,
                rate,
                budget: OF_ADDRESS,
            }),
            // Strangers in any number leave room for those who are known.
            everybody: everybody
                .map(|spent| if lane.is_some() { Spent { rate: spent.rate.with_reserve(), ..spent } } else { spent }),
        };
        // Most refusals end here, having locked nothing.
        let judged = gate.verdict(&mut rows, self.failures_of_account);
        if judged.0 != Verdict::Open {
            return Ok(Err(judged));
        }
        let tx = self.db.begin().await?;
        let mut rows = Rows::new(store::lock(&tx, &gate.keys(), now).await?, now);
        let judged = gate.verdict(&mut rows, self.failures_of_account);
        if judged.0 != Verdict::Open {
            return Ok(Err(judged));
        }
        gate.pass(&mut rows);
        store::put(&tx, rows.touched()).await?;
        tx.commit().await?;
        Ok(Ok(gate.attempt(known)))
    }
}
