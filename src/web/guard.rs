//! Requests that no handler sees: too large, too slow, ambiguous.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use poem::http::uri::Authority;
use poem::http::{HeaderValue, StatusCode, Version, header};
use poem::{Body, Request, Response};

use super::{coded, detail};

/// Longest body. The largest honest one is a registration of less than 4 KiB.
const MAX_BODY: usize = 16 * 1024;
/// Longest target (path and query).
const MAX_TARGET: usize = 8 * 1024;
/// How long a body may take.
const BODY_TIME: Duration = Duration::from_secs(15);

/// Marks what stands for a head that is refused, and says why.
#[derive(Clone, Copy)]
pub(crate) struct Unreadable(pub(crate) StatusCode);

/// Refuses what is ambiguous or too large, by its head: returns the answer.
pub(crate) fn refuse(request: &Request) -> Option<Response> {
    let headers = request.headers();
    if let Some(Unreadable(status)) = request.data::<Unreadable>() {
        return Some(closing(detail(*status, status.canonical_reason().unwrap_or_default())));
    }
    let count = |name| headers.get_all(name).iter().count();
    // RFC 9112 3.2: one Host, which HTTP/1.0 did not have.
    let is_hosted = match request.version() {
        Version::HTTP_10 => count(header::HOST) <= 1,
        _ => count(header::HOST) == 1,
    };
    let is_host = |host: &HeaderValue| host.to_str().is_ok_and(|host| host.parse::<Authority>().is_ok());
    if !is_hosted || !headers.get_all(header::HOST).iter().all(is_host) {
        return Some(closing(detail(StatusCode::BAD_REQUEST, "Bad Request")));
    }
    if request.original_uri().path_and_query().is_some_and(|target| target.as_str().len() > MAX_TARGET) {
        return Some(closing(detail(StatusCode::URI_TOO_LONG, "URI Too Long")));
    }
    if count(header::AUTHORIZATION) > 1 {
        return Some(detail(StatusCode::BAD_REQUEST, "More than one Authorization header"));
    }
    let is_other = |name, only: &[u8]| {
        headers.get_all(name).iter().any(|value: &HeaderValue| !value.as_bytes().eq_ignore_ascii_case(only))
    };
    // RFC 9110 10.1.1.
    if is_other(header::EXPECT, b"100-continue") {
        return Some(closing(detail(StatusCode::EXPECTATION_FAILED, "Expectation Failed")));
    }
    if is_other(header::CONTENT_ENCODING, b"identity") {
        return Some(closing(detail(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Unsupported Content-Encoding")));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > MAX_BODY as u64) {
        return Some(too_large());
    }
    None
}

/// Reads the body and puts it back whole.
pub(crate) async fn take_body(request: &mut Request) -> Result<(), Response> {
    let body = read(request.take_body()).await?;
    request.set_body(body);
    Ok(())
}

async fn read(body: Body) -> Result<Bytes, Response> {
    let mut whole = BytesMut::new();
    let mut chunks = body.into_bytes_stream();
    let reading = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| detail(StatusCode::BAD_REQUEST, "There was an error parsing the body"))?;
            if whole.len() + chunk.len() > MAX_BODY {
                return Err(too_large());
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let slow = |_| detail(StatusCode::REQUEST_TIMEOUT, "Request Timeout");
    tokio::time::timeout(BODY_TIME, reading).await.map_err(slow)??;
    Ok(whole.freeze())
}

fn too_large() -> Response {
    coded(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", "The request body is too large")
}

/// Nothing may follow on this connection. After a body that was not read the front sees to it.
pub(crate) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
