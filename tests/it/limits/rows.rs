//! What the limits leave in the database: rows that name nobody and go, and events that are told once.

use authservice::entity::{audit_event, rate_limit};
use chrono::TimeDelta;
use sea_orm::{EntityTrait as _, IntoActiveModel as _};
use uuid::Uuid;

use super::{ALICE, AWAY, HOME, MOMENT, NO_TOTAL, each_limited, guess, limited, login, register, spend, to_next_hour};
use crate::support::{PASSWORD, TestApp};

const SPENT: &str = "SELECT count(*) FROM audit_events WHERE event = 'budget_spent'";

async fn rows(app: &TestApp) -> i64 {
    app.count("SELECT count(*) FROM rate_limits").await
}

#[tokio::test]
async fn a_failure_names_only_a_user_who_exists_and_a_spent_budget_is_told_once() {
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        for _ in 0..2 {
            spend(&app, ALICE, AWAY).await;
            spend(&app, "secret-typed@example.com", HOME).await;
        }
        for _ in 0..20 {
            limited(&guess(&app, ALICE, AWAY).await);
        }

        let events = audit_event::Entity::find().all(app.app.db.reader()).await.unwrap();

        let alice = events.iter().find(|event| event.event == "user_registered").unwrap().user_id;
        assert!(alice.is_some());
        let of = |name: &str| events.iter().filter(|event| event.event == name).collect::<Vec<_>>();
        let (failed, spent) = (of("sign_in_failed"), of("budget_spent"));
        assert_eq!((failed.len(), spent.len()), (8, 2));
        for event in failed.iter().chain(&spent) {
            let from = event.ip_address.as_deref();
            assert_eq!(event.user_id, if from == Some(AWAY) { alice } else { None }, "{event:?}");
            assert!(!format!("{event:?}").contains("typed"), "{event:?}");
        }
        assert_eq!(spent[0].details.as_deref(), Some(r#"{"budget":"guesses_without_delay"}"#));
        // Told again once the row was as new.
        app.advance(TimeDelta::seconds(1));
        login(&app, ALICE, PASSWORD, AWAY).await.pair();
        spend(&app, ALICE, AWAY).await;
        assert_eq!(app.count(SPENT).await, 3);
    })
    .await;
}

#[tokio::test]
async fn spent_budgets_of_days_and_addresses_are_told_once_until_they_are_full_again() {
    let few = [
        NO_TOTAL,
        ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ACCOUNT_PER_DAY", "2"),
        ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ADDRESS_PER_HOUR", "3"),
    ];
    each_limited(&few, async |app| {
        spend(&app, ALICE, HOME).await;
        assert_eq!(app.count(SPENT).await, 1, "the account's day");
        spend(&app, "bob@example.com", HOME).await;
        assert_eq!(app.count(SPENT).await, 2, "the address");
        // Refilled by one, and spent again.
        app.advance(TimeDelta::minutes(20));
        spend(&app, "carol@example.com", HOME).await;
        assert_eq!(app.count(SPENT).await, 2);
        app.advance(TimeDelta::hours(1));
        for number in 0..3 {
            guess(&app, &format!("user{number}@example.com"), HOME).await.refused(401, "invalid_credentials");
        }
        assert_eq!(app.count(SPENT).await, 3);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_writes_nothing() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        spend(&app, ALICE, AWAY).await;
        while register(&app, ALICE, AWAY).await.status == 409 {}
        let read = async || rate_limit::Entity::find().all(app.app.db.reader()).await.unwrap();
        let before = read().await;

        for _ in 0..5 {
            limited(&guess(&app, ALICE, AWAY).await);
            limited(&register(&app, ALICE, AWAY).await);
        }

        assert_eq!(read().await, before);
    })
    .await;
}

#[tokio::test]
async fn every_row_goes_when_it_says_nothing_any_more() {
    each_limited(&[], async |app| {
        let sweep = async || app.app.limits.sweep(app.now()).await.unwrap();
        to_next_hour(&app);
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        guess(&app, "nobody@example.com", AWAY).await.refused(401, "invalid_credentials");
        app.advance(TimeDelta::seconds(30));
        // Alice's, the registration's after twelve minutes, the failures' after fifteen, everybody's when the hour is over.
        sweep().await;
        assert_eq!(rows(&app).await, 5, "home, a registration, a failing account, its address, everybody");
        app.advance(TimeDelta::minutes(15) - TimeDelta::seconds(30) - MOMENT);
        sweep().await;
        assert_eq!(rows(&app).await, 3, "home, a failing account, everybody");
        app.advance(MOMENT);
        assert_eq!(sweep().await, 1);
        app.advance(TimeDelta::hours(1));
        assert_eq!(sweep().await, 1);
        app.advance(TimeDelta::days(30) - TimeDelta::minutes(75) - MOMENT);
        assert_eq!(sweep().await, 0);
        app.advance(MOMENT);

        assert_eq!(sweep().await, 1, "she is not known there any more");

        assert_eq!(rows(&app).await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_sweep_goes_through_any_number_of_rows_beside_another_one() {
    const ROWS: u64 = 2500;
    each_limited(&[], async |app| {
        let row = |number: u64| {
            let expires_at = if number.is_multiple_of(2) { app.now() } else { app.now() + MOMENT };
            let key = Uuid::from_u128(number.into());
            let row = rate_limit::Model {
                key,
                user_id: None,
                touched_at: app.now(),
                failures: 0,
                closed_until: app.now(),
                in_flight: 0,
                spent_until: app.now(),
                is_reported: false,
                known_until: None,
                expires_at,
            };
            row.into_active_model()
        };
        for first in (0..ROWS).step_by(500) {
            let rows = (first..first + 500).map(row);
            rate_limit::Entity::insert_many(rows).exec_without_returning(app.app.db.writer()).await.unwrap();
        }
        let other = app.another_replica().await;

        let (one, two) = tokio::join!(app.app.limits.sweep(app.now()), other.app.limits.sweep(app.now()));

        assert_eq!(one.unwrap() + two.unwrap(), ROWS / 2);
        assert_eq!(rows(&app).await, i64::try_from(ROWS / 2).unwrap());
    })
    .await;
}
