//! Requests that we send ourselves: each on a connection of its own, HTTP/1.1, by TLS when the URL says https. Follows no redirect and
//! asks no proxy. Whoever calls limits the time.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper::http::request;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_native_tls::{TlsConnector, TlsStream, native_tls};
use url::{Host, Position, Url};

/// A longer answer is an error.
const MAX_ANSWER: usize = 1024 * 1024;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer. Texts hold nothing of what was sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It can never be asked.
    #[error("must be an http or https URL with a host")]
    Scheme,
    /// It could not be asked now.
    #[error("{0}")]
    Failed(#[from] Cause),
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// When the server's certificate ends; `None` without TLS.
    pub(crate) certificate_end: Option<DateTime<Utc>>,
}

/// What is at `url`.
pub(crate) async fn get(url: &Url) -> Result<Answer, Error> {
    exchange(url, Request::get(target(url)), Bytes::new()).await
}

/// Sends `body` with `headers`, names and values.
pub(crate) async fn post(url: &Url, headers: &[(String, String)], body: Bytes) -> Result<Answer, Error> {
    let request = headers
        .iter()
        .fold(Request::post(target(url)), |request, (name, value)| request.header(name.as_str(), value.as_str()));
    exchange(url, request, body).await
}

fn target(url: &Url) -> &str {
    &url[Position::BeforePath..Position::AfterQuery]
}

async fn exchange(url: &Url, request: request::Builder, body: Bytes) -> Result<Answer, Error> {
    let is_tls = match url.scheme() {
        "http" => false,
        "https" => true,
        _ => return Err(Error::Scheme),
    };
    let host = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        None => return Err(Error::Scheme),
    };
    let request = request
        .header(header::HOST, &url[Position::BeforeHost..Position::AfterPort])
        .header(header::USER_AGENT, concat!("authservice/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(Cause::from)?;
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(Cause::from)?;
    if !is_tls {
        return Ok(answered(stream, request, None).await?);
    }
    let tls = TlsConnector::from(native_tls::TlsConnector::new().map_err(Cause::from)?);
    let stream = tls.connect(&host, stream).await.map_err(Cause::from)?;
    let end = certificate_end(&stream)?;
    Ok(answered(stream, request, end).await?)
}

fn certificate_end(stream: &TlsStream<TcpStream>) -> Result<Option<DateTime<Utc>>, Cause> {
    let Some(certificate) = stream.get_ref().peer_certificate()? else { return Ok(None) };
    let certificate = X509::from_der(&certificate.to_der()?)?;
    let since = Asn1Time::from_unix(0)?.diff(certificate.not_after())?;
    Ok(DateTime::from_timestamp(i64::from(since.days) * 86400 + i64::from(since.secs), 0))
}

async fn answered(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    certificate_end: Option<DateTime<Utc>>,
) -> Result<Answer, Cause> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|error| if error.is::<LengthLimitError>() { "the answer is too long".into() } else { error })?;
    Ok(Answer { status, body: body.to_bytes(), certificate_end })
}
