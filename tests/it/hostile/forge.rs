//! Tokens signed with the server's own key, so that what is refused is refused for one reason.

use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use serde_json::Value;

use super::Stage;
use super::wire::bare;
use crate::support::{Pair, claims};
use crate::tokens::{self, mutated, part, token};

/// The server's key, and a genuine pair of tokens to spoil.
pub(super) struct Forge {
    key: PKey<Private>,
    pub(super) kid: String,
    pub(super) pair: Pair,
}

impl Forge {
    pub(super) fn new(stage: &mut Stage, pair: Pair) -> Self {
        let pem = std::fs::read("tests/keys/private.pem").unwrap();
        let keys = stage.ask(&bare("GET /.well-known/jwks.json"), 200).json();
        let kid = keys["keys"][0]["kid"].as_str().unwrap().to_owned();
        Self { key: PKey::private_key_from_pem(&pem).unwrap(), kid, pair }
    }

    pub(super) fn key(&self) -> &PKey<Private> {
        &self.key
    }

    pub(super) fn header(&self, typ: &str) -> String {
        format!(r#"{{"alg":"RS256","typ":"{typ}","kid":"{}"}}"#, self.kid)
    }

    /// Any header and payload, well signed.
    pub(super) fn sign(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        token(header, payload, |input| tokens::signature(&self.key, MessageDigest::sha256(), input))
    }

    /// The genuine access token under another header.
    pub(super) fn under(&self, header: impl AsRef<[u8]>) -> String {
        self.sign(header, part(&self.pair.access, 1))
    }

    /// The genuine access token with one claim replaced by JSON text, or left out.
    pub(super) fn access(&self, name: &str, json: Option<&str>) -> String {
        self.sign(self.header("at+jwt"), mutated(&self.pair.access, name, json))
    }

    /// The genuine refresh token with one claim replaced by JSON text, or left out.
    pub(super) fn refresh(&self, name: &str, json: Option<&str>) -> String {
        self.sign(self.header("refresh+jwt"), mutated(&self.pair.refresh, name, json))
    }

    /// A claim of the genuine access token.
    pub(super) fn claim(&self, name: &str) -> Value {
        claims(&self.pair.access)[name].clone()
    }
}
