//! What happened in a run: counts of what is fine, and every broken promise with what is known of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proofs::times::Times;

use crate::report::say;

/// A promise to the clients that was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Breach {
    /// The newest token of a session that nobody ended was refused.
    LostSession,
    /// The same, and the refusal called its owner a thief.
    FalseTheft,
    /// Two successors of one token, or a generation that is not the number of tokens.
    Fork,
    /// A token was accepted that is older than any retry.
    MissedTheft,
    /// An answer that no promise allows.
    ForbiddenAnswer,
    /// The right status with the wrong body or headers.
    WrongShape,
    /// Something that was acknowledged is gone.
    LostWrite,
    /// An access token that a resource server would refuse.
    Unverified,
    /// A row that may not be.
    Invariant,
    /// A panic in the logs.
    Panic,
    /// A secret in the logs.
    Secret,
}

impl Breach {
    fn label(self) -> &'static str {
        match self {
            Self::LostSession => "lost sessions",
            Self::FalseTheft => "false thefts",
            Self::Fork => "forks",
            Self::MissedTheft => "missed thefts",
            Self::ForbiddenAnswer => "forbidden answers",
            Self::WrongShape => "wrong shapes",
            Self::LostWrite => "lost writes",
            Self::Unverified => "tokens not verified",
            Self::Invariant => "broken invariants",
            Self::Panic => "panics",
            Self::Secret => "secrets in logs",
        }
    }
}

#[derive(Debug, Default)]
struct Entries {
    counts: BTreeMap<&'static str, u64>,
    breaches: BTreeMap<Breach, u64>,
    /// Of the first answers that did not come, why.
    lost: Vec<String>,
    /// Answers of refreshes: when they came is when the fault was.
    times: Times,
    /// The newest generation that was acknowledged, by family.
    acknowledged: HashMap<String, i64>,
}

/// Shared by all clients of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Which run it belongs to.
    label: String,
    entries: Mutex<Entries>,
}

impl Ledger {
    pub(crate) fn new(fault: &str, engine: &str) -> Self {
        Self { label: format!("{fault} {engine}"), entries: Mutex::default() }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self, what: &'static str) {
        *self.entries().counts.entry(what).or_default() += 1;
    }

    pub(crate) fn counted(&self, what: &str) -> u64 {
        self.entries().counts.get(what).copied().unwrap_or_default()
    }

    /// Requests of clients with a session that were answered as asked.
    pub(crate) fn served(&self) -> u64 {
        ["rotations", "recovered", "same successors", "me"].iter().map(|what| self.counted(what)).sum()
    }

    /// Requests that a client which does not try again has lost.
    pub(crate) fn failed(&self) -> u64 {
        ["answers 503", "lost answers", "refused connections"].iter().map(|what| self.counted(what)).sum()
    }

    /// An answer did not come.
    pub(crate) fn lost(&self, trouble: &impl Display) {
        self.count("lost answers");
        let lost = &mut self.entries().lost;
        if lost.len() < 3 {
            lost.push(trouble.to_string());
        }
    }

    /// Why the first answers did not come.
    pub(crate) fn first_lost(&self) -> String {
        self.entries().lost.join("; ")
    }

    /// Notes a broken promise; the first ones of a kind are told at once.
    pub(crate) fn breach(&self, breach: Breach, text: &str) {
        let number = {
            let mut entries = self.entries();
            let number = entries.breaches.entry(breach).or_default();
            *number += 1;
            *number
        };
        if number <= 5 {
            say(&format!("    {} BROKEN {}: {text}", self.label, breach.label()));
        }
    }

    pub(crate) fn breaches(&self) -> u64 {
        self.entries().breaches.values().sum()
    }

    pub(crate) fn breaches_of(&self, breach: Breach) -> u64 {
        self.entries().breaches.get(&breach).copied().unwrap_or_default()
    }

    pub(crate) fn answered(&self, time: Duration) {
        self.entries().times.add(time);
    }

    /// Takes the times since the last call.
    pub(crate) fn take_times(&self) -> Times {
        std::mem::take(&mut self.entries().times)
    }

    /// A client holds the answer with this generation.
    pub(crate) fn acknowledge(&self, family: &str, generation: i64) {
        self.entries().acknowledged.insert(family.to_owned(), generation);
    }

    /// A session was ended: its row may be deleted from now on.
    pub(crate) fn forget(&self, family: &str) {
        self.entries().acknowledged.remove(family);
    }

    pub(crate) fn acknowledged(&self) -> HashMap<String, i64> {
        self.entries().acknowledged.clone()
    }

    /// Everything on a line: first what was done, then what was broken.
    pub(crate) fn summary(&self) -> String {
        let entries = self.entries();
        let counts = entries.counts.iter().map(|(what, count)| format!("{count} {what}"));
        let breaches = entries.breaches.iter().map(|(breach, count)| format!("{count} {}", breach.label()));
        let broken: Vec<String> = breaches.collect();
        let counts: Vec<String> = counts.collect();
        let end =
            if broken.is_empty() { "nothing broken".to_owned() } else { format!("BROKEN: {}", broken.join(", ")) };
        if counts.is_empty() { end } else { format!("{}; {end}", counts.join(", ")) }
    }
}
