//! The key ring: who signs, who verifies, what the world may see. The database holds it; no message passes between replicas.
//!
//! A key's life is four timestamps that are planned ahead: it is **announced** (published, not yet signing), **signs** from
//! `signing_at`, is **retained** from `retained_at` (published until the last access token it signed is dead, then kept for our own
//! verification until the last refresh token is), and **gone** at `gone_at`. A state is a comparison with the clock, so a planned
//! change happens everywhere at once. A partial unique index keeps one key of each purpose without a planned end: the newest.
//!
//! Knows no HTTP and no claims.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use moka::future::Cache;
use sea_orm::{DbErr, FromQueryResult};

use crate::config;
use crate::db::Db;
use crate::entity::signing_key::Model;

mod directory;
mod key;
mod mac;
mod open;
mod seal;
mod store;

pub use key::{Fault, Key};
pub use mac::MacKey;
pub use open::imported_kid;

use key::PrivateKey;
use seal::KeyEncryptionKey;

/// The purpose of keys that sign JWTs.
const SIGNING: &str = "signing";
/// The purpose of keys that authenticate opaque refresh tokens.
const REFRESH: &str = "refresh";
/// How often a miss may ask the database, and how often the ring is read anew anyway.
const RELOAD: Duration = Duration::from_secs(1);

/// Why the ring is not usable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The files, settings and rows do not fit together: an operator must act. The process exits with 78.
    #[error("the keys have {} fault(s):\n  {}", .0.len(), .0.iter().map(Fault::to_string).collect::<Vec<_>>().join("\n  "))]
    Faults(Vec<Fault>),
    /// A key could not be made or used.
    #[error("key: {0}")]
    Key(#[from] Fault),
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
    /// No key may sign now.
    #[error("no key may sign now")]
    NoSigner,
    /// The ring could not be read to look for a key.
    #[error("the key ring could not be read")]
    Unread,
}

/// When, and with which key, the database of the old service was taken over.
#[derive(Debug, Clone, FromQueryResult)]
pub struct Adoption {
    /// The key that signed the old tokens, which name none.
    pub kid: String,
    /// Old access tokens were issued before.
    pub adopted_at: DateTime<Utc>,
}

/// The key ring.
pub struct Keyring {
    db: Db,
    adoption: Option<Adoption>,
    encryption_key: KeyEncryptionKey,
    /// The ring as last read: what every request uses, also while the database is away.
    ring: RwLock<Arc<Ring>>,
    /// Lets one caller at a time read the ring, once a second at most.
    reload: Cache<(), bool>,
    /// Keys by kid, so that a reload parses only what is new.
    parsed: Cache<String, AnyKey>,
    /// JWK Sets by the kids that are published.
    rendered: Cache<Vec<String>, Bytes>,
}

/// A key of either purpose.
#[derive(Clone)]
pub enum AnyKey {
    /// Signs JWTs.
    Signing(Arc<Key>),
    /// Authenticates opaque refresh tokens.
    Mac(Arc<MacKey>),
}

#[derive(Default)]
struct Ring {
    /// Newest first.
    members: Vec<Member>,
    by_kid: HashMap<String, usize>,
}

struct Member {
    key: AnyKey,
    signing_at: DateTime<Utc>,
    retained_at: Option<DateTime<Utc>>,
    unpublished_at: Option<DateTime<Utc>>,
    gone_at: Option<DateTime<Utc>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").finish_non_exhaustive()
    }
}

impl Keyring {
    /// The key that signs JWTs at `now`.
    pub fn signer(&self, now: DateTime<Utc>) -> Result<Arc<Key>, Error> {
        self.current().active(now).find_map(AnyKey::signing).cloned().ok_or(Error::NoSigner)
    }

    /// The key that authenticates new opaque refresh tokens at `now`.
    pub fn mac(&self, now: DateTime<Utc>) -> Result<Arc<MacKey>, Error> {
        self.current().active(now).find_map(AnyKey::mac).cloned().ok_or(Error::NoSigner)
    }

    /// Where the old tokens come from; `None` in a database that was not taken over.
    #[must_use]
    pub fn adoption(&self) -> Option<&Adoption> {
        self.adoption.as_ref()
    }

    /// The key with this kid, unless it is gone. A kid that is not in the ring makes it be read anew, once a second at most; when
    /// that fails nobody knows whether there is such a key.
    pub async fn find(&self, kid: &str, now: DateTime<Utc>) -> Result<Option<AnyKey>, Error> {
        if let Some(key) = self.current().find(kid, now) {
            return Ok(Some(key));
        }
        if !self.reload(now).await {
            return Err(Error::Unread);
        }
        Ok(self.current().find(kid, now))
    }

    /// The JWK Set of the public keys that are published at `now`.
    pub async fn jwk_set(&self, now: DateTime<Utc>) -> Bytes {
        let ring = self.current();
        let published: Vec<&Key> = ring
            .members
            .iter()
            .filter(|member| member.unpublished_at.is_none_or(|end| end > now))
            .filter_map(|member| member.key.signing().map(Arc::as_ref))
            .collect();
        let kids = published.iter().map(|key| key.kid.clone()).collect();
        self.rendered.get_with(kids, async move { render(&published) }).await
    }

    /// Reads the ring anew; many callers at once read it once. A database that does not answer leaves it as it was: false.
    pub async fn reload(&self, now: DateTime<Utc>) -> bool {
        let reading = async {
            match store::live_keys(self.db.reader(), now).await {
                Ok(rows) => {
                    self.take(rows).await;
                    true
                }
                Err(error) => {
                    tracing::warn!(error = %error, "the key ring was not read anew");
                    false
                }
            }
        };
        self.reload.get_with((), reading).await
    }

    fn current(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Makes `rows` the ring. A row that cannot be opened is left out and reported; the others work on.
    async fn take(&self, rows: Vec<Model>) {
        let mut members = Vec::new();
        for row in rows {
            let parsed = self.parsed.try_get_with(row.kid.clone(), async { self.parse(&row) }).await;
            match parsed {
                Ok(key) => members.push(Member {
                    key,
                    signing_at: row.signing_at,
                    retained_at: row.retained_at,
                    unpublished_at: row.unpublished_at,
                    gone_at: row.gone_at,
                }),
                Err(error) => tracing::error!(key.id = row.kid, error = %error, "a key of the ring cannot be used"),
            }
        }
        members.sort_by_key(|member| std::cmp::Reverse(member.signing_at));
        let by_kid = members.iter().enumerate().map(|(index, member)| (member.key.kid().to_owned(), index)).collect();
        *self.ring.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(Ring { members, by_kid });
    }

    fn parse(&self, row: &Model) -> Result<AnyKey, Fault> {
        let secret = self.encryption_key.open(&row.kid, &row.sealed_private)?;
        if row.purpose == REFRESH {
            return Ok(AnyKey::Mac(Arc::new(MacKey::new(row.kid.clone(), &secret)?)));
        }
        let algorithm = config::Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == row.algorithm);
        let algorithm = algorithm.ok_or_else(|| Fault(format!("unknown algorithm of key {}", row.kid)))?;
        Ok(AnyKey::Signing(Arc::new(PrivateKey::from_der(&secret, algorithm)?.prepare()?)))
    }
}

impl AnyKey {
    fn kid(&self) -> &str {
        match self {
            Self::Signing(key) => &key.kid,
            Self::Mac(key) => &key.kid,
        }
    }

    /// The key, if it signs JWTs.
    #[must_use]
    pub fn signing(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Signing(key) => Some(key),
            Self::Mac(_) => None,
        }
    }

    /// The key, if it authenticates opaque tokens.
    #[must_use]
    pub fn mac(&self) -> Option<&Arc<MacKey>> {
        match self {
            Self::Mac(key) => Some(key),
            Self::Signing(_) => None,
        }
    }
}

impl Ring {
    /// Keys that make tokens at `now`, newest first: one of each purpose. A clock that stepped back behind the very first key
    /// finds that one last.
    fn active(&self, now: DateTime<Utc>) -> impl Iterator<Item = &AnyKey> {
        let is_active =
            move |member: &&Member| member.signing_at <= now && member.retained_at.is_none_or(|end| end > now);
        let active = self.members.iter().filter(is_active);
        let not_yet = self.members.iter().rev().filter(move |member| member.signing_at > now);
        active.chain(not_yet).map(|member| &member.key)
    }

    fn find(&self, kid: &str, now: DateTime<Utc>) -> Option<AnyKey> {
        let member = self.members.get(*self.by_kid.get(kid)?)?;
        member.gone_at.is_none_or(|end| end > now).then(|| member.key.clone())
    }
}

/// RFC 7517 5.
fn render(published: &[&Key]) -> Bytes {
    let keys: Vec<_> = published.iter().map(|key| &key.public_jwk).collect();
    serde_json::json!({"keys": keys}).to_string().into()
}
