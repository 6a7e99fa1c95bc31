//! Guesses at one account: delays, guesses at once, and what is one account.

use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::{
    ALICE, AWAY, ENABLED, HOME, MOMENT, NO_TOTAL, PROXY, each_limited, failures, guess, in_flight, limited, login,
    spend,
};
use crate::support::{Answer, PASSWORD, each_engine_with};

/// NIST SP 800-63B-4 3.2.2.
#[tokio::test]
async fn t01_failures_cost_delays_that_an_attempt_does_not_lengthen() {
    each_limited(&[], async |app| {
        app.register(ALICE).await;
        for (number, delay) in [0, 0, 0, 1, 2, 5, 10, 30, 30].into_iter().enumerate() {
            guess(&app, ALICE, AWAY).await.refused(401, "invalid_credentials");
            assert_eq!(failures(&app).await, i64::try_from(number).unwrap() + 1);
            if delay == 0 {
                continue;
            }
            // Also the right password, and nothing is verified.
            assert_eq!(limited(&login(&app, ALICE, PASSWORD, AWAY).await), delay);
            assert_eq!(limited(&guess(&app, ALICE, HOME).await), delay);
            app.advance(TimeDelta::seconds(delay) - MOMENT);
            assert_eq!(limited(&login(&app, ALICE, PASSWORD, AWAY).await), 1, "after {number} failures");
            assert_eq!(failures(&app).await, i64::try_from(number).unwrap() + 1);
            app.advance(MOMENT);
        }

        login(&app, ALICE, PASSWORD, AWAY).await.pair();

        assert_eq!(spend(&app, ALICE, HOME).await, 4, "a success begins the row anew");
    })
    .await;
}

#[tokio::test]
async fn t01_d08_of_many_guesses_at_once_on_two_replicas_four_are_verified() {
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        let other = app.another_replica().await;
        for email in [ALICE, "nobody@example.com"] {
            let before = failures(&app).await;
            let mut guesses = JoinSet::new();
            for number in 0..200 {
                let server = if number % 2 == 0 { &app } else { &other };
                // From anywhere: the account counts.
                guesses.spawn(in_flight(server, email, "wrongwrong", &format!("203.0.113.{number}")));
            }

            let answers = guesses.join_all().await;

            let verified = answers.iter().filter(|answer| answer.status == 401).count();
            assert_eq!(verified, 4, "{email}");
            for answer in answers.iter().filter(|answer| answer.status != 401) {
                assert_eq!(limited(answer), 1);
            }
            assert_eq!(failures(&app).await - before, 4);
        }
        assert_eq!(limited(&login(&other, ALICE, PASSWORD, AWAY).await), 1);
        app.advance(TimeDelta::seconds(1));
        login(&other, ALICE, PASSWORD, AWAY).await.pair();
    })
    .await;
}

/// The other direction: a throttle that counts before it verifies must not refuse the owner.
#[tokio::test]
async fn devices_of_one_person_that_sign_in_at_once_are_not_refused() {
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        let other = app.another_replica().await;
        let mut devices = JoinSet::new();
        for number in 0..6 {
            let server = if number % 2 == 0 { &app } else { &other };
            devices.spawn(in_flight(server, ALICE, PASSWORD, AWAY));
        }

        for answer in devices.join_all().await {
            answer.pair();
        }

        assert_eq!(app.count("SELECT count(*) FROM rate_limits WHERE in_flight <> 0").await, 0);
    })
    .await;
}

#[tokio::test]
async fn t03_whoever_is_limited_learns_nothing_of_the_account() {
    let alike = |answer: &Answer| {
        let mut headers = answer.headers.clone();
        headers.remove("date");
        headers.remove("x-request-id");
        (answer.status, answer.body.clone(), headers)
    };
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        app.register("inactive@example.com").await;
        app.sql("UPDATE users SET is_active = FALSE WHERE email = 'inactive@example.com'").await;
        let accounts = [ALICE, "nobody@example.com", "inactive@example.com", "\u{430}lice@example.com"];
        for failures in 0..8 {
            let mut answers = Vec::new();
            for email in accounts {
                answers.push(guess(&app, email, AWAY).await);
                answers.push(guess(&app, email, AWAY).await);
            }
            for (answer, email) in answers.chunks(2).zip(accounts) {
                for (answer, first) in answer.iter().zip(&answers) {
                    assert_eq!(alike(answer), alike(first), "{email}, {failures}");
                }
            }
            app.advance(TimeDelta::seconds(30));
        }
    })
    .await;
}

#[tokio::test]
async fn d09_ways_to_write_an_address_are_one_account() {
    let rows = [
        ("case", ["alice@example.com", "ALICE@example.com", "Alice@Example.COM", "aLiCe@eXaMpLe.com"]),
        (
            "IDNA",
            ["u@b\u{fc}cher.example", "u@xn--bcher-kva.example", "u@B\u{dc}CHER.example", "U@XN--BCHER-KVA.example"],
        ),
        ("NFC", ["\u{e9}ve@example.com", "e\u{301}ve@example.com", "\u{c9}VE@example.com", "E\u{301}ve@example.com"]),
        ("name", ["bob@example.com", "Bob <bob@example.com>", " bob@example.com ", "<BOB@example.com>"]),
        // Nobody's, since a letter stands for another; they share the row of whom they look like.
        (
            "NFKC",
            ["\u{ff43}arol@example.com", "carol@example.com", "\u{24d2}arol@example.com", "\u{ff23}AROL@example.com"],
        ),
    ];
    each_limited(&[NO_TOTAL], async |app| {
        for (name, ways) in rows {
            for way in ways {
                guess(&app, way, AWAY).await.refused(401, "invalid_credentials");
            }
            for way in ways {
                assert_eq!(limited(&guess(&app, way, AWAY).await), 1, "{name}: {way}");
            }
        }
        guess(&app, "alice+tag@example.com", AWAY).await.refused(401, "invalid_credentials");
    })
    .await;
}

/// NIST SP 800-63B-4 3.2.2: at most a hundred failures; here so many a day, refilled evenly.
#[tokio::test]
async fn failures_of_an_account_are_counted_by_the_day() {
    const DAY: (&str, &str) = ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ACCOUNT_PER_DAY", "6");
    let wait = TimeDelta::seconds(31);
    each_limited(&[DAY], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        let began = app.now();
        for _ in 0..6 {
            guess(&app, ALICE, AWAY).await.refused(401, "invalid_credentials");
            app.advance(wait);
        }
        let first_refill = began + TimeDelta::hours(4);

        let seconds = limited(&login(&app, ALICE, PASSWORD, AWAY).await);

        assert_eq!(seconds, (first_refill - app.now()).num_seconds());
        login(&app, ALICE, PASSWORD, HOME).await.pair();
        app.advance(TimeDelta::seconds(seconds) - MOMENT);
        limited(&login(&app, ALICE, PASSWORD, AWAY).await);
        app.advance(MOMENT);
        // A success ends the delays; the day goes on.
        login(&app, ALICE, PASSWORD, AWAY).await.pair();
        guess(&app, ALICE, "192.0.2.1").await.refused(401, "invalid_credentials");
        assert!(limited(&guess(&app, ALICE, "192.0.2.1").await) > 3600);
    })
    .await;
    each_limited(&[(DAY.0, "0")], async |app| {
        for _ in 0..20 {
            guess(&app, ALICE, AWAY).await.refused(401, "invalid_credentials");
            app.advance(wait);
        }
    })
    .await;
}

#[tokio::test]
async fn without_limits_nobody_waits_and_nothing_is_written() {
    each_engine_with(&[PROXY, (ENABLED.0, "false")], async |app| {
        app.register(ALICE).await;
        for _ in 0..12 {
            guess(&app, ALICE, AWAY).await.refused(401, "invalid_credentials");
        }
        login(&app, ALICE, PASSWORD, AWAY).await.pair();

        assert_eq!(app.count("SELECT count(*) FROM rate_limits").await, 0);
        assert_eq!(failures(&app).await, 12, "what happened is written down all the same");
    })
    .await;
}
