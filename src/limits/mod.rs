//! Limits of sign-in and registration: how often, in budgets that replicas share in the database.
//!
//! A sign-in is let in before its password is hashed and settled afterwards; in between no connection is held, and what was let in
//! counts as a failure. Three budgets: the account's (delays, and so many failures a day), the address' (so many failures an hour)
//! and everybody's. An address that the account is known at has an account's budget of its own, so that a stranger cannot keep the
//! owner out ([decision 11](../../docs/decisions/0011-delays-and-budgets.md)).
//!
//! Invariants: a refusal leaves nothing behind; a failure is committed before it is answered; no transaction holds the row of
//! everybody; a row names nobody but the user who is known at an address; every row expires. Knows no passwords, sessions or HTTP.

use chrono::TimeDelta;
use sea_orm::DbErr;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::config;
use crate::db::Db;

mod budget;
mod everybody;
mod gate;
mod registration;
mod settle;
mod sign_in;
mod store;
mod subject;
mod sweep;

use budget::Rate;
use gate::Refusal;
pub use settle::forget;

/// How many sign-ins of crowded accounts a replica lets wait.
const WAITING: usize = 64;

/// Why an attempt may not begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A budget is spent.
    #[error("too many attempts")]
    RateLimited {
        /// Seconds until the next one may come.
        retry_after: u64,
    },
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
}

/// The lane's delay, which no setting has the name of.
const DELAY: &str = "guesses_without_delay";
const OF_ACCOUNT: &str = "sign_in_failures_per_account_per_day";
const OF_ADDRESS: &str = "sign_in_failures_per_address_per_hour";
const REGISTRATIONS: &str = "registrations_per_address_per_hour";
const EVERYBODY: &str = "sign_ins_per_second";

impl Error {
    fn after(wait: TimeDelta) -> Self {
        // Rounded up: who comes back in time is let in.
        let seconds = wait.num_seconds() + i64::from(wait.subsec_nanos() > 0);
        Self::RateLimited { retry_after: u64::try_from(seconds).unwrap_or(0).max(1) }
    }
}

/// An attempt that was let in, with what was spent on it.
#[derive(Debug, Default)]
#[must_use = "an attempt that is not settled counts as a failure for a while"]
pub struct Attempt {
    /// Whose guess it is.
    lane: Option<Uuid>,
    /// The account at the address that the attempt came from.
    known: Option<Uuid>,
    /// What a unit was spent of.
    spent: Option<Spent>,
}

/// A unit of a budget.
#[derive(Debug, Clone, Copy)]
struct Spent {
    key: Uuid,
    rate: Rate,
    /// The name of its setting.
    budget: &'static str,
}

/// The budgets, as they are set.
#[derive(Debug)]
pub struct Limits {
    db: Db,
    is_enabled: bool,
    failures_of_account: Option<Rate>,
    failures_of_address: Option<Rate>,
    registrations: Option<Rate>,
    sign_ins_per_second: u32,
    known_for: Option<TimeDelta>,
    waiting: Semaphore,
}

impl Limits {
    /// Reads its settings from the configuration.
    #[must_use]
    pub fn new(db: Db, config: &config::Limits) -> Self {
        let known_for = Some(TimeDelta::days(config.known_address_days.into())).filter(|time| !time.is_zero());
        Self {
            db,
            is_enabled: config.enabled,
            failures_of_account: Rate::new(config.sign_in_failures_per_account_per_day, TimeDelta::days(1)),
            failures_of_address: Rate::new(config.sign_in_failures_per_address_per_hour, TimeDelta::hours(1)),
            registrations: Rate::new(config.registrations_per_address_per_hour, TimeDelta::hours(1)),
            sign_ins_per_second: config.sign_ins_per_second,
            known_for,
            waiting: Semaphore::new(WAITING),
        }
    }

    /// Counts a refusal, and says when to come again.
    fn refused(&self, refusal: Refusal) -> Error {
        let (budget, wait) = match refusal {
            Refusal::Crowded(budget) => (budget, TimeDelta::zero()),
            Refusal::Closed(budget, wait) => (budget, wait),
            Refusal::Storage(error) => return error.into(),
        };
        self.db.metrics().rate_limited.count(budget);
        Error::after(wait)
    }
}
