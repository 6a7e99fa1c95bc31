//! Tokens of the FastAPI service whose database was taken over: `typ: JWT`, no `kid`, its bare claims.

use chrono::{DateTime, Utc};

use super::claims::{AccessClaims, RefreshClaims};
use super::jws::Token;
use super::verify::{text, time, user_id, uuid};
use super::{Error, Tokens};
use crate::keys::Adoption;

impl Tokens {
    /// An old access token works on our endpoints until it expires, if it was issued before the takeover.
    pub(super) fn legacy_access_claims(
        &self,
        token: &Token,
        adoption: &Adoption,
        now: DateTime<Utc>,
    ) -> Result<AccessClaims, Error> {
        self.check_times(&token.claims, now)?;
        self.check_legacy_kind(token, &self.settings.access_type)?;
        if time(&token.claims, "iat", "")? > adoption.adopted_at.timestamp() {
            return Err(Error::Invalid("The token was issued after the takeover"));
        }
        let session_id = uuid(&token.claims, "sid").ok_or(Error::Invalid("The sid claim is missing or invalid"))?;
        Ok(AccessClaims { user_id: user_id(&token.claims)?, subject: None, session_id })
    }

    /// An old refresh token is known by its hash: its family's row keeps that of the only one that was still good.
    pub(super) fn legacy_refresh_claims(&self, token: &Token, compact: &str) -> Result<RefreshClaims, Error> {
        self.check_legacy_kind(token, &self.settings.refresh_type)?;
        let (Some(session_id), Some(family_id)) = (uuid(&token.claims, "sid"), uuid(&token.claims, "fam")) else {
            return Err(Error::Malformed);
        };
        Ok(RefreshClaims {
            session_id: Some(session_id),
            family_id,
            jti: uuid(&token.claims, "jti"),
            generation: None,
            legacy_hash: Some(openssl::sha::sha256(compact.as_bytes())),
        })
    }

    fn check_legacy_kind(&self, token: &Token, expected: &str) -> Result<(), Error> {
        if token.media_type != "jwt" {
            return Err(Error::Invalid("The typ of the token is not allowed"));
        }
        if text(&token.claims, &self.settings.type_claim) == Some(expected) { Ok(()) } else { Err(Error::WrongKind) }
    }
}
