//! A connection on which any bytes can be sent, and the requests that a client library would send, to be spoilt.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::support::Answer;

/// What is neither answered nor closed by then hangs.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// Asks whether a connection is still in step.
const PROBE: &[u8] = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// A request with header lines (each ended by CRLF) and a body; `line` is the method and the target.
pub(super) fn request(line: &str, headers: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Vec<u8> {
    let start = format!("{line} HTTP/1.1\r\nHost: localhost\r\n");
    [start.as_bytes(), headers.as_ref(), b"\r\n", body.as_ref()].concat()
}

/// A request without a body.
pub(super) fn bare(line: &str) -> Vec<u8> {
    request(line, "", "")
}

/// A request with a bearer token and no body.
pub(super) fn bearer(line: &str, token: &str) -> Vec<u8> {
    request(line, format!("Authorization: Bearer {token}\r\n"), "")
}

/// A POST of JSON.
pub(super) fn posted(path: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    posted_as(path, "application/json", body)
}

/// A POST of any media type.
pub(super) fn posted_as(path: &str, media_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = body.as_ref().len();
    request(&format!("POST {path}"), format!("Content-Type: {media_type}\r\nContent-Length: {length}\r\n"), body)
}

/// What came back.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    pub(super) answers: Vec<Answer>,
    /// The server has closed, as it said or instead of an answer.
    pub(super) is_closed: bool,
    /// From the last byte sent to the last answer, or the close.
    pub(super) took: Duration,
    pub(super) faults: Vec<String>,
}

/// Sends bytes and reads so many answers; then proves that the connection is in step, or closed where the server said so.
pub(super) fn exchange(address: SocketAddr, bytes: &[u8], count: usize) -> Exchange {
    let mut wire = Wire::open(address);
    let mut exchange = Exchange::default();
    let is_head = bytes.starts_with(b"HEAD ");
    let sender = wire.sender();
    let started = Instant::now();
    std::thread::scope(|scope| {
        // Whoever writes much must read meanwhile.
        scope.spawn(move || {
            // A server that has hung up already is found out when reading.
            let _ = (&sender).write_all(bytes);
        });
        while exchange.answers.len() < count && !exchange.is_closed {
            match wire.answer(is_head, started + PATIENCE) {
                Ok(Some(answer)) => exchange.answers.push(answer),
                Ok(None) => exchange.is_closed = true,
                Err(fault) => {
                    exchange.faults.push(fault);
                    // The writer may wait too.
                    let _ = wire.stream.shutdown(std::net::Shutdown::Both);
                    break;
                }
            }
        }
    });
    exchange.took = started.elapsed();
    if exchange.faults.is_empty() && !exchange.is_closed {
        let closes = exchange.answers.last().is_some_and(|answer| answer.header("connection") == "close");
        if !closes {
            let _ = wire.stream.write_all(PROBE);
            match wire.answer(false, Instant::now() + PATIENCE) {
                Ok(Some(answer)) if answer.status == 200 && answer.body == r#"{"status":"ok"}"# => {}
                Ok(None) => {}
                other => exchange.faults.push(format!("out of step: {other:?}")),
            }
        }
        exchange.faults.extend(wire.closes());
        exchange.is_closed = closes;
    }
    exchange
}

/// A connection.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    /// Received and not read yet.
    buffer: Vec<u8>,
}

impl Wire {
    pub(super) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub(super) fn sender(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Reads the next answer but interim ones; `None` when the server has closed.
    pub(super) fn answer(&mut self, is_head: bool, until: Instant) -> Result<Option<Answer>, String> {
        let end = loop {
            match self.buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                Some(end) => break end,
                None if self.fill(until)? => {}
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(format!("closed within a head: {}", shown(&self.buffer))),
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let (status, headers) = parsed(&head).ok_or_else(|| format!("no head: {}", shown(&head)))?;
        if (100..200).contains(&status) {
            return self.answer(is_head, until);
        }
        let length = match headers.get("content-length") {
            _ if is_head || status == 204 || status == 304 => 0,
            Some(length) => length.to_str().unwrap_or_default().parse().map_err(|_| format!("length {length:?}"))?,
            None => return Err(format!("a body without a length: {}", shown(&head))),
        };
        while self.buffer.len() < length {
            if !self.fill(until)? {
                return Err(format!("closed within a body: {}", shown(&self.buffer)));
            }
        }
        let body = self.buffer.drain(..length).collect();
        let body = String::from_utf8(body).map_err(|_| "a body that is not UTF-8".to_owned())?;
        Ok(Some(Answer { status, headers, body }))
    }

    /// What is wrong when the server does not close now, without another byte.
    pub(super) fn closes(&mut self) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.fill(until) {
                Ok(true) => {}
                Ok(false) if self.buffer.is_empty() => return None,
                Ok(false) => return Some(format!("bytes after the last answer: {}", shown(&self.buffer))),
                Err(fault) => return Some(format!("not closed: {fault}")),
            }
        }
    }

    /// Receives more; false when the server has closed. A reset is a close too.
    pub(super) fn fill(&mut self, until: Instant) -> Result<bool, String> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err("neither answered nor closed".to_owned());
        }
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Err("neither answered nor closed".to_owned())
            }
            Err(_) => Ok(false),
        }
    }
}

fn parsed(head: &[u8]) -> Option<(u16, HeaderMap)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ")?;
        headers.append(name.parse::<HeaderName>().ok()?, value.parse::<HeaderValue>().ok()?);
    }
    Some((status, headers))
}

/// The beginning of bytes, for people.
pub(super) fn shown(bytes: &[u8]) -> String {
    let beginning = bytes[..bytes.len().min(400)].escape_ascii();
    format!("{beginning}{}", if bytes.len() > 400 { "..." } else { "" })
}
