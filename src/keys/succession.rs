//! Changing the ring: adding keys, planning ends, revoking. Each change is one transaction that locks the keys, reads them again and
//! decides then, so that any number of replicas and operators make one change, and a killed one makes none.

use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use sea_orm::SqlErr;
use secrecy::zeroize::Zeroizing;
use serde_json::json;

use super::key::{Fault, PrivateKey};
use super::plan::{self, Fitness, MARGIN, Remedy, Retirement, Schedule, State};
use super::ring::{self, Private};
use super::seal::{EncryptionKeys, Unopened};
use super::{Error, Purpose, store};
use crate::audit::{self, Actor, Entry, Event};
use crate::config::Config;
use crate::db::{Db, Transaction};
use crate::entity::signing_key::Model;
use crate::{hmac, random};

/// What it takes to change the ring.
pub(super) struct Succession {
    pub(super) db: Db,
    /// `None` only for operators who have none: they list and revoke.
    encryption_keys: RwLock<Option<Arc<EncryptionKeys>>>,
    pub(super) schedule: Schedule,
    /// Who changes the ring with it.
    pub(super) actor: Actor,
}

/// A key that is made or imported, and not in the ring yet.
pub(super) struct Candidate {
    row: Model,
}

/// A key that has come into the ring, or was brought forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Successor {
    pub(super) kid: String,
    pub(super) signing_at: DateTime<Utc>,
}

impl Succession {
    pub(super) fn new(db: Db, encryption_keys: Option<EncryptionKeys>, config: &Config, actor: Actor) -> Self {
        let encryption_keys = RwLock::new(encryption_keys.map(Arc::new));
        Self { db, encryption_keys, schedule: Schedule::new(config), actor }
    }

    /// The key-encryption keys of this moment.
    pub(super) fn encryption_keys(&self) -> Option<Arc<EncryptionKeys>> {
        self.encryption_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens and seals with these from now on.
    pub(super) fn exchange(&self, encryption_keys: Arc<EncryptionKeys>) {
        *self.encryption_keys.write().unwrap_or_else(PoisonError::into_inner) = Some(encryption_keys);
    }

    pub(super) fn open(&self, row: &Model) -> Result<Private, Unopened> {
        ring::open(row, self.encryption_keys().as_deref())
    }

    pub(super) fn fitness(&self, row: &Model) -> Fitness {
        Fitness::of(&self.open(row))
    }

    /// Makes a new key.
    pub(super) async fn make(&self, purpose: Purpose) -> Result<Candidate, Error> {
        if purpose == Purpose::Signing {
            let (algorithm, bits) = (self.schedule.algorithm, self.schedule.rsa_bits);
            let key = tokio::task::spawn_blocking(move || PrivateKey::generate(algorithm, bits)).await;
            return self.signing(&key.map_err(|error| Fault(error.to_string()))??, false);
        }
        let random = |error: random::Error| Fault(error.to_string());
        let kid = BASE64_URL_SAFE_NO_PAD.encode(random::bytes::<8>().map_err(random)?);
        let secret = Zeroizing::new(random::bytes::<{ hmac::LENGTH }>().map_err(random)?);
        let row = Model { algorithm: "HS256".to_owned(), ..self.sealed(kid, purpose, secret.as_slice())? };
        Ok(Candidate { row })
    }

    /// A candidate from a private key.
    pub(super) fn signing(&self, key: &PrivateKey, is_imported: bool) -> Result<Candidate, Error> {
        let row = Model {
            algorithm: key.algorithm.name().to_owned(),
            public_jwk: key.prepare()?.public_jwk.to_string(),
            is_imported,
            ..self.sealed(key.kid()?, Purpose::Signing, &Zeroizing::new(key.to_der()?))?
        };
        Ok(Candidate { row })
    }

    fn sealed(&self, kid: String, purpose: Purpose, secret: &[u8]) -> Result<Model, Error> {
        let none = || Fault("there is no key-encryption key".to_owned());
        let (sealed_private, encryption_key_id) = self.encryption_keys().ok_or_else(none)?.seal(&kid, secret)?;
        Ok(Model {
            kid,
            purpose: purpose.name().to_owned(),
            algorithm: String::new(),
            public_jwk: String::new(),
            sealed_private,
            encryption_key_id,
            announced_at: DateTime::UNIX_EPOCH,
            signing_at: DateTime::UNIX_EPOCH,
            retained_at: None,
            unpublished_at: None,
            gone_at: None,
            is_imported: false,
            revoked_at: None,
        })
    }

    /// What must be done with the keys of a purpose.
    pub(super) fn remedy(&self, rows: &[Model], purpose: Purpose, now: DateTime<Utc>) -> Remedy {
        let keys: Vec<_> = of(rows, purpose).map(|row| (row, self.fitness(row))).collect();
        plan::remedy(&keys, now)
    }

    /// Sees to it that a usable key of the purpose makes tokens and one has no planned end. `spare` is used when a key is needed.
    pub(super) async fn settle(
        &self,
        rows: &[Model],
        purpose: Purpose,
        spare: Option<Candidate>,
        now: DateTime<Utc>,
    ) -> Result<bool, Error> {
        let spare = match (self.remedy(rows, purpose, now), spare) {
            (Remedy::Nothing, _) => return Ok(false),
            // It makes tokens already, for want of another: a clock that is a little ahead of ours added it.
            (Remedy::BringForward(kid), _)
                if rows.iter().any(|row| row.kid == kid && row.signing_at <= now + MARGIN) =>
            {
                return Ok(false);
            }
            // Before the transaction: no lock is held while a key is made.
            (Remedy::Add, None) => Some(self.make(purpose).await?),
            (_, spare) => spare,
        };
        let (tx, rows) = self.begin(now).await?;
        let remedy = self.remedy(&rows, purpose, now);
        if of(&rows, purpose).next().is_some() {
            tracing::warn!(purpose = purpose.name(), ?remedy, "the key ring is mended");
        }
        if self.apply(&tx, remedy, &rows, purpose, spare, now).await?.is_none() {
            return Ok(false);
        }
        tx.commit().await?;
        Ok(true)
    }

    /// Does what must be done; `None` when another replica was first or nothing can be done.
    pub(super) async fn apply(
        &self,
        tx: &Transaction,
        remedy: Remedy,
        rows: &[Model],
        purpose: Purpose,
        spare: Option<Candidate>,
        now: DateTime<Utc>,
    ) -> Result<Option<Successor>, Error> {
        let kept = match (remedy, spare) {
            (Remedy::Nothing, _) | (Remedy::Add, None) => return Ok(None),
            (Remedy::Add, Some(spare)) => return self.add(tx, spare, now, rows, now).await,
            (Remedy::BringForward(kid), _) => return self.bring_forward(tx, &kid, rows, purpose, now).await.map(Some),
            (Remedy::Dismiss { damaged, kept }, _) => {
                let end = Retirement { retained_at: now, unpublished_at: Some(now), gone_at: now };
                store::set_end(tx, &damaged, Some(end)).await?;
                let details = json!({"kid": damaged, "purpose": purpose.name(), "kept": kept});
                self.record(tx, now, Event::KeyDismissed, details).await?;
                kept
            }
            (Remedy::Keep(kept), _) => kept,
        };
        store::set_end(tx, &kept, None).await?;
        let signing_at = rows.iter().find(|row| row.kid == kept).map_or(now, |row| row.signing_at);
        Ok(Some(Successor { kid: kept, signing_at }))
    }

    /// Adds a key that signs from `signing_at` on if `predecessor` still is the newest and signs; `None` when another replica was
    /// first.
    pub(super) async fn succeed(
        &self,
        candidate: Candidate,
        predecessor: &str,
        signing_at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<Successor>, Error> {
        let (tx, rows) = self.begin(now).await?;
        let newest = rows.iter().find(|row| row.kid == predecessor && row.retained_at.is_none());
        if newest.is_none_or(|newest| newest.signing_at > now) {
            return Ok(None);
        }
        let successor = self.add(&tx, candidate, signing_at, &rows, now).await?;
        if successor.is_some() {
            tx.commit().await?;
        }
        Ok(successor)
    }

    /// Inserts a key that signs from `signing_at` on; whatever key of its purpose would sign for longer ends then. `None` when another
    /// replica was first: its key counts, and the transaction is of no use any more.
    async fn add(
        &self,
        tx: &Transaction,
        candidate: Candidate,
        signing_at: DateTime<Utc>,
        rows: &[Model],
        now: DateTime<Utc>,
    ) -> Result<Option<Successor>, Error> {
        let row = Model { announced_at: now, signing_at, ..candidate.row };
        let (kid, purpose) = (row.kid.clone(), row.purpose.clone());
        for other in rows.iter().filter(|other| other.purpose == purpose) {
            self.end_signing(tx, other, signing_at).await?;
        }
        let (is_imported, algorithm) = (row.is_imported, row.algorithm.clone());
        match store::insert_key(tx, row).await {
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => return Ok(None),
            other => other?,
        }
        let details = json!({
            "kid": kid, "purpose": purpose, "algorithm": algorithm, "is_imported": is_imported, "signing_at": signing_at
        });
        self.record(tx, now, Event::KeyAdded, details).await?;
        tracing::info!(key.id = kid, purpose, signing_at = %signing_at, "a key comes into the ring");
        Ok(Some(Successor { kid, signing_at }))
    }

    /// Lets an announced key sign at once.
    pub(super) async fn bring_forward(
        &self,
        tx: &Transaction,
        kid: &str,
        rows: &[Model],
        purpose: Purpose,
        now: DateTime<Utc>,
    ) -> Result<Successor, Error> {
        store::set_signing(tx, kid, now).await?;
        for other in of(rows, purpose).filter(|other| other.kid != kid) {
            self.end_signing(tx, other, now).await?;
        }
        self.record(tx, now, Event::KeyBroughtForward, json!({"kid": kid, "purpose": purpose.name()})).await?;
        Ok(Successor { kid: kid.to_owned(), signing_at: now })
    }

    /// Plans the end of a key that would sign for longer than until `at`.
    async fn end_signing(&self, tx: &Transaction, row: &Model, at: DateTime<Utc>) -> Result<(), Error> {
        let purpose = Purpose::named(&row.purpose);
        if let Some(purpose) = purpose.filter(|_| row.retained_at.is_none_or(|end| end > at)) {
            store::set_end(tx, &row.kid, Some(self.schedule.retirement(purpose, at))).await?;
        }
        Ok(())
    }

    /// Begins a transaction that nobody else changes keys in, and reads those that are not gone.
    pub(super) async fn begin(&self, now: DateTime<Utc>) -> Result<(Transaction, Vec<Model>), Error> {
        let tx = self.db.begin().await?;
        store::lock(&tx).await?;
        let rows = store::live_keys(&tx, now).await?;
        Ok((tx, rows))
    }

    /// Writes an event that says who caused it.
    pub(super) async fn record(
        &self,
        tx: &Transaction,
        now: DateTime<Utc>,
        event: Event,
        details: serde_json::Value,
    ) -> Result<(), Error> {
        let entry = Entry { details: Some(self.actor.of(details)), ..Entry::default() };
        Ok(audit::record(tx, now, event, entry).await?)
    }
}

/// The keys of one purpose.
pub(super) fn of(rows: &[Model], purpose: Purpose) -> impl Iterator<Item = &Model> {
    rows.iter().filter(move |row| row.purpose == purpose.name())
}

/// The key of a purpose that has no planned end.
pub(super) fn newest(rows: &[Model], purpose: Purpose) -> Option<&Model> {
    of(rows, purpose).find(|row| row.retained_at.is_none())
}

/// True for keys that are not gone.
pub(super) fn is_live(row: &Model, now: DateTime<Utc>) -> bool {
    State::of(row, now) != State::Gone
}
