//! The budget of everybody together, which every sign-in and registration writes.

use std::future::poll_fn;
use std::task::Poll;

use authservice::audit::Origin;
use authservice::entity::audit_event;
use chrono::TimeDelta;
use sea_orm::EntityTrait as _;
use tokio::task::JoinSet;

use super::{ALICE, ENABLED, HOME, PROXY, each_limited, failures, guess, in_flight, limited, register, to_next_hour};
use crate::support::{Answer, Engine, TestApp};

const TEN: (&str, &str) = ("AUTHSERVICE__LIMITS__SIGN_INS_PER_SECOND", "10");

const SPENT: &str = "SELECT count(*) FROM audit_events WHERE event = 'budget_spent'";

/// Wrong guesses at once, every other one at each replica; `whose` tells the account and where it is guessed from.
async fn sixty_at_once(replicas: [&TestApp; 2], whose: impl Fn(usize) -> (String, String)) -> Vec<Answer> {
    let mut guesses = JoinSet::new();
    for number in 0..60 {
        let (email, from) = whose(number);
        guesses.spawn(in_flight(replicas[number % 2], &email, "wrongwrong", &from));
    }
    guesses.join_all().await
}

/// Guesses at a new account from a new address each time, until it is told to wait; returns how many were verified.
async fn spend_all(app: &TestApp, round: usize) -> usize {
    for number in 0..100 {
        let answer =
            guess(app, &format!("nobody{number}@round{round}.example"), &format!("10.0.{round}.{number}")).await;
        if answer.status == 429 {
            assert_eq!(limited(&answer), 1);
            return number;
        }
        answer.refused(401, "invalid_credentials");
    }
    panic!("there is no limit");
}

#[tokio::test]
async fn it_is_refilled_evenly_and_anew_with_the_hour() {
    each_limited(&[TEN], async |app| {
        to_next_hour(&app);
        app.advance(TimeDelta::minutes(30));
        for (round, (later, expected)) in [
            (TimeDelta::zero(), 10),
            (TimeDelta::zero(), 0),
            (TimeDelta::milliseconds(99), 0),
            (TimeDelta::milliseconds(1), 1),
            (TimeDelta::milliseconds(550), 5),
            (TimeDelta::milliseconds(50), 1),
            (TimeDelta::seconds(1), 10),
            (TimeDelta::hours(1), 10),
            // A clock that is set back within the hour keeps nobody waiting.
            (-TimeDelta::minutes(5), 10),
            (TimeDelta::minutes(5), 10),
        ]
        .into_iter()
        .enumerate()
        {
            app.advance(later);
            assert_eq!(spend_all(&app, round).await, expected, "round {round}");
        }
    })
    .await;
}

#[tokio::test]
async fn t01_of_many_at_once_on_two_replicas_it_lets_so_many_in() {
    each_limited(&[TEN], async |app| {
        to_next_hour(&app);
        let other = app.another_replica().await;
        let nobody = |number| (format!("nobody{number}@example.com"), format!("203.0.113.{number}"));

        let answers = sixty_at_once([&app, &other], nobody).await;

        assert_eq!(answers.iter().filter(|answer| answer.status == 401).count(), 10);
        answers.iter().filter(|answer| answer.status != 401).for_each(|answer| assert_eq!(limited(answer), 1));
        assert_eq!(failures(&app).await, 10);
        assert_eq!(limited(&register(&app, ALICE, HOME).await), 1);
        assert_eq!(app.count(SPENT).await, 1, "told once, however many are refused");
    })
    .await;
}

#[tokio::test]
async fn that_it_is_spent_is_told_once_an_hour() {
    each_limited(&[TEN], async |app| {
        to_next_hour(&app);
        assert_eq!(app.count(SPENT).await, 0);
        for (round, (later, told)) in [
            (TimeDelta::zero(), 1),
            (TimeDelta::milliseconds(100), 1),
            (TimeDelta::minutes(30), 1),
            (TimeDelta::minutes(30), 2),
        ]
        .into_iter()
        .enumerate()
        {
            app.advance(later);
            assert!(spend_all(&app, round).await > 0);
            assert_eq!(app.count(SPENT).await, told, "round {round}");
        }
        let events = audit_event::Entity::find().all(app.app.db.reader()).await.unwrap();
        let event = events.iter().find(|event| event.event == "budget_spent").unwrap();
        assert_eq!(event.details.as_deref(), Some(r#"{"budget":"sign_ins_per_second"}"#));
        assert_eq!((event.user_id, event.ip_address.as_deref()), (None, Some("10.0.0.9")), "who took the last");
    })
    .await;
}

/// Else whoever sends many guesses at one account at once, of which a few are verified, would keep all others out.
#[tokio::test]
async fn t02_guesses_that_their_account_refuses_cost_everybody_nothing() {
    each_limited(&[TEN], async |app| {
        to_next_hour(&app);
        let other = app.another_replica().await;

        let answers = sixty_at_once([&app, &other], |_| (ALICE.to_owned(), HOME.to_owned())).await;

        let verified = answers.iter().filter(|answer| answer.status == 401).count();
        assert!((1..=4).contains(&verified), "{verified}");
        answers.iter().filter(|answer| answer.status != 401).for_each(|answer| assert_eq!(limited(answer), 1));
        assert_eq!(spend_all(&app, 0).await, 10 - verified);
    })
    .await;
}

/// As a virtual machine does that is moved. PostgreSQL takes its locks away, but only after ten seconds. SQLite has no other
/// replicas.
#[tokio::test]
async fn t02_a_replica_that_freezes_in_the_middle_of_a_sign_in_stops_no_other_sign_in() {
    const HAS_WRITTEN: &str = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND state = 'idle in transaction' AND backend_xid IS NOT NULL";
    let total = ("AUTHSERVICE__LIMITS__SIGN_INS_PER_SECOND", "1000");
    let app = TestApp::start(Engine::Postgres, &[ENABLED, PROXY, total]).await;
    for round in 0..100 {
        let (account, address) = (format!("frozen{round}@example.com"), format!("203.0.113.{round}"));
        let origin = Origin { ip_address: Some(address.parse().unwrap()), user_agent: String::new() };
        let mut sign_in = Box::pin(app.app.limits.sign_in(&account, &origin, &*app.clock));
        // Until it has waited so often for an answer, of which it does not read the last.
        let mut waits = 1 + round % 8;
        let ended = poll_fn(|context| {
            if waits == 0 {
                return Poll::Ready(None);
            }
            waits -= 1;
            sign_in.as_mut().poll(context).map(Some)
        });
        if let Some(ended) = ended.await {
            let _ = ended.unwrap();
            continue;
        }
        let has_written = app.count(HAS_WRITTEN).await > 0;

        let email = format!("nobody{round}@example.com");
        guess(&app, &email, &format!("198.51.100.{round}")).await.refused(401, "invalid_credentials");

        // Nobody had to wait until its connection was taken away: it goes on.
        let _ = sign_in.await.unwrap();
        if has_written {
            return;
        }
    }
    panic!("it was never frozen in a transaction");
}
