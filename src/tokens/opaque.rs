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
