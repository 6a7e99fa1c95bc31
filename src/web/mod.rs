//! HTTP that every surface shares: connections, limits of size and time, request ids, who asks, headers. No domain is called here.

use poem::http::{HeaderValue, StatusCode, header};
use poem::{Body, Response};
use serde_json::{Value, json};

use crate::random;

pub mod front;
pub(crate) mod guard;
mod head;
pub(crate) mod headers;
pub mod listener;
pub(crate) mod origin;
pub(crate) mod paths;

/// A JSON answer. The seed sends no charset.
pub(crate) fn json(status: StatusCode, value: &Value) -> Response {
    json_bytes(status, value.to_string())
}

/// A JSON answer of bytes that are JSON already.
pub(crate) fn json_bytes(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::builder().status(status).body(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The seed's framework error: what no handler has seen.
pub(crate) fn detail(status: StatusCode, text: &str) -> Response {
    json(status, &json!({"detail": text}))
}

/// The seed's domain error.
pub(crate) fn coded(status: StatusCode, code: &str, message: &str) -> Response {
    json(status, &json!({"error": {"code": code, "message": message}}))
}

/// Seconds after which a client that got a 503 may try again: 1 to 3, at random, so that all of them do not come back at once.
pub(crate) fn try_again_after() -> u64 {
    random::bytes().map_or(3, |[byte]| 1 + u64::from(byte % 3))
}
