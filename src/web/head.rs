//! The bytes of requests before hyper makes requests of them: hyper gets whole heads only, and only those that can be read in one way.
//!
//! hyper drops a Content-Length beside a Transfer-Encoding, takes a bare LF for a line end and two equal lengths for one. A proxy before us
//! may read the same bytes otherwise, which is how requests are smuggled (RFC 9112 11.2), so such a head is refused, wherever in a
//! connection it stands. What hyper would refuse by itself is refused here too, because its own answer has neither a body nor an id.

use std::collections::VecDeque;

use poem::http::{StatusCode, Uri};

/// Longest head.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Most header lines.
const MAX_HEADERS: usize = 100;
/// Stands for a head that is refused: a request that is answered like any other, so that it has an id, headers and a line in the log.
const REFUSED: &[u8] = b"- * HTTP/1.1\r\n\r\n";

/// What follows in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A head.
    Head,
    /// So many bytes of a body.
    Body(u64),
    /// Chunks, after which the front closes the connection.
    Chunks,
    /// Nothing that is still read.
    Nothing,
}

/// Follows the requests of one connection.
#[derive(Debug)]
pub(super) struct Gate {
    next: Next,
    /// The beginning of a head, not handed on yet.
    held: Vec<u8>,
    /// Of heads that were handed on and not taken up yet, why they are refused.
    refusals: VecDeque<Option<StatusCode>>,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { next: Next::Head, held: Vec::new(), refusals: VecDeque::new() }
    }

    /// Takes what was read. `None`: it may be handed on as it is; else what is handed on instead.
    pub(super) fn pass(&mut self, read: &[u8]) -> Option<Vec<u8>> {
        if self.held.is_empty() {
            let (passed, is_refused) = self.walk(read);
            return (is_refused || passed < read.len()).then(|| self.split(read, passed, is_refused));
        }
        let mut all = std::mem::take(&mut self.held);
        all.extend_from_slice(read);
        let (passed, is_refused) = self.walk(&all);
        Some(self.split(&all, passed, is_refused))
    }

    /// hyper has read a head: why it is refused, if it is.
    pub(super) fn taken(&mut self) -> Option<StatusCode> {
        self.refusals.pop_front().flatten()
    }

    fn split(&mut self, bytes: &[u8], passed: usize, is_refused: bool) -> Vec<u8> {
        let mut handed = bytes[..passed].to_vec();
        if is_refused {
            handed.extend_from_slice(REFUSED);
        } else if self.next == Next::Head {
            self.held = bytes[passed..].to_vec();
        }
        handed
    }

    /// How many of the bytes may be handed on, and whether a head that is refused follows them.
    fn walk(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self.next {
                Next::Nothing => break,
                Next::Chunks => at = bytes.len(),
                Next::Body(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    at += taken;
                    self.next = after(left - taken as u64);
                }
                Next::Head => match read(rest) {
                    Ok(Some((length, next))) => {
                        self.refusals.push_back(None);
                        at += length;
                        self.next = next;
                    }
                    Ok(None) => break,
                    Err(status) => {
                        self.refusals.push_back(Some(status));
                        self.next = Next::Nothing;
                        return (at, true);
                    }
                },
            }
        }
        (at, false)
    }
}

fn after(body: u64) -> Next {
    if body == 0 { Next::Head } else { Next::Body(body) }
}

/// The length of a head and what follows it; `None` when it has not ended yet.
fn read(bytes: &[u8]) -> Result<Option<(usize, Next)>, StatusCode> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Err(_) => return Err(StatusCode::BAD_REQUEST),
    };
    let is_target = request.path.is_some_and(|path| path.parse::<Uri>().is_ok());
    if !is_target || has_odd_line_ends(&bytes[..length]) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut framing = request.headers.iter().filter(|header| frames(header.name));
    let next = match (framing.next(), framing.next()) {
        (None, _) => Some(Next::Head),
        (Some(only), None) if only.name.eq_ignore_ascii_case("content-length") => decimal(only.value).map(after),
        // RFC 9112 6.1: not in HTTP/1.0. We know no other coding.
        (Some(only), None) => {
            let is_chunked = only.value.eq_ignore_ascii_case(b"chunked") && request.version == Some(1);
            is_chunked.then_some(Next::Chunks)
        }
        // RFC 9112 6.3: both, or one of them twice, whatever they say.
        (Some(_), Some(_)) => None,
    };
    next.map(|next| Some((length, next))).ok_or(StatusCode::BAD_REQUEST)
}

fn frames(name: &str) -> bool {
    name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
}

/// RFC 9110 8.6: digits and nothing else.
fn decimal(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// RFC 9112 2.2: a line ends with CR LF. Empty lines before the first one are skipped, however they end.
fn has_odd_line_ends(head: &[u8]) -> bool {
    let begins = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    head[begins..].split_inclusive(|byte| *byte == b'\n').any(|line| {
        let line = line.strip_suffix(b"\r\n");
        line.is_none_or(|line| line.contains(&b'\r'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What hyper gets of bytes that arrive in pieces, and why each head is refused.
    fn passed(text: &str, size: usize) -> (String, Vec<Option<u16>>) {
        let mut gate = Gate::new();
        let mut handed = Vec::new();
        for read in text.as_bytes().chunks(size) {
            handed.extend(gate.pass(read).unwrap_or_else(|| read.to_vec()));
        }
        let refusals = gate.refusals.iter().map(|refusal| refusal.map(|status| status.as_u16())).collect();
        (String::from_utf8(handed).expect("text"), refusals)
    }

    /// RFC 9112 2.2, 6.1, 6.3.
    #[test]
    fn heads_that_can_be_read_in_two_ways_are_refused_wherever_they_stand_and_however_they_arrive() {
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let post = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\n\n";
        let rows = [
            ("plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("after empty lines", "\r\n\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("length", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", None),
            ("no length", "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", None),
            ("in the body", "POST / HTTP/1.1\r\nContent-Length: 30\r\n\r\nTransfer-Encoding: chunked\r\n\r\n", None),
            ("both", "POST / HTTP/1.1\r\nContent-length: 2\r\nTRANSFER-ENCODING: chunked\r\n\r\n", Some(400)),
            ("two lengths", "POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", Some(400)),
            ("a signed length", "POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\n", Some(400)),
            ("an empty length", "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n", Some(400)),
            ("another coding", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Some(400)),
            ("chunked in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Some(400)),
            ("bare LF", "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", Some(400)),
            ("only LF", "GET / HTTP/1.1\nA: b\n\n", Some(400)),
            ("bare CR", "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", Some(400)),
            ("not HTTP", "nonsense\r\n\r\n", Some(400)),
            ("no target", "GET me HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("a target that is none", "GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n", Some(400)),
        ];
        for (name, text, expected) in rows {
            for size in [1, 2, 3, 7, 1000] {
                for before in ["", get, post] {
                    let all = format!("{before}{text}");
                    let (handed, refusals) = passed(&all, size);
                    let wanted = if expected.is_some() { format!("{before}- * HTTP/1.1\r\n\r\n") } else { all };
                    assert_eq!(handed, wanted, "{name} in pieces of {size}");
                    assert_eq!(refusals.last(), Some(&expected), "{name} in pieces of {size}");
                    assert_eq!(refusals.len(), if before.is_empty() { 1 } else { 2 }, "{name} in pieces of {size}");
                }
            }
        }
    }

    #[test]
    fn a_head_has_a_size_and_what_is_not_whole_is_held_back() {
        let line = "X: 1\r\n";
        let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
        let long = head(&format!("X: {}\r\n", "a".repeat(MAX_HEAD)));
        assert_eq!(passed(&head(&line.repeat(100)), 1000).1, [None]);
        assert_eq!(passed(&head(&line.repeat(101)), 1000).1, [Some(431)]);
        assert_eq!(passed(&long, 1000).1, [Some(431)]);
        assert_eq!(passed(&long[..MAX_HEAD - 1], 1000), (String::new(), vec![]));

        let mut gate = Gate::new();
        assert_eq!(gate.pass(b"GET / HT"), Some(Vec::new()));
        assert_eq!(gate.pass(b"TP/1.1\r\n\r\n"), Some(b"GET / HTTP/1.1\r\n\r\n".to_vec()));
        // What was read whole is not copied.
        assert_eq!(gate.pass(b"GET / HTTP/1.1\r\n\r\n"), None);
        assert_eq!((gate.taken(), gate.taken(), gate.taken()), (None, None, None));
    }

    #[test]
    fn nothing_is_read_after_a_head_that_is_refused() {
        let mut gate = Gate::new();
        gate.pass(b"nonsense\r\n\r\nGET / HTTP/1.1\r\n\r\n");
        assert_eq!(gate.pass(b"GET / HTTP/1.1\r\n\r\n"), Some(Vec::new()));
        assert_eq!((gate.taken(), gate.taken()), (Some(StatusCode::BAD_REQUEST), None));
    }
}
