//! A stop loses nothing: signals, requests in flight, restarts, kills.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Operator, Server};
use crate::support::{Answer, Engine, PASSWORD, jwt_header};

#[tokio::test]
async fn sigterm_drains_before_it_stops() {
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "1");
    let mut server = operator.serve().await;
    let pair = server.alice().await;
    let ready = server.get("/health/ready").await;
    assert_eq!((ready.status, ready.headers.get("connection")), (200, None));

    let started = Instant::now();
    server.process.signal("TERM");
    while server.get("/health/ready").await.status != 503 {
        assert!(started.elapsed() < Duration::from_secs(1), "still ready");
    }

    // A load balancer that has not noticed yet still gets answers, on new connections too.
    let ready = server.get("/health/ready").await.json();
    assert_eq!(ready["checks"]["accepting"], false, "{ready}");
    assert_eq!(server.get("/health/live").await.status, 200);
    // And is told to come back elsewhere, so that no connection is busy when it is closed (RFC 9112 9.6).
    let answer = server.get("/.well-known/jwks.json").await;
    assert_eq!((answer.status, answer.headers["connection"].to_str().unwrap()), (200, "close"));
    let another = reqwest::Client::new().get(format!("{}/", server.base));
    assert_eq!(Answer::of(another).await.status, 200);
    let next = server.refresh(&pair.refresh).await.pair();
    assert_eq!(server.me(&next.access).await.status, 200);
    assert_eq!(server.process.ended().await, Some(0));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let lines = server.process.stdout.last();
    assert!(lines.last().unwrap().contains("\"stopped\""), "{lines:#?}");
}

#[tokio::test]
async fn a_second_signal_ends_the_drain() {
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "300");
    for second in ["TERM", "INT"] {
        let mut server = operator.serve().await;

        server.process.signal("TERM");
        server.process.logged("draining").await.unwrap();
        let started = Instant::now();
        server.process.signal(second);

        assert_eq!(server.process.ended().await, Some(0), "{second}");
        assert!(started.elapsed() < Duration::from_secs(3), "{second}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_signal_is_heard_as_soon_as_the_server_listens() {
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "0");
    for name in ["TERM", "INT"].repeat(5) {
        let mut server = operator.serve().await;

        server.process.signal(name);

        assert_eq!(server.process.ended().await, Some(0), "{name}");
    }
}

#[tokio::test]
async fn sigint_stops_at_once_though_clients_are_connected() {
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "300");
    let mut server = operator.serve().await;
    // One connection that is kept alive after an answer, and one that has never said a word.
    assert_eq!(server.get("/health/live").await.status, 200);
    let silent = TcpStream::connect(server.base.trim_start_matches("http://")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;

    let started = Instant::now();
    server.process.signal("INT");

    assert_eq!(server.process.ended().await, Some(0));
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    drop(silent);
}

#[tokio::test]
async fn a_request_in_flight_is_answered_before_the_end() {
    let operator = Operator::on(Engine::Sqlite).await;
    let mut server = operator.serve().await;
    server.register("alice@example.com", PASSWORD).await;
    let address = server.base.trim_start_matches("http://").to_owned();
    let body = json!({"email": "alice@example.com", "password": PASSWORD}).to_string();
    let head = format!(
        "POST /auth_api/v1/auth/login HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = TcpStream::connect(&address).await.unwrap();
    stream.write_all(format!("{head}{}", &body[..10]).as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;

    server.process.signal("INT");
    // The socket is closed to others once the signal has been heard.
    let started = Instant::now();
    while TcpStream::connect(&address).await.is_ok() {
        assert!(started.elapsed() < Duration::from_secs(5), "still accepting");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();

    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("access_token"), "{answer}");
    assert_eq!(server.process.ended().await, Some(0));
}

#[tokio::test]
async fn a_restart_changes_nothing_for_clients() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        let server = operator.serve().await;
        let (pair, kids) = (server.alice().await, server.kids().await);
        server.stop().await;

        // The second start finds everything in place and needs no migration.
        let server = Server::of(operator.spawn(&["serve", "--no-migrate"])).await;

        assert_eq!(server.kids().await, kids, "{engine:?}");
        assert_eq!(server.me(&pair.access).await.json()["email"], "alice@example.com");
        let next = server.refresh(&pair.refresh).await.pair();
        assert_eq!(jwt_header(&next.access)["kid"], kids[0].as_str(), "{engine:?}");
        assert_eq!(server.me(&next.access).await.status, 200, "{engine:?}");
    }
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_answered() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        let mut server = operator.serve().await;
        let pair = server.alice().await;
        let next = server.refresh(&pair.refresh).await.pair();
        server.process.signal("KILL");
        server.process.ended().await;

        let server = operator.serve().await;

        assert_eq!(server.me(&next.access).await.status, 200, "{engine:?}");
        assert_eq!(server.refresh(&next.refresh).await.status, 200, "{engine:?}");
    }
}
