//! What the service that this one replaces promised and did not do: section 9 of its contract, a test a line.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use authservice::accounts::Email;
use authservice::config::Config;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ALICE, family, is_over};
use crate::support::{Answer, Engine, PASSWORD, TestApp, claims, each_engine, each_engine_with, jwt_header};

/// "Reuse detection does not persist (rollback)." RFC 9700 4.14.2.
#[tokio::test]
async fn section_9_1_reuse_detection_persists() {
    each_engine(async |app| {
        let stolen = app.alice().await;
        let newest = app.refresh(&stolen.refresh).await.pair();
        app.advance(TimeDelta::seconds(30));

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");

        is_over(&app, &newest, "REUSE_DETECTED").await;
        is_over(&app.another_replica().await, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

/// "Logout with an older token leaves the family alive."
#[tokio::test]
async fn section_9_2_logout_with_an_older_token_ends_the_family() {
    each_engine(async |app| {
        let older = app.alice().await;
        let newest = app.refresh(&older.refresh).await.pair();

        assert_eq!(app.logout(&older.refresh).await.status, 204);

        is_over(&app, &newest, "USER_LOGOUT").await;
    })
    .await;
}

/// "Revoked sessions still rotate."
#[tokio::test]
async fn section_9_2_a_revoked_session_does_not_rotate() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let other = app.sign_in(ALICE).await;
        let path = format!("auth/sessions/{}", claims(&pair.refresh)["sid"].as_str().unwrap());

        assert_eq!(app.with_token(Method::DELETE, &path, &other.access).await.status, 204);

        is_over(&app, &pair, "USER_LOGOUT").await;
        assert_eq!(family(&app, &pair.refresh).await.generation, 0);
        app.refresh(&other.refresh).await.pair();
    })
    .await;
}

/// "Inactive users can refresh."
#[tokio::test]
async fn section_9_3_an_inactive_user_cannot_refresh() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let email = Email::parse(ALICE).unwrap();

        assert!(app.app.accounts.management().set_active(&email, false, app.now()).await.unwrap());

        app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
        app.me(&pair.access).await.refused(403, "user_inactive");
        assert_eq!(family(&app, &pair.refresh).await.generation, 0);
    })
    .await;
}

/// "E-mail uniqueness is case-sensitive."
#[tokio::test]
async fn section_9_4_an_address_is_unique_and_known_in_any_case() {
    each_engine(async |app| {
        app.register("Alice@Example.com").await;

        for email in ["alice@example.com", "ALICE@EXAMPLE.COM", "aLiCe@example.COM"] {
            let taken = app.post("users/register", &json!({"email": email, "password": PASSWORD})).await;
            taken.refused(409, "email_taken");
            let me = app.me(&app.sign_in(email).await.access).await.json();
            assert_eq!(me["email"], "Alice@example.com");
        }
    })
    .await;
}

/// "OpenAPI error examples wrong (`detail` vs `error`)."
#[tokio::test]
async fn section_9_5_the_documented_errors_have_the_shape_of_the_wire() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let document = app.get("/openapi.json").await.json();
        let wrong = json!({"email": ALICE, "password": "Wr0ng!Passw0rd"});
        let taken = json!({"email": ALICE, "password": PASSWORD});
        let no_session = format!("auth/sessions/{}", Uuid::nil());
        let rows = [
            ("/users/register", "post", app.post("users/register", &taken).await),
            ("/users/register", "post", app.post("users/register", &json!({})).await),
            ("/auth/login", "post", app.post("auth/login", &wrong).await),
            ("/auth/login", "post", app.post("auth/login", &json!({})).await),
            ("/users/me", "get", app.get("users/me").await),
            ("/users/me", "get", app.me(&pair.refresh).await),
            ("/auth/refresh", "post", app.refresh("x").await),
            ("/auth/refresh", "post", app.refresh(&pair.access).await),
            ("/auth/logout", "post", app.logout("x").await),
            ("/auth/logout-all", "post", app.post("auth/logout-all", &json!({})).await),
            ("/auth/sessions", "get", app.sessions("x").await),
            ("/auth/sessions/{session_id}", "delete", app.with_token(Method::DELETE, &no_session, &pair.access).await),
        ];
        for (path, method, answer) in rows {
            let operation = &document["paths"][format!("/auth_api/v1{path}")][method];
            let content = &operation["responses"][answer.status.to_string()]["content"]["application/json"];
            let schema = &content["schema"];
            // Where a status has two shapes, the first is the one of a domain.
            let example = [&content["example"], &schema["example"], &schema["oneOf"][0]["example"]];
            let example = example.into_iter().find(|example| example.is_object()).unwrap();
            assert_eq!(shape(example), shape(&answer.json()), "{method} {path} {answer:?}");
            if answer.status != 422 {
                assert!(example["error"]["code"].is_string(), "{method} {path}: {example}");
            }
        }
    })
    .await;
}

/// The names in a JSON value, without what they hold.
fn shape(value: &Value) -> Value {
    match value {
        // What a faulty field holds beside its names depends on the fault.
        Value::Array(items) => json!([items.iter().all(|item| item["type"].is_string() && item["loc"].is_array())]),
        Value::Object(object) => object.iter().map(|(name, value)| (name.clone(), shape(value))).collect(),
        _ => Value::Null,
    }
}

/// "Private key parsed and validated anew for every signature: 0.27 CPU-second per token at 4096 bits." What a refresh costs is measured
/// by the benchmark (docs/performance.md).
#[tokio::test]
async fn section_9_6_the_private_key_is_read_once() {
    let key = openssl::rsa::Rsa::generate(4096).unwrap().private_key_to_pem().unwrap();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mounted = tempfile::TempDir::new().unwrap();
        let path = mounted.path().join("private.pem");
        fs::write(&path, &key).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let setting = ("AUTHSERVICE__KEYS__PRIVATE_KEY_PATH", path.to_str().unwrap());
        let app = TestApp::start(engine, &[setting]).await;
        let mut newest = app.alice().await;
        drop(mounted);
        fs::remove_dir_all(app.directory().join("keys")).unwrap();

        newest = app.refresh(&newest.refresh).await.pair();

        let signature = newest.refresh.rsplit('.').next().unwrap();
        assert_eq!(signature.len(), 683, "512 bytes: the large key has signed");
    }
}

/// "bcrypt and signing block the one event loop."
///
/// The runtime of this test has one thread, so whatever blocks it blocks every answer.
#[tokio::test]
async fn section_9_7_a_password_hash_does_not_block_other_requests() {
    let slow = [("AUTHSERVICE__PASSWORDS__ITERATIONS", "60")];
    each_engine_with(&slow, async |app| {
        app.register(ALICE).await;
        let login = app.request(Method::POST, "auth/login");
        let login = login.json(&json!({"email": ALICE, "password": PASSWORD}));

        let login = tokio::spawn(Answer::of(login));
        let mut meanwhile = 0;
        while !login.is_finished() {
            assert_eq!(app.get("/health/live").await.status, 200);
            meanwhile += 1;
        }

        login.await.unwrap().pair();
        assert!(meanwhile >= 20, "{meanwhile} requests were answered during a sign-in");
    })
    .await;
}

/// "Password echoed in 422."
#[tokio::test]
async fn section_9_8_a_rejected_password_is_not_echoed() {
    each_engine(async |app| {
        let secret = "S3same!";
        let long = secret.repeat(20);
        let bodies = [
            json!({"email": ALICE, "password": secret}),
            json!({"email": ALICE, "password": long}),
            json!({"email": ALICE, "password": [secret]}),
            json!({"email": ALICE, "password": {"nested": secret}}),
            json!({"email": "nobody", "password": long}),
            json!({"email": ALICE, "password": format!("{secret}\0{secret}")}),
            json!({"email": {"password": secret}}),
            json!([{"email": ALICE, "password": secret}]),
            json!(secret),
        ];
        for path in ["users/register", "auth/login"] {
            for body in &bodies {
                let answer = app.post(path, body).await;
                assert_eq!(answer.status, 422, "{path} {body}: {answer:?}");
                assert!(!answer.body.contains("S3same"), "{path} {body}: {answer:?}");
            }
            let broken = format!("{{\"email\":\"{ALICE}\",\"password\":\"{secret}");
            let request = app.request(Method::POST, path).header("content-type", "application/json");
            let answer = Answer::of(request.body(broken)).await;
            assert_eq!(answer.status, 422, "{answer:?}");
            assert!(!answer.body.contains("S3same"), "{answer:?}");
        }
        let common = json!({"email": ALICE, "password": "password1"});
        let answer = app.post("users/register", &common).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(!answer.body.contains("password1"), "{answer:?}");
    })
    .await;
}

/// "Timing oracle for addresses."
#[tokio::test]
async fn section_9_9_an_unknown_address_is_answered_as_a_known_one() {
    each_engine(async |app| {
        app.register(ALICE).await;
        let emails = [ALICE, "nobody@example.com", "p\u{430}ypal@example.com"];
        let mut fastest = [Duration::MAX; 3];
        let mut answers = Vec::new();
        // Without a hash the answer comes ten times faster, however busy the machine is.
        let are_alike = |fastest: &[Duration; 3]| fastest[1..].iter().all(|unknown| *unknown > fastest[0] / 2);
        for round in 0..60 {
            for (email, fastest) in emails.iter().zip(&mut fastest) {
                let started = Instant::now();
                let body = json!({"email": email, "password": "Wr0ng!Passw0rd"});
                answers.push(app.post("auth/login", &body).await);
                *fastest = started.elapsed().min(*fastest);
            }
            if round >= 10 && are_alike(&fastest) {
                break;
            }
        }

        let same = |headers: &HeaderMap| {
            let mut headers = headers.clone();
            headers.remove("x-request-id");
            headers.remove("date");
            headers
        };
        for answer in &answers {
            answer.refused(401, "invalid_credentials");
            assert_eq!(answer.body, answers[0].body);
            assert_eq!(same(&answer.headers), same(&answers[0].headers));
        }
        assert!(are_alike(&fastest), "known, unknown, impossible: {fastest:?}");
    })
    .await;
}

/// "X-Forwarded-For trusted from anyone and able to cause 500s."
#[tokio::test]
async fn section_9_10_x_forwarded_for_is_not_believed_and_harms_nothing() {
    let hostile = [
        "203.0.113.9",
        "unknown",
        "1.2.3.4:555",
        "10.0.0.0/8",
        "",
        ",,,",
        "::1%eth0",
        "'; DROP TABLE users; --",
        "999.999.999.999",
    ];
    each_engine(async |app| {
        app.register(ALICE).await;
        for value in hostile {
            let pair = forwarded_sign_in(&app, value).await.pair();
            let sessions = app.sessions(&pair.access).await;
            assert_eq!(sessions.status, 200, "{value}");
            assert_eq!(sessions.json()[0]["ip_address"], "127.0.0.1", "{value}");
            app.advance(TimeDelta::seconds(1));
        }
    })
    .await;
    let proxy = [("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1")];
    each_engine_with(&proxy, async |app| {
        app.register(ALICE).await;
        for value in hostile {
            let pair = forwarded_sign_in(&app, value).await.pair();
            let expected = match value {
                "203.0.113.9" => "203.0.113.9",
                "1.2.3.4:555" => "1.2.3.4",
                _ => "127.0.0.1",
            };
            let sessions = app.sessions(&pair.access).await;
            assert_eq!(sessions.status, 200, "{value}");
            assert_eq!(sessions.json()[0]["ip_address"], expected, "{value}");
            app.advance(TimeDelta::seconds(1));
        }
    })
    .await;
}

async fn forwarded_sign_in(app: &TestApp, forwarded_for: &str) -> Answer {
    let request = app.request(Method::POST, "auth/login").header("x-forwarded-for", forwarded_for);
    Answer::of(request.json(&json!({"email": ALICE, "password": PASSWORD}))).await
}

/// "Committed key and .env."
#[test]
fn section_9_11_no_key_and_no_env_file_is_committed() {
    let begin = ["-----BEGIN", "PRIVATE KEY-----"];
    let mut seen = 0;
    for path in committed_files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(name != ".env" && !name.starts_with(".env."), "{}", path.display());
        let is_of_tests = path.starts_with("tests");
        assert!(
            is_of_tests || !["pem", "key", "p12"].iter().any(|end| name.ends_with(&format!(".{end}"))),
            "{}",
            path.display()
        );
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        let has_key = text.lines().zip(text.lines().skip(1)).any(|(line, next)| {
            line.starts_with(begin[0]) && line.ends_with(begin[1]) && next.len() >= 40 && !next.contains(' ')
        });
        assert!(is_of_tests || !has_key, "{}", path.display());
        seen += 1;
    }
    assert!(seen > 50, "{seen} files were read");
    let ignored = fs::read_to_string(".gitignore").unwrap();
    assert!(ignored.lines().any(|line| line == "/keys/*"));
}

/// Every file of the repository, but those that git is told to ignore.
fn committed_files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        for entry in fs::read_dir(shown).unwrap() {
            let entry = entry.unwrap();
            let (path, name) = (folder.join(entry.file_name()), entry.file_name().to_string_lossy().into_owned());
            let is_ignored = ["target", ".git", "node_modules", "__pycache__"].contains(&name.as_str())
                || [".db", ".db-shm", ".db-wal"].iter().any(|end| name.ends_with(end))
                || (folder == Path::new("keys") && name != "README.md");
            let kind = entry.file_type().unwrap();
            if !is_ignored && kind.is_dir() {
                folders.push(path);
            } else if !is_ignored && kind.is_file() {
                files.push(path);
            }
        }
    }
    files
}

/// "Mounted certs path unused."
#[tokio::test]
async fn section_9_12_the_key_in_the_configured_directory_signs() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let app = TestApp::start_with_known_key(engine, &[]).await;
        let pem = fs::read("tests/keys/private.pem").unwrap();
        let modulus = openssl::rsa::Rsa::private_key_from_pem(&pem).unwrap().n().to_vec();

        let pair = app.alice().await;

        let published = app.get("/.well-known/jwks.json").await.json();
        assert_eq!(published["keys"].as_array().unwrap().len(), 1);
        let key = &published["keys"][0];
        assert_eq!(key["kid"], jwt_header(&pair.access)["kid"]);
        assert_eq!(key["n"], BASE64_URL_SAFE_NO_PAD.encode(modulus));
    }
}

/// "ECHO=1 shipped."
#[test]
fn section_9_13_the_default_log_level_is_not_debug() {
    let config = Config::load(None, &BTreeMap::new()).unwrap();
    assert_eq!(config.log.level, "info");

    // Whoever sets it gets what it says.
    let echo = BTreeMap::from([("ECHO".to_owned(), "1".to_owned())]);
    assert_eq!(Config::load(None, &echo).unwrap().log.level, "debug");
    let quiet = BTreeMap::from([("ECHO".to_owned(), "0".to_owned())]);
    assert_eq!(Config::load(None, &quiet).unwrap().log.level, "info");

    let is_shipped = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().to_lowercase();
        let folder = |name: &str| path.starts_with(name);
        name.starts_with("dockerfile") || name.contains("compose") || folder("helm") || folder("config")
    };
    for path in committed_files().into_iter().filter(is_shipped) {
        let text = fs::read_to_string(&path).unwrap();
        let is_loud = |line: &str| line.trim_start().starts_with("ECHO") || line.contains("level: debug");
        assert!(!text.lines().any(is_loud), "{}", path.display());
    }
}

/// "Sessions never end in the list; no clean-up of rows."
#[tokio::test]
async fn section_9_14_ended_and_expired_sessions_leave_the_list_and_then_the_table() {
    each_engine(async |app| {
        app.register(ALICE).await;
        let mut live = app.sign_in(ALICE).await;
        let ended = app.sign_in(ALICE).await;
        app.sign_in(ALICE).await;
        let listed = async |access: &str| app.sessions(access).await.json().as_array().unwrap().len();
        assert_eq!(listed(&live.access).await, 3);

        assert_eq!(app.logout(&ended.refresh).await.status, 204);
        assert_eq!(listed(&live.access).await, 2);

        app.advance(TimeDelta::days(7));
        live = app.refresh(&live.refresh).await.pair();
        app.advance(TimeDelta::days(7));
        live = app.refresh(&live.refresh).await.pair();
        assert_eq!(listed(&live.access).await, 1, "the one that nobody refreshed has expired");

        app.advance(TimeDelta::days(7));
        live = app.refresh(&live.refresh).await.pair();
        let (deleted, _) = app.app.sessions.sweep(Uuid::nil(), app.now()).await.unwrap();
        assert_eq!(deleted, 2);
        for table in ["auth_sessions", "refresh_tokens"] {
            assert_eq!(app.count(&format!("SELECT COUNT(*) FROM {table}")).await, 1);
        }
        assert_eq!(listed(&live.access).await, 1);
    })
    .await;
}
