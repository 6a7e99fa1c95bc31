//! Ending sessions: one, by its token or its id, or all of a user's.

use chrono::{DateTime, Utc};
use sea_orm::{ConnectionTrait, DbErr};
use uuid::Uuid;

use super::{Error, Reason, Sessions, store};
use crate::audit::{self, Entry, Event, Origin};

impl Sessions {
    /// Ends the session of a refresh token, also of an older or expired one: whoever holds it may end it. Does nothing when
    /// the session has ended already or the token is not its own.
    pub async fn logout(&self, token: &str, origin: &Origin, now: DateTime<Utc>) -> Result<(), Error> {
        let token = self.tokens.verify_refresh(token, now).await?;
        let Some(_) = token.jti else {
            return Err(Error::Token(crate::tokens::Error::Malformed));
        };
        let Some(family) = store::family(self.db.reader(), token.family_id).await? else {
            return Ok(());
        };
        if family.revoked_at.is_some() || family.proven_generation(&token).is_none() {
            return Ok(());
        }
        self.end(family.user_id, family.session_id, origin, now).await.map(|_| ())
    }

    /// Ends one live session of the user.
    pub async fn end_own(&self, user_id: i64, id: Uuid, origin: &Origin, now: DateTime<Utc>) -> Result<(), Error> {
        let is_live = store::is_live(self.db.reader(), user_id, id, now).await?;
        if is_live && self.end(user_id, id, origin, now).await? { Ok(()) } else { Err(Error::NotFound) }
    }

    async fn end(&self, user_id: i64, id: Uuid, origin: &Origin, now: DateTime<Utc>) -> Result<bool, Error> {
        let tx = self.db.begin().await?;
        let has_ended = store::end_session(&tx, id, Reason::UserLogout, now).await?;
        if has_ended {
            let entry = Entry { user_id: Some(user_id), session_id: Some(id), origin: Some(origin), details: None };
            audit::record(&tx, now, Event::LoggedOut, entry).await?;
        }
        tx.commit().await?;
        Ok(has_ended)
    }
}

/// Ends every session of a user within the caller's transaction, which holds the user's row.
pub async fn end_all(tx: &impl ConnectionTrait, user_id: i64, reason: Reason, now: DateTime<Utc>) -> Result<(), DbErr> {
    store::end_sessions_of(tx, user_id, reason, now).await
}

/// Ends every session there is within the caller's transaction, which may take long, and returns how many ended.
pub async fn end_everybody(tx: &impl ConnectionTrait, now: DateTime<Utc>) -> Result<u64, DbErr> {
    store::end_every_session(tx, Reason::DatabaseRestored, now).await
}
