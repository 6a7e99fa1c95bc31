//! A light HTTP/1.1 client on one kept connection. It retries nothing and hides nothing: whoever calls sees every lost answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, USER_AGENT};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why there is no answer. The request may have been done or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// There was no connection.
    Connect(String),
    /// The connection ended before the answer.
    Lost(String),
    /// The answer did not come in time.
    Slow,
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(why) => write!(f, "no connection: {why}"),
            Self::Lost(why) => write!(f, "connection lost: {why}"),
            Self::Slow => f.write_str("no answer in time"),
        }
    }
}

impl std::error::Error for Trouble {}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// The header as text; empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// `error.code` of the body; empty when there is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// A client of one address. Whatever goes wrong closes its connection; the next request opens another.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    connect_within: Duration,
    answer_within: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
    /// When the answer before came.
    answered: Option<Instant>,
}

impl Client {
    /// A client that waits for a connection for at most 2 seconds and for an answer for 15.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            connect_within: Duration::from_secs(2),
            answer_within: Duration::from_secs(15),
            connection: None,
            answered: None,
        }
    }

    /// With another limit for an answer.
    #[must_use]
    pub fn answer_within(mut self, time: Duration) -> Self {
        self.answer_within = time;
        self
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        bearer: Option<&str>,
        body: Option<&Value>,
    ) -> Result<Answer, Trouble> {
        let mut connection = self.connect().await?;
        let mut request = Request::builder().method(method).uri(path);
        request = request.header(HOST, self.address.to_string()).header(USER_AGENT, "proofs/1.0");
        if let Some(token) = bearer {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(bytes)).map_err(|error| Trouble::Lost(error.to_string()))?;
        let exchange = async {
            let response = connection.send_request(request).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Answer { status: parts.status.as_u16(), headers: parts.headers, body })
        };
        let answer = match timeout(self.answer_within, exchange).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let before =
                    self.answered.map_or_else(String::new, |at| format!(", last used {:.1?} before", at.elapsed()));
                return Err(Trouble::Lost(format!("{error}{before}")));
            }
            Err(_) => return Err(Trouble::Slow),
        };
        self.answered = Some(Instant::now());
        // A connection is kept only after a whole answer.
        self.connection = Some(connection);
        Ok(answer)
    }

    /// The kept connection if it still lives, else a new one.
    async fn connect(&mut self) -> Result<SendRequest<Full<Bytes>>, Trouble> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let opened = async {
            let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            Ok(sender)
        };
        match timeout(self.connect_within, opened).await {
            Ok(Ok(sender)) => Ok(sender),
            Ok(Err(why)) => Err(Trouble::Connect(why)),
            Err(_) => Err(Trouble::Connect("timed out".to_owned())),
        }
    }
}
