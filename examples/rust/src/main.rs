//! A resource server that takes AuthService's access tokens: GET /orders.
//!
//! `AUTH_ISSUER` is the base URL of AuthService, `AUTH_AUDIENCE` the audience that tokens must name (default: the issuer), `PORT`
//! where to listen, `AUTH_JWKS_COOLDOWN` how many seconds apart two readings of the keys for an unknown kid are at least.

mod keys;

use std::env;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::{StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use jsonwebtoken::jwk::KeyAlgorithm;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::json;

use keys::Keys;

/// An allow-list, so that a token cannot choose its own (RFC 8725 3.1).
const ALGORITHMS: [Algorithm; 4] = [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// Judges access tokens.
struct Verifier {
    issuer: String,
    audience: String,
    keys: Keys,
}

/// What a valid access token says of its bearer.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// Why a request is not served.
enum Refusal {
    NoToken,
    Invalid(String),
    /// The keys cannot be read: that says nothing about the token.
    Unavailable(reqwest::Error),
}

impl From<jsonwebtoken::errors::Error> for Refusal {
    fn from(error: jsonwebtoken::errors::Error) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl Verifier {
    async fn verify(&self, token: &str) -> Result<Claims, Refusal> {
        let header = decode_header(token)?;
        // RFC 9068 4: no other kind of token that AuthService signs is an access token.
        if header.typ.as_deref() != Some("at+jwt") {
            return Err(Refusal::Invalid("not an access token".to_owned()));
        }
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Refusal::Invalid(format!("{:?} is not allowed", header.alg)));
        }
        let kid = header.kid.ok_or_else(|| Refusal::Invalid("no kid".to_owned()))?;
        let jwk = self.keys.find(&kid).await.map_err(Refusal::Unavailable)?;
        let jwk = jwk.ok_or_else(|| Refusal::Invalid("unknown kid".to_owned()))?;
        // The key says what it is for; the header must agree.
        if jwk.common.key_algorithm != Some(KeyAlgorithm::from(header.alg)) {
            return Err(Refusal::Invalid("the algorithm is not the key's".to_owned()));
        }

        let mut validation = Validation::new(header.alg);
        validation.leeway = 10;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&[&self.audience]);
        // A claim that is absent is otherwise not checked.
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(decode(token, &DecodingKey::from_jwk(&jwk)?, &validation)?.claims)
    }
}

/// A handler that asks for the claims is only called with a valid token.
impl FromRequestParts<Arc<Verifier>> for Claims {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, verifier: &Arc<Verifier>) -> Result<Self, Refusal> {
        let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.split_once(' ')) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => verifier.verify(token.trim()).await,
            _ => Err(Refusal::NoToken),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, header, text) = match self {
            // RFC 6750 3.1: no error code when the request has no token.
            Self::NoToken => (StatusCode::UNAUTHORIZED, (header::WWW_AUTHENTICATE, "Bearer"), "no token"),
            Self::Invalid(reason) => {
                eprintln!("token refused: {reason}");
                let challenge = (header::WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
                (StatusCode::UNAUTHORIZED, challenge, "invalid token")
            }
            Self::Unavailable(error) => {
                eprintln!("the keys cannot be read: {error}");
                (StatusCode::SERVICE_UNAVAILABLE, (header::RETRY_AFTER, "1"), "cannot verify tokens now")
            }
        };
        (status, [header], Json(json!({"error": text}))).into_response()
    }
}

async fn orders(claims: Claims, State(_): State<Arc<Verifier>>) -> Json<serde_json::Value> {
    Json(json!({"sub": claims.sub, "orders": []}))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let issuer = env::var("AUTH_ISSUER").map_err(|_| "AUTH_ISSUER is not set")?;
    let audience = env::var("AUTH_AUDIENCE").unwrap_or_else(|_| issuer.clone());
    let cooldown = env::var("AUTH_JWKS_COOLDOWN").unwrap_or_else(|_| "30".to_owned()).parse()?;
    let port: u16 = env::var("PORT").unwrap_or_else(|_| "8080".to_owned()).parse()?;
    let keys = Keys::new(format!("{issuer}/.well-known/jwks.json"), Duration::from_secs_f64(cooldown))?;

    let verifier = Arc::new(Verifier { issuer, audience, keys });
    let app = Router::new().route("/orders", get(orders)).with_state(verifier);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
