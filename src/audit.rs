//! What happened, written in the same transaction as what it tells. Rows outlive the users they speak of.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sea_orm::{ActiveValue::Set, ConnectionTrait, DbErr, EntityTrait as _};
use uuid::Uuid;

use crate::entity::audit_event::{ActiveModel, Entity};

/// The device behind a request, as sessions and audit rows keep it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; `None` when it is unknown.
    pub ip_address: Option<IpAddr>,
    /// The User-Agent header, at most 255 characters; empty when absent.
    pub user_agent: String,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// A key came into the ring.
    KeyAdded,
    /// An announced key signs earlier than it was planned.
    KeyBroughtForward,
    /// A key was revoked by an operator.
    KeyRevoked,
    /// The private half of a key that is gone was forgotten.
    KeyForgotten,
    /// Keys were sealed with the current key-encryption key.
    KeysResealed,
}

impl Event {
    fn name(self) -> &'static str {
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
            Self::KeyAdded => "key_added",
            Self::KeyBroughtForward => "key_brought_forward",
            Self::KeyRevoked => "key_revoked",
            Self::KeyForgotten => "key_forgotten",
            Self::KeysResealed => "keys_resealed",
        }
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

/// Writes one row within the caller's transaction.
pub async fn record(
    tx: &impl ConnectionTrait,
    now: DateTime<Utc>,
    event: Event,
    entry: Entry<'_>,
) -> Result<(), DbErr> {
    let row = ActiveModel {
        at: Set(now),
        event: Set(event.name().to_owned()),
        user_id: Set(entry.user_id),
        session_id: Set(entry.session_id),
        ip_address: Set(entry.origin.and_then(|origin| origin.ip_address).map(|address| address.to_string())),
        user_agent: Set(entry.origin.map(|origin| origin.user_agent.clone())),
        details: Set(entry.details.map(|details| details.to_string())),
        ..Default::default()
    };
    Entity::insert(row).exec_without_returning(tx).await?;
    Ok(())
}
