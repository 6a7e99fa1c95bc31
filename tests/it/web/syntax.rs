//! Requests that are not HTTP as it is written.

use std::time::{Duration, Instant};

use super::{LOGIN, Wire};
use crate::support::{Engine, TestApp};

/// Sends a request and one that follows it, which must never be answered: nobody can know where it begins. Says what is wrong.
async fn refused(app: &TestApp, name: &str, request: &str) -> Option<String> {
    let mut wire = Wire::open(app).await;
    wire.send(format!("{request}GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let Some(answer) = wire.answer().await else {
        return Some(format!("{name}: closed without an answer"));
    };
    if answer.status != 400 || answer.header("x-request-id").is_empty() || !answer.body.starts_with("{\"detail\":") {
        return Some(format!("{name}: {answer:?}"));
    }
    let second = wire.answer().await?;
    Some(format!("{name}: 400, and then {}", second.status))
}

#[tokio::test]
async fn what_is_not_http_is_refused_and_the_connection_closed() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let get = "GET /health/live HTTP/1.1\r\nHost: a\r\n";
    let post = format!("POST {LOGIN} HTTP/1.1\r\nHost: a\r\n");
    let chunked = format!("{post}Transfer-Encoding: chunked\r\n\r\n");
    let rows = [
        ("two lengths that differ", format!("{post}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{{}}")),
        ("two lengths in one line", format!("{post}Content-Length: 2, 2\r\n\r\n{{}}")),
        ("a length with a sign", format!("{post}Content-Length: +2\r\n\r\n{{}}")),
        ("a negative length", format!("{post}Content-Length: -2\r\n\r\n{{}}")),
        ("a length that overflows", format!("{post}Content-Length: 18446744073709551616\r\n\r\n{{}}")),
        ("chunked, identity", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        ("xchunked", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("Transfer-Encoding in HTTP/1.0", chunked.replacen("1.1", "1.0", 1) + "0\r\n\r\n"),
        ("a chunk size that overflows", format!("{chunked}FFFFFFFFFFFFFFFFF\r\n")),
        ("a chunk size that is no number", format!("{chunked}zz\r\n")),
        ("a chunk extension of 64 KiB", format!("{chunked}1;{}\r\n", "x".repeat(64 << 10))),
        ("a folded header", format!("{get}X: one\r\n two\r\n\r\n")),
        ("a bare CR in a header", format!("{get}X: one\rtwo\r\n\r\n")),
        ("NUL in a value", format!("{get}X: one\0two\r\n\r\n")),
        ("NUL in a name", format!("{get}X\0: one\r\n\r\n")),
        ("a blank before the colon", format!("{get}X : one\r\n\r\n")),
        ("a header without a colon", format!("{get}nonsense\r\n\r\n")),
        ("a header without a name", format!("{get}: one\r\n\r\n")),
        ("a blank before the first header", get.replacen("Host", " Host", 1) + "\r\n"),
        ("a blank in the target", get.replacen("/live", " /live", 1) + "\r\n"),
        ("NUL in the target", get.replacen("/live", "/live\0", 1) + "\r\n"),
        ("a target without a slash", get.replacen("/health", "health", 1) + "\r\n"),
        ("another version", get.replacen("1.1", "3.0", 1) + "\r\n"),
        ("no version", get.replacen(" HTTP/1.1", "", 1) + "\r\n"),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{2}\u{3}\u{3}".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (name, request) in rows {
        wrong.extend(refused(&app, name, &request).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What some parsers read one way and some another (RFC 9112 2.2, 6.1, 6.3): refused, so that no proxy disagrees with us.
#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let get = "GET /health/live HTTP/1.1\r\nHost: a\r\n";
    let post = format!("POST {LOGIN} HTTP/1.1\r\nHost: a\r\n");
    let (length, chunked) = ("Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n");
    let end = "\r\n0\r\n\r\n";
    let rows = [
        ("Content-Length, then Transfer-Encoding", format!("{post}{length}{chunked}{end}")),
        ("Transfer-Encoding, then Content-Length", format!("{post}{chunked}{length}{end}")),
        ("both on GET", format!("{get}{chunked}{length}{end}")),
        ("both where there is no route", format!("POST /nothing HTTP/1.1\r\nHost: a\r\n{length}{chunked}{end}")),
        ("two lengths that agree", format!("{post}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{{}}")),
        ("a header that ends with a bare LF", format!("{get}X: one\nY: two\r\n\r\n")),
        ("a head that ends with a bare LF", format!("{get}\n")),
        ("only bare LF", "GET /health/live HTTP/1.1\nHost: a\n\n".to_owned()),
    ];
    let mut wrong = Vec::new();
    for (name, request) in rows {
        wrong.extend(refused(&app, name, &request).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// RFC 9112 3.2.
#[tokio::test]
async fn a_request_has_exactly_one_host() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    for (name, hosts) in [("none", ""), ("two", "Host: a\r\nHost: b\r\n"), ("not a host", "Host: a b\r\n")] {
        let mut wire = Wire::open(&app).await;
        wire.send(format!("GET /health/live HTTP/1.1\r\n{hosts}\r\n")).await;
        assert_eq!(wire.answer().await.unwrap().status, 400, "{name}");
    }
    // HTTP/1.0 had no such header.
    let mut wire = Wire::open(&app).await;
    wire.send("GET /health/live HTTP/1.0\r\n\r\n").await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    wire.closes("HTTP/1.0").await;
}

#[tokio::test]
async fn http_2_and_upgrades_are_not_spoken() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let mut wire = Wire::open(&app).await;
    let started = Instant::now();
    wire.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0").await;
    while let Some(answer) = wire.answer().await {
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(2));

    for upgrade in ["h2c", "websocket"] {
        let mut wire = Wire::open(&app).await;
        wire.send(format!(
            "GET /health/live HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.answer().await.unwrap().status, 200, "{upgrade}");
    }
}
