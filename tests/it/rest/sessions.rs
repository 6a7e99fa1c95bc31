//! The list of the own sessions and the end of one of them.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{API, Answer, Engine, PASSWORD, Pair, TestApp, claims, each_engine};

async fn sign_in_with(app: &TestApp, user_agent: &str) -> Pair {
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let request = app.request(Method::POST, "auth/login").header("user-agent", user_agent);
    Answer::of(request.json(&body)).await.pair()
}

fn session_id(pair: &Pair) -> String {
    claims(&pair.access)["sid"].as_str().unwrap().to_owned()
}

async fn end(app: &TestApp, id: &str, token: &str) -> Answer {
    app.with_token(Method::DELETE, &format!("auth/sessions/{id}"), token).await
}

/// One member of every listed session.
fn listed(answer: &Answer, member: &str) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let sessions = answer.json();
    let sessions = sessions.as_array().unwrap().iter();
    sessions.map(|session| session[member].clone()).collect()
}

#[tokio::test]
async fn sessions_are_listed_with_the_one_seen_last_first() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        app.register("bob@example.com").await;
        let first = sign_in_with(&app, "First").await;
        app.advance(TimeDelta::seconds(1));
        sign_in_with(&app, "Second").await;
        app.sign_in("bob@example.com").await;
        app.advance(TimeDelta::seconds(1));
        let third = sign_in_with(&app, "Third").await;
        app.advance(TimeDelta::seconds(1));
        let first = app.refresh(&first.refresh).await.pair();

        let answer = app.sessions(&third.access).await;

        assert_eq!(listed(&answer, "user_agent"), ["First", "Third", "Second"]);
        assert_eq!(listed(&answer, "current"), [false, true, false]);
        assert_eq!(listed(&answer, "ip_address"), ["127.0.0.1"; 3]);
        assert_eq!(listed(&answer, "session_id")[..2], [session_id(&first), session_id(&third)]);
        let names: Vec<String> = answer.json()[0].as_object().unwrap().keys().cloned().collect();
        let expected = ["session_id", "user_agent", "ip_address", "created_at", "last_seen_at", "current"];
        assert_eq!(names, expected);
        assert_ne!(answer.json()[0]["created_at"], answer.json()[0]["last_seen_at"]);
        assert_eq!(answer.json()[1]["created_at"], answer.json()[1]["last_seen_at"]);
        assert_eq!(answer.header("cache-control"), "no-store");
    })
    .await;
}

#[tokio::test]
async fn a_session_that_ended_or_expired_is_not_listed() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        let idle = sign_in_with(&app, "Idle").await;
        let kept = sign_in_with(&app, "Kept").await;
        let left = sign_in_with(&app, "Left").await;
        assert_eq!(app.logout(&left.refresh).await.status, 204);
        app.advance(TimeDelta::days(13));
        let kept = app.refresh(&kept.refresh).await.pair();
        app.advance(TimeDelta::days(1));
        let asking = sign_in_with(&app, "Asking").await;

        let answer = app.sessions(&asking.access).await;

        assert_eq!(listed(&answer, "user_agent"), ["Asking", "Kept"]);
        end(&app, &session_id(&idle), &asking.access).await.refused(404, "session_not_found");
        app.refresh(&idle.refresh).await.refused(401, "token_expired");
        assert_eq!(app.refresh(&kept.refresh).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_session_past_its_absolute_end_is_not_listed() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        let mut old = sign_in_with(&app, "Old").await;
        for _ in 0..18 {
            app.advance(TimeDelta::days(10) - TimeDelta::seconds(1));
            old = app.refresh(&old.refresh).await.pair();
        }
        app.advance(TimeDelta::seconds(18));
        let asking = sign_in_with(&app, "Asking").await;

        let answer = app.sessions(&asking.access).await;

        assert_eq!(listed(&answer, "user_agent"), ["Asking"]);
        app.refresh(&old.refresh).await.refused(401, "token_expired");
    })
    .await;
}

#[tokio::test]
async fn g02_ending_another_own_session_ends_its_tokens() {
    each_engine(async |app| {
        let (asking, other) = (app.alice().await, app.sign_in("alice@example.com").await);

        let answer = end(&app, &session_id(&other), &asking.access).await;

        assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{answer:?}");
        app.me(&other.access).await.refused(401, "invalid_token");
        app.refresh(&other.refresh).await.refused(401, "refresh_reuse_detected");
        assert_eq!(app.me(&asking.access).await.status, 200);
        assert_eq!(app.refresh(&asking.refresh).await.status, 200);
        assert_eq!(listed(&app.sessions(&asking.access).await, "current"), [true]);
        let noted = "SELECT count(*) FROM audit_events WHERE event = 'logged_out'";
        assert_eq!(app.count(noted).await, 1);
    })
    .await;
}

#[tokio::test]
async fn the_current_session_may_be_ended_too() {
    each_engine(async |app| {
        let asking = app.alice().await;

        let answer = end(&app, &session_id(&asking).to_uppercase(), &asking.access).await;

        assert_eq!(answer.status, 204, "{answer:?}");
        app.sessions(&asking.access).await.refused(401, "invalid_token");
        app.refresh(&asking.refresh).await.refused(401, "refresh_reuse_detected");
    })
    .await;
}

#[tokio::test]
async fn g03_no_other_session_can_be_ended() {
    each_engine(async |app| {
        let asking = app.alice().await;
        app.register("bob@example.com").await;
        let bob = app.sign_in("bob@example.com").await;
        let ended = app.sign_in("alice@example.com").await;
        assert_eq!(end(&app, &session_id(&ended), &asking.access).await.status, 204);
        let not_found = r#"{"error":{"code":"session_not_found","message":"Session not found"}}"#;
        let no_uuid =
            r#"{"detail":[{"type":"uuid_parsing","loc":["path","session_id"],"msg":"Input should be a valid UUID"}]}"#;
        let rows = [
            ("foreign", session_id(&bob), 404, not_found),
            ("random", "8bddcff6-9040-4d1d-a9eb-c1d1d8d0cdc9".to_owned(), 404, not_found),
            ("ended", session_id(&ended), 404, not_found),
            ("nil", "00000000-0000-0000-0000-000000000000".to_owned(), 404, not_found),
            ("word", "current".to_owned(), 422, no_uuid),
            ("number", "1".to_owned(), 422, no_uuid),
            ("too long", format!("{}0", session_id(&asking)), 422, no_uuid),
            ("SQL", "'%20OR%201=1--".to_owned(), 422, no_uuid),
            ("encoded NUL", "%00".to_owned(), 422, no_uuid),
        ];
        for (name, id, status, body) in rows {
            let answer = end(&app, &id, &asking.access).await;

            assert_eq!((answer.status, answer.body.as_str()), (status, body), "{name}: {answer:?}");
        }

        assert_eq!(app.me(&bob.access).await.status, 200);
        assert_eq!(app.refresh(&bob.refresh).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn ending_a_session_takes_an_access_token() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let path = format!("{API}/auth/sessions/{}", session_id(&pair));

        let anonymous = Answer::of(app.request(Method::DELETE, &path)).await;
        let malformed = Answer::of(app.request(Method::DELETE, "auth/sessions/x")).await;
        let refresh = app.with_token(Method::DELETE, &path, &pair.refresh).await;
        let other_method = app.with_token(Method::GET, &path, &pair.access).await;

        anonymous.refused(401, "not_authenticated");
        malformed.refused(401, "not_authenticated");
        refresh.refused(400, "invalid_token_type");
        assert_eq!((other_method.status, other_method.header("allow")), (405, "DELETE"));
        assert_eq!(app.me(&pair.access).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn g07_a_user_agent_is_shown_as_it_was_sent() {
    let rows = [
        ("absent", &b""[..], ""),
        ("markup", b"<img onerror=alert(1) src='\"\\'>", "<img onerror=alert(1) src='\"\\'>"),
        ("Latin-1", b"caf\xe9", "café"),
    ];
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    app.register("alice@example.com").await;
    for (name, sent, shown) in rows {
        let mut request = app.request(Method::POST, "auth/login");
        if !sent.is_empty() {
            request = request.header("user-agent", sent);
        }
        app.advance(TimeDelta::seconds(1));
        let body = json!({"email": "alice@example.com", "password": PASSWORD});
        let pair = Answer::of(request.json(&body)).await.pair();

        let answer = app.sessions(&pair.access).await;

        assert_eq!(listed(&answer, "user_agent")[0], shown, "{name}");
    }
}

#[tokio::test]
async fn g05_the_list_has_no_parameters() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let pair = app.alice().await;
    for query in ["limit=-1", "limit=0", "limit=1e9", "limit=abc", "cursor=';--"] {
        let answer = app.with_token(Method::GET, &format!("auth/sessions?{query}"), &pair.access).await;

        assert_eq!(listed(&answer, "current"), [true], "{query}");
    }
}
