//! Connections: slow, silent, and too many.

use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use super::{TRUSTED, Wire};
use crate::support::{Engine, TestApp};

const ENABLED: (&str, &str) = ("AUTHSERVICE__LIMITS__ENABLED", "true");

const EACH: (&str, &str) = ("AUTHSERVICE__LIMITS__CONNECTIONS_PER_ADDRESS", "3");

/// Waits in real time: the server's timers know no other. All cases wait at once. (An unfinished head that came in one packet
/// with the request before it, and nothing after it, is an idle connection: closed after a minute.)
#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_closes_the_connection() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    // Name, what is sent at once, what is sent each half second after that.
    let rows = [
        ("silence", "", ""),
        ("one byte", "G", ""),
        ("an unfinished head", "GET / HTTP/1.1\r\nHost: localhost\r\n", ""),
        ("a trickle", "GET / HTTP/1.1\r\nX: ", "a"),
        ("empty lines", "", "\r\n"),
        (
            "a trickle right behind another request",
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HTTP/1.1\r\nX: ",
            "a",
        ),
    ];
    let mut cases = tokio::task::JoinSet::new();
    for (name, first, then) in rows {
        let mut wire = Wire::open(&app).await;
        cases.spawn(async move {
            let started = Instant::now();
            wire.send(first).await;
            while started.elapsed() < Duration::from_millis(12_500) {
                match timeout(Duration::from_millis(500), wire.stream.read_buf(&mut wire.buffer)).await {
                    Ok(Ok(0) | Err(_)) => break,
                    Ok(Ok(_)) => {}
                    Err(_) => wire.send(then).await,
                }
            }
            (name, started.elapsed(), wire.buffer.is_empty())
        });
    }
    let mut wrong = Vec::new();
    while let Some(case) = cases.join_next().await {
        let (name, took, is_unanswered) = case.unwrap();
        if !(9..12).contains(&took.as_secs()) || is_unanswered == name.contains("another") {
            wrong.push(format!("{name}: closed after {took:?}, unanswered: {is_unanswered}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_gets_them_back() {
    let app = TestApp::start(Engine::Sqlite, &[ENABLED, EACH]).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(Wire::open(&app).await.served().await.unwrap());
    }

    assert!(Wire::open(&app).await.served().await.is_none());
    // Another address does not notice.
    assert!(Wire::open_from(&app, "127.0.0.2").await.served().await.is_some());
    // Those that are open go on.
    let third = open.pop().unwrap().served().await.unwrap();

    drop(third);
    let started = Instant::now();
    while Wire::open(&app).await.served().await.is_none() {
        assert!(started.elapsed() < Duration::from_secs(5), "the place is not given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn silent_connections_count_and_a_flood_does_not_wear_the_cap_out() {
    let app = TestApp::start(Engine::Sqlite, &[ENABLED, EACH]).await;
    for round in 0..20 {
        let silent = [Wire::open(&app).await, Wire::open(&app).await, Wire::open(&app).await];
        assert!(Wire::open(&app).await.served().await.is_none(), "{round}");
        drop(silent);
        let started = Instant::now();
        while Wire::open(&app).await.served().await.is_none() {
            assert!(started.elapsed() < Duration::from_secs(5), "{round}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The last one's place comes back as late as any other.
        while Wire::open(&app).await.served().await.is_none() {}
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn trusted_proxies_have_no_cap_of_their_own_but_share_the_one_of_all() {
    let settings = [ENABLED, EACH, TRUSTED, ("AUTHSERVICE__LIMITS__CONNECTIONS", "8")];
    let app = TestApp::start(Engine::Sqlite, &settings).await;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Wire::open(&app).await.served().await.unwrap());
    }

    assert!(Wire::open(&app).await.served().await.is_none());
    assert!(Wire::open_from(&app, "127.0.0.2").await.served().await.is_none());
}

#[tokio::test]
async fn limits_that_are_off_lift_the_caps() {
    let app = TestApp::start(Engine::Sqlite, &[EACH]).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        open.push(Wire::open(&app).await.served().await.unwrap());
    }
}
