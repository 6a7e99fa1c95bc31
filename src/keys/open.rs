//! Opening the ring at the start: the key-encryption key, keys to import, the first keys, a changed algorithm.

use std::path::PathBuf;
use std::sync::RwLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use moka::future::Cache;
use sea_orm::SqlErr;
use secrecy::zeroize::Zeroizing;

use super::key::{Fault, PrivateKey};
use super::store::{self, Retirement};
use super::{Error, Keyring, REFRESH, RELOAD, SIGNING, directory};
use crate::audit::{self, Entry, Event};
use crate::config::{self, Algorithm, Config};
use crate::db::Db;
use crate::entity::signing_key::Model;
use crate::{hmac, random};

impl Keyring {
    /// Opens the ring: finds or makes the key-encryption key, imports PEM files, makes the first key. Several replicas may do so at
    /// once; one of them adds the key. Changes nothing when anything does not fit.
    pub async fn open(db: Db, config: &Config, now: DateTime<Utc>) -> Result<Self, Error> {
        let rows = store::live_keys(db.reader(), now).await?;
        let found = directory::pem_files(&config.keys).map_err(Error::Faults)?;
        let imported = missing_key(store::kids(db.reader()).await?, found, config.keys.algorithm)
            .map_err(|fault| Error::Faults(vec![fault]))?;
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
            adoption: store::adoption(db.reader()).await?,
            db,
            encryption_key,
            ring: RwLock::default(),
            reload: Cache::builder().max_capacity(1).time_to_live(RELOAD).build(),
            parsed: Cache::builder().max_capacity(256).build(),
            rendered: Cache::builder().max_capacity(16).build(),
        };
        keyring.require_own(&rows)?;
        let newest = |purpose| rows.iter().find(|row| row.purpose == purpose && row.retained_at.is_none());
        if newest(REFRESH).is_none() {
            keyring.add_mac(now).await?;
        }
        keyring.add_signing(imported, newest(SIGNING), config, now).await?;
        let rows = store::live_keys(keyring.db.reader(), now).await?;
        keyring.require_own(&rows)?;
        keyring.take(rows).await;
        Ok(keyring)
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

    /// Adds the imported key, the first key of an empty ring, or one of the algorithm that the setting now names. Into an empty ring it
    /// signs at once, else it is announced first and succeeds `newest`.
    async fn add_signing(
        &self,
        imported: Option<PrivateKey>,
        newest: Option<&Model>,
        config: &Config,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let (algorithm, bits) = (config.keys.algorithm, config.keys.rsa_bits);
        if imported.is_none() && newest.is_some_and(|newest| newest.algorithm == algorithm.name()) {
            return Ok(());
        }
        if let Some(waiting) = newest.filter(|newest| newest.signing_at > now) {
            let kid = &waiting.kid;
            tracing::warn!(key.id = kid, "this key is announced already; another one is added at a later start");
            return Ok(());
        }
        let key = match imported {
            Some(key) => key,
            None => tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm, bits))
                .await
                .map_err(|error| Fault(error.to_string()))??,
        };
        let kid = key.kid()?;
        // Verifiers that cache the JWK Set for its max-age have read it twice by then.
        let max_age = TimeDelta::seconds(i64::try_from(config.keys.jwks_max_age_seconds).unwrap_or(i64::MAX));
        let signing_at = newest.map_or(now, |_| now + max_age * 2 + TimeDelta::seconds(60));
        let row = Model {
            kid: kid.clone(),
            purpose: SIGNING.to_owned(),
            algorithm: key.algorithm.name().to_owned(),
            public_jwk: key.prepare()?.public_jwk.to_string(),
            signing_at,
            ..self.row(kid, &Zeroizing::new(key.to_der()?), now)?
        };
        let plan = Retirement {
            end_of_signing: signing_at,
            unpublished_at: signing_at + TimeDelta::seconds(config.tokens.access_ttl_seconds + 120),
            gone_at: signing_at + TimeDelta::seconds(config.refresh.absolute_ttl_seconds),
        };
        self.insert(row, newest.map(|newest| (newest, plan)), now).await
    }

    /// Makes the key that authenticates opaque refresh tokens.
    async fn add_mac(&self, now: DateTime<Utc>) -> Result<(), Error> {
        let random = |error: random::Error| Fault(error.to_string());
        let kid = BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<8>().map_err(random)?);
        let secret = Zeroizing::new(random::bytes::<{ hmac::LENGTH }>().map_err(random)?);
        let row = Model {
            purpose: REFRESH.to_owned(),
            algorithm: "HS256".to_owned(),
            ..self.row(kid, secret.as_slice(), now)?
        };
        self.insert(row, None, now).await
    }

    /// A row that signs from `now`, sealed.
    fn row(&self, kid: String, secret: &[u8], now: DateTime<Utc>) -> Result<Model, Error> {
        Ok(Model {
            sealed_private: self.encryption_key.seal(&kid, secret)?,
            encryption_key_id: self.encryption_key.id()?,
            kid,
            purpose: String::new(),
            algorithm: String::new(),
            public_jwk: String::new(),
            announced_at: now,
            signing_at: now,
            retained_at: None,
            unpublished_at: None,
            gone_at: None,
        })
    }

    /// Commits a key and the plan of its predecessor. Does nothing when another replica was first: its key counts.
    async fn insert(
        &self,
        row: Model,
        predecessor: Option<(&Model, Retirement)>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        let (kid, signing_at) = (row.kid.clone(), row.signing_at);
        let tx = self.db.begin().await?;
        if let Some((predecessor, plan)) = predecessor
            && !store::retain_key(&tx, &predecessor.kid, &plan).await?
        {
            return Ok(());
        }
        match store::insert_key(&tx, row).await {
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => return Ok(()),
            other => other?,
        }
        let details = Some(serde_json::json!({"kid": kid, "signing_at": signing_at}));
        audit::record(&tx, now, Event::KeyAdded, Entry { details, ..Entry::default() }).await?;
        tx.commit().await?;
        tracing::info!(key.id = kid, signing_at = %signing_at, "a key came into the ring");
        Ok(())
    }
}

/// The kid of the one private key that lies ready to be imported; `None` when there is none.
pub fn imported_kid(config: &config::Keys) -> Result<Option<String>, Error> {
    let found = directory::pem_files(config).map_err(Error::Faults)?;
    let key = missing_key(Vec::new(), found, config.algorithm).map_err(|fault| Error::Faults(vec![fault]))?;
    Ok(key.map(|key| key.kid()).transpose()?)
}

/// The one private key that the ring has never had. Every public key must belong to a key of the ring or to that one.
fn missing_key(
    mut known: Vec<String>,
    found: directory::Found,
    algorithm: Algorithm,
) -> Result<Option<PrivateKey>, Fault> {
    let mut missing: Option<(PathBuf, PrivateKey)> = None;
    for (path, key) in found.private {
        let kid = key.kid()?;
        if known.contains(&kid) {
            continue;
        }
        if let Some((other, _)) = missing {
            let (other, path) = (other.display(), path.display());
            return Err(Fault(format!("{other}, {path}: one new private key at a time can be imported")));
        }
        key.require(algorithm).map_err(|Fault(fault)| Fault(format!("{}: {fault}", path.display())))?;
        known.push(kid);
        missing = Some((path, key));
    }
    match found.public.iter().find(|(_, kid)| !known.contains(kid)) {
        Some((path, _)) => Err(Fault(format!("{}: belongs to no private key", path.display()))),
        None => Ok(missing.map(|(_, key)| key)),
    }
}
