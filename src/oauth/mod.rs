//! What OAuth and OpenID Connect clients and resource servers read without signing in: metadata and keys.

pub(crate) mod discovery;
pub(crate) mod jwks;

use poem::http::{HeaderValue, header};
use poem::{Request, Response};

/// Public and the same for everybody: any page may read it (no credentials are involved), caches may keep it.
fn public(request: &Request, mut response: Response, etag: &str, max_age: u64) -> Response {
    let is_known = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|tag| tag.trim().trim_start_matches("W/"))
        .any(|tag| tag == etag || tag == "*");
    if is_known {
        // RFC 9110 15.4.5: without content, with the headers that caches need.
        response.take_body();
        response.set_status(poem::http::StatusCode::NOT_MODIFIED);
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(header::ETAG, etag);
    set(header::CACHE_CONTROL, &format!("public, max-age={max_age}"));
    set(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
    response
}
