//! What refreshing keeps up: limits, sizes, times, rows and keys, however often it is done.

use authservice::entity::{auth_session, refresh_token};
use chrono::TimeDelta;
use reqwest::Method;
use sea_orm::{EntityTrait as _, PaginatorTrait as _};

use super::{ALICE, family, time};
use crate::support::{Answer, claims, copy_private, each_engine, each_engine_with, jwt_header};

const WINDOW: TimeDelta = TimeDelta::seconds(30);
/// What both engines tell apart.
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

#[tokio::test]
async fn too_many_refreshes_of_one_session_are_refused_and_revoke_nothing() {
    let limited = [("AUTHSERVICE__LIMITS__ENABLED", "true")];
    each_engine_with(&limited, async |app| {
        let first = app.alice().await;
        let mut newest = first.clone();
        for _ in 0..30 {
            newest = app.refresh(&newest.refresh).await.pair();
        }
        let row = family(&app, &newest.refresh).await;

        // Also an old token, which would be theft: the limit comes before the judgement.
        for token in [&newest.refresh, &first.refresh] {
            let refused = app.refresh(token).await;

            refused.refused(429, "rate_limited");
            let seconds: u64 = refused.header("retry-after").parse().unwrap();
            assert!((1..=60).contains(&seconds), "{refused:?}");
        }

        assert_eq!(family(&app, &newest.refresh).await, row);
        assert_eq!(app.me(&newest.access).await.status, 200);
        let other = app.sign_in(ALICE).await;
        app.refresh(&other.refresh).await.pair();
        app.advance(TimeDelta::minutes(1));
        assert_eq!(claims(&app.refresh(&newest.refresh).await.pair().refresh)["gen"], 31);
    })
    .await;
}

#[tokio::test]
async fn a_body_of_a_refresh_is_ignored_up_to_the_limit_of_its_size() {
    each_engine(async |app| {
        let mut newest = app.alice().await;
        let bodies = [
            ("application/json", "null".to_owned()),
            ("application/json", "{\"refresh_token\":\"x\"}".to_owned()),
            ("application/json", "{".to_owned()),
            ("application/x-www-form-urlencoded", "refresh_token=x".to_owned()),
            ("text/plain", "x".repeat(10_000)),
        ];
        for (kind, body) in bodies {
            let request = app
                .request(Method::POST, "auth/refresh")
                .bearer_auth(&newest.refresh)
                .header("content-type", kind)
                .body(body);
            newest = Answer::of(request).await.pair();
        }
        assert_eq!(claims(&newest.refresh)["gen"], 5);
        let row = family(&app, &newest.refresh).await;

        let huge = app.request(Method::POST, "auth/refresh").bearer_auth(&newest.refresh).body("x".repeat(1024 * 1024));

        Answer::of(huge).await.refused(413, "payload_too_large");
        assert_eq!(family(&app, &newest.refresh).await, row);
    })
    .await;
}

#[tokio::test]
async fn a_session_was_last_seen_when_it_was_last_refreshed() {
    each_engine(async |app| {
        let began = app.now();
        let first = app.alice().await;
        app.advance(TimeDelta::minutes(10));
        let next = app.refresh(&first.refresh).await.pair();
        let refreshed = app.now();
        app.advance(WINDOW - MOMENT);
        app.refresh(&first.refresh).await.pair();

        let sessions = app.sessions(&next.access).await.json();

        assert_eq!(sessions.as_array().unwrap().len(), 1);
        assert_eq!(time(&sessions[0]["created_at"]), began);
        assert_eq!(time(&sessions[0]["last_seen_at"]), refreshed);
    })
    .await;
}

/// A table that grows with every refresh ends as hundreds of gigabytes.
#[tokio::test]
async fn a_session_has_as_many_rows_after_fifty_refreshes_as_before() {
    each_engine(async |app| {
        let mut newest = app.alice().await;
        let count = async || {
            let db = app.app.db.writer();
            let sessions = auth_session::Entity::find().count(db).await.unwrap();
            let families = refresh_token::Entity::find().count(db).await.unwrap();
            (sessions, families, app.count("SELECT COUNT(*) FROM audit_events").await)
        };
        let before = count().await;
        assert_eq!((before.0, before.1), (1, 1));

        for _ in 0..50 {
            app.advance(TimeDelta::minutes(15));
            newest = app.refresh(&newest.refresh).await.pair();
        }

        assert_eq!(count().await, before);
        assert_eq!(family(&app, &newest.refresh).await.generation, 50);
    })
    .await;
}

/// Clocks step back; a family's time does not, or a retry window would open again.
#[tokio::test]
async fn the_time_of_the_last_rotation_never_goes_back() {
    each_engine(async |app| {
        // The key began to sign when the server started: the clock goes back, but not behind that.
        app.advance(TimeDelta::hours(2));
        let first = app.alice().await;
        let second = app.refresh(&first.refresh).await.pair();
        let rotated_at = family(&app, &first.refresh).await.rotated_at;
        app.advance(-TimeDelta::hours(1));

        let third = app.refresh(&second.refresh).await.pair();

        let row = family(&app, &first.refresh).await;
        assert_eq!((row.generation, row.rotated_at), (2, rotated_at));
        assert_eq!(claims(&third.refresh)["iat"], rotated_at.timestamp());
        assert_eq!(app.refresh(&second.refresh).await.pair().refresh, third.refresh);
        app.refresh(&first.refresh).await.refused(401, "refresh_reuse_detected");
    })
    .await;
}

/// A generation keeps the key it was made with, so a retry is byte-equal although another key signs by then.
#[tokio::test]
async fn a_retry_across_a_change_of_the_signing_key_gets_the_same_bytes() {
    let second_key = openssl::rsa::Rsa::generate(2048).unwrap().private_key_to_pem().unwrap();
    each_engine(async |app| {
        let first = app.alice().await;
        // Another replica imports a key: it is announced, and signs later.
        let draft = app.directory().join("draft");
        std::fs::write(&draft, &second_key).unwrap();
        copy_private(&draft, &app.directory().join("keys/second.pem"));
        let replica = app.another_replica().await;
        app.app.keyring.reload(app.now()).await;
        let announced = app.get("/.well-known/jwks.json").await.json();
        assert_eq!(announced["keys"].as_array().unwrap().len(), 2);
        let kid = |token: &str| jwt_header(token)["kid"].clone();
        let old_kid = kid(&first.access);
        // Twice the max-age of the JWK Set and a minute, less a second.
        app.advance(TimeDelta::seconds(659));
        let next = app.refresh(&first.refresh).await.pair();
        assert_eq!((kid(&next.access), kid(&next.refresh)), (old_kid.clone(), old_kid.clone()));
        app.advance(TimeDelta::seconds(2));

        for replica in [&app, &replica] {
            let again = replica.refresh(&first.refresh).await.pair();

            assert_eq!(again.refresh, next.refresh);
            assert_ne!(kid(&again.access), old_kid, "the other key signs by now");
            assert_eq!(replica.me(&again.access).await.status, 200);
        }

        let last = app.refresh(&next.refresh).await.pair();
        assert_ne!(kid(&last.refresh), old_kid);
        assert_eq!(replica.refresh(&next.refresh).await.pair().refresh, last.refresh);
        assert_eq!(app.me(&last.access).await.status, 200);
    })
    .await;
}
