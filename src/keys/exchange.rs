//! Exchanging the key-encryption keys of a running server, whose settings were read anew. The keys in memory go on undisturbed.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::key::Fault;
use super::plan::Fitness;
use super::seal::EncryptionKeys;
use super::{Error, Keyring, directory, open, ring, store};
use crate::config;
use crate::entity::signing_key::Model;

impl EncryptionKeys {
    /// Reads them from the settings or the file; errors when there are none.
    pub fn read(config: &config::Keys) -> Result<Self, Error> {
        directory::encryption_keys_of(config)?.ok_or_else(|| Error::Faults(vec![open::nothing_opens(config)]))
    }
}

impl Keyring {
    /// Opens and seals with these keys from now on; false when they are in use already. Errors, and keeps those before, unless they
    /// open every key that those open, and one at least: else the next start would find less than this server has.
    pub async fn exchange(&self, keys: EncryptionKeys, now: DateTime<Utc>) -> Result<bool, Error> {
        let used = self.succession.encryption_keys();
        if let Some(used) = &used
            && used.are(&keys)?
        {
            return Ok(false);
        }
        let rows = store::live_keys(self.succession.db.reader(), now).await?;
        let opens = |row: &Model, keys: &EncryptionKeys| Fitness::of(&ring::open(row, Some(keys))) == Fitness::Usable;
        let is_lost = |row: &&Model| used.as_ref().is_some_and(|used| opens(row, used)) && !opens(row, &keys);
        let lost =
            rows.iter().find(is_lost).or_else(|| rows.first().filter(|_| !rows.iter().any(|row| opens(row, &keys))));
        if let Some(row) = lost {
            let (kid, id) = (&row.kid, &row.encryption_key_id);
            return Err(Error::Faults(vec![Fault(format!(
                "the {} key {kid} could not be opened any more: keep the key-encryption key that sealed it ({id}) as \
                 keys.previous_encryption_key until `authservice keys reseal` has run",
                row.purpose
            ))]));
        }
        self.succession.exchange(Arc::new(keys));
        // Opens what others have sealed and those before did not open. When the database has just gone, the next poll does.
        self.poll(now).await;
        Ok(true)
    }
}
