//! Keys that authenticate opaque refresh tokens: never published, sealed like the others.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

use super::key::Fault;

/// Length of a secret and of a tag.
pub(super) const LENGTH: usize = 32;

/// An HMAC-SHA-256 key.
pub struct MacKey {
    /// Names the key in tokens: 8 bytes as base64url.
    pub kid: String,
    key: PKey<Private>,
}

impl MacKey {
    pub(super) fn new(kid: String, secret: &[u8]) -> Result<Self, Fault> {
        if secret.len() != LENGTH {
            return Err(Fault(format!("the MAC key {kid} has a wrong length")));
        }
        Ok(Self { kid, key: PKey::hmac(secret)? })
    }

    /// The tag of `input`.
    pub fn tag(&self, input: &[u8]) -> Result<[u8; LENGTH], Fault> {
        let tag = Signer::new(MessageDigest::sha256(), &self.key)?.sign_oneshot_to_vec(input)?;
        tag.try_into().map_err(|_| Fault("HMAC-SHA-256 gave a tag of a wrong length".to_owned()))
    }
}
