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

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use moka::future::Cache;
use sea_orm::{DbErr, SqlErr};

use crate::audit::{self, Entry, Event};
use crate::config::{self, Config};
use crate::db::Db;
use crate::entity::signing_key::Model;

mod directory;
mod key;
mod seal;
mod store;

use key::PrivateKey;
pub use key::{Fault, Key};
use seal::KeyEncryptionKey;
use store::Retirement;

/// The purpose of keys that sign JWTs.
const SIGNING: &str = "signing";
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
}

/// The JWK Set as it goes over the wire.
#[derive(Debug, Clone)]
pub struct JwkSet {
    /// RFC 7517 5.
    pub body: Bytes,
    /// A strong entity tag (RFC 9110 8.8.3).
    pub etag: String,
}

/// The key ring.
pub struct Keyring {
    db: Db,
    encryption_key: KeyEncryptionKey,
    /// The ring as last read: what every request uses, also while the database is away.
    ring: RwLock<Arc<Ring>>,
    /// Lets one caller at a time read the ring, once a second at most.
    reload: Cache<(), ()>,
    /// Keys by kid, so that a reload parses only what is new.
    parsed: Cache<String, Arc<Key>>,
    /// JWK Sets by the kids that are published.
    rendered: Cache<Vec<String>, JwkSet>,
}

#[derive(Default)]
struct Ring {
    /// Newest first.
    keys: Vec<Member>,
    by_kid: HashMap<String, usize>,
}

struct Member {
    key: Arc<Key>,
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
    /// Opens the ring: finds or makes the key-encryption key, imports PEM files, makes the first key. Several replicas may do so at
    /// once; one of them adds the key. Changes nothing when anything does not fit.
    pub async fn open(db: Db, config: &Config, now: DateTime<Utc>) -> Result<Self, Error> {
        let rows = store::live_keys(db.reader(), now).await?;
        let found = directory::pem_files(&config.keys).map_err(Error::Faults)?;
        let (is_empty, encryption_key) = (rows.is_empty(), directory::encryption_key_of(&config.keys)?);
        let encryption_key = match encryption_key {
            Some(key) => key,
            None if is_empty => directory::make_encryption_key(&config.keys)?,
            None => {
                return Err(Error::Faults(vec![Fault(format!(
                    "the database holds sealed keys, and there is no key to open them: set keys.encryption_key or restore {}",
                    config.keys.directory.join("encryption.key").display()
                ))]));
            }
        };
        let keyring = Self {
            db,
            encryption_key,
            ring: RwLock::default(),
            reload: Cache::builder().max_capacity(1).time_to_live(RELOAD).build(),
            parsed: Cache::builder().max_capacity(256).build(),
            rendered: Cache::builder().max_capacity(16).build(),
        };
        keyring.require_own(&rows)?;
        keyring.add_missing(rows, found, config, now).await?;
        let rows = store::live_keys(keyring.db.reader(), now).await?;
        keyring.require_own(&rows)?;
        keyring.take(rows).await;
        Ok(keyring)
    }

    /// The key that signs at `now`.
    pub fn signer(&self, now: DateTime<Utc>) -> Result<Arc<Key>, Error> {
        let ring = self.current();
        let signs = |member: &&Member| member.signing_at <= now && member.retained_at.is_none_or(|end| end > now);
        ring.keys
            .iter()
            .find(signs)
            .map(|member| Arc::clone(&member.key))
            .ok_or(Error::NoSigner)
    }

    /// The key with this kid, unless it is gone. A kid that is not in the ring makes it be read anew, once a second at most.
    pub async fn verifier(&self, kid: &str, now: DateTime<Utc>) -> Option<Arc<Key>> {
        if let Some(key) = self.current().verifier(kid, now) {
            return Some(key);
        }
        self.reload(now).await;
        self.current().verifier(kid, now)
    }

    /// The public keys that are published at `now`.
    pub async fn jwk_set(&self, now: DateTime<Utc>) -> JwkSet {
        let ring = self.current();
        let published: Vec<&Member> = ring
            .keys
            .iter()
            .filter(|member| member.unpublished_at.is_none_or(|end| end > now))
            .collect();
        let kids = published.iter().map(|member| member.key.kid.clone()).collect();
        self.rendered.get_with(kids, async move { render(&published) }).await
    }

    /// Reads the ring anew; many callers at once read it once. A database that does not answer leaves it as it was.
    pub async fn reload(&self, now: DateTime<Utc>) {
        self.reload
            .get_with((), async {
                match store::live_keys(self.db.reader(), now).await {
                    Ok(rows) => self.take(rows).await,
                    Err(error) => tracing::warn!(error = %error, "the key ring was not read anew"),
                }
            })
            .await;
    }

    fn current(&self) -> Arc<Ring> {
        Arc::clone(&self.ring.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// Makes `rows` the ring. A row that cannot be opened is left out and reported; the others work on.
    async fn take(&self, rows: Vec<Model>) {
        let mut keys = Vec::new();
        for row in rows {
            let parsed = self
                .parsed
                .try_get_with(row.kid.clone(), async { self.parse(&row).map(Arc::new) })
                .await;
            match parsed {
                Ok(key) => keys.push(Member {
                    key,
                    signing_at: row.signing_at,
                    retained_at: row.retained_at,
                    unpublished_at: row.unpublished_at,
                    gone_at: row.gone_at,
                }),
                Err(error) => tracing::error!(key.id = row.kid, error = %error, "a key of the ring cannot be used"),
            }
        }
        keys.sort_by_key(|member| std::cmp::Reverse(member.signing_at));
        let by_kid = keys
            .iter()
            .enumerate()
            .map(|(index, member)| (member.key.kid.clone(), index))
            .collect();
        *self.ring.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(Ring { keys, by_kid });
    }

    fn parse(&self, row: &Model) -> Result<Key, Fault> {
        let algorithm = [
            config::Algorithm::RS256,
            config::Algorithm::PS256,
            config::Algorithm::ES256,
            config::Algorithm::EdDSA,
        ]
        .into_iter()
        .find(|algorithm| algorithm.name() == row.algorithm)
        .ok_or_else(|| Fault(format!("unknown algorithm of key {}", row.kid)))?;
        PrivateKey::from_der(&self.encryption_key.open(&row.kid, &row.sealed_private)?, algorithm)?.prepare()
    }

    /// The check value: every row was sealed with our key-encryption key.
    fn require_own(&self, rows: &[Model]) -> Result<(), Error> {
        let id = self.encryption_key.id()?;
        if rows.iter().all(|row| row.encryption_key_id == id) {
            return Ok(());
        }
        Err(Error::Faults(vec![Fault(
            "the key-encryption key is not the one that sealed the keys in the database; nothing was changed"
                .to_owned(),
        )]))
    }

    /// Imports PEM keys that the ring lacks, and makes the first key of an empty ring.
    async fn add_missing(
        &self,
        rows: Vec<Model>,
        found: directory::Found,
        config: &Config,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let mut known: Vec<String> = rows.iter().map(|row| row.kid.clone()).collect();
        let mut missing = Vec::new();
        for (path, key) in found.private {
            let kid = key.kid()?;
            if !known.contains(&kid) {
                known.push(kid);
                missing.push((path, key));
            }
        }
        let strangers: Vec<Fault> = found
            .public
            .iter()
            .filter(|(_, kid)| !known.contains(kid))
            .map(|(path, _)| Fault(format!("{}: belongs to no private key", path.display())))
            .collect();
        if !strangers.is_empty() {
            return Err(Error::Faults(strangers));
        }
        if missing.len() > 1 {
            let names = missing
                .iter()
                .map(|(path, _)| path.display().to_string())
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Error::Faults(vec![Fault(format!(
                "{names}: one new private key at a time can be imported"
            ))]));
        }
        let newest = rows
            .into_iter()
            .find(|row| row.purpose == SIGNING && row.retained_at.is_none());
        match (missing.pop(), newest) {
            (Some((_, key)), newest) => self.add(&key, newest.as_ref(), config, now).await,
            (None, Some(newest)) if newest.algorithm == config.keys.algorithm.name() => Ok(()),
            // The setting was changed: verifiers hear of the new key before it signs.
            (None, newest) => {
                let (algorithm, bits) = (config.keys.algorithm, config.keys.rsa_bits);
                let key = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm, bits))
                    .await
                    .map_err(|error| Fault(error.to_string()))??;
                self.add(&key, newest.as_ref(), config, now).await
            }
        }
    }

    /// Adds a key: into an empty ring it signs at once, else it is announced first and succeeds `newest`.
    async fn add(
        &self,
        key: &PrivateKey,
        newest: Option<&Model>,
        config: &Config,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        if let Some(waiting) = newest.filter(|newest| newest.signing_at > now) {
            tracing::warn!(
                key.id = waiting.kid,
                "another key is announced already; the new one is imported at a later start"
            );
            return Ok(());
        }
        let kid = key.kid()?;
        let public_jwk = key.prepare()?.public_jwk.to_string();
        // Verifiers that cache the JWK Set for its max-age have read it twice by then.
        let max_age = TimeDelta::seconds(i64::try_from(config.keys.jwks_max_age_seconds).unwrap_or(i64::MAX));
        let signing_at = newest.map_or(now, |_| now + max_age * 2 + TimeDelta::seconds(60));
        let row = Model {
            kid: kid.clone(),
            purpose: SIGNING.to_owned(),
            algorithm: key.algorithm.name().to_owned(),
            public_jwk,
            sealed_private: self
                .encryption_key
                .seal(&kid, &secrecy::zeroize::Zeroizing::new(key.to_der()?))?,
            encryption_key_id: self.encryption_key.id()?,
            announced_at: now,
            signing_at,
            retained_at: None,
            unpublished_at: None,
            gone_at: None,
        };
        let tx = self.db.begin().await?;
        if let Some(newest) = newest {
            let plan = Retirement {
                end_of_signing: signing_at,
                unpublished_at: signing_at + TimeDelta::seconds(config.tokens.access_ttl_seconds + 120),
                gone_at: signing_at + TimeDelta::seconds(config.refresh.absolute_ttl_seconds),
            };
            if !store::retain_key(&tx, &newest.kid, &plan).await? {
                return Ok(());
            }
        }
        match store::insert_key(&tx, row).await {
            // Another replica was first: its key counts.
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => return Ok(()),
            other => other?,
        }
        let details = Some(serde_json::json!({"kid": kid, "signing_at": signing_at}));
        audit::record(
            &tx,
            now,
            Event::KeyAdded,
            Entry {
                details,
                ..Entry::default()
            },
        )
        .await?;
        tx.commit().await?;
        tracing::info!(key.id = kid, signing_at = %signing_at, "a key came into the ring");
        Ok(())
    }
}

impl Ring {
    fn verifier(&self, kid: &str, now: DateTime<Utc>) -> Option<Arc<Key>> {
        let member = self.keys.get(*self.by_kid.get(kid)?)?;
        member
            .gone_at
            .is_none_or(|end| end > now)
            .then(|| Arc::clone(&member.key))
    }
}

fn render(published: &[&Member]) -> JwkSet {
    let keys: Vec<_> = published.iter().map(|member| &member.key.public_jwk).collect();
    let body = Bytes::from(serde_json::json!({"keys": keys}).to_string());
    let etag = format!(
        "\"{}\"",
        BASE64_URL_SAFE_NO_PAD.encode(&openssl::sha::sha256(&body)[..16])
    );
    JwkSet { body, etag }
}
