//! What goes wrong: storage, clocks, replicas and clients.

use authservice::audit::Origin;
use chrono::TimeDelta;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{ALICE, API, AWAY, HOME, NO_TOTAL, each_limited, failures, guess, limited, login, register, spend};
use crate::support::PASSWORD;

/// Fails closed: who cannot count does not verify.
#[tokio::test]
async fn d14_without_its_table_nobody_signs_in_or_registers_and_sessions_go_on() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        let pair = login(&app, ALICE, PASSWORD, HOME).await.pair();
        app.sql("ALTER TABLE rate_limits RENAME TO gone").await;

        for answer in [
            login(&app, ALICE, PASSWORD, HOME).await,
            guess(&app, ALICE, HOME).await,
            register(&app, "bob@example.com", HOME).await,
        ] {
            answer.refused(503, "temporarily_unavailable");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        assert_eq!(failures(&app).await, 0, "nothing was verified");
        let pair = app.refresh(&pair.refresh).await.pair();
        assert_eq!(app.me(&pair.access).await.status, 200);
        app.sql("ALTER TABLE gone RENAME TO rate_limits").await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
    })
    .await;
}

#[tokio::test]
async fn d26_a_clock_that_is_set_back_keeps_nobody_waiting() {
    let day = ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ACCOUNT_PER_DAY", "8");
    let address = ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ADDRESS_PER_HOUR", "8");
    each_limited(&[day, address], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        for _ in 0..8 {
            guess(&app, ALICE, AWAY).await.refused(401, "invalid_credentials");
            app.advance(TimeDelta::seconds(30));
        }
        for number in 0..5 {
            assert_eq!(register(&app, &format!("user{number}@example.com"), AWAY).await.status, 201);
        }
        limited(&guess(&app, ALICE, AWAY).await);
        limited(&guess(&app, "nobody@example.com", AWAY).await);
        limited(&register(&app, "last@example.com", AWAY).await);

        app.advance(-TimeDelta::hours(1));

        login(&app, ALICE, PASSWORD, AWAY).await.pair();
        assert_eq!(register(&app, "last@example.com", AWAY).await.status, 201);
        // Delays are as long as ever, and where she is known she stays known.
        spend(&app, ALICE, "192.0.2.1").await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        limited(&login(&app, ALICE, PASSWORD, "192.0.2.1").await);
        app.advance(TimeDelta::seconds(30));
        login(&app, ALICE, PASSWORD, "192.0.2.1").await.pair();
    })
    .await;
}

/// Asks until it is so. Each question takes its time, and there is an end to them.
async fn until(is_so: impl AsyncFn() -> bool) {
    for _ in 0..100_000 {
        if is_so().await {
            return;
        }
    }
    panic!("it never is");
}

/// A replica that was killed while it hashed.
#[tokio::test]
async fn what_a_replica_left_in_flight_is_forgotten_after_thirty_seconds() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        let origin = Origin { ip_address: Some(AWAY.parse().unwrap()), user_agent: String::new() };
        for _ in 0..4 {
            let _ = app.app.limits.sign_in(ALICE, &origin, &*app.clock).await.unwrap();
        }
        limited(&login(&app, ALICE, PASSWORD, AWAY).await);

        app.advance(TimeDelta::seconds(30));

        login(&app, ALICE, PASSWORD, AWAY).await.pair();
    })
    .await;
}

#[tokio::test]
async fn d22_a_client_that_hangs_up_takes_nothing_with_it() {
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, AWAY).await.pair();
        let body = json!({"email": ALICE, "password": PASSWORD}).to_string();
        let head = format!(
            "POST {API}/auth/login HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {AWAY}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let begun = "SELECT (SELECT count(*) FROM audit_events WHERE event = 'signed_in') \
                     + (SELECT count(*) FROM rate_limits WHERE in_flight > 0)";
        for _ in 0..10 {
            let before = app.count(begun).await;
            let mut streams = Vec::new();
            for _ in 0..3 {
                let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
                stream.write_all(head.as_bytes()).await.unwrap();
                streams.push(stream);
            }
            until(async || app.count(begun).await > before).await;
            drop(streams);
            until(async || app.count("SELECT count(*) FROM rate_limits WHERE in_flight > 0").await == 0).await;
        }

        // What was left in flight would be missing here. One more is possible: a request that was read late.
        assert!(spend(&app, ALICE, AWAY).await >= 4);
    })
    .await;
}
