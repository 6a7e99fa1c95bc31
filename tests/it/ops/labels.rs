//! Labels: nothing that a client sends becomes one, and docs/metrics.md knows them all.

use std::collections::{BTreeMap, BTreeSet};

use authservice::audit::Event;
use authservice::jobs;
use reqwest::Method;
use serde_json::json;
use uuid::Uuid;

use super::Scrape;
use crate::support::{API, PASSWORD, TestApp, each_engine, each_engine_with, jwt_header};

const PAGE: &str = include_str!("../../../docs/metrics.md");

/// Uses everything once, so that every metric has a sample.
async fn used(app: &TestApp) -> Vec<String> {
    let pair = app.alice().await;
    let next = app.refresh(&pair.refresh).await.pair();
    let listed = app.sessions(&next.access).await.json();
    app.me(&next.access).await;
    app.post("auth/login", &json!({"email": "mallory@example.com", "password": "wrongwrong"})).await;
    jobs::clean_up(&app.app, Uuid::nil()).await;
    let clock = authservice::clock::DatabaseClock::default();
    app.app.db.measure_clock(&clock).await.unwrap();
    let session = listed[0]["session_id"].as_str().unwrap().to_owned();
    assert_eq!(app.with_token(Method::DELETE, &format!("auth/sessions/{session}"), &next.access).await.status, 204);
    let kid = jwt_header(&next.access)["kid"].as_str().unwrap().to_owned();
    [pair.access, pair.refresh, next.access, next.refresh, session, kid]
        .into_iter()
        .chain(["alice", "mallory", "example.com", "127.0.0.1", "reqwest", PASSWORD].map(str::to_owned))
        .collect()
}

#[tokio::test]
async fn no_secret_and_no_person_is_in_a_metric() {
    each_engine(async |app| {
        let private = used(&app).await;

        let scrape = Scrape::of(&app).await;

        for text in private {
            assert!(!scrape.text.contains(&text), "{text}");
        }
        // The ids of users are small numbers, which values may be; labels hold none but statuses, bounds and the release.
        for series in scrape.samples.keys().filter(|series| !series.contains("le=") && !series.contains("version=")) {
            let numbers: Vec<&str> =
                series.split(|letter: char| !letter.is_ascii_digit()).filter(|part| !part.is_empty()).collect();
            assert!(numbers.iter().all(|number| *number == "1" || number.len() == 3), "{series}");
        }
    })
    .await;
}

/// The number of series does not depend on what is sent.
#[tokio::test]
async fn hostile_requests_make_no_new_labels() {
    each_engine(async |app| {
        let send = async |method: &str, path: &str| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            app.request(method, path)
                .header("x-request-id", "C4nary")
                .header("user-agent", "C4nary")
                .send()
                .await
                .unwrap();
        };
        for path in
            ["/C4nary", "/metrics", "/%22C4nary%22%7D%201%0A", "/health/C4nary", "/.well-known/C4nary/", "//", "/docs/"]
        {
            for method in ["GET", "POST", "C4NARY", "MKCOL"] {
                send(method, path).await;
            }
        }
        for method in ["C4NARY", "DELETE", "OPTIONS", "HEAD"] {
            send(method, &format!("{API}/auth/login")).await;
        }
        send("DELETE", &format!("{API}/auth/sessions/C4nary")).await;
        send("GET", "/docs?C4nary").await;

        let scrape = Scrape::of(&app).await;

        assert!(!scrape.text.to_ascii_lowercase().contains("c4nary"), "{}", scrape.text);
        let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for series in scrape.samples.keys().filter(|series| series.starts_with("authservice_http_requests_total{")) {
            for label in series.split_once('{').unwrap().1.trim_end_matches('}').split(',') {
                let (name, value) = label.split_once('=').unwrap();
                values.entry(name).or_default().insert(value.trim_matches('"'));
            }
        }
        assert_eq!(values["method"], BTreeSet::from(["DELETE", "GET", "HEAD", "OPTIONS", "POST", "other"]));
        let sessions = "/auth_api/v1/auth/sessions/{session_id}";
        assert_eq!(values["route"], BTreeSet::from(["/docs", "other", sessions]));
        assert_eq!(values["status"], BTreeSet::from(["200", "307", "401", "404", "405"]));
        assert_eq!(scrape.value("http_requests_total{method=\"GET\",route=\"/docs\",status=\"200\"}"), 1.0);
    })
    .await;
}

#[tokio::test]
async fn docs_list_exactly_what_is_exposed() {
    each_engine(async |app| {
        used(&app).await;
        let scrape = Scrape::of(&app).await;
        let exposed: BTreeMap<String, (String, BTreeSet<String>)> =
            scrape.families.into_iter().map(|(name, family)| (name, (family.kind, family.labels))).collect();

        let mut listed = BTreeMap::new();
        for line in PAGE.lines().filter(|line| line.starts_with("| `") && !line.starts_with("| `/")) {
            let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
            let [name, kind, labels, meaning, action] = cells[..] else { panic!("{line}") };
            assert!(meaning.len() > 10 && !action.is_empty(), "{line}");
            let name = name.trim_matches('`');
            let name = if name.starts_with("process_") { name.to_owned() } else { format!("authservice_{name}") };
            let labels = labels.split(", ").filter_map(|label| label.split('`').nth(1)).map(str::to_owned).collect();
            assert!(listed.insert(name, (kind.to_owned(), labels)).is_none(), "{line} comes twice");
        }

        assert_eq!(listed, exposed);
    })
    .await;
}

/// Values of closed sets are there from the start, with 0, and the page names each.
#[tokio::test]
async fn counters_begin_with_zero() {
    each_engine_with(&[("AUTHSERVICE__LIMITS__ENABLED", "true")], async |app| {
        let start = Scrape::of(&app).await;
        let series = |scrape: &Scrape| -> BTreeSet<String> {
            let counters =
                scrape.families.iter().filter(|(_, family)| family.kind == "counter").map(|(name, _)| name.clone());
            let closed: Vec<String> = counters.filter(|name| name != "authservice_http_requests_total").collect();
            let is_closed = |series: &&String| closed.iter().any(|name| series.split('{').next() == Some(name));
            scrape.samples.keys().filter(is_closed).cloned().collect()
        };

        used(&app).await;

        assert_eq!(series(&start), series(&Scrape::of(&app).await));
        let values = series(&start);
        let values: BTreeSet<&str> = values.iter().filter_map(|series| series.split('"').nth(1)).collect();
        assert!(values.len() > 40, "{values:?}");
        for event in Event::all().map(Event::name) {
            assert!(values.contains(event), "{event}");
        }
        for value in values.iter().filter(|value| Event::named(value).is_none()) {
            assert!(PAGE.contains(&format!("`{value}`")), "docs/metrics.md does not name {value}");
        }
    })
    .await;
}
