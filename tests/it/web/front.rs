//! What every answer has in common, and what no request may do.

use reqwest::Method;
use serde_json::json;

use super::{CACHEABLE, PATHS, Wire, answered, is_detail, posted};
use crate::support::{API, Answer, Engine, PASSWORD, TestApp, each_engine};

/// Asserts what every answer carries.
#[track_caller]
pub(super) fn has_common_headers(name: &str, answer: &Answer) {
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{name}: {answer:?}");
    assert_eq!(answer.header("x-frame-options"), "DENY", "{name}: {answer:?}");
    assert_eq!(answer.header("referrer-policy"), "no-referrer", "{name}: {answer:?}");
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{name}: {policy}");
    assert!(uuid::Uuid::try_parse(answer.header("x-request-id")).is_ok(), "{name}: {answer:?}");
    for absent in ["server", "x-powered-by", "set-cookie", "strict-transport-security"] {
        assert_eq!(answer.header(absent), "", "{name}: {answer:?}");
    }
    for word in ["sqlx", "SQLITE", "panicked", "src/", ".rs:"] {
        assert!(
            !answer.body.contains(word) || answer.header("content-type").starts_with("text/html"),
            "{name}: {answer:?}"
        );
    }
}

#[track_caller]
pub(super) fn is_not_stored(name: &str, answer: &Answer) {
    assert_eq!(answer.header("cache-control"), "no-store", "{name}: {answer:?}");
    assert_eq!(answer.header("pragma"), "no-cache", "{name}: {answer:?}");
}

#[tokio::test]
async fn every_kind_of_answer_carries_the_same_headers() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let get = |path: &str| app.request(Method::GET, path);
        let post = |path: &str| app.request(Method::POST, path);
        let login = |body: &[u8]| post("auth/login").header("content-type", "application/json").body(body.to_owned());
        let alice = json!({"email": "alice@example.com", "password": PASSWORD});
        let bob = json!({"email": "bob@example.com", "password": PASSWORD});
        let preflight = app.request(Method::OPTIONS, "auth/login");
        let too_long = format!("/?{}", "a".repeat(9000));
        let rows = [
            (200, "start", get("/")),
            (200, "live", get("/health/live")),
            (200, "ready", get("/health/ready")),
            (200, "HEAD", app.request(Method::HEAD, "/")),
            (200, "me", get("users/me").bearer_auth(&pair.access)),
            (200, "sessions", get("auth/sessions").bearer_auth(&pair.access)),
            (201, "registered", post("users/register").json(&bob)),
            (409, "taken", post("users/register").json(&bob)),
            (200, "login", post("auth/login").json(&alice)),
            (200, "refresh", post("auth/refresh").bearer_auth(&pair.refresh)),
            (401, "no token", get("users/me")),
            (401, "bad token", get("users/me").bearer_auth("bad")),
            (401, "bad refresh token", post("auth/refresh").bearer_auth("bad")),
            (400, "swapped token", get("users/me").bearer_auth(&pair.refresh)),
            (400, "token in the query", get("users/me?access_token=x")),
            (400, "not UTF-8", login(b"{\"email\": \"\xff\"}")),
            (422, "faulty fields", login(b"{}")),
            (422, "not JSON", login(b"{")),
            (404, "no route", get("/nothing")),
            (405, "another method", get("auth/login")),
            (405, "preflight", preflight.header("origin", "https://evil.example")),
            (307, "trailing slash", get("/health/live/")),
            (413, "too large", login(&b" ".repeat(20_000))),
            (414, "too long", get(&too_long)),
            (415, "compressed", login(b"{}").header("content-encoding", "gzip")),
            (204, "logout-all", post("auth/logout-all").bearer_auth(&pair.access)),
            (401, "ended", get("users/me").bearer_auth(&pair.access)),
            (401, "reused", post("auth/refresh").bearer_auth(&pair.refresh)),
            (204, "logout", post("auth/logout").bearer_auth(&pair.refresh)),
        ];
        let mut ids = Vec::new();
        for (status, name, request) in rows {
            let answer = answered(request).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            has_common_headers(name, &answer);
            is_not_stored(name, &answer);
            ids.push(answer.header("x-request-id").to_owned());
        }
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all, "every request has an id of its own");
    })
    .await;
}

#[tokio::test]
async fn public_documents_may_be_cached_and_their_errors_not() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    for path in CACHEABLE {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        has_common_headers(path, &answer);
        assert_eq!(answer.header("cache-control"), "public, max-age=300", "{path}");
        assert_eq!(answer.header("pragma"), "", "{path}");

        let known = app.request(Method::GET, path).header("if-none-match", answer.header("etag"));
        let known = answered(known).await;
        assert_eq!((known.status, known.body.as_str()), (304, ""), "{path}");
        has_common_headers(path, &known);
        assert_eq!(known.header("cache-control"), "public, max-age=300", "{path}");

        let refused = answered(app.request(Method::POST, path)).await;
        assert_eq!(refused.status, 405, "{path}");
        is_not_stored(path, &refused);
    }
    for path in ["/docs", "/redoc", "/docs/oauth2-redirect", "/openapi.json"] {
        let answer = app.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        has_common_headers(path, &answer);
    }
}

#[tokio::test]
async fn transport_security_is_promised_by_an_https_issuer_only() {
    let https = [("AUTHSERVICE__SERVER__ISSUER", "https://auth.example.com")];
    let app = TestApp::start(Engine::Sqlite, &https).await;
    for path in ["/", "/nothing", "/health/live/", "users/me", "/.well-known/jwks.json", "/docs"] {
        let answer = app.get(path).await;
        assert!(answer.header("strict-transport-security").starts_with("max-age="), "{path}: {answer:?}");
    }
    let http =
        [("AUTHSERVICE__SERVER__ISSUER", "http://auth.internal"), ("AUTHSERVICE__SERVER__ALLOW_HTTP_ISSUER", "true")];
    let app = TestApp::start(Engine::Sqlite, &http).await;
    let forwarded = app.request(Method::GET, "/").header("x-forwarded-proto", "https");
    assert_eq!(answered(forwarded).await.header("strict-transport-security"), "");
}

#[tokio::test]
async fn no_foreign_page_is_let_in() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let allowed = |answer: &Answer| {
        answer
            .headers
            .keys()
            .map(|name| name.as_str().to_owned())
            .filter(|name| name.starts_with("access-control-"))
            .collect::<Vec<_>>()
    };
    for origin in ["https://evil.example", "null", "http://localhost"] {
        for (path, _) in PATHS {
            let preflight = app
                .request(Method::OPTIONS, path)
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization, content-type");
            let answer = answered(preflight).await;
            is_detail(&answer, 405, "Method Not Allowed");
            assert_eq!(allowed(&answer), Vec::<String>::new(), "{origin} {path}");

            let simple = answered(app.request(Method::GET, path).header("origin", origin)).await;
            if CACHEABLE.contains(&path) {
                // Public, and without credentials.
                assert_eq!(allowed(&simple), ["access-control-allow-origin"], "{origin} {path}");
                assert_eq!(simple.header("access-control-allow-origin"), "*", "{origin} {path}");
            } else {
                assert_eq!(allowed(&simple), Vec::<String>::new(), "{origin} {path}");
            }
        }
    }
}

#[tokio::test]
async fn more_than_one_authorization_header_is_refused() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let pair = app.alice().await;
    let mut wire = Wire::open(&app).await;
    wire.send(format!(
        "GET {API}/users/me HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {0}\r\nAuthorization: Bearer {0}\r\n\r\n",
        pair.access
    ))
    .await;
    assert_eq!(wire.answer().await.unwrap().status, 400);
    // The connection goes on.
    wire.send(posted("/auth_api/v1/auth/login", "{}")).await;
    assert_eq!(wire.answer().await.unwrap().status, 422);
}

#[tokio::test]
async fn a_query_is_nothing_to_a_post() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    app.register("alice@example.com").await;
    let query = format!("auth/login?email=alice@example.com&password={PASSWORD}");
    assert_eq!(app.post(&query, &json!({})).await.status, 422);
    let body = json!({"email": "alice@example.com", "password": PASSWORD});
    let answer = app.post("auth/login?email=bob@example.com&password=wrong-password", &body).await;
    let pair = answer.pair();
    let refreshed = app.with_token(Method::POST, "auth/refresh?refresh_token=other&x=%00", &pair.refresh).await;
    assert_eq!(refreshed.status, 200);
}
