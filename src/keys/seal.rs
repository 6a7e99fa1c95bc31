//! Private keys at rest: AES-256-GCM under the key-encryption key, with the kid as associated data, so that a sealed key cannot be
//! moved to another row.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use secrecy::zeroize::Zeroizing;

use super::key::Fault;
use crate::entity::signing_key::Model;
use crate::{hmac, random};

const VERSION: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;

/// Why a row cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unopened {
    /// Neither of our key-encryption keys sealed it.
    #[error("the key {kid} was sealed with another key-encryption key ({id})")]
    Foreign { kid: String, id: String },
    /// A newer release made it.
    #[error("{0}")]
    Unknown(Fault),
    /// Sealed with a key of ours, and not what was sealed.
    #[error("{0}")]
    Damaged(#[from] Fault),
}

/// The key-encryption key, and the one before it while one succeeds the other.
pub struct EncryptionKeys {
    current: KeyEncryptionKey,
    previous: Option<KeyEncryptionKey>,
}

/// Which of the key-encryption keys sealed a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedBy {
    /// The one in use.
    Current,
    /// The one before.
    Previous,
    /// None that this process has.
    Unknown,
}

impl SealedBy {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Previous => "previous",
            Self::Unknown => "unknown",
        }
    }
}

impl EncryptionKeys {
    pub(super) fn new(current: KeyEncryptionKey, previous: Option<KeyEncryptionKey>) -> Result<Self, Fault> {
        if let Some(previous) = &previous
            && previous.id()? == current.id()?
        {
            return Err(Fault("keys.previous_encryption_key is the current key-encryption key".to_owned()));
        }
        Ok(Self { current, previous })
    }

    /// True when these are the same keys in the same places.
    pub(super) fn are(&self, other: &Self) -> Result<bool, Fault> {
        let ids = |keys: &Self| -> Result<_, Fault> {
            Ok((keys.current.id()?, keys.previous.as_ref().map(KeyEncryptionKey::id).transpose()?))
        };
        Ok(ids(self)? == ids(other)?)
    }

    /// Seals with the current key; returns its id too.
    pub(super) fn seal(&self, kid: &str, plain: &[u8]) -> Result<(Vec<u8>, String), Fault> {
        Ok((self.current.seal(kid, plain)?, self.current.id()?))
    }

    /// Opens with the key that sealed.
    pub(super) fn open(&self, row: &Model) -> Result<Zeroizing<Vec<u8>>, Unopened> {
        let key = match (self.sealed_by(row)?, &self.previous) {
            (SealedBy::Current, _) => &self.current,
            (SealedBy::Previous, Some(previous)) => previous,
            _ => return Err(Unopened::Foreign { kid: row.kid.clone(), id: row.encryption_key_id.clone() }),
        };
        Ok(key.open(&row.kid, &row.sealed_private)?)
    }

    pub(super) fn sealed_by(&self, row: &Model) -> Result<SealedBy, Fault> {
        if row.encryption_key_id == self.current.id()? {
            return Ok(SealedBy::Current);
        }
        let is_previous =
            self.previous.as_ref().map(KeyEncryptionKey::id).transpose()?.is_some_and(|id| id == row.encryption_key_id);
        Ok(if is_previous { SealedBy::Previous } else { SealedBy::Unknown })
    }
}

/// The key that seals private keys.
pub(super) struct KeyEncryptionKey(Zeroizing<[u8; 32]>);

impl KeyEncryptionKey {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Names the key without telling it. Each sealed row keeps it: the check value by which a wrong key is noticed.
    pub(super) fn id(&self) -> Result<String, Fault> {
        let tag = hmac::Key::new(self.0.as_slice())?.tag(b"authservice key-encryption key id")?;
        Ok(BASE64_URL_SAFE_NO_PAD.encode(&tag[..16]))
    }

    /// Layout: version, nonce, tag, ciphertext.
    pub(super) fn seal(&self, kid: &str, plain: &[u8]) -> Result<Vec<u8>, Fault> {
        let nonce: [u8; NONCE] = random::bytes().map_err(|error| Fault(error.to_string()))?;
        let mut tag = [0; TAG];
        let sealed =
            encrypt_aead(Cipher::aes_256_gcm(), self.0.as_slice(), Some(&nonce), kid.as_bytes(), plain, &mut tag)?;
        Ok([&[VERSION][..], &nonce, &tag, &sealed].concat())
    }

    pub(super) fn open(&self, kid: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let damaged = || Fault(format!("the sealed key {kid} is damaged"));
        let (version, rest) = sealed.split_first().ok_or_else(damaged)?;
        if *version != VERSION || rest.len() < NONCE + TAG {
            return Err(damaged());
        }
        let (nonce, rest) = rest.split_at(NONCE);
        let (tag, sealed) = rest.split_at(TAG);
        decrypt_aead(Cipher::aes_256_gcm(), self.0.as_slice(), Some(nonce), kid.as_bytes(), sealed, tag)
            .map(Zeroizing::new)
            .map_err(|_| damaged())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_only_under_its_own_kid_and_key() {
        let kek = KeyEncryptionKey::new([7; 32]);

        let sealed = kek.seal("kid", b"private").expect("sealed");

        assert_eq!(kek.open("kid", &sealed).expect("opened").as_slice(), b"private");
        assert!(kek.open("other", &sealed).is_err());
        assert!(KeyEncryptionKey::new([8; 32]).open("kid", &sealed).is_err());
        assert!(kek.open("kid", &sealed[..20]).is_err());
        assert!(!sealed.windows(7).any(|window| window == b"private"));
    }
}
