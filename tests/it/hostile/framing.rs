//! 2A, the part on framing: where one request ends and the next begins, and what is not HTTP/1 at all.

use super::transport::LIVE;
use super::wire::{bare, bearer, posted, request};
use super::{Case, LOGIN, ME, case};
use crate::support::Pair;

pub(super) fn cases(alice: &Pair) -> Vec<Case> {
    let mut cases = framing();
    cases.extend(bodies());
    cases.extend(chunks());
    cases.extend(other_protocols());
    cases.extend(pipelines(alice));
    cases
}

/// A POST to login, and a request that follows it.
fn post(headers: &str, rest: &str) -> Vec<u8> {
    let all = format!("{headers}Content-Type: application/json\r\n");
    request(&format!("POST {LOGIN}"), all, format!("{rest}{}", smuggled()))
}

fn smuggled() -> String {
    format!("GET {LIVE} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// Nobody can tell where the body ends, so what follows is never answered.
fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    let both = [
        ("A22", "a length, then chunked", "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n"),
        ("A22", "chunked, then a length", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"),
        ("+A22", "chunked twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("+A22", "chunked and identity", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        ("A24", "chunked, identity", "Transfer-Encoding: chunked, identity\r\n"),
        ("A24", "xchunked", "Transfer-Encoding: xchunked\r\n"),
        ("+A24", "identity", "Transfer-Encoding: identity\r\n"),
        ("+A24", "gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n"),
        ("+A24", "chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n"),
        ("+A24", "nothing, chunked", "Transfer-Encoding: , chunked\r\n"),
        ("+A24", "\"chunked\"", "Transfer-Encoding: \"chunked\"\r\n"),
        ("+A24", "chunked;q=1", "Transfer-Encoding: chunked;q=1\r\n"),
        ("+A24", "chunked and a byte", "Transfer-Encoding: chunked\u{80}\r\n"),
        ("+A24", "a vertical tab", "Transfer-Encoding: \x0bchunked\r\n"),
        ("+A24", "a blank before the colon", "Transfer-Encoding : chunked\r\n"),
        ("+A24", "on a line of its own", "Transfer-Encoding:\r\n chunked\r\n"),
        ("+A24", "after a bare LF", "X: a\nTransfer-Encoding: chunked\r\n"),
        ("+A24", "after a bare CR", "X: a\rTransfer-Encoding: chunked\r\n"),
        ("+A24", "empty", "Transfer-Encoding:\r\n"),
    ];
    for (id, name, headers) in both {
        cases.push(case(id, name, post(headers, "0\r\n\r\n"), "400; closed"));
    }
    for (name, length) in [
        ("+2", "+2"),
        ("-2", "-2"),
        ("0x2", "0x2"),
        ("2, 2", "2, 2"),
        ("2 2", "2 2"),
        ("2,", "2,"),
        ("2;", "2;"),
        ("2.0", "2.0"),
        ("2e0", "2e0"),
        ("in quotes", "\"2\""),
        ("empty", ""),
        ("Arabic digits", "٢"),
        ("full-width digits", "２"),
        ("2^64", "18446744073709551616"),
        ("2^64 and 2", "18446744073709551618"),
        ("40 digits", "2222222222222222222222222222222222222222"),
        ("twice", "2\r\nContent-Length: 2"),
        ("twice, differing", "2\r\nContent-Length: 3"),
        ("after a bare LF", "2\nContent-Length: 30"),
        ("NUL", "2\0"),
        ("a folded line", "2\r\n 2"),
    ] {
        let bytes = post(&format!("Content-Length: {length}\r\n"), "{}");
        cases.push(case("+A22", format!("Content-Length: {name}"), bytes, "400; closed"));
    }
    cases
}

/// Read in one way only.
fn bodies() -> Vec<Case> {
    let smuggled = smuggled();
    let mut cases = Vec::new();
    for (name, headers) in [
        ("blanks around the length", "Content-Length: \t 2 \t \r\n"),
        ("zeros before the length", "Content-Length: 0000000002\r\n"),
        ("a name that is like it", "Content-Length: 2\r\nTransfer_Encoding: chunked\r\nContent_Length: 30\r\n"),
        ("a name within another", "Content-Length: 2\r\nX-Transfer-Encoding: chunked\r\n"),
    ] {
        cases.push(case("+A25", name, post(headers, "{}"), "422; 200"));
    }
    cases.extend([
        case("A25", "the rest is another request", post("Content-Length: 2\r\n", "{}"), "422; 200"),
        case("A25", "the rest is nonsense", post("Content-Length: 2\r\n", "{}evil\r\n\r\n"), "422; 400; closed"),
        case("+A25", "a body where there is none", request(&format!("GET {LIVE}"), "", &smuggled), "200; 200"),
        case(
            "+A25",
            "a body of GET",
            request(&format!("GET {LIVE}"), "Content-Length: 2\r\n", format!("{{}}{smuggled}")),
            "200; 200",
        ),
        case("+A25", "a body of HEAD", request(&format!("HEAD {LIVE}"), "Content-Length: 2\r\n", "{}"), "200"),
        case(
            "+A25",
            "a body of nowhere",
            request("POST /evil", format!("Content-Length: {}\r\n", smuggled.len()), &smuggled),
            "404; closed",
        ),
        case(
            "+A25",
            "a body of OPTIONS",
            request(&format!("OPTIONS {LOGIN}"), format!("Content-Length: {}\r\n", smuggled.len()), &smuggled),
            "405; closed",
        ),
        case(
            "B18",
            "1 GiB declared, nothing sent",
            request(&format!("POST {LOGIN}"), "Content-Length: 1073741824\r\n", ""),
            "413 payload_too_large; closed",
        ),
        case(
            "+B18",
            "2^63 declared",
            request(&format!("POST {LOGIN}"), "Content-Length: 9223372036854775808\r\n", ""),
            "400|413; closed",
        ),
        case(
            "+B18",
            "20 KiB to nowhere",
            request("POST /evil", "Content-Length: 20480\r\n", "a".repeat(20 << 10)),
            "404|413; closed",
        ),
        case(
            "+B18",
            "8 MiB sent all the same",
            request(&format!("POST {LOGIN}"), "Content-Length: 8388608\r\n", vec![b'a'; 8 << 20]),
            "413; closed",
        ),
    ]);
    cases
}

/// RFC 9112 7.1.
fn chunks() -> Vec<Case> {
    let chunked = |rest: &str| {
        let headers = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
        request(&format!("POST {LOGIN}"), headers, format!("{rest}GET {LIVE} HTTP/1.1\r\nHost: a\r\n\r\n"))
    };
    let long = "x".repeat(1 << 20);
    let rows: [(&str, &str, String, &str); 25] = [
        ("+A24", "a size of 17 digits", "10000000000000002\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "a size of 200 zeros and 2", format!("{}2\r\n{{}}\r\n0\r\n\r\n", "0".repeat(200)), "400|422"),
        ("A24", "an extension of 1 MiB", format!("2;{long}\r\n{{}}\r\n0\r\n\r\n"), "400"),
        ("+A24", "a small extension", "2;a=b;c=\"d\"\r\n{}\r\n0\r\n\r\n".to_owned(), "400|422"),
        ("+A24", "an extension with a bare LF", "2;a\nb\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "an extension with a bare CR", "2;a\rb\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "0x2", "0x2\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "+2", "+2\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "-2", "-2\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "no size", "\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "a size of letters", "zz\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "2 g", "2 g\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "a bare LF after the size", "2\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "a bare LF after the chunk", "2\r\n{}\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "more than the size", "2\r\n{}{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "a bare LF at the end", "2\r\n{}\r\n0\n\n".to_owned(), "400"),
        ("+A24", "NUL after the size", "2\0\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("+A24", "chunks of a byte", format!("{}0\r\n\r\n", "1\r\n \r\n".repeat(16_000)), "422"),
        ("+A24", "chunks of a byte beyond the cap", "1\r\n \r\n".repeat(20_000), "413"),
        ("+A24", "upper case and zeros", "0002\r\n{}\r\n0000\r\n\r\n".to_owned(), "422"),
        ("+A24", "trailers", "2\r\n{}\r\n0\r\nX: a\r\nAuthorization: Bearer evil\r\n\r\n".to_owned(), "400|422"),
        (
            "+A24",
            "trailers that frame",
            "2\r\n{}\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\nHost: evil\r\n\r\n".to_owned(),
            "400|422",
        ),
        ("+A24", "trailers of 1 MiB", format!("2\r\n{{}}\r\n0\r\nX: {long}\r\n\r\n"), "400|431"),
        ("+A24", "10,000 trailers", format!("2\r\n{{}}\r\n0\r\n{}\r\n", "X: a\r\n".repeat(10_000)), "400|431"),
        ("+A24", "trailers that are nonsense", "2\r\n{}\r\n0\r\n\0\0 : \r\n\r\n".to_owned(), "400|422"),
    ];
    let mut cases: Vec<Case> = rows
        .into_iter()
        .map(|(id, name, rest, expected)| {
            case(id, format!("chunk: {name}"), chunked(&rest), &format!("{expected}; closed"))
        })
        .collect();
    let old = String::from_utf8(chunked("2\r\n{}\r\n0\r\n\r\n")).unwrap().replacen("1.1", "1.0", 1);
    cases.push(case("+A24", "chunked in HTTP/1.0", old, "400; closed"));
    let upper = String::from_utf8(chunked("2\r\n{}\r\n0\r\n\r\n")).unwrap().replacen("chunked", "CHUNKED", 1);
    cases.push(case("+A24", "CHUNKED", upper, "422; closed"));
    cases
}

/// What is not HTTP/1.
fn other_protocols() -> Vec<Case> {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    let frame = |kind: u8, flags: u8, stream: u32, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    };
    let settings = frame(4, 0, 0, &[]);
    let flood = |frames: &dyn Fn(u32) -> Vec<u8>| {
        let frames: Vec<u8> = (0..10_000).flat_map(|at| frames(2 * at + 1)).collect();
        [preface, &settings, &frames].concat()
    };
    // GET / as HPACK's static table has it.
    let headers = [0x82, 0x84, 0x86, 0x41, 0x01, b'a'];
    vec![
        case("A32", "HTTP/2", [preface, &settings].concat(), "400|closed; closed"),
        case("A32", "HTTP/2: 10,000 streams", flood(&|at| frame(1, 5, at, &headers)), "400|closed; closed"),
        case(
            "A32",
            "HTTP/2: rapid reset",
            flood(&|at| [frame(1, 5, at, &headers), frame(3, 0, at, &[0, 0, 0, 8])].concat()),
            "400|closed; closed",
        ),
        case("A32", "HTTP/2: CONTINUATION flood", flood(&|_| frame(9, 0, 1, &headers)), "400|closed; closed"),
        case("A39", "TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec(), "400|closed; closed"),
        case(
            "+A39",
            "TLS without a line break",
            [b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".as_slice(), &[0xaa; 500]].concat(),
            "400|closed; closed",
        ),
        case("+A39", "SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec(), "400|closed; closed"),
        case("+A39", "SMTP", b"EHLO evil\r\n\r\n".to_vec(), "400|closed; closed"),
        case("+A39", "Redis", b"*1\r\n$4\r\nINFO\r\n\r\n".to_vec(), "400|closed; closed"),
        case(
            "+A39",
            "PROXY protocol",
            [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n".as_slice(), &bare("GET /")].concat(),
            "400|closed; closed",
        ),
        case(
            "+A39",
            "PROXY protocol 2",
            [
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02".as_slice(),
                &bare("GET /"),
            ]
            .concat(),
            "400|closed; closed",
        ),
        case("+A39", "HTTP/0.9", b"GET /\r\n\r\n".to_vec(), "400|closed; closed"),
        case("+A39", "zeros", vec![0; 1000], "400|closed; closed"),
        case("+A39", "1 MiB of zeros", vec![0; 1 << 20], "400|431|closed; closed"),
        case("+A39", "an answer", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), "400|closed; closed"),
    ]
}

/// RFC 9112 9.3.2.
fn pipelines(alice: &Pair) -> Vec<Case> {
    let live = String::from_utf8(bare(&format!("GET {LIVE}"))).unwrap();
    let invalid = String::from_utf8(posted(LOGIN, "{}")).unwrap();
    let me = String::from_utf8(bearer(&format!("GET {ME}"), &alice.access)).unwrap();
    let mut cases = vec![
        case("A31", "1,000 requests in one write", live.repeat(1000), &["200"; 1000].join(";")),
        case("A31", "a mixture", format!("{me}{invalid}{live}").repeat(30), &["200;422;200"; 30].join(";")),
        case(
            "+A31",
            "one that closes in the midst",
            format!("{live}{}{me}", live.replacen("\r\n", "\r\nConnection: close\r\n", 1)),
            "200;200;closed",
        ),
    ];
    // The second request is as ambiguous as it would be if it were the first.
    let post = format!("POST {LOGIN} HTTP/1.1\r\nHost: a\r\n");
    for (name, second) in [
        ("two lengths that agree", format!("{post}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("a length and chunked", format!("{post}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("a bare LF", format!("{post}X: a\nContent-Length: 2\r\n\r\n{{}}")),
        ("only bare LF", format!("GET {LIVE} HTTP/1.1\nHost: a\n\n")),
        ("a bare CR", format!("{post}X: a\rb\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("a folded line", format!("{post}X: a\r\n Content-Length: 2\r\n\r\n{{}}")),
        ("no host", format!("GET {LIVE} HTTP/1.1\r\n\r\n")),
        ("nonsense", "evil\r\n\r\n".to_owned()),
    ] {
        for (before, first, status) in [("a GET", &live, 200), ("a body", &invalid, 422)] {
            let bytes = format!("{first}{second}{live}");
            cases.push(case("+A22", format!("{name} after {before}"), bytes, &format!("{status}; 400; closed")));
        }
    }
    cases
}
