//! Tokens by kind, and those that are signed by hand: our form with one mutation, by the key that the server has too.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Padding;
use openssl::sign::{RsaPssSaltlen, Signer};
use serde_json::{Value, json};

/// What stands behind `Bearer`. Names are those of tokens that an earlier row saved.
pub(super) enum Bearer {
    Access(&'static str),
    Refresh(&'static str),
    /// The refresh token before the newest.
    OldRefresh(&'static str),
    /// An access token whose signature is damaged.
    Broken(&'static str),
    SignedAccess(&'static str, &'static [(&'static str, Claim)]),
    SignedRefresh(&'static str, &'static [(&'static str, Claim)]),
    /// An access token with another algorithm in its header, and signed so.
    Forged(&'static str, &'static str),
}

/// What a claim becomes.
pub(super) enum Claim {
    Gone,
    /// Seconds from now.
    Now(i64),
    /// JSON text.
    Json(&'static str),
}

/// Signs as the server does.
pub(super) struct Signature {
    key: PKey<Private>,
    kid: String,
}

impl Signature {
    /// `kid` is the name that the server gave to the key.
    pub(super) fn new(kid: String) -> Self {
        let pem = std::fs::read("tests/keys/private.pem").unwrap();
        let key = PKey::private_key_from_pem(&pem).unwrap();
        Self { key, kid }
    }

    /// Signs `claims` as a token of a media type, after its mutation.
    pub(super) fn token(
        &self,
        (algorithm, media_type): (&str, &str),
        mut claims: Value,
        mutation: &[(&str, Claim)],
        now: i64,
    ) -> String {
        let members = claims.as_object_mut().unwrap();
        for (name, claim) in mutation {
            let value = match claim {
                Claim::Gone => None,
                Claim::Now(seconds) => Some(json!(now + seconds)),
                Claim::Json(text) => Some(serde_json::from_str(text).unwrap()),
            };
            match value {
                Some(value) => members.insert((*name).to_owned(), value),
                None => members.remove(*name),
            };
        }
        let header = json!({"alg": algorithm, "typ": media_type, "kid": self.kid});
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", part(&header), part(&claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.sign(algorithm, input.as_bytes()));
        format!("{input}.{signature}")
    }

    fn sign(&self, algorithm: &str, input: &[u8]) -> Vec<u8> {
        let public = || self.key.public_key_to_pem().unwrap();
        let sha256 = MessageDigest::sha256();
        match algorithm {
            "none" => Vec::new(),
            "HS256" => {
                let secret = PKey::hmac(&public()).unwrap();
                Signer::new(sha256, &secret).and_then(|mut signer| signer.sign_oneshot_to_vec(input)).unwrap()
            }
            "PS256" => {
                let mut signer = Signer::new(sha256, &self.key).unwrap();
                signer.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
                signer.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
                signer.sign_oneshot_to_vec(input).unwrap()
            }
            _ => {
                let digest = if algorithm == "RS512" { MessageDigest::sha512() } else { sha256 };
                Signer::new(digest, &self.key).and_then(|mut signer| signer.sign_oneshot_to_vec(input)).unwrap()
            }
        }
    }
}
