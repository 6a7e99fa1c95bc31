//! Sign-in.

use chrono::TimeDelta;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Answer, Engine, PASSWORD, TestApp, claims, each_engine, each_engine_with};

async fn login(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("auth/login", &json!({"email": email, "password": password})).await
}

/// Headers but those that differ from answer to answer.
fn headers(answer: &Answer) -> HeaderMap {
    let mut headers = answer.headers.clone();
    headers.remove("date");
    headers.remove("x-request-id");
    headers
}

#[tokio::test]
async fn a_sign_in_opens_a_session_whose_tokens_work() {
    each_engine(async |app| {
        let pair = app.alice().await;

        assert_eq!(app.me(&pair.access).await.json()["email"], "alice@example.com");
        let next = app.refresh(&pair.refresh).await.pair();
        assert_eq!(claims(&next.refresh)["gen"], 1);
        assert_eq!(claims(&next.access)["sid"], claims(&pair.access)["sid"]);
    })
    .await;
}

#[tokio::test]
async fn d24_tokens_are_not_stored_by_caches_and_say_how_long_they_live() {
    each_engine(async |app| {
        app.register("alice@example.com").await;

        let answer = login(&app, "alice@example.com", PASSWORD).await;

        let (body, pair) = (answer.json(), answer.pair());
        let names: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(names, ["access_token", "refresh_token", "token_type", "expires_in"]);
        assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.header("pragma"), "no-cache");
        assert_eq!(answer.header("set-cookie"), "");
        assert_ne!(pair.access, pair.refresh);
        let claims = claims(&pair.access);
        assert_eq!(claims["iat"], app.now().timestamp());
        assert_eq!(claims["exp"], app.now().timestamp() + 900);
        app.advance(TimeDelta::seconds(899));
        assert_eq!(app.me(&pair.access).await.status, 200);
        app.advance(TimeDelta::seconds(1));
        app.me(&pair.access).await.refused(401, "token_expired");
    })
    .await;
}

#[tokio::test]
async fn an_access_token_does_not_outlive_its_session() {
    let settings =
        [("AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS", "1000"), ("AUTHSERVICE__REFRESH__IDLE_TTL_SECONDS", "1000")];
    each_engine_with(&settings, async |app| {
        let pair = app.alice().await;
        app.advance(TimeDelta::seconds(700));

        let answer = app.refresh(&pair.refresh).await;

        assert_eq!(answer.json()["expires_in"], 300, "{answer:?}");
        let claims = claims(&answer.pair().access);
        assert_eq!(claims["exp"], app.now().timestamp() + 300);
    })
    .await;
}

#[tokio::test]
async fn d01_whoever_does_not_know_the_password_learns_nothing() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        app.register("inactive@example.com").await;
        app.register("broken@example.com").await;
        app.sql("UPDATE users SET is_active = FALSE WHERE email = 'inactive@example.com'").await;
        app.sql("UPDATE users SET hashed_password = 'rubbish' WHERE email = 'broken@example.com'").await;
        let known = login(&app, "alice@example.com", "wrongwrong").await;
        known.refused(401, "invalid_credentials");
        let rows = [
            ("unknown address", "nobody@example.com", "wrongwrong"),
            ("inactive, wrong password", "inactive@example.com", "wrongwrong"),
            ("D06 hash that cannot be read", "broken@example.com", PASSWORD),
            ("mixed alphabets", "\u{430}lice@example.com", PASSWORD),
            ("compatibility form", "\u{ff41}lice@example.com", PASSWORD),
            ("tag", "alice+x@example.com", PASSWORD),
            ("D04 SQL", "'or'1'='1@example.com", "' OR '1'='1' --"),
        ];
        for (name, email, password) in rows {
            let answer = login(&app, email, password).await;

            assert_eq!(answer.status, known.status, "{name}: {answer:?}");
            assert_eq!(answer.body, known.body, "{name}");
            assert_eq!(headers(&answer), headers(&known), "{name}");
        }

        assert_eq!(app.count("SELECT count(*) FROM auth_sessions").await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_right_password_of_an_inactive_user_opens_nothing() {
    each_engine(async |app| {
        let pair = app.alice().await;
        app.sql("UPDATE users SET is_active = FALSE").await;

        let answer = login(&app, "alice@example.com", PASSWORD).await;

        answer.refused(403, "user_inactive");
        app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
        assert_eq!(app.count("SELECT count(*) FROM auth_sessions").await, 1);
    })
    .await;
}

#[tokio::test]
async fn d18_the_51st_session_ends_the_one_seen_least_recently() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        let mut pairs = Vec::new();
        for _ in 0..50 {
            pairs.push(app.sign_in("alice@example.com").await);
            app.advance(TimeDelta::seconds(1));
        }
        let first = app.refresh(&pairs[0].refresh).await.pair();

        let last = app.sign_in("alice@example.com").await;

        assert_eq!(app.sessions(&last.access).await.json().as_array().unwrap().len(), 50);
        assert_eq!(app.me(&first.access).await.status, 200);
        app.me(&pairs[1].access).await.refused(401, "invalid_token");
        app.refresh(&pairs[1].refresh).await.refused(401, "refresh_reuse_detected");
        for pair in &pairs[2..] {
            assert_eq!(app.me(&pair.access).await.status, 200);
        }
        let ended = "SELECT count(*) FROM auth_sessions WHERE revoked_reason = 'SESSION_CAP'";
        assert_eq!(app.count(ended).await, 1);
        let noted = "SELECT count(*) FROM audit_events WHERE event = 'session_cap_reached'";
        assert_eq!(app.count(noted).await, 1);
    })
    .await;
}

#[tokio::test]
async fn d21_many_sign_ins_at_once_are_answered_and_keep_the_cap() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        let other = app.another_replica().await;
        let body = json!({"email": "alice@example.com", "password": PASSWORD});
        let mut requests = JoinSet::new();
        for at in 0..200 {
            let server = if at % 2 == 0 { &app } else { &other };
            requests.spawn(Answer::of(server.request(Method::POST, "auth/login").json(&body)));
        }

        let answers = requests.join_all().await;

        let (opened, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        for answer in refused {
            answer.refused(503, "temporarily_unavailable");
            assert!(!answer.header("retry-after").is_empty(), "{answer:?}");
        }
        let live = app.count("SELECT count(*) FROM auth_sessions WHERE revoked_at IS NULL").await;
        let expected = opened.len().min(50);
        assert_eq!(usize::try_from(live).unwrap(), expected);
        assert!(expected > 0, "{answers:?}");
    })
    .await;
}

#[tokio::test]
async fn d16_the_token_of_somebody_else_changes_nothing_at_sign_in() {
    each_engine(async |app| {
        let alice = app.alice().await;
        app.register("bob@example.com").await;
        let body = json!({"email": "bob@example.com", "password": PASSWORD});

        let request = app.request(Method::POST, "auth/login").bearer_auth(&alice.access);
        let bob = Answer::of(request.json(&body)).await.pair();

        assert_eq!(app.me(&bob.access).await.json()["email"], "bob@example.com");
        assert_ne!(claims(&bob.access)["sid"], claims(&alice.access)["sid"]);
        assert_eq!(app.me(&alice.access).await.json()["email"], "alice@example.com");
    })
    .await;
}

#[tokio::test]
async fn what_is_no_address_or_password_is_refused_before_anybody_is_looked_up() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    app.register("alice@example.com").await;
    let rows = [
        ("D04 operator as the address", json!({"email": {"$ne": null}, "password": PASSWORD})),
        ("D04 operator as the password", json!({"email": "alice@example.com", "password": {"$ne": null}})),
        ("short password", json!({"email": "alice@example.com", "password": "1234567"})),
        ("long password", json!({"email": "alice@example.com", "password": "x".repeat(129)})),
        ("NUL", json!({"email": "alice@example.com", "password": format!("{PASSWORD}\0")})),
        ("no at", json!({"email": "alice", "password": PASSWORD})),
        ("B23 line break", json!({"email": "alice@example.com\r\nBcc: x@x.org", "password": PASSWORD})),
    ];
    for (name, body) in rows {
        let answer = app.post("auth/login", &body).await;

        assert_eq!(answer.status, 422, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn d25_credentials_in_the_query_are_not_a_sign_in() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    app.register("alice@example.com").await;
    let query = format!("auth/login?email=alice@example.com&password={PASSWORD}");

    let answer = app.get(&query).await;
    let posted = Answer::of(app.request(Method::POST, &query)).await;

    assert_eq!((answer.status, answer.header("allow")), (405, "POST"));
    assert_eq!(posted.status, 422, "{posted:?}");
}

#[tokio::test]
async fn a41_only_a_trusted_proxy_is_believed_about_addresses() {
    let hops = ["1.2.3.4", "unknown", "127.0.0.1, 1.2.3.4", "fe80::1%eth0", "1.2.3.4:555", "10.0.0.0/8"];
    each_engine(async |app| {
        app.register("alice@example.com").await;
        let body = json!({"email": "alice@example.com", "password": PASSWORD});
        for hops in hops {
            let request = app.request(Method::POST, "auth/login").header("x-forwarded-for", hops);
            let pair = Answer::of(request.json(&body)).await.pair();

            let listed = app.sessions(&pair.access).await.json();

            let addresses: Vec<_> = listed.as_array().unwrap().iter().map(|session| &session["ip_address"]).collect();
            assert!(addresses.iter().all(|address| *address == "127.0.0.1"), "{hops}: {addresses:?}");
        }
    })
    .await;
}
