//! Sessions: one sign-in on one device, and the family of refresh tokens that keeps it alive.
//!
//! Invariants: one row per family, whatever happens; a generation is taken by one statement; what ends a session is committed
//! before the refusal is answered; rows are locked in the order users, sessions, families. Knows no passwords and no HTTP.

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;
use uuid::Uuid;

use crate::config::{self, Config};
use crate::db::Db;
use crate::tokens::{self, Tokens};

mod end;
mod family;
mod limit;
mod open;
mod outage;
mod rotate;
mod store;
mod sweep;

pub use end::{end_all, end_everybody};
pub use open::Opened;
pub use outage::{Uptime, uptime};
pub use sweep::{Swept, sweep};

/// Why a session cannot go on. `Dead`, `Inactive`, `Expired`, `Reused` and `FromTheFuture` are final; the client signs in again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such family, or it has ended, or the token is not its own.
    #[error("no live session belongs to the token")]
    Dead,
    /// The user is deactivated, which a refresh tells nobody.
    #[error("the user is inactive")]
    Inactive,
    /// Not refreshed in time, or past the absolute end.
    #[error("the session has expired")]
    Expired,
    /// An older token was used (RFC 9700 4.14.2). The session is ended and committed.
    #[error("an older refresh token was used")]
    Reused,
    /// The token is newer than the database. The session is ended and committed.
    #[error("the refresh token is newer than the database")]
    FromTheFuture,
    /// Too many refreshes of one session.
    #[error("too many refreshes")]
    RateLimited {
        /// Seconds until the next one may come.
        retry_after: u64,
    },
    /// The user has no such live session.
    #[error("no such session")]
    NotFound,
    /// Others kept changing the row; the same token may be sent again.
    #[error("the session is contended")]
    Contended,
    /// The database answered with an error; the same token may be sent again.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
    /// A token could not be verified or issued.
    #[error(transparent)]
    Token(#[from] tokens::Error),
}

impl From<crate::random::Error> for Error {
    fn from(error: crate::random::Error) -> Self {
        Self::Token(error.into())
    }
}

impl Error {
    /// What became of a refresh, for those who count them.
    fn outcome(&self) -> &'static str {
        match self {
            Self::Dead | Self::NotFound => "ended",
            Self::Inactive => "inactive",
            Self::Expired => "expired",
            Self::Reused => "reused",
            Self::FromTheFuture => "future",
            Self::RateLimited { .. } => "rate_limited",
            Self::Token(tokens::Error::Keys(_) | tokens::Error::Random(_)) | Self::Contended | Self::Storage(_) => {
                "unavailable"
            }
            Self::Token(_) => "invalid",
        }
    }
}

/// Why a session ended, as the table keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Logout.
    UserLogout,
    /// Logout everywhere.
    UserLogoutAll,
    /// An older refresh token was used.
    ReuseDetected,
    /// A refresh token came from a future that the database does not know.
    FutureToken,
    /// The user has as many sessions as allowed.
    SessionCap,
    /// The password was set anew.
    PasswordChange,
    /// The user was deactivated.
    Deactivated,
    /// The database was restored: nobody knows whether the session had ended.
    DatabaseRestored,
}

impl Reason {
    fn label(self) -> &'static str {
        match self {
            Self::UserLogout => "USER_LOGOUT",
            Self::UserLogoutAll => "USER_LOGOUT_ALL",
            Self::ReuseDetected => "REUSE_DETECTED",
            Self::FutureToken => "FUTURE_TOKEN",
            Self::SessionCap => "SESSION_CAP",
            Self::PasswordChange => "PASSWORD_CHANGE",
            Self::Deactivated => "DEACTIVATED",
            Self::DatabaseRestored => "DATABASE_RESTORED",
        }
    }
}

/// A live session, as its owner sees it.
#[derive(Debug, Clone, PartialEq, Eq, sea_orm::FromQueryResult)]
pub struct Session {
    /// `sid`.
    pub id: Uuid,
    /// User-Agent at sign-in; empty when there was none.
    pub user_agent: String,
    /// Address at sign-in.
    pub ip_address: Option<String>,
    /// When it began.
    pub created_at: DateTime<Utc>,
    /// When it was last refreshed.
    pub last_seen_at: DateTime<Utc>,
}

/// The sessions of all users.
#[derive(Debug)]
pub struct Sessions {
    db: Db,
    tokens: Tokens,
    settings: config::Refresh,
    retention: TimeDelta,
    limit: Option<limit::PerSession>,
}

impl Sessions {
    /// Reads its settings from the configuration.
    #[must_use]
    pub fn new(db: Db, tokens: Tokens, config: &Config) -> Self {
        let limit = config.limits.enabled.then(|| limit::PerSession::new(config.limits.refreshes_per_minute));
        let retention = TimeDelta::days(config.cleanup.retention_days);
        Self { db, tokens, settings: config.refresh.clone(), retention, limit }
    }

    /// Lists the user's live sessions, the one seen last first; at most as many as a user may have, also where another service or
    /// a higher setting has left more.
    pub async fn list(&self, user_id: i64, now: DateTime<Utc>) -> Result<Vec<Session>, Error> {
        Ok(store::live_sessions(self.db.reader(), user_id, self.settings.max_sessions_per_user, now).await?)
    }
}
