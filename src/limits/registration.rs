//! Letting a registration in.

use chrono::{DateTime, TimeDelta, Utc};

use super::budget::Verdict;
use super::gate::{Gate, Rows};
use super::{Attempt, Error, Limits, REGISTRATIONS, Spent, store, subject};
use crate::audit::Origin;

impl Limits {
    /// Lets a registration in, or says when to come again. One that then neither makes an account nor finds the address taken
    /// is to be given back.
    pub async fn registration(&self, origin: &Origin, now: DateTime<Utc>) -> Result<Attempt, Error> {
        let address = subject::registrations(origin.ip_address).zip(self.registrations);
        let address = address.map(|(key, rate)| Spent { key, rate, budget: REGISTRATIONS });
        let everybody = self.of_everybody();
        let gate = Gate { lane: None, is_known: false, address, everybody };
        if !self.is_enabled || gate.keys().is_empty() {
            return Ok(Attempt::default());
        }
        let read = store::rows(self.db.reader(), gate.keys()).await?;
        self.admitted(gate.verdict(&mut Rows::new(read, now), None))?;
        let tx = self.db.begin().await?;
        let mut rows = Rows::new(store::lock(&tx, &gate.keys(), now).await?, now);
        self.admitted(gate.verdict(&mut rows, None))?;
        gate.pass(&mut rows);
        let is_spent = address.is_some_and(|spent| rows.of(spent.key).is_newly_spent(Some(spent.rate), now));
        store::put(&tx, rows.touched()).await?;
        if is_spent {
            super::settle::report(&tx, REGISTRATIONS, None, origin, now).await?;
        }
        tx.commit().await?;
        Ok(gate.attempt(None))
    }

    fn admitted(&self, (verdict, budget): (Verdict, &'static str)) -> Result<(), Error> {
        match verdict {
            Verdict::Open => Ok(()),
            Verdict::Crowded => Err(self.refused(budget, TimeDelta::zero())),
            Verdict::Closed(wait) => Err(self.refused(budget, wait)),
        }
    }
}
