//! One GET as `healthcheck` and `doctor` need it: with or without TLS, on a connection of its own, no redirect, no proxy.

use std::future::poll_fn;
use std::pin::Pin;

use chrono::{DateTime, Utc};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use openssl::asn1::Asn1Time;
use openssl::x509::X509;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_native_tls::{TlsConnector, TlsStream, native_tls};
use url::{Host, Url};

/// An answer that is longer is not one of this server.
const MAX_ANSWER: usize = 1024 * 1024;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What was answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// When the server's certificate ends; `None` without TLS.
    pub(super) certificate_end: Option<DateTime<Utc>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It can never be asked.
    #[error("must be an http or https URL with a host")]
    Scheme,
    /// It could not be asked now.
    #[error("{0}")]
    Failed(#[from] Cause),
}

/// Asks, and trusts the certificates that this machine trusts. The caller limits the time.
pub(super) async fn get(url: &Url) -> Result<Answer, Error> {
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
    let port = url.port_or_known_default().unwrap_or(80);
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(Cause::from)?;
    if !is_tls {
        return Ok(exchange(url, stream, None).await?);
    }
    let connector = TlsConnector::from(native_tls::TlsConnector::new().map_err(Cause::from)?);
    let stream = connector.connect(&host, stream).await.map_err(Cause::from)?;
    let end = certificate_end(&stream)?;
    Ok(exchange(url, stream, end).await?)
}

fn certificate_end(stream: &TlsStream<TcpStream>) -> Result<Option<DateTime<Utc>>, Cause> {
    let Some(certificate) = stream.get_ref().peer_certificate()? else { return Ok(None) };
    let certificate = X509::from_der(&certificate.to_der()?)?;
    let since = Asn1Time::from_unix(0)?.diff(certificate.not_after())?;
    Ok(DateTime::from_timestamp(i64::from(since.days) * 86400 + i64::from(since.secs), 0))
}

async fn exchange<S>(url: &Url, stream: S, certificate_end: Option<DateTime<Utc>>) -> Result<Answer, Cause>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .header(header::HOST, &url[url::Position::BeforeHost..url::Position::AfterPort])
        .header(header::USER_AGENT, concat!("authservice/", env!("CARGO_PKG_VERSION")))
        .body(String::new())?;
    let response = sender.send_request(request).await?;
    Ok(Answer { status: response.status(), body: read(response.into_body()).await?, certificate_end })
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, Cause> {
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        bytes.extend(frame?.into_data().unwrap_or_default());
        if bytes.len() > MAX_ANSWER {
            return Err("the answer is too long".into());
        }
    }
    Ok(bytes)
}
