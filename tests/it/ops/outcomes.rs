//! Counters: each outcome moves its own by one, and no other of its kind.

use std::sync::atomic::{AtomicU32, Ordering};

use authservice::accounts::Email;
use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use super::Scrape;
use crate::support::{Answer, Engine, PASSWORD, TestApp, each_engine, each_engine_with};

const ENABLED: (&str, &str) = ("AUTHSERVICE__LIMITS__ENABLED", "true");
const NO_TOTAL: (&str, &str) = ("AUTHSERVICE__LIMITS__SIGN_INS_PER_SECOND", "0");
const ALICE: &str = "alice@example.com";
/// What a request is counted in once.
const OUTCOMES: [&str; 4] = ["sign_ins_total", "registrations_total", "refreshes_total", "thefts_total"];

/// Asserts that what is done moves these counters by one each, and no other.
async fn moves(app: &TestApp, expected: &[&str], done: impl Future<Output = u16>, status: u16) {
    let before = Scrape::of(app).await;

    assert_eq!(done.await, status, "{expected:?}");

    let moved = Scrape::of(app).await.moved(&before, &OUTCOMES);
    let expected: Vec<_> = expected.iter().map(|series| ((*series).to_owned(), 1.0)).collect();
    assert_eq!(moved, expected);
}

async fn login(app: &TestApp, email: &str, password: &str) -> u16 {
    app.post("auth/login", &json!({"email": email, "password": password})).await.status
}

async fn register(app: &TestApp, email: &str, password: &str) -> u16 {
    app.post("users/register", &json!({"email": email, "password": password})).await.status
}

async fn set_active(app: &TestApp, is_active: bool) {
    let alice = Email::parse(ALICE).unwrap();
    app.app.accounts.management().set_active(&alice, is_active, app.now()).await.unwrap();
}

/// An address that nobody had before.
fn stranger() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("stranger{}@example.com", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[tokio::test]
async fn each_outcome_of_a_registration_and_a_sign_in_is_counted_once() {
    each_engine(async |app| {
        let success = ["registrations_total{outcome=\"success\"}"];
        moves(&app, &success, register(&app, ALICE, PASSWORD), 201).await;
        moves(&app, &["registrations_total{outcome=\"taken\"}"], register(&app, ALICE, PASSWORD), 409).await;
        moves(&app, &["registrations_total{outcome=\"invalid\"}"], register(&app, "b@example.com", "password"), 422)
            .await;
        moves(&app, &["sign_ins_total{outcome=\"success\"}"], login(&app, ALICE, PASSWORD), 200).await;
        let refused = ["sign_ins_total{outcome=\"invalid_credentials\"}"];
        moves(&app, &refused, login(&app, ALICE, "wrongwrong"), 401).await;
        moves(&app, &refused, login(&app, "nobody@example.com", PASSWORD), 401).await;
        set_active(&app, false).await;
        moves(&app, &["sign_ins_total{outcome=\"inactive\"}"], login(&app, ALICE, PASSWORD), 403).await;
        // What is no sign-in is none.
        moves(&app, &[], login(&app, ALICE, "short"), 422).await;

        app.sql("ALTER TABLE users RENAME TO elsewhere").await;
        let before = Scrape::of(&app).await;
        moves(&app, &["sign_ins_total{outcome=\"unavailable\"}"], login(&app, ALICE, PASSWORD), 503).await;
        moves(&app, &["registrations_total{outcome=\"unavailable\"}"], register(&app, "c@example.com", PASSWORD), 503)
            .await;
        let errors = Scrape::of(&app).await.moved(&before, &["db_errors_total"]);
        assert_eq!(errors, [("db_errors_total{kind=\"other\"}".to_owned(), 2.0)]);
    })
    .await;
}

#[tokio::test]
async fn each_outcome_of_a_refresh_is_counted_once() {
    each_engine(async |app| {
        let of = |outcome: &str| format!("refreshes_total{{outcome=\"{outcome}\"}}");
        let refresh = async |token: &str| app.refresh(token).await.status;
        let first = app.alice().await.refresh;
        let second = std::cell::OnceCell::new();
        let rotate = async {
            let answer = app.refresh(&first).await;
            second.set(answer.pair().refresh).unwrap();
            answer.status
        };
        moves(&app, &[&of("rotated")], rotate, 200).await;
        moves(&app, &[&of("retried")], refresh(&first), 200).await;
        let third = app.refresh(second.get().unwrap()).await.pair().refresh;
        moves(&app, &[&of("reused"), "thefts_total"], refresh(&first), 401).await;
        // A session ends once, however often its tokens are tried.
        moves(&app, &[&of("ended")], refresh(&first), 401).await;
        moves(&app, &[&of("ended")], refresh(&third), 401).await;
        moves(&app, &[&of("invalid")], refresh("x.y.z"), 401).await;
        let request = || app.request(Method::POST, "auth/refresh");
        let answer = async |request| Answer::of(request).await.status;
        moves(&app, &[&of("missing")], answer(request()), 401).await;
        moves(&app, &[&of("missing")], answer(request().basic_auth("alice", Some(&third))), 401).await;
        let query = app.request(Method::POST, &format!("auth/refresh?access_token={third}"));
        moves(&app, &[&of("missing")], answer(query), 400).await;
        // A sign-out without a token is no refresh.
        moves(&app, &[], answer(app.request(Method::POST, "auth/logout")), 401).await;

        let first = app.sign_in(ALICE).await.refresh;
        let second = app.refresh(&first).await.pair().refresh;
        let third = app.refresh(&second).await.pair().refresh;
        app.sql("UPDATE refresh_tokens SET generation = 1").await;
        moves(&app, &[&of("future"), "thefts_total"], refresh(&third), 401).await;

        let token = app.sign_in(ALICE).await.refresh;
        set_active(&app, false).await;
        moves(&app, &[&of("inactive")], refresh(&token), 401).await;
        set_active(&app, true).await;
        moves(&app, &[&of("ended")], refresh(&token), 401).await;
        let token = app.sign_in(ALICE).await.refresh;
        app.advance(TimeDelta::days(15));
        moves(&app, &[&of("expired")], refresh(&token), 401).await;

        let token = app.sign_in(ALICE).await.refresh;
        app.sql("ALTER TABLE refresh_tokens RENAME TO elsewhere").await;
        moves(&app, &[&of("unavailable")], refresh(&token), 503).await;
    })
    .await;
}

/// Everybody's budget too, which leaves no audit event.
#[tokio::test]
async fn a_refusal_is_counted_under_the_budget_that_was_spent() {
    async fn is_refused(settings: &[(&str, &str)], budget: &str, outcome: &str, act: impl AsyncFn(&TestApp) -> u16) {
        each_engine_with(&[&[ENABLED], settings].concat(), async |app| {
            let before = Scrape::of(&app).await;
            let mut tries = 0;
            while act(&app).await != 429 {
                tries += 1;
                assert!(tries < 200, "{budget} is never spent");
            }
            let moved = Scrape::of(&app).await.moved(&before, &["rate_limited_total"]);
            assert_eq!(moved, [(format!("rate_limited_total{{budget=\"{budget}\"}}"), 1.0)]);
            assert_eq!(Scrape::of(&app).await.value(outcome), 1.0);
        })
        .await;
    }
    let guess = async |app: &TestApp| login(app, ALICE, "wrongwrong").await;
    let patient = async |app: &TestApp| {
        app.advance(TimeDelta::minutes(1));
        login(app, ALICE, "wrongwrong").await
    };
    let spray = async |app: &TestApp| login(app, &stranger(), "wrongwrong").await;
    let join = async |app: &TestApp| register(app, &stranger(), PASSWORD).await;
    let of = |outcome: &str| format!("{outcome}_total{{outcome=\"rate_limited\"}}");
    is_refused(&[NO_TOTAL], "guesses_without_delay", &of("sign_ins"), guess).await;
    let few = ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ACCOUNT_PER_DAY", "3");
    is_refused(&[few], "sign_in_failures_per_account_per_day", &of("sign_ins"), patient).await;
    let few = ("AUTHSERVICE__LIMITS__SIGN_IN_FAILURES_PER_ADDRESS_PER_HOUR", "3");
    is_refused(&[few], "sign_in_failures_per_address_per_hour", &of("sign_ins"), spray).await;
    is_refused(&[NO_TOTAL], "registrations_per_address_per_hour", &of("registrations"), join).await;
    let few = ("AUTHSERVICE__LIMITS__SIGN_INS_PER_SECOND", "2");
    is_refused(&[few], "sign_ins_per_second", &of("sign_ins"), spray).await;
    is_refused(&[few], "sign_ins_per_second", &of("registrations"), join).await;
}

#[tokio::test]
async fn refreshes_of_one_session_that_come_too_often_are_counted() {
    let few = ("AUTHSERVICE__LIMITS__REFRESHES_PER_MINUTE", "2");
    each_engine_with(&[ENABLED, few], async |app| {
        let mut token = app.alice().await.refresh;
        for _ in 0..2 {
            token = app.refresh(&token).await.pair().refresh;
        }
        let before = Scrape::of(&app).await;

        app.refresh(&token).await.refused(429, "rate_limited");

        let expected =
            ["rate_limited_total{budget=\"refreshes_per_minute\"}", "refreshes_total{outcome=\"rate_limited\"}"];
        let moved = Scrape::of(&app).await.moved(&before, &["rate_limited_total", "refreshes_total"]);
        assert_eq!(moved, expected.map(|series| (series.to_owned(), 1.0)));
    })
    .await;
}

#[tokio::test]
async fn audit_events_are_counted_once_they_are_committed() {
    each_engine(async |app| {
        let before = Scrape::of(&app).await;
        let pair = app.alice().await;
        login(&app, ALICE, "wrongwrong").await;
        assert_eq!(app.logout(&pair.refresh).await.status, 204);
        let events = ["logged_out", "sign_in_failed", "signed_in", "user_registered"];
        let expected = events.map(|event| (format!("audit_events_total{{event=\"{event}\"}}"), 1.0));
        assert_eq!(Scrape::of(&app).await.moved(&before, &["audit_events_total"]), expected);

        // Recorded, and then undone.
        let before = Scrape::of(&app).await;
        app.sql("ALTER TABLE refresh_tokens RENAME TO elsewhere").await;
        assert_eq!(login(&app, ALICE, PASSWORD).await, 503);
        assert_eq!(Scrape::of(&app).await.moved(&before, &["audit_events_total"]), []);
    })
    .await;
}

#[tokio::test]
async fn hashes_are_timed_and_those_that_find_no_place_are_counted() {
    let settings = [("AUTHSERVICE__PASSWORDS__MAX_CONCURRENT", "1"), ("AUTHSERVICE__PASSWORDS__QUEUE", "0")];
    let app = TestApp::start(Engine::Sqlite, &settings).await;
    app.register(ALICE).await;
    for _ in 0..20 {
        let before = Scrape::of(&app).await;

        let statuses = join_all((0..8).map(|_| login(&app, ALICE, "wrongwrong"))).await;

        let refused = statuses.iter().filter(|status| **status == 503).count() as f64;
        let after = Scrape::of(&app).await;
        let change = |series| after.value(series) - before.value(series);
        assert_eq!(change("password_hashes_refused_total"), refused);
        assert_eq!(change("sign_ins_total{outcome=\"unavailable\"}"), refused);
        assert_eq!(change("password_hash_duration_seconds_count"), 8.0 - refused);
        if refused > 0.0 {
            return;
        }
    }
    panic!("eight at once never found the only place taken");
}
