//! The listener of operators, in the real binary: its own port, its own places, from the first moment to the last.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Scrape;
use crate::cli::{Operator, Server};
use crate::support::{Answer, Engine};

async fn get(base: &str, path: &str) -> Answer {
    Answer::of(reqwest::Client::new().get(format!("{base}{path}"))).await
}

/// Where operators are answered.
fn admin_of(lines: &[String]) -> Option<String> {
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = lines.filter(|line| line["message"] == "listening for operators");
    found.next().map(|line| format!("http://{}", line["address"].as_str().unwrap()))
}

fn admin(server: &Server) -> String {
    admin_of(&server.process.stdout.now()).expect("the address is logged")
}

#[tokio::test]
async fn metrics_are_told_to_operators_only() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        let server = operator.serve().await;
        let admin = admin(&server);

        for path in ["/metrics", "/metrics/"] {
            assert_eq!(get(&server.base, path).await.status, 404, "{path}");
        }
        let scrape = Scrape::from(&admin).await;
        assert_eq!(scrape.value("ready"), 1.0, "{}", get(&admin, "/health/ready").await.body);
        assert_eq!(scrape.value("http_requests_total{method=\"GET\",route=\"other\",status=\"404\"}"), 2.0);
        assert_eq!(get(&admin, "/health/live").await.status, 200);
        let ready = get(&admin, "/health/ready").await;
        assert_eq!((ready.status, ready.json()["checks"]["database"].as_bool()), (200, Some(true)));
        for path in ["/", "/docs", "/openapi.json", "/.well-known/jwks.json", "/auth_api/v1/users/me"] {
            assert_eq!(get(&admin, path).await.status, 404, "{path}");
        }
        let posted = Answer::of(reqwest::Client::new().post(format!("{admin}/metrics"))).await;
        assert_eq!((posted.status, posted.header("allow")), (405, "GET, HEAD"));
        // What operators ask is no traffic of clients.
        assert_eq!(Scrape::from(&admin).await.moved(&scrape, &["http_requests_total"]), []);
    }
}

#[tokio::test]
async fn an_admin_port_that_is_taken_is_named() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__ADMIN__PORT", address.port().to_string());

    let outcome = operator.run(&["serve"]);

    assert_eq!(outcome.code, Some(69), "{outcome:?}");
    for text in [&address.to_string(), "admin.port", "in use"] {
        assert!(outcome.stderr.contains(text), "{text}: {outcome:?}");
    }
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
}

#[tokio::test]
async fn a_listener_that_is_not_wanted_is_not_there() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    // Its port may then be anybody's.
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__ADMIN__ENABLED", "false");
    let operator = operator.with("AUTHSERVICE__ADMIN__PORT", port);
    let server = operator.serve().await;

    assert_eq!(get(&server.base, "/health/ready").await.status, 200);
    assert_eq!(admin_of(&server.process.stdout.now()), None);
}

/// Whoever takes every place of the public port keeps neither Prometheus nor a probe out.
#[tokio::test]
async fn a_public_port_without_a_place_left_does_not_keep_operators_out() {
    let operator = Operator::on(Engine::Sqlite)
        .await
        .with("AUTHSERVICE__LIMITS__CONNECTIONS", "3")
        .with("AUTHSERVICE__LIMITS__CONNECTIONS_PER_ADDRESS", "2");
    let server = operator.serve().await;
    let (public, admin) = (server.base.trim_start_matches("http://"), admin(&server));
    let open = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(public.parse().unwrap()).await.unwrap();
        stream.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        // Nothing comes, or a reset, when there is no place.
        let is_open = stream.read(&mut [0; 16]).await.unwrap_or(0) > 0;
        (is_open, stream)
    };
    let mut streams: Vec<TcpStream> = Vec::new();
    for (from, is_served) in
        [("127.0.0.1", true), ("127.0.0.1", true), ("127.0.0.1", false), ("127.0.0.2", true), ("127.0.0.3", false)]
    {
        let (is_open, stream) = open(from).await;
        assert_eq!(is_open, is_served, "{from}");
        streams.push(stream);
    }

    for _ in 0..10 {
        assert_eq!(get(&admin, "/health/ready").await.status, 200);
    }
    let scrape = Scrape::from(&admin).await;
    assert_eq!(scrape.value("http_connections"), 3.0);
    assert_eq!(scrape.value("http_connections_refused_total{reason=\"address\"}"), 1.0);
    assert_eq!(scrape.value("http_connections_refused_total{reason=\"all\"}"), 1.0);

    drop(streams);
    let started = Instant::now();
    while Scrape::from(&admin).await.value("http_connections") > 0.0 {
        assert!(started.elapsed() < Duration::from_secs(10), "the connections are counted for ever");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// While the database is not there yet, and until the last client has been answered.
#[tokio::test]
async fn operators_are_answered_from_the_first_moment_to_the_last() {
    let operator = Operator::on(Engine::Sqlite)
        .await
        .with("DATABASE_URL", "sqlite://later/authservice.db?mode=rwc")
        .with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "2");
    let mut process = operator.spawn(&["serve"]);
    process.logged("listening, not ready yet").await.unwrap();
    let admin = admin_of(&process.stdout.now()).unwrap();

    let scrape = Scrape::from(&admin).await;
    assert_eq!(scrape.value("ready"), 0.0);
    // Nobody knows yet, so nothing is said.
    assert_eq!(scrape.find("db_connections_max"), None);
    assert_eq!(get(&admin, "/health/live").await.status, 200);
    let ready = get(&admin, "/health/ready").await;
    assert_eq!((ready.status, ready.json()["checks"]["started"].as_bool()), (503, Some(false)));

    std::fs::create_dir(operator.path("later")).unwrap();
    let mut server = Server::of(process).await;
    assert_eq!(get(&admin, "/health/ready").await.status, 200);
    assert_eq!(Scrape::from(&admin).await.value("ready"), 1.0);

    server.process.signal("TERM");
    server.process.logged("draining").await.unwrap();
    let ready = get(&admin, "/health/ready").await;
    assert_eq!((ready.status, ready.json()["checks"]["accepting"].as_bool()), (503, Some(false)));
    assert_eq!(Scrape::from(&admin).await.value("ready"), 0.0);
    assert_eq!(server.process.ended().await, Some(0));
}
