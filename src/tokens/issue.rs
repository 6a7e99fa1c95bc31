//! What stands in the tokens that we issue.

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

use super::{Error, Grant, Kind, RefreshGrant, Tokens, jws};
use crate::config::Profile;
use crate::keys::Key;
use crate::random;

impl Tokens {
    /// The seed's claims in the seed's order, then those of RFC 9068 2.2. Times are whole seconds: some verifiers refuse others.
    pub(super) fn access(
        &self,
        signer: &Key,
        grant: &Grant,
        now: DateTime<Utc>,
        expires_at: DateTime<Utc>,
    ) -> Result<SecretString, Error> {
        let mut claims = self.common(grant, &self.settings.access_type, now, expires_at);
        if self.settings.profile == Profile::Standard {
            claims.insert("iss".to_owned(), json!(self.issuer));
            claims.insert("sub".to_owned(), json!(grant.subject));
            claims.insert("aud".to_owned(), json!(self.audience));
            claims.insert("jti".to_owned(), json!(random::uuid()?));
            claims.insert("client_id".to_owned(), json!(grant.client_id));
            claims.insert("scope".to_owned(), json!(grant.scope));
            claims.insert("auth_time".to_owned(), json!(grant.auth_time.timestamp()));
        }
        jws::sign(signer, Kind::Access, &claims)
    }

    /// Depends on nothing but its arguments, so that a retry gets the same bytes.
    pub(super) fn refresh(&self, signer: &Key, grant: &Grant, refresh: &RefreshGrant) -> Result<SecretString, Error> {
        let mut claims = self.common(grant, &self.settings.refresh_type, refresh.issued_at, refresh.expires_at);
        claims.insert("fam".to_owned(), json!(refresh.family_id));
        claims.insert("jti".to_owned(), json!(refresh.jti));
        claims.insert("gen".to_owned(), json!(refresh.generation));
        claims.insert("iss".to_owned(), json!(self.issuer));
        claims.insert("sub".to_owned(), json!(grant.subject));
        claims.insert("aud".to_owned(), json!(self.refresh_audience));
        jws::sign(signer, Kind::Refresh, &claims)
    }

    fn common(&self, grant: &Grant, kind: &str, iat: DateTime<Utc>, exp: DateTime<Utc>) -> Map<String, Value> {
        let mut claims = Map::new();
        claims.insert("user_id".to_owned(), json!(grant.user_id));
        claims.insert(self.settings.type_claim.clone(), json!(kind));
        claims.insert("iat".to_owned(), json!(iat.timestamp()));
        claims.insert("exp".to_owned(), json!(exp.timestamp()));
        claims.insert("sid".to_owned(), json!(grant.session_id));
        claims
    }
}
