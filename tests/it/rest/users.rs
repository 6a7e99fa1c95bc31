//! Registration and the own profile.

use std::iter::once;

use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::body::faults;
use crate::support::{Answer, PASSWORD, TestApp, each_engine, each_engine_with};

async fn register(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("users/register", &json!({"email": email, "password": password})).await
}

async fn login(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("auth/login", &json!({"email": email, "password": password})).await
}

#[tokio::test]
async fn every_faulty_field_is_named() {
    let string = |field: &str| format!("string_type body.{field}");
    let value = |field: &str| format!("value_error body.{field}");
    let (email, password, name) = ("a@x.org", PASSWORD, "Alice");
    #[rustfmt::skip]
    let rows = [
        ("nothing", json!({}), vec!["missing body.email".to_owned(), "missing body.password".to_owned()]),
        ("B13 numbers", json!({"email": 1, "password": 2, "full_name": 3}), vec![string("email"), string("password"), string("full_name")]),
        ("B13 lists", json!({"email": [], "password": [], "full_name": []}), vec![string("email"), string("password"), string("full_name")]),
        ("B13 objects", json!({"email": {}, "password": {}, "full_name": {}}), vec![string("email"), string("password"), string("full_name")]),
        ("B13 booleans", json!({"email": true, "password": false, "full_name": true}), vec![string("email"), string("password"), string("full_name")]),
        ("B13 nulls", json!({"email": null, "password": null, "full_name": null}), vec![string("email"), string("password")]),
        ("B22 NUL in the address", json!({"email": "a\0@x.org", "password": password}), vec![value("email")]),
        ("B22 NUL in the password", json!({"email": email, "password": "12345678\0"}), vec![value("password")]),
        ("B22 NUL in the name", json!({"email": email, "password": password, "full_name": "\0"}), vec![value("full_name")]),
        ("B23 line break", json!({"email": "a@b.org\r\nBcc: x@b.org", "password": password}), vec![value("email")]),
        ("C01 no at", json!({"email": "x.org", "password": password}), vec![value("email")]),
        ("C01 two", json!({"email": "a@b@x.org", "password": password}), vec![value("email")]),
        ("C01 no local part", json!({"email": "@x.org", "password": password}), vec![value("email")]),
        ("C01 no domain", json!({"email": "a@", "password": password}), vec![value("email")]),
        ("C02 local part of 65", json!({"email": format!("{}@x.org", "l".repeat(65)), "password": password}), vec![value("email")]),
        ("C02 label of 64", json!({"email": format!("a@{}.org", "l".repeat(64)), "password": password}), vec![value("email")]),
        ("C04 quoted", json!({"email": "\"a b\"@x.org", "password": password}), vec![value("email")]),
        ("C04 comment", json!({"email": "a(b)@x.org", "password": password}), vec![value("email")]),
        ("C09 mixed script", json!({"email": "p\u{430}ypal@x.org", "password": password}), vec![value("email")]),
        ("C11 zero width", json!({"email": "a\u{200b}@x.org", "password": password}), vec![value("email")]),
        ("C11 override", json!({"email": "a\u{202e}b@x.org", "password": password}), vec![value("email")]),
        ("C15 root", json!({"email": "a@x.org.", "password": password}), vec![value("email")]),
        ("C16 7 characters", json!({"email": email, "password": "абвгдеж"}), vec!["too_short body.password".to_owned()]),
        ("C16 129 characters", json!({"email": email, "password": "xy".repeat(64) + "x"}), vec!["too_long body.password".to_owned()]),
        ("name of 256", json!({"email": email, "password": password, "full_name": "n".repeat(256)}), vec!["string_too_long body.full_name".to_owned()]),
        ("T04 common", json!({"email": email, "password": "Password1"}), vec![value("password")]),
        ("T04 repeated", json!({"email": email, "password": "ßßßßßßßßßß"}), vec![value("password")]),
        ("T04 address", json!({"email": "maximilian@x.org", "password": "Maximilian@X.org"}), vec![value("password")]),
        ("T04 local part", json!({"email": "maximilian@x.org", "password": "maximilian"}), vec![value("password")]),
        ("T04 name", json!({"email": email, "password": "alice cooper", "full_name": "Alice Cooper"}), vec![value("password")]),
        ("T04 product", json!({"email": email, "password": "AuthService1"}), vec![value("password")]),
        ("all at once", json!({"email": "x", "password": "short", "full_name": name.repeat(100)}),
            vec![value("email"), "too_short body.password".to_owned(), "string_too_long body.full_name".to_owned()]),
    ];
    each_engine(async |app| {
        for (name, body, expected) in &rows {
            let answer = app.post("users/register", body).await;

            assert_eq!(answer.status, 422, "{name}: {answer:?}");
            assert_eq!(&faults(&answer), expected, "{name}: {answer:?}");
        }

        assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    })
    .await;
}

#[tokio::test]
async fn what_a_client_may_not_decide_is_ignored() {
    each_engine(async |app| {
        let body = json!({
            "email": "a@x.org", "password": PASSWORD, "id": 77, "is_superuser": true, "is_active": false,
            "created_at": "2001-01-01T00:00:00Z", "email_verified": true, "hashed_password": "x", "__proto__": {"is_superuser": true},
        });

        let answer = app.post("users/register", &body).await;

        assert_eq!(answer.status, 201, "{answer:?}");
        let user = answer.json();
        assert_eq!(user["id"], 1);
        assert_eq!((&user["is_superuser"], &user["is_active"]), (&json!(false), &json!(true)));
        assert_eq!(user["created_at"], user["updated_at"]);
        assert!(!answer.body.contains("2001"), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn an_address_has_one_account_however_it_is_written() {
    let rows = [
        ("C05 case of the domain", "a@x.org", "a@X.ORG", 409),
        ("C06 case of the local part", "user@x.org", "USER@x.org", 409),
        ("C06 beyond ASCII", "юзер@x.org", "ЮЗЕР@x.org", 409),
        ("C08 decomposed", "jos\u{e9}@x.org", "jose\u{301}@x.org", 409),
        ("C12 Punycode", "u@пример.рф", "u@xn--e1afmkfd.xn--p1ai", 409),
        ("C12 case of the IDN", "v@пример.рф", "v@ПРИМЕР.РФ", 409),
        ("display name and blanks", "b@x.org", " Bob <b@x.org> ", 409),
        ("C14 tag", "c@x.org", "c+tag@x.org", 201),
        ("periods", "d.e@x.org", "de@x.org", 201),
    ];
    each_engine(async |app| {
        for (name, first, second, status) in rows {
            assert_eq!(register(&app, first, PASSWORD).await.status, 201, "{name}");

            let answer = register(&app, second, PASSWORD).await;

            assert_eq!(answer.status, status, "{name}: {answer:?}");
            let code = if status == 409 { "email_taken" } else { "" };
            assert_eq!(answer.code(), code, "{name}");
            assert_eq!(login(&app, second, PASSWORD).await.status, 200, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn of_many_registrations_of_one_address_one_wins() {
    let settings = [("AUTHSERVICE__PASSWORDS__QUEUE_TIMEOUT_SECONDS", "30")];
    each_engine_with(&settings, async |app| {
        let other = app.another_replica().await;
        let mut requests = JoinSet::new();
        for at in 0..50 {
            let server = if at % 2 == 0 { &app } else { &other };
            let email = if at % 3 == 0 { "ALICE@example.com" } else { "alice@example.com" };
            let body = json!({"email": email, "password": PASSWORD});
            requests.spawn(Answer::of(server.request(Method::POST, "users/register").json(&body)));
        }

        let answers = requests.join_all().await;

        let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        statuses.sort_unstable();
        let expected: Vec<u16> = once(201).chain([409; 49]).collect();
        assert_eq!(statuses, expected);
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
        let registered = "SELECT count(*) FROM audit_events WHERE event = 'user_registered'";
        assert_eq!(app.count(registered).await, 1);
        assert_eq!(login(&other, "alice@example.com", PASSWORD).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn a_password_counts_as_it_was_typed() {
    let long = "xy".repeat(36);
    #[rustfmt::skip]
    let rows = [
        ("C16 8 characters", "абвгдежз".to_owned(), "абвгдежз".to_owned(), 200),
        ("C16 128 characters of 4 bytes", "🦀🐢".repeat(64), "🦀🐢".repeat(64), 200),
        ("C18 outer blanks", "  inner word  ".to_owned(), "  inner word  ".to_owned(), 200),
        ("C18 without them", "  inner word  ".to_owned(), "inner word".to_owned(), 401),
        ("case", PASSWORD.to_owned(), PASSWORD.to_uppercase(), 401),
        ("C19 joined emoji", "👩‍👩‍👧‍👦 and 👩🏽‍🚒!".to_owned(), "👩‍👩‍👧‍👦 and 👩🏽‍🚒!".to_owned(), 200),
        ("C19 right to left", "סיסמה ארוכה".to_owned(), "סיסמה ארוכה".to_owned(), 200),
        ("normal form C for D", "pa\u{308}sswort-lang".to_owned(), "p\u{e4}sswort-lang".to_owned(), 200),
        ("not compatibility", "ﬁve letters".to_owned(), "five letters".to_owned(), 401),
        ("C22 equal in 72 bytes", format!("{long}A"), format!("{long}B"), 401),
        ("C22 the whole", format!("{long}A"), format!("{long}A"), 200),
    ];
    each_engine(async |app| {
        for (at, (name, set, typed, status)) in rows.iter().enumerate() {
            let email = format!("user{at}@x.org");
            let registered = register(&app, &email, set).await;
            assert_eq!(registered.status, 201, "{name}: {registered:?}");

            let answer = login(&app, &email, typed).await;

            assert_eq!(answer.status, *status, "{name}: {answer:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_registration_shows_the_profile_that_me_shows() {
    each_engine(async |app| {
        let name = "<b>Алиса \u{202e}& \"co\"</b>";
        let body = json!({"email": "Alice@Example.com", "password": PASSWORD, "full_name": name});

        let registered = app.post("users/register", &body).await;
        let pair = app.sign_in("alice@example.com").await;
        let me = app.me(&pair.access).await;

        assert_eq!((registered.status, me.status), (201, 200));
        assert_eq!(registered.body, me.body);
        assert_eq!(me.json()["email"], "Alice@example.com");
        assert_eq!(me.json()["full_name"], name);
        for answer in [registered, me] {
            assert_eq!(answer.header("content-type"), "application/json");
            assert_eq!(answer.header("cache-control"), "no-store");
            assert_eq!(answer.header("pragma"), "no-cache");
            assert_eq!(answer.header("location"), "");
        }
    })
    .await;
}

#[tokio::test]
async fn me_is_looked_up_anew_at_each_request() {
    let rows = [
        ("renamed", "UPDATE users SET full_name = 'Al'", 200, ""),
        ("inactive", "UPDATE users SET is_active = FALSE", 403, "user_inactive"),
        ("active again", "UPDATE users SET is_active = TRUE", 200, ""),
        ("session ended", "UPDATE auth_sessions SET revoked_at = created_at", 401, "invalid_token"),
        ("inactive without a session", "UPDATE users SET is_active = FALSE", 403, "user_inactive"),
        ("deleted", "DELETE FROM users", 404, "user_not_found"),
    ];
    each_engine(async |app| {
        let pair = app.alice().await;
        for (name, change, status, code) in rows {
            app.sql(change).await;

            let answer = app.me(&pair.access).await;

            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{name}: {answer:?}");
            if status == 200 {
                assert_eq!(answer.json()["full_name"], "Al", "{name}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_number_of_a_deleted_user_gives_nobody_access() {
    each_engine(async |app| {
        let pair = app.alice().await;
        app.sql("DELETE FROM users").await;
        app.register("mallory@example.com").await;
        app.sql("UPDATE users SET id = 1").await;

        let answer = app.me(&pair.access).await;

        answer.refused(401, "invalid_token");
    })
    .await;
}
