//! What an operator does with keys. Works beside running servers, which see it within a second.

use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::key::Fault;
use super::plan::{Fitness, Remedy, State};
use super::ring::Private;
use super::seal::SealedBy;
use super::succession::{Succession, Successor, is_live, newest, of};
use super::{Error, Purpose, directory, open, store};
use crate::audit::{Actor, Event};
use crate::config::{self, Config};
use crate::db::Db;
use crate::entity::signing_key::Model;

/// Lists and changes keys.
pub struct Management {
    succession: Succession,
    config: config::Keys,
}

/// A key as it is listed.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the fields are those of the table")]
pub struct Listed {
    pub key: Model,
    pub state: State,
    /// False for a key that counts and cannot be opened.
    pub is_usable: bool,
    pub sealed_by: SealedBy,
}

/// What became of a wish for a successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Succeeded {
    /// This key signs from then on.
    By {
        /// Its id.
        kid: String,
        /// From when on it signs.
        signing_at: DateTime<Utc>,
    },
    /// A successor was announced before; nothing was changed.
    Already {
        /// Its id.
        kid: String,
        /// From when on it signs.
        signing_at: DateTime<Utc>,
    },
}

/// What became of a key that was to be revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// It was gone before; nothing was changed.
    Already,
    /// It counts no more.
    Done {
        /// What it was for.
        purpose: Purpose,
        /// The key that makes tokens instead, when that changed.
        successor: Option<String>,
        /// True when some key makes tokens now; otherwise a running server makes one, or the next that starts.
        has_maker: bool,
    },
}

/// The public half of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// As a JWK (RFC 7517 4).
    pub jwk: serde_json::Value,
    /// As PEM (RFC 7468 13).
    pub pem: String,
}

/// What resealing did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// Keys that the previous key-encryption key had sealed.
    pub resealed: usize,
    /// Keys that the current one had sealed.
    pub current: usize,
    /// Keys that neither opens.
    pub unopened: Vec<String>,
}

impl Management {
    /// Reads the key-encryption keys, if there are any.
    pub fn new(db: Db, config: &Config) -> Result<Self, Error> {
        let encryption_keys = directory::encryption_keys_of(&config.keys)?;
        let succession = Succession::new(db, encryption_keys, config, Actor::Operator);
        Ok(Self { succession, config: config.keys.clone() })
    }

    /// For how long a verifier may go on with the JWK Set that it has.
    #[must_use]
    pub fn max_age_seconds(&self) -> u64 {
        self.config.jwks_max_age_seconds
    }

    /// Every key that the ring remembers, oldest first.
    pub async fn list(&self, now: DateTime<Utc>) -> Result<Vec<Listed>, Error> {
        let encryption_keys = self.succession.encryption_keys();
        let listed = |key: Model| {
            let sealed_by = encryption_keys.as_ref().map(|keys| keys.sealed_by(&key)).transpose()?;
            let state = State::of(&key, now);
            let is_usable = state == State::Gone || self.succession.fitness(&key) == Fitness::Usable;
            Ok(Listed { key, state, is_usable, sealed_by: sealed_by.unwrap_or(SealedBy::Unknown) })
        };
        store::keys(self.succession.db.reader()).await?.into_iter().map(listed).collect()
    }

    /// Errors as the next start of a server would, and changes nothing; says which key would be imported.
    pub async fn require_startable(&self, now: DateTime<Utc>) -> Result<Option<String>, Error> {
        let rows = store::keys(self.succession.db.reader()).await?;
        let found = directory::pem_files(&self.config).map_err(Error::Faults)?;
        let known = rows.iter().map(|row| row.kid.clone()).collect();
        let imported =
            open::missing_key(known, found, self.config.algorithm).map_err(|fault| Error::Faults(vec![fault]))?;
        let live: Vec<Model> = rows.into_iter().filter(|row| is_live(row, now)).collect();
        if self.succession.encryption_keys().is_none() && !live.is_empty() {
            return Err(Error::Faults(vec![open::nothing_opens(&self.config)]));
        }
        self.succession.require_own(&live)?;
        Ok(imported.map(|key| key.kid()).transpose()?)
    }

    /// From when on the successor of this key signs; `None` when keys are not succeeded by themselves.
    #[must_use]
    pub fn successor_at(&self, key: &Model) -> Option<DateTime<Utc>> {
        self.succession.schedule.succession(key.signing_at).map(|(_, signing_at)| signing_at)
    }

    /// True when there is a key-encryption key.
    #[must_use]
    pub fn has_encryption_key(&self) -> bool {
        self.succession.encryption_keys().is_some()
    }

    /// Announces a successor of the newest key, or lets one sign at once.
    pub async fn rotate(&self, purpose: Purpose, at_once: bool, now: DateTime<Utc>) -> Result<Succeeded, Error> {
        let (rows, newest) = self.settled(purpose, now).await?;
        if of(&rows, purpose).next().is_none() {
            return Ok(Succeeded::By { kid: newest.kid, signing_at: newest.signing_at });
        }
        if newest.signing_at > now && !at_once {
            return Ok(Succeeded::Already { kid: newest.kid, signing_at: newest.signing_at });
        }
        let successor = if newest.signing_at > now {
            let (tx, rows) = self.succession.begin(now).await?;
            let waiting =
                rows.iter().find(|row| row.kid == newest.kid && row.retained_at.is_none()).ok_or_else(contended)?;
            let successor = self.succession.bring_forward(&tx, &waiting.kid, &rows, purpose, now).await?;
            tx.commit().await?;
            successor
        } else {
            let candidate = self.succession.make(purpose).await?;
            let signing_at = if at_once { now } else { now + self.succession.schedule.announce };
            self.succession.succeed(candidate, &newest.kid, signing_at, now).await?.ok_or_else(contended)?
        };
        Ok(Succeeded::By { kid: successor.kid, signing_at: successor.signing_at })
    }

    /// Imports a private key, which is announced first; into an empty ring it signs at once.
    pub async fn import(&self, file: &Path, now: DateTime<Utc>) -> Result<Succeeded, Error> {
        let refused = |Fault(fault)| Error::Refused(fault);
        let key = directory::private_key(file, &self.config).map_err(refused)?;
        let kid = key.kid()?;
        let known = store::keys(self.succession.db.reader()).await?;
        if let Some(row) = known.iter().find(|row| row.kid == kid) {
            return Err(Error::Refused(match (row.revoked_at, State::of(row, now)) {
                (Some(_), _) => format!("the key {kid} was revoked: it is never imported again"),
                (None, State::Gone) => format!("the key {kid} is gone: it is never imported again"),
                (None, state) => format!("the key {kid} is in the ring already: {}", state.name()),
            }));
        }
        let live: Vec<Model> = known.into_iter().filter(|row| is_live(row, now)).collect();
        self.require_encryption_key()?;
        self.succession.require_own(&live)?;
        if let Some(waiting) = newest(&live, Purpose::Signing).filter(|row| row.signing_at > now) {
            let (kid, at) = (&waiting.kid, waiting.signing_at);
            return Err(Error::Refused(format!(
                "the key {kid} is announced and signs from {at} on: import then, or let it sign now with `authservice keys rotate --now`"
            )));
        }
        self.succession.fill(&live, Some(key), now).await?;
        let rows = store::live_keys(self.succession.db.reader(), now).await?;
        let row = rows.into_iter().find(|row| row.kid == kid).ok_or_else(contended)?;
        Ok(Succeeded::By { kid, signing_at: row.signing_at })
    }

    /// Ends a key at once. If it made tokens, another one does from then on, without having been announced.
    pub async fn revoke(&self, kid: &str, now: DateTime<Utc>) -> Result<Revoked, Error> {
        let known = store::keys(self.succession.db.reader()).await?;
        let victim = known.iter().find(|row| row.kid == kid);
        let victim =
            victim.ok_or_else(|| Error::Refused(format!("there is no key {kid}; see `authservice keys list`")))?;
        let purpose = Purpose::named(&victim.purpose);
        let purpose = purpose.ok_or_else(|| Error::Refused(format!("the key {kid} is of a newer release")))?;
        if victim.revoked_at.is_some() {
            return Ok(Revoked::Already);
        }
        // A key-encryption key that opens nothing would seal a key that no server can open.
        let is_own = known.iter().any(|row| is_live(row, now) && self.succession.fitness(row) == Fitness::Usable);
        let is_needed = matches!(State::of(victim, now), State::Announced | State::Signing);
        let spare = if is_own && is_needed { Some(self.succession.make(purpose).await?) } else { None };

        let (tx, mut rows) = self.succession.begin(now).await?;
        if is_live(victim, now) && rows.iter().all(|row| row.kid != kid) {
            return Ok(Revoked::Already);
        }
        store::revoke_key(&tx, kid, now).await?;
        self.succession.record(&tx, now, Event::KeyRevoked, json!({"kid": kid, "purpose": purpose.name()})).await?;
        rows.retain(|row| row.kid != kid);
        let remedy = self.succession.remedy(&rows, purpose, now);
        let takes_over = matches!(remedy, Remedy::Add | Remedy::BringForward(_));
        let successor = self.succession.apply(&tx, remedy, &rows, purpose, spare, now).await?;
        tx.commit().await?;
        let is_maker = |row: &Model| State::of(row, now) == State::Signing;
        Ok(Revoked::Done {
            purpose,
            has_maker: successor.is_some() || of(&rows, purpose).any(is_maker),
            successor: successor.filter(|_| takes_over).map(|Successor { kid, .. }| kid),
        })
    }

    /// Revokes every key of a purpose and makes one that takes over at once; returns how many went and the new kid. `None` in an empty
    /// ring, which a server fills.
    pub async fn replace(&self, purpose: Purpose, now: DateTime<Utc>) -> Result<Option<(usize, String)>, Error> {
        let known = store::live_keys(self.succession.db.reader(), now).await?;
        if known.is_empty() {
            return Ok(None);
        }
        self.require_encryption_key()?;
        self.succession.require_own(&known)?;
        let spare = self.succession.make(purpose).await?;
        let (tx, mut rows) = self.succession.begin(now).await?;
        let victims: Vec<String> = of(&rows, purpose).map(|row| row.kid.clone()).collect();
        for kid in &victims {
            store::revoke_key(&tx, kid, now).await?;
            self.succession.record(&tx, now, Event::KeyRevoked, json!({"kid": kid, "purpose": purpose.name()})).await?;
        }
        rows.retain(|row| row.purpose != purpose.name());
        let successor = self.succession.apply(&tx, Remedy::Add, &rows, purpose, Some(spare), now).await?;
        let successor = successor.ok_or_else(contended)?;
        tx.commit().await?;
        Ok(Some((victims.len(), successor.kid)))
    }

    /// The public half of a key, by default that of the one that signs.
    pub async fn export_public(&self, kid: Option<&str>, now: DateTime<Utc>) -> Result<Exported, Error> {
        let rows = store::live_keys(self.succession.db.reader(), now).await?;
        let row = match kid {
            Some(kid) => rows.iter().find(|row| row.kid == kid),
            None => of(&rows, Purpose::Signing).filter(|row| State::of(row, now) == State::Signing).last(),
        };
        let named = kid.unwrap_or("that signs");
        let row = row.ok_or_else(|| Error::Refused(format!("there is no key {named}; see `authservice keys list`")))?;
        // Taken from the sealed half, which nobody can have exchanged.
        match self.succession.open(row).map_err(|error| Error::Faults(vec![Fault(error.to_string())]))? {
            Private::Signing(key) => Ok(Exported { jwk: key.prepare()?.public_jwk, pem: key.public_pem()? }),
            Private::Mac(_) => Err(Error::Refused(format!("the key {named} is symmetric: it has no public half"))),
        }
    }

    /// Seals every key with the current key-encryption key, all or none. Afterwards the previous one is of no use.
    pub async fn reseal(&self, now: DateTime<Utc>) -> Result<Resealed, Error> {
        self.require_encryption_key()?;
        let (tx, rows) = self.succession.begin(now).await?;
        self.succession.require_own(&rows)?;
        let mut done = Resealed { resealed: 0, current: 0, unopened: Vec::new() };
        let Some(keys) = self.succession.encryption_keys() else {
            return Ok(done);
        };
        for row in &rows {
            match (keys.open(row), keys.sealed_by(row)?) {
                (Err(_), _) => done.unopened.push(row.kid.clone()),
                (Ok(_), SealedBy::Current) => done.current += 1,
                (Ok(secret), _) => {
                    let (sealed, id) = keys.seal(&row.kid, &secret)?;
                    store::seal_key(&tx, &row.kid, sealed, &id).await?;
                    done.resealed += 1;
                }
            }
        }
        if done.resealed > 0 {
            self.succession.record(&tx, now, Event::KeysResealed, json!({"keys": done.resealed})).await?;
        }
        tx.commit().await?;
        Ok(done)
    }

    /// The live keys as they were, and the newest usable one after the ring was mended.
    async fn settled(&self, purpose: Purpose, now: DateTime<Utc>) -> Result<(Vec<Model>, Model), Error> {
        self.require_encryption_key()?;
        let reader = self.succession.db.reader();
        let before = store::live_keys(reader, now).await?;
        self.succession.require_own(&before)?;
        self.succession.settle(&before, purpose, None, now).await?;
        let rows = store::live_keys(reader, now).await?;
        let newest = newest(&rows, purpose).ok_or_else(contended)?;
        if self.succession.fitness(newest) != Fitness::Usable {
            let fault = format!(
                "the newest {} key {} cannot be opened with this key-encryption key",
                newest.purpose, newest.kid
            );
            return Err(Error::Faults(vec![Fault(fault)]));
        }
        Ok((before, newest.clone()))
    }

    fn require_encryption_key(&self) -> Result<(), Error> {
        let path = self.config.directory.join("encryption.key");
        let fault = || format!("there is no key-encryption key: set keys.encryption_key or restore {}", path.display());
        self.succession.encryption_keys().map(|_| ()).ok_or_else(|| Error::Faults(vec![Fault(fault())]))
    }
}

fn contended() -> Error {
    Error::Refused("somebody else changed the keys at the same time; see `authservice keys list`".to_owned())
}
