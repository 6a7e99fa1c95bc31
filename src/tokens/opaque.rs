//! The opaque form of refresh tokens: `rt1.` and 81 bytes as base64url.
//!
//! Version, id of the MAC key, family, generation, the family's proof of the generation, and a tag over all of it by the MAC key. A
//! wrong tag is refused without a query and without a signature.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::SecretString;
use uuid::Uuid;

use super::claims::RefreshClaims;
use super::{Error, RefreshGrant};
use crate::keys::{self, MacKey};

const PREFIX: &str = "rt1.";
const VERSION: u8 = 1;
/// Version, key id, family, generation, proof.
const BODY: usize = 1 + 8 + 16 + 8 + 16;
const TAG: usize = 32;

/// True for what claims to be of this form.
pub(super) fn is_opaque(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// A token of which only the form is known.
pub(super) struct Unverified([u8; BODY + TAG]);

impl Unverified {
    pub(super) fn parse(token: &str) -> Result<Self, Error> {
        let text = token.strip_prefix(PREFIX).unwrap_or_default();
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let bytes: [u8; BODY + TAG] = bytes.ok_or(Error::Invalid("Invalid refresh token"))?;
        if bytes[0] == VERSION { Ok(Self(bytes)) } else { Err(Error::Invalid("Invalid refresh token")) }
    }

    pub(super) fn kid(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(&self.0[1..9])
    }

    pub(super) fn verify(self, key: Option<&MacKey>) -> Result<RefreshClaims, Error> {
        let key = key.ok_or(Error::Invalid("The key of the refresh token is unknown"))?;
        let (body, tag) = self.0.split_at(BODY);
        if !openssl::memcmp::eq(&key.tag(body).map_err(keys::Error::from)?, tag) {
            return Err(Error::Invalid("Signature verification failed"));
        }
        let part = |from: usize, to: usize| &body[from..to];
        Ok(RefreshClaims {
            session_id: None,
            family_id: Uuid::from_slice(part(9, 25)).expect("16 bytes"),
            generation: Some(i64::from_be_bytes(part(25, 33).try_into().expect("8 bytes"))),
            jti: Some(Uuid::from_slice(part(33, 49)).expect("16 bytes")),
            legacy_hash: None,
        })
    }
}

/// Depends on nothing but its arguments, so that a retry gets the same bytes.
pub(super) fn issue(key: &MacKey, refresh: &RefreshGrant) -> Result<SecretString, Error> {
    let kid = BASE64_URL_SAFE_NO_PAD.decode(&key.kid).unwrap_or_default();
    let generation = refresh.generation.to_be_bytes();
    let body = [&[VERSION][..], &kid, refresh.family_id.as_bytes(), &generation, refresh.jti.as_bytes()].concat();
    let tag = key.tag(&body).map_err(keys::Error::from)?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode([&body[..], &tag].concat())).into())
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use proptest::prelude::*;
    use secrecy::ExposeSecret as _;

    use super::*;

    fn key() -> MacKey {
        MacKey::new(BASE64_URL_SAFE_NO_PAD.encode([7; 8]), &[9; 32]).expect("a key")
    }

    fn grant(family: u128, jti: u128, generation: i64) -> RefreshGrant {
        RefreshGrant {
            family_id: Uuid::from_u128(family),
            jti: Uuid::from_u128(jti),
            generation,
            issued_at: DateTime::UNIX_EPOCH,
            expires_at: DateTime::UNIX_EPOCH,
            key_id: key().kid,
        }
    }

    fn verify(token: &str) -> Result<RefreshClaims, Error> {
        Unverified::parse(token).and_then(|token| token.verify(Some(&key())))
    }

    /// Not a bit may differ, nor may any be missing or added.
    #[test]
    fn no_change_of_a_token_is_accepted() {
        let token = issue(&key(), &grant(1, 2, 3)).expect("issued").expose_secret().to_owned();
        assert!(verify(&token).is_ok());
        let refused = |changed: &[u8]| {
            let is_refused = std::str::from_utf8(changed).is_ok_and(|changed| verify(changed).is_err());
            assert!(is_refused || !changed.is_ascii(), "{}", String::from_utf8_lossy(changed));
        };
        for at in 0..token.len() {
            for bit in 0..8 {
                let mut changed = token.clone().into_bytes();
                changed[at] ^= 1 << bit;
                refused(&changed);
            }
            refused(&token.as_bytes()[..at]);
            refused(&token.as_bytes()[at + 1..]);
            refused(&[&token.as_bytes()[..at], b"A", &token.as_bytes()[at..]].concat());
        }
    }

    proptest! {
        /// What was issued is read as it was written, whatever it is.
        #[test]
        fn a_token_says_what_it_was_issued_for(
            family in any::<u128>(),
            jti in any::<u128>(),
            generation in any::<i64>(),
        ) {
            let grant = grant(family, jti, generation);
            let token = issue(&key(), &grant).expect("issued");
            let claims = verify(token.expose_secret()).expect("verified");
            prop_assert_eq!(
                (claims.family_id, claims.jti, claims.generation),
                (grant.family_id, Some(grant.jti), Some(generation))
            );
        }

        #[test]
        fn no_other_bytes_are_a_token(bytes in prop::collection::vec(any::<u8>(), BODY + TAG - 2..BODY + TAG + 2)) {
            let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
            prop_assert!(verify(&token).is_err());
        }
    }
}
