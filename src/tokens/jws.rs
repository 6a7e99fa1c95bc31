//! The compact form (RFC 7515 3.1), read strictly and written with a prepared header.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::{Error, Kind};
use crate::json;
use crate::keys::{self, Key};

/// No token of ours is longer.
const MAX_LENGTH: usize = 8192;

/// A token of which only the form is known.
pub(super) struct Unverified<'a> {
    input: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
    algorithm: String,
    media_type: String,
    /// Absent in tokens of the old service.
    kid: Option<String>,
}

/// A token whose signature is ours.
pub(super) struct Token {
    /// `typ` in lower case, without `application/`.
    pub(super) media_type: String,
    pub(super) claims: Map<String, Value>,
}

impl<'a> Unverified<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, Error> {
        if token.len() > MAX_LENGTH {
            return Err(Error::Invalid("Token is too long"));
        }
        let (input, signature) = token.rsplit_once('.').ok_or(Error::Invalid("Not enough segments"))?;
        let (header, payload) = input.split_once('.').ok_or(Error::Invalid("Not enough segments"))?;
        if payload.contains('.') {
            return Err(Error::Invalid("Too many segments"));
        }
        let header = object(header).ok_or(Error::Invalid("Invalid header"))?;
        // RFC 8725 3.10, RFC 7515 4.1.11: nothing that names or brings a key, no extension that we would have to understand.
        if header.keys().any(|name| !["alg", "typ", "kid"].contains(&name.as_str())) {
            return Err(Error::Invalid("The header has a parameter that is not allowed"));
        }
        let text = |name: &str| header.get(name).and_then(Value::as_str).map(str::to_owned);
        // A token without one is of no kind: whoever asks for a kind refuses it.
        let typ = text("typ").unwrap_or_default().to_ascii_lowercase();
        Ok(Self {
            input,
            payload,
            signature: BASE64_URL_SAFE_NO_PAD
                .decode(signature)
                .map_err(|_| Error::Invalid("Invalid signature encoding"))?,
            algorithm: text("alg").ok_or(Error::Invalid("The specified alg value is not allowed"))?,
            media_type: typ.strip_prefix("application/").unwrap_or(&typ).to_owned(),
            kid: header.contains_key("kid").then(|| text("kid").ok_or(Error::Invalid("Invalid kid"))).transpose()?,
        })
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Checks algorithm, then signature, and only then reads the claims.
    pub(super) fn verify(self, key: Option<&Key>) -> Result<Token, Error> {
        let key = key.ok_or(Error::Invalid("The kid is unknown"))?;
        if self.algorithm != key.algorithm.name() {
            return Err(Error::Invalid("The specified alg value is not allowed"));
        }
        if !key.is_signature(self.input.as_bytes(), &self.signature) {
            return Err(Error::Invalid("Signature verification failed"));
        }
        let claims = object(self.payload).ok_or(Error::Invalid("Invalid payload"))?;
        Ok(Token { media_type: self.media_type, claims })
    }
}

/// Signs `claims` as a token of `kind`.
pub(super) fn sign(key: &Key, kind: Kind, claims: &Map<String, Value>) -> Result<SecretString, Error> {
    // The kid is base64url and the other two are constants: nothing needs escaping.
    let header = format!(r#"{{"alg":"{}","typ":"{}","kid":"{}"}}"#, key.algorithm.name(), kind.media_type(), key.kid);
    let payload = serde_json::to_vec(claims).expect("a map of JSON values serialises");
    let mut token = BASE64_URL_SAFE_NO_PAD.encode(header);
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(payload, &mut token);
    let signature = key.sign(token.as_bytes()).map_err(keys::Error::from)?;
    token.push('.');
    BASE64_URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token.into())
}

/// Strict base64url, strict UTF-8, strict JSON, an object without blanks around it.
fn object(segment: &str) -> Option<Map<String, Value>> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(segment).ok()?).ok()?;
    if !text.starts_with('{') || !text.ends_with('}') {
        return None;
    }
    match json::parse(&text).ok()? {
        Value::Object(object) => Some(object),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::config::Algorithm;

    const TEST_KEY: &[u8] = include_bytes!("../../tests/keys/private.pem");

    fn verify(token: &str, key: &Key) -> Result<Token, Error> {
        Unverified::parse(token).and_then(|token| token.verify(Some(key)))
    }

    fn signed(key: &Key) -> String {
        use secrecy::ExposeSecret as _;
        let claims = json!({"user_id": 1, "exp": 1_900_000_000, "sid": "00000000-0000-4000-8000-000000000000"});
        let token = sign(key, Kind::Access, claims.as_object().expect("an object")).expect("signed");
        token.expose_secret().to_owned()
    }

    /// RFC 7515 5.2: not a bit of a token may differ, be missing, or be added. base64url has one form of each byte sequence.
    #[test]
    fn no_change_of_a_token_is_accepted() {
        let ed25519 = openssl::pkey::PKey::generate_ed25519().and_then(|key| key.private_key_to_pem_pkcs8());
        let rows = [(TEST_KEY.to_vec(), Algorithm::RS256), (ed25519.expect("PEM"), Algorithm::EdDSA)];
        for (pem, algorithm) in rows {
            let key = Key::from_pem(&pem, algorithm).expect("a key");
            let token = signed(&key);
            assert!(verify(&token, &key).is_ok());
            let refused = |changed: &[u8], how: &str, at: usize| {
                let Ok(changed) = std::str::from_utf8(changed) else { return };
                assert!(verify(changed, &key).is_err(), "{algorithm:?} {how} {at}: {changed}");
            };

            for at in 0..token.len() {
                for bit in 0..8 {
                    let mut changed = token.clone().into_bytes();
                    changed[at] ^= 1 << bit;
                    refused(&changed, "bit", at * 8 + bit);
                }
                refused(&token.as_bytes()[..at], "cut behind", at);
                refused(&token.as_bytes()[at + 1..], "cut before", at);
                for more in [b'A', b'.', b'=', b' ', b'\n', 0] {
                    let changed = [&token.as_bytes()[..at], &[more], &token.as_bytes()[at..]].concat();
                    refused(&changed, "added", at);
                }
            }
            for more in ["A", ".", "=", "==", " ", "\n", "\0", ".A"] {
                refused(format!("{token}{more}").as_bytes(), "added at the end", token.len());
            }
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            prop_assert!(matches!(Unverified::parse(&text), Ok(_) | Err(Error::Invalid(_))));
        }

        /// Of the right form, so that it gets further.
        #[test]
        fn any_header_is_judged(
            header in r#"\{("(alg|typ|kid|crit|jwk)":("[A-Za-z0-9+/ ]{0,9}"|[0-9]{1,30}|null|\[\]|\{\}),?){0,4}\}"#
        ) {
            let encoded = BASE64_URL_SAFE_NO_PAD.encode(&header);
            let token = format!("{encoded}.e30.AAAA");
            let parsed = Unverified::parse(&token);
            prop_assert!(parsed.is_err() || !header.contains("crit") && !header.contains("jwk"), "{header}");
            prop_assert!(parsed.is_err() || json::parse(&header).is_ok(), "{header}");
        }
    }
}
