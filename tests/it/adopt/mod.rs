//! Taking over the database of the FastAPI service: its clients go on with the tokens they hold.

use authservice::adopt::{self, Choices, Counts, Error};
use authservice::entity::audit_event;
use chrono::TimeDelta;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _};
use serde_json::json;

use self::seed::Seed;
use crate::audit::page::assert_documented;
use crate::support::{Engine, TestApp, claims};

mod seed;

/// A cheap hash of the kind that the old service made.
fn bcrypt(password: &str) -> String {
    bcrypt::hash_with_salt(password, 4, [7; 16]).unwrap().to_string()
}

const fn minutes(number: i64) -> TimeDelta {
    TimeDelta::minutes(number)
}

/// Applies, then starts a server on what is there now.
async fn take_over(seed: Seed, settings: &[(&str, &str)]) -> (TestApp, Counts) {
    let db = seed.db().await;
    let counts = adopt::apply(&db, &seed.config(), &Choices::default(), seed.now, &|_, _, _| ()).await.unwrap();
    db.close().await;
    let now = seed.now;
    (TestApp::on(Engine::Postgres, seed.database, seed.directory, settings, now).await, counts)
}

#[tokio::test]
async fn every_client_goes_on_with_the_tokens_it_holds() {
    for format in ["jwt", "opaque"] {
        let seed = Seed::create().await;
        seed.user(7, "Alice@example.com", &bcrypt("secret-one")).await;
        let first = seed.sign_in(7, 1, minutes(20)).await;
        let newest = seed.rotate(&first, 3, minutes(5)).await;
        let (app, counts) = take_over(seed, &[("AUTHSERVICE__REFRESH__FORMAT", format)]).await;

        assert_eq!((counts.users, counts.live_sessions, counts.ended_sessions), (1, 1, 0));
        let me = app.me(&newest.access).await;
        assert_eq!((me.status, &me.json()["id"], &me.json()["email"]), (200, &json!(7), &json!("Alice@example.com")));
        let list = app.sessions(&newest.access).await.json();
        assert_eq!(list[0]["session_id"], newest.sid.to_string());
        assert_eq!(list[0]["user_agent"], "Old/1.0");
        let next = app.refresh(&newest.refresh).await.pair();
        assert_eq!(app.refresh(&newest.refresh).await.pair().refresh, next.refresh, "a retry gets the same successor");
        assert_eq!(claims(&next.access)["user_id"], 7);
        assert_eq!(claims(&next.access)["sid"], newest.sid.to_string());
        assert_eq!(next.refresh.starts_with("rt1."), format == "opaque");
        let third = app.refresh(&next.refresh).await.pair();
        assert_eq!(app.me(&third.access).await.status, 200);
    }
}

/// RFC 9700 4.14.2: a token that was used before the takeover is theft after it.
#[tokio::test]
async fn a_token_that_was_used_before_ends_the_session() {
    let seed = Seed::create().await;
    seed.user(1, "alice@example.com", &bcrypt("secret-one")).await;
    let used = seed.sign_in(1, 1, minutes(20)).await;
    // Used seconds ago: even that is no retry.
    let newest = seed.rotate(&used, 3, TimeDelta::seconds(2)).await;
    let (app, _) = take_over(seed, &[]).await;

    app.refresh(&used.refresh).await.refused(401, "refresh_reuse_detected");

    app.refresh(&newest.refresh).await.refused(401, "refresh_reuse_detected");
    app.me(&newest.access).await.refused(401, "invalid_token");
}

#[tokio::test]
async fn what_had_ended_stays_ended() {
    let seed = Seed::create().await;
    seed.user(1, "alice@example.com", &bcrypt("secret-one")).await;
    seed.user(2, "bob@example.com", &bcrypt("secret-one")).await;
    let logged_out = seed.sign_in(1, 1, minutes(5)).await;
    let revoked = seed.sign_in(1, 2, minutes(5)).await;
    let expired = seed.sign_in(1, 3, TimeDelta::days(15)).await;
    let inactive = seed.sign_in(2, 4, minutes(5)).await;
    seed.sql(&format!(
        "UPDATE authsessions SET revoked_at = now(), revoked_reason = 'USER_LOGOUT' WHERE session_id = '{}';
         UPDATE refreshtokens SET revoked_at = now(), revoked_reason = 'ADMIN_FORCE' WHERE session_id = '{}';
         UPDATE users SET is_active = false WHERE id = 2",
        logged_out.sid, revoked.sid
    ))
    .await;
    let (app, counts) = take_over(seed, &[]).await;

    assert_eq!((counts.users, counts.live_sessions, counts.ended_sessions), (2, 1, 2));
    for ended in [&logged_out, &revoked, &expired, &inactive] {
        app.refresh(&ended.refresh).await.refused(401, "refresh_reuse_detected");
    }
    app.me(&logged_out.access).await.refused(401, "invalid_token");
    app.me(&inactive.access).await.refused(403, "user_inactive");
}

#[tokio::test]
async fn old_passwords_sign_in_and_become_argon2id() {
    let seed = Seed::create().await;
    seed.user(41, "alice@example.com", &bcrypt("secret-one")).await;
    seed.user(42, "bob@example.com", "plain-secret").await;
    let (app, counts) = take_over(seed, &[]).await;

    assert_eq!(counts.plain_text_passwords, 1);
    let argon2 = "SELECT COUNT(*) FROM users WHERE hashed_password LIKE '$argon2id$%'";
    assert_eq!(app.count(argon2).await, 1, "plain text is hashed at the takeover");
    for (email, password) in [("alice@example.com", "secret-one"), ("bob@example.com", "plain-secret")] {
        let answer = app.post("auth/login", &json!({"email": email, "password": password})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert_eq!(app.count(argon2).await, 2);
    assert_eq!(app.register("carol@example.com").await.json()["id"], 43, "the sequence goes on");
}

#[tokio::test]
async fn old_access_tokens_work_until_they_expire_and_none_is_made_after_the_takeover() {
    let seed = Seed::create().await;
    seed.user(1, "alice@example.com", &bcrypt("secret-one")).await;
    let old = seed.sign_in(1, 1, minutes(5)).await;
    let at = (seed.now + minutes(1)).timestamp();
    let late = json!({"user_id": 1, "type": "access", "iat": at, "exp": at + 900, "sid": old.sid});
    let (late, kept) = (seed.sign(&late), old.clone());
    let (app, _) = take_over(seed, &[]).await;

    assert_eq!(app.me(&kept.access).await.status, 200);
    app.me(&kept.refresh).await.refused(400, "invalid_token_type");
    app.refresh(&kept.access).await.refused(400, "invalid_token_type");
    app.advance(minutes(2));
    app.me(&late).await.refused(401, "invalid_token");
    app.advance(minutes(9));
    app.me(&kept.access).await.refused(401, "token_expired");
    assert_eq!(app.logout(&kept.refresh).await.status, 204);
    app.refresh(&kept.refresh).await.refused(401, "refresh_reuse_detected");
}

#[tokio::test]
async fn a_conflict_is_listed_and_nothing_changes_until_somebody_chose() {
    let seed = Seed::create().await;
    seed.user(1, "alice@example.com", &bcrypt("secret-one")).await;
    seed.user(2, "ALICE@example.com", &bcrypt("secret-two")).await;
    seed.user(3, "bob@example.com", &bcrypt("secret-two")).await;
    let left_behind = seed.sign_in(2, 1, minutes(5)).await;
    let db = seed.db().await;
    let silent = |_: &str, _: i64, _: i64| ();

    for _ in 0..2 {
        let refused = adopt::apply(&db, &seed.config(), &Choices::default(), seed.now, &silent).await;
        let Err(Error::Conflicts(conflicts)) = refused else { panic!("{refused:?}") };
        assert_eq!(conflicts.iter().map(|conflict| conflict.user_id).collect::<Vec<_>>(), [2]);
    }
    let refused = adopt::dry_run(&db, &Choices::default(), seed.now, &silent).await;
    assert!(matches!(refused, Err(Error::Conflicts(_))));

    let file = seed.directory.path().join("choices");
    std::fs::write(&file, "2 skip # her second account\n\n3 email robert@example.com\n").unwrap();
    let choices = Choices::read(&file).unwrap();
    let planned = adopt::dry_run(&db, &choices, seed.now, &silent).await.unwrap();
    let counts = adopt::apply(&db, &seed.config(), &choices, seed.now, &silent).await.unwrap();
    db.close().await;

    assert_eq!((counts.users, counts.skipped, counts.live_sessions), (2, 1, 0));
    assert_eq!(planned, counts);
    let now = seed.now;
    let app = TestApp::on(Engine::Postgres, seed.database, seed.directory, &[], now).await;
    let query = audit_event::Entity::find().filter(audit_event::Column::Event.eq("database_adopted"));
    let told = query.all(app.app.db.writer()).await.unwrap();
    assert_eq!(told.len(), 1, "what was refused is not told");
    assert_documented(&told[0]);
    let details: serde_json::Value = serde_json::from_str(told[0].details.as_deref().unwrap()).unwrap();
    assert_eq!((&details["by"], &details["users"], &details["skipped"]), (&json!("operator"), &json!(2), &json!(1)));
    app.refresh(&left_behind.refresh).await.refused(401, "refresh_reuse_detected");
    for (email, password, status) in [
        ("alice@example.com", "secret-one", 200),
        ("alice@example.com", "secret-two", 401),
        ("robert@example.com", "secret-two", 200),
    ] {
        let answer = app.post("auth/login", &json!({"email": email, "password": password})).await;
        assert_eq!(answer.status, status, "{email}");
    }
    assert_eq!(app.count("SELECT COUNT(*) FROM seed_users").await, 3, "the old tables are kept");
}

#[tokio::test]
async fn only_a_database_of_the_old_service_is_taken_over_and_only_once() {
    let seed = Seed::create().await;
    seed.user(1, "alice@example.com", &bcrypt("secret-one")).await;
    let db = seed.db().await;
    let silent = |_: &str, _: i64, _: i64| ();

    adopt::apply(&db, &seed.config(), &Choices::default(), seed.now, &silent).await.unwrap();
    let again = adopt::apply(&db, &seed.config(), &Choices::default(), seed.now, &silent).await;

    assert!(matches!(again, Err(Error::Migration(migration::Error::NotASeed(_)))), "{again:?}");
    let other = Seed::create().await;
    std::fs::remove_file(other.directory.path().join("keys/private.pem")).unwrap();
    let without_key = adopt::apply(&other.db().await, &other.config(), &Choices::default(), other.now, &silent).await;
    assert!(matches!(without_key, Err(Error::NoKey(_))), "{without_key:?}");
}
