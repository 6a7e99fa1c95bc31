//! JSON bodies of registration and sign-in: what is read, what is refused, what is never shown.

use std::iter::once;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{API, Answer, Engine, PASSWORD, TestApp, each_engine};

/// A password that must come back in no answer.
const CANARY: &str = "Canary!Passw0rd";
const MAX_BODY: usize = 16 * 1024;

async fn send(app: &TestApp, path: &str, content_type: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = app.request(Method::POST, path).header("content-type", content_type);
    Answer::of(request.body(body.into())).await
}

/// Kind and place of each fault, such as `missing body.email`.
pub(super) fn faults(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let text = |value: &Value| value.as_str().map_or_else(|| "*".to_owned(), str::to_owned);
    let fault = |fault: &Value| {
        let place: Vec<String> = fault["loc"].as_array().unwrap().iter().map(text).collect();
        format!("{} {}", text(&fault["type"]), place.join("."))
    };
    body["detail"].as_array().map(|list| list.iter().map(fault).collect()).unwrap_or_default()
}

/// Writes bytes and reads one answer, for what no honest client sends.
async fn raw(app: &TestApp, request: &str) -> String {
    let mut stream = TcpStream::connect(app.base.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_body_that_is_no_object_of_json_is_refused_at_registration_and_sign_in() {
    let deep = |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        format!(r#"{{"email":"a@x.org","password":"{CANARY}","x":{open}{close}}}"#)
    };
    let (text, whole) = (|body: &str| body.as_bytes().to_vec(), "model_attributes_type body");
    let syntax = "json_invalid body.*";
    #[rustfmt::skip]
    let rows: Vec<(&str, Vec<u8>, u16, &str)> = vec![
        ("B02 null", text("null"), 422, "missing body"),
        ("B02 list", text("[]"), 422, whole),
        ("B02 list of the fields", text(&format!(r#"["a@x.org","{CANARY}"]"#)), 422, whole),
        ("B02 string", text(&format!(r#""{CANARY}""#)), 422, whole),
        ("B02 number", text("1"), 422, whole),
        ("B02 true", text("true"), 422, whole),
        ("B03 truncated", text(&format!(r#"{{"password":"{CANARY}","email":"a"#)), 422, syntax),
        ("B05 two values", text("{}{}"), 422, syntax),
        ("B05 trailing rubbish", text(&format!(r#"{{"email":"a@x.org","password":"{CANARY}"}}x"#)), 422, syntax),
        ("B06 byte order mark", text("\u{feff}{}"), 422, syntax),
        ("B08 overlong UTF-8", b"{\"email\":\"\xc0\x80@x.org\"}".to_vec(), 400, ""),
        ("B08 surrogate in UTF-8", b"{\"email\":\"\xed\xa0\x80@x.org\"}".to_vec(), 400, ""),
        ("B08 beyond Unicode", b"{\"email\":\"\xf5\x80\x80\x80@x.org\"}".to_vec(), 400, ""),
        ("B09 lone surrogate", text(r#"{"email":"\ud800@x.org"}"#), 422, syntax),
        ("B10 duplicate member", text(&format!(r#"{{"email":"a@x.org","email":"b@x.org","password":"{CANARY}"}}"#)), 422, syntax),
        ("B10 duplicate password", text(&format!(r#"{{"email":"a@x.org","password":"{CANARY}","password":"{CANARY}2"}}"#)), 422, syntax),
        ("B15 33 deep", text(&deep(32)), 422, syntax),
        ("B15 128 deep", text(&deep(128)), 422, syntax),
        ("B15 8000 deep", text(&deep(8000)), 422, syntax),
        ("unquoted", text("{email:1}"), 422, syntax),
    ];
    each_engine(async |app| {
        for path in ["users/register", "auth/login"] {
            for (name, body, status, fault) in &rows {
                let answer = send(&app, path, "application/json", body.clone()).await;

                assert_eq!(answer.status, *status, "{name}: {answer:?}");
                let expected: Vec<&str> = once(*fault).filter(|fault| !fault.is_empty()).collect();
                assert_eq!(faults(&answer), expected, "{name}: {answer:?}");
                assert!(!answer.body.contains(CANARY), "{name}: {answer:?}");
            }
        }

        assert_eq!(app.count("SELECT count(*) FROM users").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_rejected_password_is_never_echoed() {
    let long = CANARY.repeat(10);
    #[rustfmt::skip]
    let rows = [
        ("too short for 8", "application/json", json!({"email": "a@x.org", "password": &CANARY[..7]}).to_string()),
        ("too long", "application/json", json!({"email": "a@x.org", "password": long}).to_string()),
        ("NUL", "application/json", json!({"email": "a@x.org", "password": format!("{CANARY}\0")}).to_string()),
        ("in a list", "application/json", json!({"email": "a@x.org", "password": [CANARY]}).to_string()),
        ("in an object", "application/json", json!({"email": "a@x.org", "password": {"value": CANARY}}).to_string()),
        ("beside a missing address", "application/json", json!({"password": CANARY}).to_string()),
        ("beside a faulty address", "application/json", json!({"email": "x", "password": CANARY}).to_string()),
        ("under another name", "application/json", json!({"email": "a@x.org", "Password": CANARY}).to_string()),
        ("within the address", "application/json", json!({"email": {"email": "a@x.org", "password": CANARY}}).to_string()),
        ("within the name", "application/json", json!({"email": "a@x.org", "password": PASSWORD, "full_name": {"password": CANARY}, "x": 1}).to_string()),
        ("in a list of users", "application/json", json!([{"email": "a@x.org", "password": CANARY}]).to_string()),
        ("JSON within a string", "application/json", json!(json!({"email": "a@x.org", "password": CANARY}).to_string()).to_string()),
        ("broken JSON", "application/json", format!(r#"{{"email":"a@x.org","password":"{CANARY}""#)),
        ("form", "application/x-www-form-urlencoded", format!("email=a@x.org&password={CANARY}")),
        ("text", "text/plain", json!({"email": "a@x.org", "password": CANARY}).to_string()),
    ];
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let mut echoes = Vec::new();
    for (name, content_type, body) in rows {
        // Sign-in ignores the name.
        let is_of_registration = name == "within the name";
        for path in ["users/register", "auth/login"].iter().take(if is_of_registration { 1 } else { 2 }) {
            let answer = send(&app, path, content_type, body.clone()).await;

            assert_eq!(answer.status, 422, "{path}, {name}: {answer:?}");
            if answer.body.contains(&CANARY[..7]) {
                echoes.push(format!("{path}, {name}: {}", answer.body));
            }
        }
    }

    assert!(echoes.is_empty(), "{}", echoes.join("\n"));
}

#[tokio::test]
async fn json_is_recognised_by_its_content_type() {
    let rows = [
        ("B19 text", "text/json", false),
        ("B19 jsonx", "application/jsonx", false),
        ("B19 form", "application/x-www-form-urlencoded", false),
        ("multipart", "multipart/form-data; boundary=x", false),
        ("rubbish", "json", false),
        ("plain", "application/json", true),
        ("B20 charset", "application/json;charset=utf-8", true),
        ("B20 upper case", "APPLICATION/JSON", true),
        ("B20 quoted charset", "application/json; charset=\"UTF-8\"", true),
        ("B20 space before the parameter", "application/json ;charset=utf-8", true),
        ("charset that JSON does not have", "application/json; charset=utf-16", true),
        ("suffix", "application/vnd.api+json", true),
    ];
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let mut misread = Vec::new();
    for (at, (name, content_type, is_json)) in rows.into_iter().enumerate() {
        let body = json!({"email": format!("user{at}@x.org"), "password": PASSWORD}).to_string();

        let answer = send(&app, "users/register", content_type, body).await;

        let is_read = answer.status == 201;
        if is_read != is_json || (!is_read && faults(&answer) != ["model_attributes_type body"]) {
            misread.push(format!("{name}: {answer:?}"));
        }
    }

    assert!(misread.is_empty(), "{}", misread.join("\n"));
}

#[tokio::test]
async fn a_body_of_more_than_16_kib_is_refused() {
    each_engine(async |app| {
        let padded = |email: &str, length: usize| {
            let body = json!({"email": email, "password": PASSWORD}).to_string();
            format!("{body}{}", " ".repeat(length - body.len()))
        };

        let largest = send(&app, "users/register", "application/json", padded("a@x.org", MAX_BODY)).await;
        let larger = send(&app, "users/register", "application/json", padded("b@x.org", MAX_BODY + 1)).await;

        assert_eq!(largest.status, 201, "{largest:?}");
        larger.refused(413, "payload_too_large");
        assert_eq!(app.count("SELECT count(*) FROM users").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_body_of_unknown_or_hostile_length_is_bounded_too() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let head = format!("POST {API}/users/register HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n");
    let chunk = format!("{:x}\r\n{}\r\n", MAX_BODY + 1, " ".repeat(MAX_BODY + 1));
    let rows = [
        ("B18 1 GiB declared, nothing sent", format!("{head}Content-Length: 1073741824\r\n\r\n")),
        ("chunked", format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")),
    ];
    for (name, request) in rows {
        let answer = raw(&app, &request).await;

        assert!(answer.starts_with("HTTP/1.1 413 "), "{name}: {answer}");
        assert!(answer.contains(r#""code":"payload_too_large""#), "{name}: {answer}");
    }
}

#[tokio::test]
async fn an_object_of_many_members_is_read() {
    each_engine(async |app| {
        let mut body = json!({"email": "a@x.org", "password": PASSWORD});
        for at in 0..1000 {
            body[format!("k{at}")] = json!(0);
        }

        let answer = app.post("users/register", &body).await;

        assert_eq!(answer.status, 201, "{answer:?}");
    })
    .await;
}
