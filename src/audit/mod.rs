//! What happened, written in the same transaction as what it tells, so that nothing happens unseen and nothing is told that did
//! not happen. Rows outlive the users they speak of, until their time is over. docs/audit.md tells of every event.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr, Iterable as _};
use serde_json::json;
use uuid::Uuid;

use crate::db::Transaction;
use crate::entity::audit_event;

mod store;
mod trail;

pub use audit_event::Model as Recorded;
pub use trail::{Error, Filter, Trail};

/// The device behind a request, as sessions and audit rows keep it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; `None` when it is unknown.
    pub ip_address: Option<IpAddr>,
    /// The User-Agent header, at most 255 characters; empty when absent.
    pub user_agent: String,
}

/// What can happen. Each has a row in docs/audit.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sea_orm::EnumIter)]
pub enum Event {
    /// A user was registered.
    UserRegistered,
    /// Somebody signed in.
    SignedIn,
    /// A session was ended by its owner.
    LoggedOut,
    /// Every session of a user was ended by its owner.
    LoggedOutEverywhere,
    /// The oldest session was ended, because the user may have no more.
    SessionCapReached,
    /// A refresh token was sent again within the retry window from another address or user agent.
    RefreshRetry,
    /// An older refresh token was used: the session ended.
    RefreshReuse,
    /// A refresh token is newer than the database: it was restored, or lost commits. The session ended.
    RefreshFromTheFuture,
    /// A password was set by an operator.
    PasswordSet,
    /// A user was deactivated by an operator.
    UserDeactivated,
    /// A user was activated by an operator.
    UserActivated,
    /// The database of the FastAPI service was taken over.
    DatabaseAdopted,
    /// A backup was restored.
    DatabaseRestored,
    /// A restored database was accepted by an operator.
    AfterRestore,
    /// A key came into the ring.
    KeyAdded,
    /// An announced key signs earlier than it was planned.
    KeyBroughtForward,
    /// A key that cannot be opened ended, and its predecessor goes on.
    KeyDismissed,
    /// A key was revoked by an operator.
    KeyRevoked,
    /// The private half of a key that is gone was forgotten.
    KeyForgotten,
    /// Keys were sealed with the current key-encryption key.
    KeysResealed,
    /// A password was wrong, or the address nobody's: only a known user is named, never what was typed.
    SignInFailed,
    /// A budget was spent; told once until it has been full again, and of everybody's once an hour.
    BudgetSpent,
}

impl Event {
    /// Every event.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }

    /// The event of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::iter().find(|event| event.name() == name)
    }

    /// The word for it, in the table and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::UserRegistered => "user_registered",
            Self::SignedIn => "signed_in",
            Self::LoggedOut => "logged_out",
            Self::LoggedOutEverywhere => "logged_out_everywhere",
            Self::SessionCapReached => "session_cap_reached",
            Self::RefreshRetry => "refresh_retry",
            Self::RefreshReuse => "refresh_reuse",
            Self::RefreshFromTheFuture => "refresh_from_the_future",
            Self::PasswordSet => "password_set",
            Self::UserDeactivated => "user_deactivated",
            Self::UserActivated => "user_activated",
            Self::DatabaseAdopted => "database_adopted",
            Self::DatabaseRestored => "database_restored",
            Self::AfterRestore => "after_restore",
            Self::KeyAdded => "key_added",
            Self::KeyBroughtForward => "key_brought_forward",
            Self::KeyDismissed => "key_dismissed",
            Self::KeyRevoked => "key_revoked",
            Self::KeyForgotten => "key_forgotten",
            Self::KeysResealed => "keys_resealed",
            Self::SignInFailed => "sign_in_failed",
            Self::BudgetSpent => "budget_spent",
        }
    }
}

/// Who does what no request asks for; `by` in the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// Somebody with the command line.
    Operator,
    /// The server, when it is time or something is amiss.
    Server,
}

impl Actor {
    /// Says in the details, a JSON object, who did it.
    #[must_use]
    pub fn of(self, mut details: serde_json::Value) -> serde_json::Value {
        details["by"] = json!(match self {
            Self::Operator => "operator",
            Self::Server => "server",
        });
        details
    }
}

/// One row, before it is written.
#[derive(Debug, Clone, Default)]
pub struct Entry<'a> {
    /// Whom it concerns.
    pub user_id: Option<i64>,
    /// Which session it concerns.
    pub session_id: Option<Uuid>,
    /// Where the request came from; `None` for what an operator or the server itself did.
    pub origin: Option<&'a Origin>,
    /// Anything else worth keeping; never a secret.
    pub details: Option<serde_json::Value>,
}

/// Writes one row within the caller's transaction, and counts it when that is committed.
pub async fn record(tx: &Transaction, now: DateTime<Utc>, event: Event, entry: Entry<'_>) -> Result<(), DbErr> {
    store::insert(tx, now, event, entry).await?;
    tx.count(tx.metrics().audit_events.of(event.name()));
    Ok(())
}

/// As `record`, for commands whose transaction is that of a migration and which nobody asks for metrics.
pub async fn record_uncounted(
    tx: &impl ConnectionTrait,
    now: DateTime<Utc>,
    event: Event,
    entry: Entry<'_>,
) -> Result<(), DbErr> {
    store::insert(tx, now, event, entry).await
}
