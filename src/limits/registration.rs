//! Letting a registration in.

use chrono::{DateTime, Utc};

use super::everybody::Everybody;
use super::gate::{Gate, Rows};
use super::{Attempt, Error, Limits, REGISTRATIONS, Spent, store, subject};
use crate::audit::Origin;

impl Limits {
    /// Lets a registration in, or says when to come again. One that then neither makes an account nor finds the address taken
    /// is to be given back.
    pub async fn registration(&self, origin: &Origin, now: DateTime<Utc>) -> Result<Attempt, Error> {
        let address = subject::registrations(origin.ip_address).zip(self.registrations);
        let address = address.map(|(key, rate)| Spent { key, rate, budget: REGISTRATIONS });
        let everybody = Everybody::at(self.sign_ins_per_second, now);
        let keys: Vec<_> =
            [address.map(|spent| spent.key), everybody.map(|budget| budget.key)].into_iter().flatten().collect();
        if !self.is_enabled || keys.is_empty() {
            return Ok(Attempt::default());
        }
        let rows = Rows::new(store::rows(self.db.reader(), keys).await?, now);
        let gate = Gate { lane: None, is_known: false, address, everybody };
        gate.enter(self, rows, origin).await.map_err(|refusal| self.refused(refusal))?;
        Ok(Attempt { lane: None, known: None, spent: address })
    }
}
