//! Registrations from one address.

use chrono::TimeDelta;
use reqwest::Method;
use serde_json::json;
use tokio::task::JoinSet;

use super::{ALICE, API, AWAY, HOME, MOMENT, NO_TOTAL, each_limited, limited, register};
use crate::support::{Answer, PASSWORD};

#[tokio::test]
async fn c26_five_registrations_an_hour_from_one_address() {
    each_limited(&[], async |app| {
        assert_eq!(register(&app, ALICE, HOME).await.status, 201);
        for number in 0..3 {
            assert_eq!(register(&app, &format!("user{number}@example.com"), AWAY).await.status, 201);
        }
        // An address that is taken counts, or accounts could be found by trying.
        for _ in 0..2 {
            register(&app, ALICE, AWAY).await.refused(409, "email_taken");
        }

        let wait = limited(&register(&app, ALICE, AWAY).await);
        assert_eq!(limited(&register(&app, "new@example.com", AWAY).await), wait);
        assert_eq!(wait, 720);
        app.advance(TimeDelta::seconds(wait) - MOMENT);
        limited(&register(&app, "new@example.com", AWAY).await);
        app.advance(MOMENT);
        assert_eq!(register(&app, "new@example.com", AWAY).await.status, 201);
        limited(&register(&app, "newer@example.com", AWAY).await);
        app.advance(TimeDelta::hours(1));
        for number in 3..8 {
            assert_eq!(register(&app, &format!("user{number}@example.com"), AWAY).await.status, 201);
        }
        limited(&register(&app, "newest@example.com", AWAY).await);
    })
    .await;
}

#[tokio::test]
async fn c26_many_registrations_at_once_on_two_replicas_are_five() {
    each_limited(&[NO_TOTAL], async |app| {
        let other = app.another_replica().await;
        let mut registrations = JoinSet::new();
        for number in 0..40 {
            let server = if number % 2 == 0 { &app } else { &other };
            // Any address of a network is that network.
            let from = format!("2001:db8:0:7::{number:x}");
            let request = server.client.post(format!("{}{API}/users/register", server.base));
            let body = json!({"email": format!("user{number}@example.com"), "password": PASSWORD});
            registrations.spawn(Answer::of(request.header("x-forwarded-for", from).json(&body)));
        }

        let answers = registrations.join_all().await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 5);
        answers.iter().filter(|answer| answer.status != 201).for_each(|answer| assert_eq!(limited(answer), 720));
        assert_eq!(app.count("SELECT count(*) FROM users").await, 5);
        let spent = "SELECT count(*) FROM audit_events WHERE event = 'budget_spent'";
        assert_eq!(app.count(spent).await, 1, "told once, however many are refused");
    })
    .await;
}

#[tokio::test]
async fn c26_addresses_in_any_number_have_the_budget_of_everybody() {
    each_limited(&[], async |app| {
        for number in 0..50 {
            // Taken, so that nothing is hashed.
            register(&app, ALICE, &format!("203.0.113.{number}")).await;
        }

        assert_eq!(limited(&register(&app, ALICE, "203.0.113.50").await), 1);
        app.advance(TimeDelta::seconds(1));
        register(&app, ALICE, "203.0.113.50").await.refused(409, "email_taken");
    })
    .await;
}

#[tokio::test]
async fn what_makes_no_account_does_not_count() {
    each_limited(&[], async |app| {
        let rows = [
            ("common password", json!({"email": ALICE, "password": "password123"})),
            ("short password", json!({"email": ALICE, "password": "1234567"})),
            ("no address", json!({"email": "alice", "password": PASSWORD})),
            ("lookalike", json!({"email": "\u{430}lice@example.com", "password": PASSWORD})),
        ];
        for (name, body) in rows.iter().cycle().take(12) {
            let request = app.request(Method::POST, "users/register").header("x-forwarded-for", AWAY);
            assert_eq!(Answer::of(request.json(body)).await.status, 422, "{name}");
        }
        // Trouble of ours.
        app.sql("ALTER TABLE users RENAME TO gone").await;
        for _ in 0..6 {
            register(&app, ALICE, AWAY).await.refused(503, "temporarily_unavailable");
        }
        app.sql("ALTER TABLE gone RENAME TO users").await;

        for number in 0..5 {
            assert_eq!(register(&app, &format!("user{number}@example.com"), AWAY).await.status, 201);
        }
        limited(&register(&app, ALICE, AWAY).await);
    })
    .await;
}
