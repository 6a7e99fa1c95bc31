//! What OAuth and OpenID Connect clients and resource servers read without signing in: metadata and keys.

pub(crate) mod discovery;
pub(crate) mod jwks;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use poem::http::{HeaderValue, StatusCode, header};
use poem::{IntoResponse as _, Request, Response};

/// Answers with what is public and the same for everybody: any page may read it (no credentials are involved), caches may keep it.
fn public(request: &Request, media_type: &str, body: Bytes, max_age: u64) -> Response {
    let etag = format!("\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&openssl::sha::sha256(&body)[..16]));
    let is_known = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*");
    // RFC 9110 15.4.5: 304 without content, with the headers that caches need.
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Response::builder().content_type(media_type).body(body)
    };
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, &etag);
    set(header::CACHE_CONTROL, &format!("public, max-age={max_age}"));
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    response
}
