//! A resource server as strangers write it: it verifies access tokens with the published keys, and fetches them again only when
//! their `max-age` is over.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::bn::BigNum;
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Public};
use openssl::rsa::Rsa;
use openssl::sign::Verifier as Signature;
use serde_json::Value;

use crate::Result;
use crate::api::Api;

/// Where the keys are.
const PATH: &str = "/.well-known/jwks.json";

/// A verifier and the keys that it knows.
#[derive(Debug)]
pub struct Verifier {
    api: Api,
    keys: HashMap<String, PKey<Public>>,
    fresh_until: Instant,
    /// How often the keys were fetched.
    pub fetches: usize,
}

impl Verifier {
    /// A verifier that knows no keys yet.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { api: Api::new(address), keys: HashMap::new(), fresh_until: Instant::now(), fetches: 0 }
    }

    /// Errors when a resource server would refuse this access token.
    pub async fn verify(&mut self, token: &str) -> Result<()> {
        if Instant::now() >= self.fresh_until {
            self.fetch().await?;
        }
        let (signed, signature) = token.rsplit_once('.').ok_or("not a JWT")?;
        let header = signed.split('.').next().unwrap_or_default();
        let header: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(header)?)?;
        if header["typ"] != "at+jwt" {
            return Err("not an access token".into());
        }
        let kid = header["kid"].as_str().unwrap_or_default();
        let key = self.keys.get(kid).ok_or_else(|| format!("the key {kid} is not published"))?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature)?;
        let is_genuine = match header["alg"].as_str().unwrap_or_default() {
            "RS256" if key.id() == Id::RSA => {
                Signature::new(MessageDigest::sha256(), key)?.verify_oneshot(&signature, signed.as_bytes())?
            }
            "EdDSA" if key.id() == Id::ED25519 => {
                Signature::new_without_digest(key)?.verify_oneshot(&signature, signed.as_bytes())?
            }
            other => return Err(format!("the algorithm {other} is not that of the key").into()),
        };
        if is_genuine { Ok(()) } else { Err("the signature is wrong".into()) }
    }

    async fn fetch(&mut self) -> Result<()> {
        let asked = Instant::now();
        let answer = self.api.get(PATH).await?;
        if answer.status != 200 {
            return Err(format!("the published keys are answered {}", answer.status).into());
        }
        let lives = answer.header("cache-control").split("max-age=").nth(1).unwrap_or_default();
        let seconds: String = lives.chars().take_while(char::is_ascii_digit).collect();
        self.fresh_until = asked + Duration::from_secs(seconds.parse()?);
        self.fetches += 1;
        let set = answer.json();
        let keys = set["keys"].as_array().ok_or("no JWK Set")?;
        self.keys = keys.iter().filter_map(|key| Some((key["kid"].as_str()?.to_owned(), public_key(key)?))).collect();
        Ok(())
    }
}

/// RFC 7517; keys of other kinds are passed over, as RFC 7517 5 asks.
fn public_key(jwk: &Value) -> Option<PKey<Public>> {
    let part = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
    match jwk["kty"].as_str()? {
        "RSA" => {
            let number = |name| BigNum::from_slice(&part(name)?).ok();
            PKey::from_rsa(Rsa::from_public_components(number("n")?, number("e")?).ok()?).ok()
        }
        "OKP" => PKey::public_key_from_raw_bytes(&part("x")?, Id::ED25519).ok(),
        _ => None,
    }
}
