//! Tokens that are cut, padded, wrapped, or sent in the wrong place.

use reqwest::Method;
use reqwest::header::AUTHORIZATION;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{ACCESS, Forge, INVALID, encode, fault, mutated, part};
use crate::support::{API, Answer, Engine};

const MISSING: (u16, &str) = (401, "not_authenticated");
const SCHEME: (u16, &str) = (401, "invalid_auth_scheme");

/// RFC 7515 3.1 and 5.2, RFC 8725 3.3: the compact form, its signature whole, and nothing else.
#[tokio::test]
async fn only_the_compact_form_with_its_whole_signature_is_taken() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let genuine = forge.pair.access.clone();
        let parts: Vec<&str> = genuine.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        let last = signature.chars().last().unwrap();
        let unsigned = format!("{header}.{payload}");
        let flipped = if signature.starts_with('A') { "B" } else { "A" };
        let other = encode(mutated(&genuine, "sub", Some(r#""5f2b3c1e-8c53-4c55-9c0e-0f3a1d2b4c5d""#)));
        let mut faults = Vec::new();

        for (name, token) in [
            ("payload changed", format!("{header}.{other}.{signature}")),
            ("header changed", format!("{}.{payload}.{signature}", encode(forge.header("AT+JWT")))),
            ("signature stripped", format!("{unsigned}.")),
            ("signature and dot stripped", unsigned.clone()),
            ("signature cut by one character", genuine[..genuine.len() - 1].to_owned()),
            ("signature cut by half", genuine[..genuine.len() - signature.len() / 2].to_owned()),
            ("signature of one byte", format!("{unsigned}.AA")),
            ("signature of zeros", format!("{unsigned}.{}", encode([0; 256]))),
            ("signature lengthened", format!("{genuine}AAAA")),
            ("first character flipped", format!("{unsigned}.{flipped}{}", &signature[1..])),
            ("trailing bits set", format!("{}{}", &genuine[..genuine.len() - 1], next_of(last))),
            ("padded", format!("{genuine}==")),
            ("standard alphabet", format!("{unsigned}.{}", signature.replace('-', "+").replace('_', "/"))),
            ("payload of another token", format!("{header}.{}.{signature}", encode("{}"))),
            ("one character", "x".to_owned()),
            ("one dot", ".".to_owned()),
            ("two dots", "..".to_owned()),
            ("a.b.c", "a.b.c".to_owned()),
            ("four segments", format!("{genuine}.{signature}")),
            ("five segments", format!("{genuine}.{payload}.{signature}")),
            ("empty segment first", format!(".{genuine}")),
            (
                "JSON serialisation",
                format!(r#"{{"payload":"{payload}","protected":"{header}","signature":"{signature}"}}"#),
            ),
            ("quoted", format!("\"{genuine}\"")),
            ("percent-encoded", genuine.replace('.', "%2E")),
            ("blank within", genuine.replacen('.', ". ", 1)),
            ("twice", format!("{genuine} {genuine}")),
            ("joined with a comma", format!("{genuine}, Bearer {genuine}")),
            ("9 KiB", format!("{unsigned}.{}", "A".repeat(9000))),
        ] {
            // A signature without `-` and `_` reads the same in both alphabets.
            if token != genuine {
                faults.extend(forge.refusals(name, &token, INVALID).await);
            }
        }

        forge.finish(faults).await;
    }
}

/// The next character of the base64url alphabet. The last one of 256 bytes carries two bits, so that its neighbour decodes to the
/// same bytes where trailing bits are not looked at.
fn next_of(last: char) -> char {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let index = ALPHABET.find(last).unwrap();
    assert_eq!(index % 16, 0, "the server writes no trailing bits");
    ALPHABET.chars().nth(index + 1).unwrap()
}

/// RFC 6750 2.1, RFC 9110 11.1: the scheme in any case, one blank, the token.
#[tokio::test]
async fn a_token_stands_after_the_scheme_bearer() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let genuine = forge.pair.access.clone();
        let mut faults = Vec::new();

        for (value, expected) in [
            ("Bearer".to_owned(), MISSING),
            ("Bearer ".to_owned(), MISSING),
            (String::new(), MISSING),
            (genuine.clone(), MISSING),
            (format!("Bearer\t{genuine}"), MISSING),
            ("Bearer x y".to_owned(), INVALID),
            (format!("Bearer  {genuine}"), INVALID),
            (format!("Bearer \t{genuine}"), INVALID),
            (format!("Token {genuine}"), SCHEME),
            (format!("JWT {genuine}"), SCHEME),
            (format!("DPoP {genuine}"), SCHEME),
            ("Basic YWxpY2U6c2VjcmV0".to_owned(), SCHEME),
            (format!("Bearer: {genuine}"), SCHEME),
            (format!("Bearer, {genuine}"), SCHEME),
        ] {
            for (method, path) in ACCESS {
                let answer = Answer::of(forge.app.request(method, path).header(AUTHORIZATION, &value)).await;
                faults.extend(fault(&answer, expected).map(|fault| format!("{value:.20} at {path}: {fault}")));
            }
        }
        for (method, path) in ACCESS {
            let answer = Answer::of(forge.app.request(method, path)).await;
            faults.extend(fault(&answer, MISSING).map(|fault| format!("no header at {path}: {fault}")));
        }
        for value in [format!("bearer {genuine}"), format!("BEARER {genuine}"), format!("Bearer {genuine} ")] {
            let answer = Answer::of(forge.app.request(Method::GET, "users/me").header(AUTHORIZATION, &value)).await;
            assert_eq!(answer.status, 200, "{value:.20}: {answer:?}");
        }

        forge.finish(faults).await;
    }
}

/// Bytes that are not ASCII are no token, and no reason to fail.
#[tokio::test]
async fn bytes_beyond_ascii_are_no_token() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        for bytes in [&b"Bearer \xff\xfe"[..], "Bearer ключ".as_bytes(), "Б x".as_bytes()] {
            for (method, path) in ACCESS {
                let value = reqwest::header::HeaderValue::from_bytes(bytes).unwrap();
                let answer = Answer::of(forge.app.request(method, path).header(AUTHORIZATION, value)).await;
                assert_eq!(fault(&answer, INVALID), None, "{bytes:?} at {path}");
            }
        }
    }
}

/// RFC 6750 2 and 3.1, RFC 9700 4.3.2: one token, in one place, and never in the query.
#[tokio::test]
async fn two_tokens_or_one_in_the_query_are_a_bad_request() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let genuine = forge.pair.access.clone();
        let bearer = format!("Bearer {genuine}");

        for (method, path) in ACCESS {
            for (first, second) in [(bearer.as_str(), bearer.as_str()), (&bearer, "Bearer x"), ("Basic eA==", &bearer)]
            {
                let request = forge.app.request(method.clone(), path);
                let answer = Answer::of(request.header(AUTHORIZATION, first).header(AUTHORIZATION, second)).await;
                assert_eq!(answer.status, 400, "{path}: {answer:?}");
                assert!(answer.json()["detail"].is_string(), "{answer:?}");
            }
            let query = format!("{path}?access_token={genuine}");
            let alone = Answer::of(forge.app.request(method.clone(), &query)).await;
            let beside = Answer::of(forge.app.request(method.clone(), &query).bearer_auth(&genuine)).await;
            for answer in [alone, beside] {
                assert_eq!(answer.status, 400, "{path}: {answer:?}");
                assert!(!answer.body.contains(&genuine), "{answer:?}");
            }
        }
        let answer = Answer::of(forge.app.request(Method::GET, "users/me?page=1").bearer_auth(&genuine)).await;
        assert_eq!(answer.status, 200, "other parameters are nobody's business: {answer:?}");

        forge.finish(Vec::new()).await;
    }
}

/// RFC 6585 5: a head beyond the cap is not read to its end.
#[tokio::test]
async fn a_token_of_64_kib_is_431() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        for (method, path) in ACCESS {
            let mut stream = TcpStream::connect(forge.app.base.trim_start_matches("http://")).await.unwrap();
            let token = "A".repeat(64 * 1024);
            let head =
                format!("{method} {API}/{path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n");
            // The server may hang up before it has heard the whole of it.
            let _ = stream.write_all(head.as_bytes()).await;
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 431", "{path}");
        }
        forge.finish(Vec::new()).await;
    }
}

/// What the tests above take apart is what the server issues.
#[tokio::test]
async fn a_token_made_by_the_tests_is_as_good_as_the_servers() {
    let forge = Forge::new(Engine::Sqlite).await;

    let copy = forge.access(part(&forge.pair.access, 1));

    assert_eq!(copy, forge.pair.access, "RS256 is deterministic (RFC 8017 8.2.1)");
    let faults = forge.acceptances("a copy", &copy).await;
    forge.finish(faults).await;
}
