//! Tokens: every JWT that is issued or read. Owns claims and their validation; knows no sessions, no HTTP.
//!
//! Invariants: the algorithm is the key's, never the token's (RFC 8725 3.1); a kind of token is never taken for another (RFC 8725
//! 3.11); every claim is required, typed and bounded; `exp` has no leeway.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use uuid::Uuid;

use crate::config::{self, Config, RefreshFormat};
use crate::keys::{self, Adoption, AnyKey, Keyring};
use crate::telemetry::traces;

mod claims;
mod issue;
mod jws;
mod legacy;
mod opaque;
mod verify;
#[cfg(test)]
mod wycheproof;

pub use claims::{AccessClaims, RefreshClaims};

/// Why a token is not accepted or not issued. Each answer to a client is chosen by variant; texts hold no part of the token.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a token of ours: form, header, signature or claims.
    #[error("{0}")]
    Invalid(&'static str),
    /// `exp` has passed.
    #[error("token expired")]
    Expired,
    /// A genuine token of another kind.
    #[error("token of another kind")]
    WrongKind,
    /// A genuine refresh token without a session or family.
    #[error("malformed refresh token")]
    Malformed,
    /// A key could not be used.
    #[error("keys: {0}")]
    Keys(#[from] keys::Error),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] crate::random::Error),
}

/// Kinds of JWT, told apart by `typ` (RFC 8725 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Access,
    Refresh,
}

impl Kind {
    /// RFC 9068 2.1, RFC 7515 4.1.9.
    fn media_type(self) -> &'static str {
        match self {
            Self::Access => "at+jwt",
            Self::Refresh => "refresh+jwt",
        }
    }
}

/// What an access token is issued for.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Row number of the user.
    pub user_id: i64,
    /// `sub`: random, never reused.
    pub subject: Uuid,
    /// `sid`.
    pub session_id: Uuid,
    /// `client_id`.
    pub client_id: String,
    /// `scope`.
    pub scope: String,
    /// When the user proved who they are.
    pub auth_time: DateTime<Utc>,
    /// The session's absolute end: no access token outlives it.
    pub absolute_end: DateTime<Utc>,
}

/// What a refresh token says; equal values give equal bytes.
#[derive(Debug, Clone)]
pub struct RefreshGrant {
    /// `fam`.
    pub family_id: Uuid,
    /// `jti`: the family's proof of this generation.
    pub jti: Uuid,
    /// `gen`.
    pub generation: i64,
    /// `iat`: when this generation was made.
    pub issued_at: DateTime<Utc>,
    /// `exp`: when it is idle too long.
    pub expires_at: DateTime<Utc>,
    /// The key that this generation was made with.
    pub key_id: String,
}

/// What a client gets.
#[derive(Debug)]
pub struct Pair {
    /// The access token.
    pub access: SecretString,
    /// The refresh token.
    pub refresh: SecretString,
    /// Life of the access token in seconds.
    pub expires_in: i64,
}

/// Issues and verifies tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    keyring: Arc<Keyring>,
    settings: config::Tokens,
    issuer: String,
    audience: String,
    /// Only our own refresh endpoint takes refresh tokens.
    refresh_audience: String,
    refresh_format: RefreshFormat,
}

impl Tokens {
    /// Reads the names that stand in tokens from the configuration.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, config: &Config) -> Self {
        let issuer = config.server.issuer();
        let audience = if config.tokens.audience.is_empty() { issuer.clone() } else { config.tokens.audience.clone() };
        let refresh_audience = format!("{issuer}{}/auth/refresh", config.server.api_prefix);
        Self {
            keyring,
            settings: config.tokens.clone(),
            issuer,
            audience,
            refresh_audience,
            refresh_format: config.refresh.format,
        }
    }

    /// The client and scope of tokens that the REST API issues.
    #[must_use]
    pub fn own_client(&self) -> (&str, &str) {
        (&self.settings.client_id, &self.settings.scope)
    }

    /// The id of the key that a new generation is made with: it fixes the form too.
    pub fn refresh_key_id(&self, now: DateTime<Utc>) -> Result<String, Error> {
        let signer = self.keyring.signer(now)?;
        // While an announced key is awaited, the signer may still be one whose signatures differ each time.
        if self.refresh_format == RefreshFormat::Jwt && signer.algorithm.is_deterministic() {
            return Ok(signer.kid.clone());
        }
        Ok(self.keyring.mac(now)?.kid.clone())
    }

    /// Issues both tokens of an answer.
    pub async fn pair(&self, grant: &Grant, refresh: &RefreshGrant, now: DateTime<Utc>) -> Result<Pair, Error> {
        self.keyring.confirm(now).await?;
        let refresh_key = match self.keyring.find(&refresh.key_id, now).await? {
            Some(key) => key,
            // If the key of this generation was revoked meanwhile, the newest signs.
            None => self.keyring.find(&self.refresh_key_id(now)?, now).await?.ok_or(keys::Error::NoSigner)?,
        };
        let signer = self.keyring.signer(now)?;
        let expires_at = grant.absolute_end.min(now + TimeDelta::seconds(self.settings.access_ttl_seconds));
        let _trace = traces::span("sign tokens");
        Ok(Pair {
            access: self.access(&signer, grant, now, expires_at)?,
            refresh: match refresh_key {
                AnyKey::Mac(key) => opaque::issue(&key, refresh)?,
                AnyKey::Signing(key) => self.refresh(&key, grant, refresh)?,
            },
            expires_in: (expires_at - now).num_seconds(),
        })
    }

    /// Verifies an access token for our own endpoints. Says nothing about its session or user.
    pub async fn verify_access(&self, token: &str, now: DateTime<Utc>) -> Result<AccessClaims, Error> {
        if opaque::is_opaque(token) {
            return self.opaque(token, now).await.and(Err(Error::WrongKind));
        }
        match self.authentic(token, now).await? {
            (token, None) => self.access_claims(&token, now),
            (token, Some(adoption)) => self.legacy_access_claims(&token, adoption, now),
        }
    }

    /// Verifies a refresh token as far as the token alone can tell: signature or tag, kind, shape. Never its `exp`: the row judges.
    pub async fn verify_refresh(&self, token: &str, now: DateTime<Utc>) -> Result<RefreshClaims, Error> {
        if opaque::is_opaque(token) {
            return self.opaque(token, now).await;
        }
        match self.authentic(token, now).await? {
            (claims, None) => self.refresh_claims(&claims),
            (claims, Some(_)) => self.legacy_refresh_claims(&claims, token),
        }
    }

    /// Checks the signature. A token that names no key is one of the old service, if its database was taken over.
    async fn authentic(&self, token: &str, now: DateTime<Utc>) -> Result<(jws::Token, Option<&Adoption>), Error> {
        let unverified = jws::Unverified::parse(token)?;
        let (kid, adoption) = match (unverified.kid(), self.keyring.adoption()) {
            (Some(kid), _) => (kid, None),
            (None, Some(adoption)) => (adoption.kid.as_str(), Some(adoption)),
            (None, None) => return Err(Error::Invalid("The header has no kid")),
        };
        let key = self.keyring.find(kid, now).await?;
        let token = unverified.verify(key.as_ref().and_then(AnyKey::signing).map(Arc::as_ref))?;
        Ok((token, adoption))
    }

    async fn opaque(&self, token: &str, now: DateTime<Utc>) -> Result<RefreshClaims, Error> {
        let unverified = opaque::Unverified::parse(token)?;
        let key = self.keyring.find(&unverified.kid(), now).await?;
        unverified.verify(key.as_ref().and_then(AnyKey::mac).map(Arc::as_ref))
    }
}
