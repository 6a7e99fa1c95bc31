//! Keys that authenticate opaque refresh tokens: never published, sealed like the others.

use super::key::Fault;
use crate::hmac;

/// An HMAC-SHA-256 key.
pub struct MacKey {
    /// Names the key in tokens: 8 bytes as base64url.
    pub kid: String,
    key: hmac::Key,
}

impl MacKey {
    pub(crate) fn new(kid: String, secret: &[u8]) -> Result<Self, Fault> {
        Ok(Self { kid, key: hmac::Key::new(secret)? })
    }

    /// The tag of `input`.
    pub fn tag(&self, input: &[u8]) -> Result<[u8; hmac::LENGTH], Fault> {
        Ok(self.key.tag(input)?)
    }
}
