//! Who asks: what a proxy says is believed when it is a trusted one, and never makes a 500.

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;

use super::{TRUSTED, answered};
use crate::support::{Engine, PASSWORD, Pair, TestApp, each_engine, each_engine_with};

/// Names and values of request headers.
type Headers<'a> = [(&'a str, &'a [u8])];

#[tokio::test]
async fn a_request_id_is_believed_from_a_trusted_proxy_and_only_when_harmless() {
    let trusting = TestApp::start(Engine::Sqlite, &[TRUSTED]).await;
    let distrusting = TestApp::start(Engine::Sqlite, &[]).await;
    let longest = "a".repeat(64);
    let rows = [
        ("plain", "req-1_2.3Z".as_bytes(), true),
        ("longest", longest.as_bytes(), true),
        ("longer", &[b'a'; 65], false),
        ("empty", b"", false),
        ("blanks", b"a b", false),
        ("markup", b"<script>", false),
        ("quotes", b"a\"b", false),
        ("escape", b"a\tb", false),
        ("other bytes", b"a\xffb", false),
        ("two in one", b"a,b", false),
    ];
    for (name, id, is_harmless) in rows {
        for (app, is_trusted) in [(&trusting, true), (&distrusting, false)] {
            for path in ["/", "/nothing", "users/me"] {
                let request =
                    app.request(Method::GET, path).header("x-request-id", HeaderValue::from_bytes(id).unwrap());
                let answer = answered(request).await;
                let given = answer.header("x-request-id");
                if is_harmless && is_trusted {
                    assert_eq!(given.as_bytes(), id, "{name} {path}");
                } else {
                    assert!(uuid::Uuid::try_parse(given).is_ok(), "{name} {path}: {given}");
                }
                assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{name} {path}");
            }
        }
    }
}

/// Signs in with extra headers and returns the address that the session has.
async fn address_of_session(app: &TestApp, name: &str, headers: &Headers<'_>) -> String {
    let mut request =
        app.request(Method::POST, "auth/login").json(&json!({"email": "alice@example.com", "password": PASSWORD}));
    for (header, value) in headers {
        request = request.header(*header, HeaderValue::from_bytes(value).unwrap());
    }
    let pair: Pair = answered(request).await.pair();
    let own = app.with_token(Method::GET, "auth/sessions", &pair.access).await;
    assert_eq!(own.status, 200, "{name}: {own:?}");
    let id = crate::support::claims(&pair.access)["sid"].clone();
    let sessions = own.json();
    let session = sessions.as_array().unwrap().iter().find(|session| session["session_id"] == id);
    session.unwrap()["ip_address"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_forwarded_address_is_believed_from_a_trusted_proxy() {
    each_engine_with(&[TRUSTED], async |app| {
        app.register("alice@example.com").await;
        let hops = format!("6.6.6.6{}", ", 10.1.1.1".repeat(100));
        let xff = "x-forwarded-for";
        let rows: [(&str, &Headers<'_>, &str); 18] = [
            ("none", &[], "127.0.0.1"),
            ("one", &[(xff, b"1.2.3.4")], "1.2.3.4"),
            ("the rightmost", &[(xff, b"6.6.6.6, 1.2.3.4")], "1.2.3.4"),
            ("proxies behind it", &[(xff, b"6.6.6.6, 1.2.3.4,10.1.1.1 , 10.2.2.2")], "1.2.3.4"),
            ("two lines", &[(xff, b"6.6.6.6"), (xff, b"1.2.3.4")], "1.2.3.4"),
            ("a hundred proxies", &[(xff, hops.as_bytes())], "6.6.6.6"),
            ("version 6", &[(xff, b"2001:DB8:0::1")], "2001:db8::1"),
            ("version 6 with a port", &[(xff, b"[2001:db8::1]:443")], "2001:db8::1"),
            ("mapped", &[(xff, b"::ffff:1.2.3.4")], "1.2.3.4"),
            ("with a port", &[(xff, b"1.2.3.4:555")], "1.2.3.4"),
            ("no address", &[(xff, b"unknown")], "127.0.0.1"),
            ("an obfuscated one", &[(xff, b"1.2.3.4, _hidden")], "127.0.0.1"),
            ("a network", &[(xff, b"1.2.3.4/24")], "127.0.0.1"),
            ("a zone", &[(xff, b"fe80::1%eth0")], "127.0.0.1"),
            ("nothing", &[(xff, b"")], "127.0.0.1"),
            ("commas", &[(xff, b",,, ,")], "127.0.0.1"),
            ("other bytes", &[(xff, b"1.2.3.4, \xff\xfe")], "127.0.0.1"),
            (
                "other headers",
                &[("x-real-ip", b"6.6.6.6"), ("forwarded", b"for=6.6.6.6"), ("client-ip", b"6.6.6.6")],
                "127.0.0.1",
            ),
        ];
        for (name, headers, expected) in rows {
            assert_eq!(address_of_session(&app, name, headers).await, expected, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_forwarded_address_is_nothing_from_anybody_else() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        let long = "1.2.3.4, ".repeat(800);
        let rows: [&[u8]; 9] = [
            b"1.2.3.4",
            b"127.0.0.2",
            b"10.0.0.1, 127.0.0.1",
            b"unknown",
            b"1.2.3.4/24",
            b"fe80::1%eth0",
            b"'; DROP TABLE users; --",
            b"\xff\xfe",
            long.as_bytes(),
        ];
        for value in rows {
            let headers = [("x-forwarded-for", value)];
            let name = String::from_utf8_lossy(value);
            assert_eq!(address_of_session(&app, &name, &headers).await, "127.0.0.1", "{name}");
        }
    })
    .await;
}
