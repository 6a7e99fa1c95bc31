//! Sizes, codings, and where one request ends and the next begins.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{LOGIN, TRUSTED, Wire, posted};
use crate::support::{Engine, PASSWORD, TestApp};

#[tokio::test]
async fn a_body_has_a_size_however_it_is_sent() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let head = format!("POST {LOGIN} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n");
    let chunks = |count: usize| format!("400\r\n{}\r\n", "a".repeat(1024)).repeat(count);
    let rows = [
        ("16 KiB", format!("{head}Content-Length: 16384\r\n\r\n{}", " ".repeat(16384)), 422),
        ("a byte more", format!("{head}Content-Length: 16385\r\n\r\n{}", " ".repeat(16385)), 413),
        ("1 GiB that is only declared", format!("{head}Content-Length: 1073741824\r\n\r\n"), 413),
        ("16 chunks of 1 KiB", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n", chunks(16)), 422),
        ("17 chunks, and no end", format!("{head}Transfer-Encoding: chunked\r\n\r\n{}", chunks(17)), 413),
        (
            "a chunk of 1 GiB that is only declared",
            format!("{head}Transfer-Encoding: chunked\r\n\r\n40000000\r\n{}", "a".repeat(17 << 10)),
            413,
        ),
    ];
    for (name, request, expected) in rows {
        let mut wire = Wire::open(&app).await;
        let started = Instant::now();
        wire.send(request).await;
        let answer = wire.answer().await.unwrap_or_else(|| panic!("{name}: no answer"));

        assert_eq!(answer.status, expected, "{name}: {answer:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{name}");
        if expected == 413 {
            assert_eq!(answer.code(), "payload_too_large", "{name}");
            assert_eq!(answer.header("connection"), "close", "{name}");
            assert_eq!(answer.header("cache-control"), "no-store", "{name}");
            wire.closes(name).await;
        }
    }
}

#[tokio::test]
async fn a_body_in_another_coding_is_not_unpacked() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    app.register("alice@example.com").await;
    let body = json!({"email": "alice@example.com", "password": PASSWORD}).to_string();
    for (coding, expected) in
        [("gzip", 415), ("br", 415), ("identity, gzip", 415), ("identity", 200), ("Identity", 200)]
    {
        let mut wire = Wire::open(&app).await;
        let request = posted(LOGIN, &body).replacen("\r\n", &format!("\r\nContent-Encoding: {coding}\r\n"), 1);
        wire.send(request).await;
        assert_eq!(wire.answer().await.unwrap().status, expected, "{coding}");
    }
}

#[tokio::test]
async fn a_client_may_wait_for_100_continue() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    app.register("alice@example.com").await;
    let request = posted(LOGIN, &json!({"email": "alice@example.com", "password": PASSWORD}).to_string());
    let request = request.replacen("\r\n", "\r\nExpect: 100-continue\r\n", 1);
    let (head, body) = request.split_at(request.find("\r\n\r\n").unwrap() + 4);
    let mut wire = Wire::open(&app).await;

    wire.send(head).await;
    assert_eq!(wire.answer().await.unwrap().status, 100);
    wire.send(body).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert!(wire.served().await.is_some());

    // What would be refused is not asked for.
    let rows = [
        (
            "too long",
            format!("POST {LOGIN} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 20000\r\n\r\n"),
            413,
        ),
        (
            "no route",
            "POST /nothing HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n".to_owned(),
            404,
        ),
    ];
    for (name, head, expected) in rows {
        let mut wire = Wire::open(&app).await;
        wire.send(head).await;
        assert_eq!(wire.answer().await.unwrap().status, expected, "{name}");
    }
}

#[tokio::test]
async fn what_follows_a_body_is_the_next_request_and_nothing_else() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let mut wire = Wire::open(&app).await;
    wire.send(format!("{}nonsense\r\n\r\n", posted(LOGIN, "{}"))).await;
    assert_eq!(wire.answer().await.unwrap().status, 422);
    assert_eq!(wire.answer().await.unwrap().status, 400);
    wire.closes("nonsense").await;

    // A refusal before the body was read leaves the connection in step, or closes it.
    for (name, path) in [("no route", "/nothing"), ("another method", "/auth_api/v1/users/me")] {
        let mut wire = Wire::open(&app).await;
        let body = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
        wire.send(format!("{}GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", posted(path, body))).await;
        assert!([404, 405].contains(&wire.answer().await.unwrap().status), "{name}");
        if let Some(answer) = wire.answer().await {
            assert_eq!(answer.status, 200, "{name}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let app = TestApp::start(Engine::Sqlite, &[TRUSTED]).await;
    let mut wire = Wire::open(&app).await;
    // Some are answered sooner than others.
    let request = |n: usize| match n % 4 {
        0 => format!("GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: {n}\r\n\r\n"),
        1 => format!("GET /nothing HTTP/1.1\r\nHost: a\r\nX-Request-Id: {n}\r\n\r\n"),
        2 => format!("GET /health/ready HTTP/1.1\r\nHost: a\r\nX-Request-Id: {n}\r\n\r\n"),
        _ => posted(LOGIN, "{}").replacen("\r\n", &format!("\r\nX-Request-Id: {n}\r\n"), 1),
    };

    wire.send((0..100).map(request).collect::<String>()).await;

    for n in 0..100 {
        let answer = wire.answer().await.unwrap_or_else(|| panic!("no answer to {n}"));
        assert_eq!(answer.header("x-request-id"), n.to_string());
        assert_eq!(answer.status, [200, 404, 200, 422][n % 4], "{n}");
    }
}

#[tokio::test]
async fn a_head_has_a_size_and_a_number_of_headers() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let get = "GET /health/live HTTP/1.1\r\nHost: a\r\n";
    let many = |count: usize| "X: 1\r\n".repeat(count);
    let rows = [
        ("100 headers", format!("{get}{}\r\n", many(99)), 200),
        ("101 headers", format!("{get}{}\r\n", many(100)), 431),
        ("a header of 12 KiB", format!("{get}X: {}\r\n\r\n", "a".repeat(12 << 10)), 200),
        ("a header of 17 KiB", format!("{get}X: {}\r\n\r\n", "a".repeat(17 << 10)), 431),
        ("a header of 1 MiB", format!("{get}X: {}\r\n\r\n", "a".repeat(1 << 20)), 431),
        ("two of 9 KiB", format!("{get}X: {0}\r\nY: {0}\r\n\r\n", "a".repeat(9 << 10)), 431),
        ("a target of 7 KiB", format!("GET /health/live?{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(7 << 10)), 200),
        ("a target of 9 KiB", format!("GET /health/live?{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9 << 10)), 414),
    ];
    let mut wrong = Vec::new();
    for (name, request, expected) in rows {
        let mut wire = Wire::open(&app).await;
        wire.send(request).await;
        let status = wire.answer().await.map(|answer| answer.status);
        if status != Some(expected) {
            wrong.push(format!("{name}: {status:?} instead of {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
