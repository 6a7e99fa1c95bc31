//! The REST API as a client speaks it: paths, token pairs, and what a refresh token says of itself.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::Method;
use serde_json::{Value, json};

use crate::client::{Answer, Client, Trouble};
use crate::{Error, Result};

/// Path prefix of the REST API.
pub const PREFIX: &str = "/auth_api/v1";

/// Both tokens of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Access token.
    pub access: String,
    /// Refresh token.
    pub refresh: String,
}

impl Pair {
    /// Takes the tokens of a 200 whose body has the promised shape.
    #[must_use]
    pub fn of(answer: &Answer) -> Option<Self> {
        let body = answer.json();
        let text = |name: &str| Some(body[name].as_str().filter(|text| !text.is_empty())?.to_owned());
        let is_whole = answer.status == 200 && body["token_type"] == "Bearer" && body["expires_in"].as_i64() > Some(0);
        if !is_whole {
            return None;
        }
        Some(Self { access: text("access_token")?, refresh: text("refresh_token")? })
    }
}

/// A client that knows the API.
#[derive(Debug)]
pub struct Api {
    /// For requests that have no method here.
    pub client: Client,
}

impl Api {
    /// A client of the server at an address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { client: Client::new(address) }
    }

    /// `GET` of a path of the server, without a token.
    pub async fn get(&mut self, path: &str) -> Result<Answer, Trouble> {
        self.client.send(Method::GET, path, None, None).await
    }

    /// Registers a user.
    pub async fn register(&mut self, email: &str, password: &str) -> Result<Answer, Trouble> {
        self.post("users/register", &json!({"email": email, "password": password})).await
    }

    /// Signs in.
    pub async fn login(&mut self, email: &str, password: &str) -> Result<Answer, Trouble> {
        self.post("auth/login", &json!({"email": email, "password": password})).await
    }

    /// Exchanges a refresh token.
    pub async fn refresh(&mut self, token: &str) -> Result<Answer, Trouble> {
        self.with_token(Method::POST, "auth/refresh", token).await
    }

    /// Ends the session of a refresh token.
    pub async fn logout(&mut self, token: &str) -> Result<Answer, Trouble> {
        self.with_token(Method::POST, "auth/logout", token).await
    }

    /// Ends every session of an access token's user.
    pub async fn logout_all(&mut self, access: &str) -> Result<Answer, Trouble> {
        self.with_token(Method::POST, "auth/logout-all", access).await
    }

    /// Asks who an access token's user is.
    pub async fn me(&mut self, access: &str) -> Result<Answer, Trouble> {
        self.with_token(Method::GET, "users/me", access).await
    }

    /// Registers a user; anything but success is an error.
    pub async fn must_register(&mut self, email: &str, password: &str) -> Result<()> {
        let answer = self.register(email, password).await?;
        if answer.status == 201 { Ok(()) } else { Err(unexpected("register", &answer)) }
    }

    /// Signs in; anything but success is an error.
    pub async fn must_login(&mut self, email: &str, password: &str) -> Result<Pair> {
        let answer = self.login(email, password).await?;
        Pair::of(&answer).ok_or_else(|| unexpected("login", &answer))
    }

    async fn post(&mut self, path: &str, body: &Value) -> Result<Answer, Trouble> {
        self.client.send(Method::POST, &format!("{PREFIX}/{path}"), None, Some(body)).await
    }

    async fn with_token(&mut self, method: Method, path: &str, token: &str) -> Result<Answer, Trouble> {
        self.client.send(method, &format!("{PREFIX}/{path}"), Some(token), None).await
    }
}

fn unexpected(what: &str, answer: &Answer) -> Error {
    format!("{what}: {} {}", answer.status, String::from_utf8_lossy(&answer.body)).into()
}

/// The claims of a JWT, unverified; null for what is none.
#[must_use]
pub fn claims(token: &str) -> Value {
    let segment = token.split('.').nth(1).unwrap_or_default();
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// The family and generation that a refresh token names, in either form.
#[must_use]
pub fn generation(token: &str) -> Option<(String, i64)> {
    if let Some(text) = token.strip_prefix("rt1.") {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let family = format!("{:032x}", u128::from_be_bytes(bytes.get(9..25)?.try_into().ok()?));
        let generation = i64::from_be_bytes(bytes.get(25..33)?.try_into().ok()?);
        return Some((family, generation));
    }
    let claims = claims(token);
    Some((claims["fam"].as_str()?.replace('-', ""), claims["gen"].as_i64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_name_their_generation() {
        let payload = BASE64_URL_SAFE_NO_PAD.encode(r#"{"fam":"00000000-0000-0000-0000-0000000000ff","gen":7}"#);
        let mut bytes = vec![0; 81];
        (bytes[24], bytes[32]) = (0xff, 7);
        let opaque = format!("rt1.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));

        for token in [format!("e30.{payload}.s"), opaque] {
            assert_eq!(generation(&token), Some((format!("{:032x}", 0xff), 7)));
        }
        assert_eq!(generation("nonsense"), None);
    }
}
