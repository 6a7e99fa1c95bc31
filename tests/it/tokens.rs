//! Access tokens as our own endpoints take them: what stands in them, and every way of forging one.
//!
//! A forged token differs from a genuine one by one mutation and is otherwise valid: it is signed with the server's own key, which
//! tests know, unless the signature is the mutation.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use reqwest::Method;
use serde_json::{Map, Value};

use crate::support::{Answer, Engine, Pair, TestApp};

mod claims;
mod ended;
mod form;
mod header;
mod issued;
mod wycheproof;

/// What is expected of a token that is not ours.
const INVALID: (u16, &str) = (401, "invalid_token");
/// What is expected of a genuine token of another kind.
const WRONG_KIND: (u16, &str) = (400, "invalid_token_type");

/// A server whose key is known, and what its tokens are made of.
struct Forge {
    app: TestApp,
    /// The server's signing key.
    key: PKey<Private>,
    /// `kid` of it, as the JWK Set names it.
    kid: String,
    /// Alice's tokens.
    pair: Pair,
}

impl Forge {
    async fn new(engine: Engine) -> Self {
        Self::with(engine, &[]).await
    }

    async fn with(engine: Engine, settings: &[(&str, &str)]) -> Self {
        eprintln!("engine: {engine:?}");
        let app = TestApp::start_with_known_key(engine, settings).await;
        let pem = std::fs::read("tests/keys/private.pem").unwrap();
        let jwks = app.get("/.well-known/jwks.json").await.json();
        Self {
            kid: jwks["keys"][0]["kid"].as_str().unwrap().to_owned(),
            key: PKey::private_key_from_pem(&pem).unwrap(),
            pair: app.alice().await,
            app,
        }
    }

    /// The header of a genuine token of the media type.
    fn header(&self, typ: &str) -> String {
        format!(r#"{{"alg":"RS256","typ":"{typ}","kid":"{}"}}"#, self.kid)
    }

    /// Signs any header and payload as the server does.
    fn sign(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        token(header, payload, |input| signature(&self.key, MessageDigest::sha256(), input))
    }

    /// A well-signed access token with this payload.
    fn access(&self, payload: impl AsRef<[u8]>) -> String {
        self.sign(self.header("at+jwt"), payload)
    }

    /// Alice's genuine payload with one claim replaced by JSON text, or added.
    fn with_claim(&self, name: &str, json: &str) -> String {
        self.access(mutated(&self.pair.access, name, Some(json)))
    }

    /// Alice's genuine payload without one claim.
    fn without_claim(&self, name: &str) -> String {
        self.access(mutated(&self.pair.access, name, None))
    }

    /// What is wrong with the answers of every endpoint that takes an access token.
    async fn refusals(&self, name: &str, token: &str, expected: (u16, &str)) -> Vec<String> {
        let mut faults = Vec::new();
        for (method, path) in ACCESS {
            let answer = self.app.with_token(method, path, token).await;
            faults.extend(fault(&answer, expected).map(|fault| format!("{name} at {path}: {fault}")));
        }
        faults
    }

    /// What is wrong when the endpoints that only read do not take the token.
    async fn acceptances(&self, name: &str, token: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for path in ["users/me", "auth/sessions"] {
            let answer = self.app.with_token(Method::GET, path, token).await;
            if answer.status != 200 {
                faults.push(format!("{name} at {path}: {answer:?}"));
            }
        }
        faults
    }

    /// Asserts that nothing was wrong, and that no forged token touched the session.
    async fn finish(&self, faults: Vec<String>) {
        assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
        assert_eq!(self.app.me(&self.pair.access).await.status, 200);
        self.app.refresh(&self.pair.refresh).await.pair();
    }
}

/// The endpoints that take an access token.
const ACCESS: [(Method, &str); 3] =
    [(Method::GET, "users/me"), (Method::GET, "auth/sessions"), (Method::POST, "auth/logout-all")];

/// What is wrong with a refusal: its status, its code, or the headers that every refusal has.
fn fault(answer: &Answer, expected: (u16, &str)) -> Option<String> {
    let challenge = if expected.0 == 401 { "Bearer" } else { "" };
    let is_right = (answer.status, answer.code().as_str()) == expected
        && answer.header("www-authenticate") == challenge
        && answer.header("cache-control") == "no-store"
        && answer.header("x-content-type-options") == "nosniff"
        && answer.header("server").is_empty();
    (!is_right).then(|| format!("expected {expected:?}, got {answer:?}"))
}

/// The compact serialisation (RFC 7515 3.1) of any header and payload, signed by any means.
pub(crate) fn token(
    header: impl AsRef<[u8]>,
    payload: impl AsRef<[u8]>,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    let input = format!("{}.{}", encode(header), encode(payload));
    let signature = sign(input.as_bytes());
    format!("{input}.{}", encode(signature))
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// RSASSA-PKCS1-v1_5 (RFC 7518 3.3).
pub(crate) fn signature(key: &PKey<Private>, digest: MessageDigest, input: &[u8]) -> Vec<u8> {
    let mut signer = Signer::new(digest, key).unwrap();
    signer.sign_oneshot_to_vec(input).unwrap()
}

/// HMAC (RFC 7518 3.2).
pub(crate) fn hmac(secret: &[u8], digest: MessageDigest, input: &[u8]) -> Vec<u8> {
    signature(&PKey::hmac(secret).unwrap(), digest, input)
}

/// The text of one part of a token.
pub(crate) fn part(token: &str, part: usize) -> String {
    let segment = token.split('.').nth(part).unwrap();
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
}

/// The payload of a token with one claim replaced or added as JSON text, which need not be valid, or left out.
pub(crate) fn mutated(token: &str, name: &str, json: Option<&str>) -> String {
    let claims: Map<String, Value> = serde_json::from_str(&part(token, 1)).unwrap();
    let others = claims.iter().filter(|(other, _)| *other != name);
    let mut members: Vec<String> = others.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    members.extend(json.map(|json| format!("\"{name}\":{json}")));
    format!("{{{}}}", members.join(","))
}
