//! The bytes of a request's head, before hyper makes one request of them.
//!
//! hyper drops a Content-Length beside a Transfer-Encoding and takes a bare LF for a line end. A proxy before us may read the same
//! bytes otherwise, which is how requests are smuggled (RFC 9112 11.2), so such a head is refused.

/// Longest head (hyper answers 431 above it, and above 100 headers).
pub(super) const MAX_HEAD: usize = 16 * 1024;

/// Collects one head.
#[derive(Debug, Default)]
pub(super) struct Head {
    bytes: Vec<u8>,
    is_whole: bool,
}

impl Head {
    /// Takes what was read. Returns true once, when the head is whole and can be read in two ways.
    pub(super) fn feed(&mut self, read: &[u8]) -> bool {
        if self.is_whole || self.bytes.len() > MAX_HEAD {
            return false;
        }
        // The blank line may have begun in what was read before.
        let from = self.bytes.len().saturating_sub(3);
        // RFC 9112 2.2: empty lines before the request line are skipped.
        let is_blank = |byte: &&u8| self.bytes.is_empty() && matches!(**byte, b'\r' | b'\n');
        let blanks = read.iter().take_while(is_blank).count();
        self.bytes.extend_from_slice(&read[blanks..]);
        let ends = |window: &[u8]| window.ends_with(b"\n\n") || window == b"\n\r\n";
        let end = self.bytes[from..].windows(3).position(ends).map(|at| from + at + 3);
        self.is_whole = end.is_some();
        end.is_some_and(|end| is_ambiguous(&self.bytes[..end]))
    }
}

fn is_ambiguous(head: &[u8]) -> bool {
    let (mut lengths, mut encodings) = (0, 0);
    for line in head.split_inclusive(|byte| *byte == b'\n') {
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return true;
        };
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\0')) {
            return true;
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        lengths += usize::from(name.eq_ignore_ascii_case(b"content-length"));
        encodings += usize::from(name.eq_ignore_ascii_case(b"transfer-encoding"));
    }
    lengths + encodings > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9112 6.1, 6.3, 2.2.
    #[test]
    fn heads_that_can_be_read_in_two_ways_are_found_however_they_arrive() {
        let rows = [
            ("plain", "GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("length", "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}\n", false),
            ("chunked", "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("both", "POST / HTTP/1.1\r\nContent-length: 2\r\nTRANSFER-ENCODING: chunked\r\n\r\n", true),
            ("two lengths", "POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", true),
            ("bare LF", "GET / HTTP/1.1\r\nA: b\nC: d\r\n\r\n", true),
            ("only LF", "GET / HTTP/1.1\nA: b\n\n", true),
            ("bare CR", "GET / HTTP/1.1\r\nA: b\rC: d\r\n\r\n", true),
            (
                "both after blank lines",
                "\r\n\r\nPOST / HTTP/1.1\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            ("in the body", "POST / HTTP/1.1\r\nContent-Length: 40\r\n\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("not whole", "GET / HTTP/1.1\nA: b", false),
        ];
        for (name, text, expected) in rows {
            for size in [1, 2, 3, 7, 1000] {
                let mut head = Head::default();
                let found = text.as_bytes().chunks(size).any(|read| head.feed(read));
                assert_eq!(found, expected, "{name} in pieces of {size}");
            }
        }
    }
}
