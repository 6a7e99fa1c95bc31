//! `audit list`: what happened, newest first, for people and for programs.

use chrono::{DateTime, Utc};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Operator, Server};
use crate::support::{Answer, Engine, PASSWORD, claims};

const ALICE: &str = "alice@example.com";
/// What a stranger may call himself: commands to a terminal in the form of one byte, and a tab.
const EVIL: &[u8] = b"evil\x9b2J\x9d0;title\x9c\tend";

/// A server on each engine, and the operator beside it. It deletes no event, however old.
async fn each_engine(test: impl AsyncFn(Operator, &Server)) {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await.with("AUTHSERVICE__AUDIT__RETENTION_DAYS", "0");
        let server = operator.serve().await;
        test(operator, &server).await;
    }
}

/// Every event that the command lists as JSON.
fn listed(operator: &Operator, arguments: &[&str]) -> Vec<Value> {
    let outcome = operator.run(&[&["audit", "list", "--json"], arguments].concat()).exits(0);
    assert_eq!(outcome.stderr, "", "{arguments:?}");
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn ids(events: &[Value]) -> Vec<i64> {
    events.iter().map(|event| event["id"].as_i64().unwrap()).collect()
}

/// Writes an event by hand.
async fn insert(operator: &Operator, at: &str, user_agent: &str) {
    operator
        .sql(&format!("INSERT INTO audit_events (at, event, user_agent) VALUES ('{at}', 'signed_in', '{user_agent}')"))
        .await;
}

#[tokio::test]
async fn events_are_listed_newest_first_and_by_what_is_asked_for() {
    each_engine(async |operator, server| {
        let pair = server.alice().await;
        server.register("bob@example.com", PASSWORD).await;
        let bob = server.login("bob@example.com", PASSWORD).await.pair();
        let logout = server.request(Method::POST, "auth/logout").bearer_auth(&pair.refresh);
        assert_eq!(Answer::of(logout).await.status, 204);
        operator.run(&["users", "deactivate", "bob@example.com"]).exits(0);
        // A day apart: the clocks of two processes may differ by more than is between two events.
        let written = operator.texts("SELECT CAST(id AS TEXT) FROM audit_events ORDER BY id").await;
        for (day, id) in (1..).zip(written) {
            let sql = format!("UPDATE audit_events SET at = '2026-01-0{day}T00:00:00+00:00' WHERE id = {id}");
            operator.sql(&sql).await;
        }

        let all = listed(&operator, &[]);

        let expected = [
            "user_deactivated",
            "logged_out",
            "signed_in",
            "user_registered",
            "signed_in",
            "user_registered",
            "key_added",
            "key_added",
        ];
        assert_eq!(names(&all), expected);
        let times: Vec<DateTime<Utc>> =
            all.iter().map(|event| event["at"].as_str().unwrap().parse().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "{times:?}");
        let (id, session) = (claims(&pair.access)["user_id"].to_string(), claims(&pair.access)["sid"].clone());
        let signed_in = &all[4];
        assert_eq!(signed_in["user_id"].to_string(), id);
        assert_eq!(signed_in["session_id"], session);
        assert_eq!((&signed_in["ip_address"], &signed_in["user_agent"]), (&json!("127.0.0.1"), &json!("")));
        assert_eq!(signed_in["details"], Value::Null);
        assert_eq!(all[0]["details"], json!({"by": "operator"}));
        assert_eq!(all[0]["ip_address"], Value::Null);

        let time = |index: usize| all[index]["at"].as_str().unwrap();
        let session = session.as_str().unwrap();
        let bobs = claims(&bob.access)["user_id"].to_string();
        // Arguments, places in the whole list.
        let rows: [(&[&str], &[usize]); 12] = [
            (&["--user", "Alice@EXAMPLE.com"], &[1, 4, 5]),
            (&["--user", &id], &[1, 4, 5]),
            (&["--user", &bobs, "--event", "signed_in"], &[2]),
            (&["--user", "999"], &[]),
            (&["--event", "user_registered"], &[3, 5]),
            (&["--event", "refresh_reuse"], &[]),
            (&["--session", session], &[1, 4]),
            (&["--session", &Uuid::nil().to_string()], &[]),
            (&["--since", time(2)], &[0, 1, 2]),
            (&["--until", time(2)], &[3, 4, 5, 6, 7]),
            (&["--since", time(4), "--until", time(1), "--event", "user_registered"], &[3]),
            (&["--since", "2100-01-01T00:00:00+14:00"], &[]),
        ];
        for (arguments, places) in rows {
            let expected: Vec<i64> = places.iter().map(|place| ids(&all)[*place]).collect();
            assert_eq!(ids(&listed(&operator, arguments)), expected, "{arguments:?}");
        }

        // A user who is gone is found by id.
        operator.sql(&format!("DELETE FROM users WHERE id = {id}")).await;
        assert_eq!(listed(&operator, &["--user", &id]).len(), 3);
        let refused = operator.run(&["audit", "list", "--user", ALICE]).exits(65);
        assert_eq!(refused.printed(), "authservice: no such user\n");
    })
    .await;
}

/// Also when many happened at one time, and when something happens between two pages.
#[tokio::test]
async fn pages_show_every_event_once() {
    each_engine(async |operator, _| {
        for at in ["2026-01-02T00:00:00+00:00", "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"] {
            for _ in 0..3 {
                insert(&operator, at, "x").await;
            }
        }
        let all = ids(&listed(&operator, &["--event", "signed_in"]));
        assert_eq!(all.len(), 9);

        let (mut pages, mut before) = (Vec::new(), None::<String>);
        loop {
            let place = before.iter().flat_map(|id| ["--before", id.as_str()]);
            let arguments: Vec<&str> = ["--event", "signed_in", "--limit", "2"].into_iter().chain(place).collect();
            let page = ids(&listed(&operator, &arguments));
            let Some(last) = page.last() else { break };
            before = Some(last.to_string());
            pages.extend(page);
            insert(&operator, "2026-01-03T00:00:00+00:00", "x").await;
        }

        assert_eq!(pages, all);
    })
    .await;
}

#[tokio::test]
async fn a_table_says_how_to_go_on() {
    each_engine(async |operator, server| {
        server.alice().await;
        let (id, all) = (ids(&listed(&operator, &[])), &["audit", "list", "--limit", "4"]);

        let table = operator.run(&["audit", "list", "--limit", "2"]).exits(0);
        let rest = operator.run(&["audit", "list", "--before", &id[1].to_string(), "--limit", "2"]).exits(0);

        let lines: Vec<Vec<&str>> = table.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["ID", "TIME", "EVENT", "USER", "SESSION", "ADDRESS", "DETAILS", "USER", "AGENT"]);
        assert_eq!((lines.len(), lines[1][0], lines[1][2]), (3, id[0].to_string().as_str(), "signed_in"));
        assert!(lines[1][1].len() == 24 && lines[1][1].ends_with('Z'), "{lines:?}");
        assert_eq!(table.stderr, format!("there are more: --before {}\n", id[1]));
        assert_eq!(rest.stderr, "", "nothing more");
        assert_eq!(rest.stdout.lines().count(), 3);
        assert_eq!(operator.run(all).exits(0).stderr, "", "exactly as many as there are");
    })
    .await;
}

/// ASVS 16.4.1: user agents are strangers' words, and no terminal obeys them.
#[tokio::test]
async fn no_terminal_obeys_a_user_agent() {
    each_engine(async |operator, server| {
        server.register(ALICE, PASSWORD).await;
        let login = server
            .request(Method::POST, "auth/login")
            .header("user-agent", HeaderValue::from_bytes(EVIL).unwrap())
            .json(&json!({"email": ALICE, "password": PASSWORD}));
        assert_eq!(Answer::of(login).await.status, 200);
        // What no request can bring, but an old database may hold.
        insert(&operator, "2026-01-01T00:00:00+00:00", "\u{1b}[31m\r\n\u{202e}\u{7f} \\").await;

        let table = operator.run(&["audit", "list"]).exits(0).stdout;
        let lines = operator.run(&["audit", "list", "--json"]).exits(0).stdout;

        for printed in [&table, &lines] {
            assert!(
                printed.chars().all(|letter| letter == '\n' || letter == ' ' || letter.is_ascii_graphic()),
                "{printed:?}"
            );
        }
        assert!(table.contains(r"evil\u{9b}2J\u{9d}0;title\u{9c}\tend"), "{table}");
        assert!(table.contains(r"\u{1b}[31m\r\n\u{202e}\u{7f} \\"), "{table}");
        let agents: Vec<Value> =
            lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["user_agent"].clone()).collect();
        assert!(agents.contains(&json!("evil\u{9b}2J\u{9d}0;title\u{9c}\tend")), "{agents:?}");
        assert!(agents.contains(&json!("\u{1b}[31m\r\n\u{202e}\u{7f} \\")), "{agents:?}");
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_listed_is_explained() {
    each_engine(async |operator, _| {
        // Arguments, exit code, what the message names.
        let rows: [(&[&str], i32, &str); 10] = [
            (&["--event", "nothing"], 2, "refresh_reuse"),
            (&["--session", "nothing"], 2, "--session"),
            (&["--since", "yesterday"], 2, "RFC 3339"),
            (&["--until", "2026-11-24"], 2, "RFC 3339"),
            (&["--limit", "0"], 2, "--limit"),
            (&["--before", "x"], 2, "--before"),
            (&["--before", "999"], 65, "there is no event 999"),
            (&["--user", "nobody@example.com"], 65, "no such user"),
            (&["--user", "nobody"], 65, "authservice: "),
            (&["--since", "2026-01-02T00:00:00Z", "--until", "2026-01-02T00:00:00Z"], 65, "--since"),
        ];
        for (arguments, code, expected) in rows {
            let refused = operator.run(&[&["audit", "list"], arguments].concat()).exits(code);
            assert!(refused.stderr.contains(expected), "{arguments:?}: {refused:?}");
            assert_eq!(refused.stdout, "", "{arguments:?}");
        }
    })
    .await;
}

/// A running server deletes what was kept for longer than the setting says.
#[tokio::test]
async fn a_running_server_deletes_old_events() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await.with("AUTHSERVICE__AUDIT__RETENTION_DAYS", "30");
        operator.run(&["migrate", "up"]).exits(0);
        insert(&operator, "2020-01-01T00:00:00+00:00", "x").await;
        let mut server = operator.serve().await;

        let deleted = server.process.logged("audit events that were kept long enough are deleted").await.unwrap();

        assert_eq!(deleted["deleted"], 1);
        assert_eq!(names(&listed(&operator, &[])), ["key_added", "key_added"]);
    }
}
