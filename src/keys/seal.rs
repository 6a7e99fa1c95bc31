//! Private keys at rest: AES-256-GCM under the key-encryption key, with the kid as associated data, so that a sealed key cannot be
//! moved to another row.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::symm::{Cipher, decrypt_aead, encrypt_aead};
use secrecy::zeroize::Zeroizing;

use super::key::Fault;
use crate::{hmac, random};

const VERSION: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;

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
        let damaged = || Fault(format!("the sealed key {kid} is damaged or was sealed with another key"));
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
