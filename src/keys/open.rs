//! Opening the ring at the start: the key-encryption keys, keys to import, the first keys, a changed algorithm.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::key::{Fault, PrivateKey};
use super::plan::Fitness;
use super::succession::{Succession, is_live, newest, of};
use super::{Error, Keyring, Purpose, directory, store};
use crate::audit::Actor;
use crate::config::{self, Algorithm, Config};
use crate::db::Db;
use crate::entity::signing_key::Model;

impl Keyring {
    /// Opens the ring: finds or makes the key-encryption key, imports PEM files, makes the first keys. Several replicas may do so at
    /// once; one of them adds the key. Changes nothing when anything does not fit.
    pub async fn open(db: Db, config: &Config, now: DateTime<Utc>) -> Result<Self, Error> {
        let mut rows = store::keys(db.reader()).await?;
        let found = directory::pem_files(&config.keys).map_err(Error::Faults)?;
        let known = rows.iter().map(|row| row.kid.clone()).collect();
        let imported = missing_key(known, found, config.keys.algorithm).map_err(|fault| Error::Faults(vec![fault]))?;
        rows.retain(|row| is_live(row, now));
        let encryption_keys = match directory::encryption_keys_of(&config.keys)? {
            Some(keys) => keys,
            None if rows.is_empty() => directory::make_encryption_keys(&config.keys)?,
            None => return Err(Error::Faults(vec![nothing_opens(&config.keys)])),
        };
        let adoption = store::adoption(db.reader()).await?;
        let succession = Succession::new(db, Some(encryption_keys), config, Actor::Server);
        succession.require_own(&rows)?;
        succession.fill(&rows, imported, now).await?;
        let rows = store::live_keys(succession.db.reader(), now).await?;
        succession.require_own(&rows)?;
        let keyring = Self::new(succession, adoption);
        keyring.read(now).await?;
        keyring.require_makers(&rows, now)?;
        Ok(keyring)
    }

    /// Errors when the newest key of a purpose is not ours to use and no other may make tokens.
    fn require_makers(&self, rows: &[Model], now: DateTime<Utc>) -> Result<(), Error> {
        let makes = |purpose| match purpose {
            Purpose::Signing => self.signer(now).is_ok(),
            Purpose::Refresh => self.mac(now).is_ok(),
        };
        let faults: Vec<Fault> = Purpose::ALL
            .into_iter()
            .filter(|purpose| !makes(*purpose))
            .filter_map(|purpose| newest(rows, purpose))
            .map(|row| {
                let (kid, id) = (&row.kid, &row.encryption_key_id);
                Fault(format!(
                    "the {} key {kid} cannot be opened and no other may be used: set the key-encryption key that sealed it ({id}) \
                     as keys.encryption_key or keys.previous_encryption_key; if that is lost, `authservice keys revoke {kid}`",
                    row.purpose
                ))
            })
            .collect();
        if faults.is_empty() { Ok(()) } else { Err(Error::Faults(faults)) }
    }
}

impl Succession {
    /// The check value: a key-encryption key that opens no row is not the one that sealed them. A few rows that cannot be opened
    /// do not stop the others.
    pub(super) fn require_own(&self, rows: &[Model]) -> Result<(), Error> {
        let mut fitness = rows.iter().map(|row| self.fitness(row));
        if rows.is_empty() || fitness.any(|is| is == Fitness::Usable) {
            return Ok(());
        }
        let is_foreign = rows.iter().any(|row| self.fitness(row) == Fitness::Foreign);
        let fault = if is_foreign {
            "the key-encryption key is not the one that sealed the keys in the database; nothing was changed"
        } else {
            "every key in the database is damaged; nothing was changed: restore it, or revoke them with `authservice keys revoke`"
        };
        Err(Error::Faults(vec![Fault(fault.to_owned())]))
    }

    /// Makes the first keys and mends what does not fit. An imported key, or one of the algorithm that the setting now names, signs at
    /// once in an empty ring, else it is announced and succeeds the newest.
    pub(super) async fn fill(
        &self,
        rows: &[Model],
        imported: Option<PrivateKey>,
        now: DateTime<Utc>,
    ) -> Result<(), Error> {
        self.settle(rows, Purpose::Refresh, None, now).await?;
        let is_first = of(rows, Purpose::Signing).next().is_none();
        let spare = imported.as_ref().filter(|_| is_first).map(|key| self.signing(key, true)).transpose()?;
        self.settle(rows, Purpose::Signing, spare, now).await?;

        let rows = store::live_keys(self.db.reader(), now).await?;
        let Some(newest) = newest(&rows, Purpose::Signing).filter(|row| self.fitness(row) == Fitness::Usable) else {
            return Ok(());
        };
        let is_wanted = match &imported {
            Some(key) => key.kid().map(|kid| rows.iter().all(|row| row.kid != kid))?,
            None => newest.algorithm != self.schedule.algorithm.name(),
        };
        if !is_wanted {
            return Ok(());
        }
        if newest.signing_at > now {
            tracing::warn!(key.id = newest.kid, "this key is announced already; another one is added at a later start");
            return Ok(());
        }
        let candidate = match imported {
            Some(key) => self.signing(&key, true)?,
            None => self.make(Purpose::Signing).await?,
        };
        self.succeed(candidate, &newest.kid, now + self.schedule.announce, now).await?;
        Ok(())
    }
}

/// The kid of the one private key that lies ready to be imported; `None` when there is none.
pub fn imported_kid(config: &config::Keys) -> Result<Option<String>, Error> {
    let found = directory::pem_files(config).map_err(Error::Faults)?;
    let key = missing_key(Vec::new(), found, config.algorithm).map_err(|fault| Error::Faults(vec![fault]))?;
    Ok(key.map(|key| key.kid()).transpose()?)
}

pub(super) fn nothing_opens(config: &config::Keys) -> Fault {
    Fault(format!(
        "the database holds sealed keys, and there is no key to open them: set keys.encryption_key or restore {}",
        config.directory.join("encryption.key").display()
    ))
}

/// The one private key that the ring has never had. Every public key must belong to a key of the ring or to that one.
pub(super) fn missing_key(
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
