//! HMAC-SHA-256 (RFC 2104), by OpenSSL.

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;

/// Length of a tag.
pub(crate) const LENGTH: usize = 32;

/// A key, ready for use.
pub(crate) struct Key(PKey<Private>);

impl Key {
    /// Any bytes are a key.
    pub(crate) fn new(secret: &[u8]) -> Result<Self, ErrorStack> {
        PKey::hmac(secret).map(Self)
    }

    /// The tag of `input`.
    pub(crate) fn tag(&self, input: &[u8]) -> Result<[u8; LENGTH], ErrorStack> {
        let mut tag = [0; LENGTH];
        Signer::new(MessageDigest::sha256(), &self.0)?.sign_oneshot(&mut tag, input)?;
        Ok(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_that_of_rfc_4231_4_3() {
        let tag = Key::new(b"Jefe").and_then(|key| key.tag(b"what do ya want for nothing?")).expect("a tag");

        assert_eq!(tag[..8], [0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e]);
    }
}
