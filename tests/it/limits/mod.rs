//! Limits of sign-in and registration, through the front door, on servers that share a database.

use chrono::{DurationRound as _, TimeDelta};
use reqwest::Method;
use serde_json::json;

use crate::support::{API, Answer, PASSWORD, TestApp, each_engine_with};

mod addresses;
mod everybody;
mod faults;
mod guesses;
mod registrations;
mod rows;
mod strangers;

const ENABLED: (&str, &str) = ("AUTHSERVICE__LIMITS__ENABLED", "true");
/// The peer of every test is a proxy that is believed, so that requests can come from anywhere.
const PROXY: (&str, &str) = ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1");
/// Lifted where a test is about another budget: the clock stands still, and seconds do not pass.
const NO_TOTAL: (&str, &str) = ("AUTHSERVICE__LIMITS__SIGN_INS_PER_SECOND", "0");

const ALICE: &str = "alice@example.com";
const HOME: &str = "198.51.100.7";
const AWAY: &str = "203.0.113.9";
/// What both engines tell apart.
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

/// Everybody's row is an hour's, and is refilled at certain times.
fn to_next_hour(app: &TestApp) {
    let hour = TimeDelta::hours(1);
    app.advance(app.now().duration_trunc(hour).unwrap() + hour - app.now());
}

/// Runs a test on both engines, with limits and a proxy that says where requests come from.
async fn each_limited(settings: &[(&str, &str)], test: impl AsyncFn(TestApp)) {
    let settings: Vec<_> = [ENABLED, PROXY].iter().chain(settings).copied().collect();
    each_engine_with(&settings, test).await;
}

async fn login(app: &TestApp, email: &str, password: &str, from: &str) -> Answer {
    let request = app.request(Method::POST, "auth/login").header("x-forwarded-for", from);
    Answer::of(request.json(&json!({"email": email, "password": password}))).await
}

async fn guess(app: &TestApp, email: &str, from: &str) -> Answer {
    login(app, email, "wrongwrong", from).await
}

/// A login by a client of its own, so that many can be on their way at once.
fn in_flight(app: &TestApp, email: &str, password: &str, from: &str) -> impl Future<Output = Answer> + Send + 'static {
    let request = app.client.post(format!("{}{API}/auth/login", app.base)).header("x-forwarded-for", from);
    Answer::of(request.json(&json!({"email": email, "password": password})))
}

async fn register(app: &TestApp, email: &str, from: &str) -> Answer {
    let request = app.request(Method::POST, "users/register").header("x-forwarded-for", from);
    Answer::of(request.json(&json!({"email": email, "password": PASSWORD}))).await
}

/// Guesses from one address until it is told to wait; returns how many were verified.
async fn spend(app: &TestApp, email: &str, from: &str) -> usize {
    for verified in 0..1000 {
        let answer = guess(app, email, from).await;
        if answer.status == 429 {
            return verified;
        }
        answer.refused(401, "invalid_credentials");
    }
    panic!("there is no limit");
}

/// Asserts 429 and returns the seconds that it says.
#[track_caller]
fn limited(answer: &Answer) -> i64 {
    answer.refused(429, "rate_limited");
    assert_eq!(answer.body, r#"{"error":{"code":"rate_limited","message":"Too many requests"}}"#);
    let seconds = answer.header("retry-after").parse().unwrap();
    assert!(seconds > 0, "{answer:?}");
    seconds
}

/// Passwords that were verified and wrong.
async fn failures(app: &TestApp) -> i64 {
    app.count("SELECT count(*) FROM audit_events WHERE event = 'sign_in_failed'").await
}
