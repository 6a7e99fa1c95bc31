//! Opening a session at sign-in.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::family::proof;
use super::store::{self, Family};
use super::{Error, Reason, Sessions};
use crate::audit::{self, Entry, Event, Origin};
use crate::db::Transaction;
use crate::random;
use crate::tokens::{Grant, Pair, RefreshGrant};

/// A session that has just been opened. Tokens are issued for it once it is committed.
#[derive(Debug)]
pub struct Opened(Family);

impl Opened {
    /// `sid`.
    #[must_use]
    pub fn session_id(&self) -> Uuid {
        self.0.session_id
    }
}

impl Sessions {
    /// Opens a session within the caller's transaction, which holds the user's row. Ends the least recently seen ones beyond the cap.
    pub async fn open(
        &self,
        tx: &Transaction,
        (user_id, subject): (i64, Uuid),
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Opened, Error> {
        for id in store::sessions_beyond_cap(tx, user_id, self.settings.max_sessions_per_user, now).await? {
            store::end_session(tx, id, Reason::SessionCap, now).await?;
            let entry = Entry { user_id: Some(user_id), session_id: Some(id), ..Entry::default() };
            audit::record(tx, now, Event::SessionCapReached, entry).await?;
        }
        let absolute_end = now + TimeDelta::seconds(self.settings.absolute_ttl_seconds);
        let (client_id, scope) = self.tokens.own_client();
        let family = Family {
            family_id: random::uuid()?,
            session_id: random::uuid()?,
            user_id,
            client_id: client_id.to_owned(),
            scope: scope.to_owned(),
            generation: 0,
            family_secret: random::bytes::<32>()?.to_vec(),
            key_id: self.tokens.refresh_key_id(now)?,
            rotated_at: now,
            idle_end: absolute_end.min(now + TimeDelta::seconds(self.settings.idle_ttl_seconds)),
            absolute_end,
            revoked_at: None,
            legacy_hash: None,
            subject,
            is_active: true,
            auth_time: now,
            user_agent: origin.user_agent.clone(),
            ip_address: origin.ip_address.map(|address| address.to_string()),
        };
        store::insert_session(tx, &family).await?;
        Ok(Opened(family))
    }

    /// Issues the first tokens of a committed session.
    pub async fn first_tokens(&self, opened: &Opened, now: DateTime<Utc>) -> Result<Pair, Error> {
        self.issue(&opened.0, now).await
    }

    /// Issues an access token and the refresh token of the family's current generation. Holds no connection.
    pub(super) async fn issue(&self, family: &Family, now: DateTime<Utc>) -> Result<Pair, Error> {
        let grant = Grant {
            user_id: family.user_id,
            subject: family.subject,
            session_id: family.session_id,
            client_id: family.client_id.clone(),
            scope: family.scope.clone(),
            auth_time: family.auth_time,
            absolute_end: family.absolute_end,
        };
        let refresh = RefreshGrant {
            family_id: family.family_id,
            jti: proof(&family.family_secret, family.generation),
            generation: family.generation,
            issued_at: family.rotated_at,
            expires_at: family.idle_end,
            key_id: family.key_id.clone(),
        };
        Ok(self.tokens.pair(&grant, &refresh, now).await?)
    }
}
