//! A server that stops, has lost its database, or has more to hash than it can.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::answered;
use super::front::{has_common_headers, is_not_stored};
use crate::support::{Answer, Engine, PASSWORD, TestApp, each_engine, each_engine_with};

#[tokio::test]
async fn a_stopping_server_is_alive_and_not_ready() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let pair = app.alice().await;
    let ready = app.get("/health/ready").await;
    let checks = json!({"accepting": true, "database": true, "signing_key": true});
    assert_eq!((ready.status, ready.json()), (200, json!({"status": "ok", "checks": checks})));

    app.app.stop();

    let ready = app.get("/health/ready").await;
    let checks = json!({"accepting": false, "database": true, "signing_key": true});
    assert_eq!((ready.status, ready.json()), (503, json!({"status": "unavailable", "checks": checks})));
    assert_eq!(app.get("/health/live").await.status, 200);
    assert_eq!(app.refresh(&pair.refresh).await.status, 200);
}

#[tokio::test]
async fn without_its_database_the_server_is_busy_and_never_says_who_is_wrong() {
    each_engine(async |app| {
        let pair = app.alice().await;
        app.app.db.clone().close().await;

        let ready = app.get("/health/ready").await;
        let checks = json!({"accepting": true, "database": false, "signing_key": true});
        assert_eq!((ready.status, ready.json()), (503, json!({"status": "unavailable", "checks": checks})));
        for path in ["/", "/health/live", "/.well-known/jwks.json", "/.well-known/openid-configuration"] {
            assert_eq!(app.get(path).await.status, 200, "{path}");
        }

        let alice = json!({"email": "alice@example.com", "password": PASSWORD});
        let nobody = json!({"email": "nobody@example.com", "password": PASSWORD});
        let session = "auth/sessions/0198a0d2-7d0e-7cc3-98c4-dc0c0c07398f";
        let rows = [
            ("login", app.request(Method::POST, "auth/login").json(&alice)),
            ("login of nobody", app.request(Method::POST, "auth/login").json(&nobody)),
            ("register", app.request(Method::POST, "users/register").json(&nobody)),
            ("refresh", app.request(Method::POST, "auth/refresh").bearer_auth(&pair.refresh)),
            ("logout", app.request(Method::POST, "auth/logout").bearer_auth(&pair.refresh)),
            ("logout-all", app.request(Method::POST, "auth/logout-all").bearer_auth(&pair.access)),
            ("me", app.request(Method::GET, "users/me").bearer_auth(&pair.access)),
            ("sessions", app.request(Method::GET, "auth/sessions").bearer_auth(&pair.access)),
            ("a session", app.request(Method::DELETE, session).bearer_auth(&pair.access)),
        ];
        for (name, request) in rows {
            let answer = answered(request).await;
            answer.refused(503, "temporarily_unavailable");
            assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{name}: {answer:?}");
            has_common_headers(name, &answer);
            is_not_stored(name, &answer);
        }
        // What needs no database is judged as ever.
        app.me("bad").await.refused(401, "invalid_token");
        assert_eq!(app.post("auth/login", &json!({})).await.status, 422);
    })
    .await;
}

#[tokio::test]
async fn too_many_sign_ins_at_once_are_put_off_and_hold_nobody_else_up() {
    let settings = [("AUTHSERVICE__PASSWORDS__MAX_CONCURRENT", "1"), ("AUTHSERVICE__PASSWORDS__QUEUE", "1")];
    each_engine_with(&settings, async |app| {
        let pair = app.alice().await;
        let mut logins = JoinSet::new();
        for n in 0..30 {
            // Known and unknown addresses wait in the same queue.
            let email = if n % 3 == 0 { "nobody@example.com" } else { "alice@example.com" };
            let request = app.request(Method::POST, "auth/login").json(&json!({"email": email, "password": PASSWORD}));
            logins.spawn(async move { (email, Answer::of(request).await) });
        }

        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let started = Instant::now();
            assert_eq!(app.get("/.well-known/jwks.json").await.status, 200);
            assert_eq!(app.me(&pair.access).await.status, 200);
            slowest = slowest.max(started.elapsed());
        }
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");

        let (mut done, mut put_off) = (0, 0);
        while let Some(login) = logins.join_next().await {
            let (email, answer) = login.unwrap();
            match answer.status {
                503 => {
                    answer.refused(503, "temporarily_unavailable");
                    assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0));
                    put_off += 1;
                }
                200 if email.starts_with("alice") => done += 1,
                401 if email.starts_with("nobody") => done += 1,
                _ => panic!("{email}: {answer:?}"),
            }
        }
        assert!(done > 0 && put_off > 0, "{done} done, {put_off} put off");
        // Nothing is left behind.
        assert!(!app.sign_in("alice@example.com").await.access.is_empty());
    })
    .await;
}
