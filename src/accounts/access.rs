//! Who a request with an access token comes from, and what they do with all their sessions.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Accounts, Error, User, store};
use crate::audit::{self, Entry, Event, Origin};
use crate::sessions::{self, Reason};

/// The user and session behind an access token.
pub struct Caller {
    /// The user, as the row is now.
    pub user: User,
    /// `sid` of the token.
    pub session_id: Uuid,
}

impl Accounts {
    /// Verifies an access token and looks its user and session up: one SELECT, no cache, so that an ended session or a changed row
    /// counts from the next request.
    pub async fn caller(&self, token: &str, now: DateTime<Utc>) -> Result<Caller, Error> {
        let claims = self.tokens.verify_access(token, now).await?;
        let found = store::user_in_session(self.db.reader(), claims.user_id, claims.session_id).await?;
        let (user, is_live) = found.ok_or(Error::NotFound)?;
        if claims.subject.is_some_and(|subject| subject != user.subject) {
            return Err(Error::SessionEnded);
        }
        if !user.is_active {
            return Err(Error::Inactive);
        }
        if !is_live {
            return Err(Error::SessionEnded);
        }
        Ok(Caller { user, session_id: claims.session_id })
    }

    /// Ends every session of the caller.
    pub async fn log_out_everywhere(&self, caller: &Caller, origin: &Origin, now: DateTime<Utc>) -> Result<(), Error> {
        let tx = self.db.begin().await?;
        store::lock_user(&tx, caller.user.id).await?;
        sessions::end_all(&tx, caller.user.id, Reason::UserLogoutAll, now).await?;
        let entry = Entry {
            user_id: Some(caller.user.id),
            session_id: Some(caller.session_id),
            origin: Some(origin),
            details: None,
        };
        audit::record(&tx, now, Event::LoggedOutEverywhere, entry).await?;
        tx.commit().await?;
        Ok(())
    }
}
