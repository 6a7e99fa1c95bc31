//! Guesses from one address at any account, and what does not make an address another one.

use chrono::TimeDelta;

use super::{ALICE, AWAY, ENABLED, HOME, NO_TOTAL, each_limited, guess, limited, login};
use crate::support::{PASSWORD, TestApp, each_engine_with};

const FIVE: (&str, &str) = ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ADDRESS_PER_HOUR", "5");

/// Guesses at one account after another; returns how many were verified. `from` says whence the guess of a number comes.
async fn spray(app: &TestApp, from: impl Fn(usize) -> String) -> usize {
    for number in 0..300 {
        let answer = guess(app, &format!("nobody{number}@example.com"), &from(number)).await;
        if answer.status == 429 {
            limited(&answer);
            return number;
        }
    }
    300
}

#[tokio::test]
async fn d11_spraying_from_one_address_ends() {
    each_limited(&[NO_TOTAL], async |app| {
        app.register(ALICE).await;
        login(&app, ALICE, PASSWORD, AWAY).await.pair();

        assert_eq!(spray(&app, |_| AWAY.to_owned()).await, 100);

        let wait = limited(&guess(&app, "somebody@example.com", AWAY).await);
        assert_eq!(wait, 36);
        guess(&app, "somebody@example.com", HOME).await.refused(401, "invalid_credentials");
        // Whoever is known there need not pay for it, and sign-ins that succeed cost nothing.
        for _ in 0..10 {
            login(&app, ALICE, PASSWORD, AWAY).await.pair();
        }
        app.advance(TimeDelta::seconds(wait));
        guess(&app, "somebody@example.com", AWAY).await.refused(401, "invalid_credentials");
        limited(&guess(&app, "somebody@example.com", AWAY).await);
    })
    .await;
}

/// An office behind one address: only failures count.
#[tokio::test]
async fn sign_ins_that_succeed_do_not_spend_the_budget_of_their_address() {
    let nowhere = ("AUTHSERVICE__LIMITS__KNOWN_ADDRESS_DAYS", "0");
    let registered = ("AUTHSERVICE__LIMITS__REGISTRATIONS_PER_ADDRESS_PER_HOUR", "0");
    each_limited(&[NO_TOTAL, FIVE, nowhere, registered], async |app| {
        for number in 0..8 {
            app.register(&format!("user{number}@example.com")).await;
        }
        for number in 0..8 {
            login(&app, &format!("user{number}@example.com"), PASSWORD, HOME).await.pair();
        }
        assert_eq!(spray(&app, |_| HOME.to_owned()).await, 5);
        limited(&login(&app, "user0@example.com", PASSWORD, HOME).await);
    })
    .await;
}

#[tokio::test]
async fn the_right_password_of_an_inactive_user_is_no_failure() {
    each_limited(&[FIVE], async |app| {
        app.register(ALICE).await;
        app.sql("UPDATE users SET is_active = FALSE").await;
        for _ in 0..8 {
            login(&app, ALICE, PASSWORD, AWAY).await.refused(403, "user_inactive");
        }
    })
    .await;
}

/// A header makes no other address of one, unless a trusted proxy wrote it; what stands left of that, anybody may have written.
#[tokio::test]
async fn t53_a_header_does_not_make_an_address_another_one() {
    each_engine_with(&[ENABLED, NO_TOTAL, FIVE], async |app| {
        assert_eq!(spray(&app, |number| format!("203.0.113.{number}")).await, 5, "an untrusted peer");
    })
    .await;
    each_limited(&[NO_TOTAL, FIVE], async |app| {
        assert_eq!(spray(&app, |number| format!("203.0.113.{number}, {HOME}")).await, 5, "left of the client");
        assert_eq!(spray(&app, |number| format!("203.0.113.{number}, nonsense")).await, 5, "no address");
        assert_eq!(spray(&app, |number| format!("2001:db8::{number:x}")).await, 5, "one network");
        assert_eq!(spray(&app, |number| format!("203.0.{}.{}", number / 200, number % 200)).await, 300, "addresses");
    })
    .await;
}
