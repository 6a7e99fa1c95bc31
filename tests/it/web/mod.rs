//! HTTP below the handlers, byte by byte: what a client library would never send, or would tidy up on the way.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{Answer, TestApp};

mod front;
mod guard;
mod listener;
mod origin;
mod paths;
mod syntax;
mod trouble;

const LOGIN: &str = "/auth_api/v1/auth/login";
const TRUSTED: (&str, &str) = ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1, 10.0.0.0/8");
/// Every path, with the methods that it has.
const PATHS: [(&str, &str); 18] = [
    ("/", "GET, HEAD"),
    ("/openapi.json", "GET, HEAD"),
    ("/docs", "GET, HEAD"),
    ("/docs/oauth2-redirect", "GET, HEAD"),
    ("/redoc", "GET, HEAD"),
    ("/.well-known/jwks.json", "GET, HEAD"),
    ("/.well-known/oauth-authorization-server", "GET, HEAD"),
    ("/.well-known/openid-configuration", "GET, HEAD"),
    ("/health/live", "GET, HEAD"),
    ("/health/ready", "GET, HEAD"),
    ("/auth_api/v1/users/register", "POST"),
    ("/auth_api/v1/users/me", "GET, HEAD"),
    ("/auth_api/v1/auth/login", "POST"),
    ("/auth_api/v1/auth/refresh", "POST"),
    ("/auth_api/v1/auth/logout", "POST"),
    ("/auth_api/v1/auth/logout-all", "POST"),
    ("/auth_api/v1/auth/sessions", "GET, HEAD"),
    ("/auth_api/v1/auth/sessions/0198a0d2-7d0e-7cc3-98c4-dc0c0c07398f", "DELETE"),
];
const CACHEABLE: [&str; 3] =
    ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];
/// Nothing takes as long, not even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection on which a test writes what it likes.
struct Wire {
    stream: TcpStream,
    /// Received and not read yet.
    buffer: Vec<u8>,
}

impl Wire {
    async fn open(app: &TestApp) -> Self {
        Self::open_from(app, "127.0.0.1").await
    }

    /// Connects from another address of this host: all of 127.0.0.0/8 are.
    async fn open_from(app: &TestApp, address: &str) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(address.parse().unwrap(), 0)).unwrap();
        let stream = socket.connect(address_of(app)).await.unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Writes; a server that has hung up already is found out when reading.
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Writes a request without a body.
    async fn ask(&mut self, request_line: &str) -> Answer {
        self.send(format!("{request_line} HTTP/1.1\r\nHost: localhost\r\n\r\n")).await;
        let has_body = !request_line.starts_with("HEAD ");
        self.read(has_body).await.unwrap_or_else(|| panic!("no answer to {request_line}"))
    }

    /// Reads the next answer; `None` when the server has closed.
    async fn answer(&mut self) -> Option<Answer> {
        self.read(true).await
    }

    async fn read(&mut self, has_body: bool) -> Option<Answer> {
        let end = loop {
            match self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(end) => break end,
                None if self.fill().await => {}
                None => return None,
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status: u16 = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: HeaderMap = lines
            .map(|line| {
                let (name, value) = line.split_once(": ").unwrap();
                (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
            })
            .collect();
        let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        let length = if has_body && status >= 200 && status != 304 { length } else { 0 };
        while self.buffer.len() < length {
            assert!(self.fill().await, "the server closed within a body");
        }
        let body = self.buffer.drain(..length).collect();
        Some(Answer { status, headers, body: String::from_utf8(body).unwrap() })
    }

    /// Receives more; false when the server has closed.
    async fn fill(&mut self) -> bool {
        let received = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await;
        // A reset is a close too.
        received.expect("the server answers or closes").unwrap_or(0) > 0
    }

    /// Asserts that the server closes without another byte.
    async fn closes(&mut self, name: &str) {
        while self.fill().await {}
        assert_eq!(String::from_utf8_lossy(&self.buffer), "", "{name}");
    }

    /// Proves that the connection serves requests and gives it back; `None` when the server has closed it.
    async fn served(mut self) -> Option<Self> {
        self.send("GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        let answer = self.answer().await?;
        assert_eq!(answer.status, 200, "{answer:?}");
        Some(self)
    }
}

fn address_of(app: &TestApp) -> SocketAddr {
    app.base.trim_start_matches("http://").parse().unwrap()
}

/// A request with a JSON body, complete.
fn posted(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request of the client library.
async fn answered(request: RequestBuilder) -> Answer {
    Answer::of(request).await
}

/// Asserts the framework shape of a refusal.
#[track_caller]
fn is_detail(answer: &Answer, status: u16, text: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.json(), json!({"detail": text}));
    assert_eq!(answer.header("content-type"), "application/json");
}
