//! Which paths and methods there are, and that paths are read as they are written.

use reqwest::Method;

use super::{CACHEABLE, PATHS, TRUSTED, Wire, answered, is_detail};
use crate::support::{API, Engine, TestApp};

#[tokio::test]
async fn other_methods_are_refused_with_those_that_there_are() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    for (path, allow) in PATHS {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get", "post", "Post"] {
            if allow.split(", ").any(|allowed| allowed == method) {
                continue;
            }
            let request = app.request(method.parse().unwrap(), path).header("x-canary", "canary");
            let answer = answered(request).await;
            is_detail(&answer, 405, "Method Not Allowed");
            assert_eq!(answer.header("allow"), allow, "{method} {path}");
            // TRACE echoes nothing.
            assert!(!answer.body.contains("canary"), "{method} {path}");
        }
    }
    let overridden = app.request(Method::GET, "auth/login").header("x-http-method-override", "POST");
    is_detail(&answered(overridden).await, 405, "Method Not Allowed");
}

#[tokio::test]
async fn head_is_get_without_its_body() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let pair = app.alice().await;
    for (path, allow) in PATHS {
        let ask = |method: Method| answered(app.request(method, path).bearer_auth(&pair.access));
        let head = ask(Method::HEAD).await;
        assert_eq!(head.body, "", "{path}");
        if !allow.contains("HEAD") {
            assert_eq!((head.status, head.header("allow")), (405, allow), "{path}");
            continue;
        }
        let get = ask(Method::GET).await;
        assert_eq!(head.status, 200, "{path}");
        for name in ["content-type", "content-length", "cache-control", "etag", "content-security-policy"] {
            assert_eq!(head.header(name), get.header(name), "{name} of {path}");
        }
        assert_eq!(head.header("content-length"), get.body.len().to_string(), "{path}");
    }
    // The connection stays in step.
    let mut wire = Wire::open(&app).await;
    for line in ["HEAD /", "HEAD /auth_api/v1/auth/login", "HEAD /nothing", "GET /health/live"] {
        let answer = wire.ask(line).await;
        assert_eq!(answer.body.is_empty(), line.starts_with("HEAD"), "{line}");
    }
}

#[tokio::test]
async fn a_trailing_slash_leads_to_the_issuer_whatever_the_request_claims() {
    let settings = [("AUTHSERVICE__SERVER__ISSUER", "https://auth.example.com"), TRUSTED];
    let app = TestApp::start(Engine::Sqlite, &settings).await;
    for (path, _) in PATHS.into_iter().filter(|(path, _)| *path != "/") {
        for method in [Method::GET, Method::POST, Method::HEAD] {
            let request = app
                .request(method.clone(), &format!("{path}/"))
                .header("host", "evil.example")
                .header("x-forwarded-host", "evil.example")
                .header("x-forwarded-proto", "http")
                .header("forwarded", "host=evil.example;proto=http");
            let answer = answered(request).await;
            assert_eq!(answer.status, 307, "{method} {path}: {answer:?}");
            assert_eq!(answer.header("location"), format!("https://auth.example.com{path}"), "{method} {path}");
            assert_eq!(answer.body, "");
        }
    }
    let answer = app.get("/health/live/?a=b&c=%2F").await;
    assert_eq!(answer.header("location"), "https://auth.example.com/health/live?a=b&c=%2F");
    for path in ["/nothing/", "/health/live//", "//", "/health/"] {
        is_detail(&app.get(path).await, 404, "Not Found");
    }
}

#[tokio::test]
async fn links_come_from_the_issuer_whatever_the_request_claims() {
    let app = TestApp::start(Engine::Sqlite, &[TRUSTED]).await;
    for path in &CACHEABLE[1..] {
        let honest = app.get(path).await;
        let request = app
            .request(Method::GET, path)
            .header("host", "evil.example")
            .header("x-forwarded-host", "evil.example")
            .header("forwarded", "host=evil.example");
        assert_eq!(answered(request).await.body, honest.body, "{path}");
        assert_eq!(honest.json()["issuer"], app.issuer.as_str(), "{path}");
    }
    // A target in absolute form names another authority in vain.
    let mut wire = Wire::open(&app).await;
    assert_eq!(wire.ask("GET http://evil.example/health/live").await.status, 200);
    let discovery = wire.ask("GET http://evil.example/.well-known/openid-configuration").await;
    assert_eq!(discovery.json()["issuer"], app.issuer.as_str());
    let redirect = wire.ask("GET http://evil.example/health/live/").await;
    assert_eq!(redirect.header("location"), format!("{}/health/live", app.issuer));
    assert_eq!(wire.ask("GET http://evil.example").await.status, 200);
    assert_eq!(wire.ask("GET http://evil.example/nothing").await.status, 404);
}

#[tokio::test]
async fn paths_are_taken_as_they_are_written() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let pair = app.alice().await;
    let targets = [
        "//auth_api/v1/users/me",
        "/auth_api//v1/users/me",
        "/auth_api/v1//users/me",
        "/./auth_api/v1/users/me",
        "/auth_api/./v1/users/me",
        "/auth_api/v1/auth/../users/me",
        "/auth_api/v1/auth/..;/users/me",
        "/auth_api/v1/users/me;jsessionid=1",
        "/auth_api/v1/users;x/me",
        "/auth_api/v1/users/%6de",
        "/auth_api/v1/users%2Fme",
        "/auth_api/v1/auth/%2e%2e/users/me",
        "/AUTH_API/v1/users/me",
        "/auth_api/v1/users/me%20",
        "/auth_api/v1/users/me%00",
        "/auth_api/v1/users/me%zz",
        "/auth_api/v1/users/%00",
        "/%zz",
        "/%",
        "/%00",
        "/%c0%af",
        "/health/live/..",
        "*",
    ];
    for target in targets {
        let mut wire = Wire::open(&app).await;
        wire.send(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n", pair.access))
            .await;
        let answer = wire.answer().await.unwrap();
        assert!([400, 404].contains(&answer.status), "{target}: {answer:?}");
    }
    // Bytes that no target may hold.
    let mut wire = Wire::open(&app).await;
    wire.send(b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!([400, 404].contains(&wire.answer().await.unwrap().status));
    // A segment that varies is no exception, and only one of them varies.
    for (segment, expected) in [
        ("%00", &[400, 404, 422][..]),
        ("%zz", &[400, 404, 422]),
        ("%ff", &[400, 404, 422]),
        ("x", &[422]),
        (".", &[404, 422]),
        ("..", &[404, 422]),
        ("x/y", &[404]),
    ] {
        let mut wire = Wire::open(&app).await;
        wire.send(format!(
            "DELETE {API}/auth/sessions/{segment} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\r\n",
            pair.access
        ))
        .await;
        let answer = wire.answer().await.unwrap();
        assert!(expected.contains(&answer.status), "{segment}: {answer:?}");
    }
    assert_eq!(app.me(&pair.access).await.status, 200);
    // CONNECT and OPTIONS have targets of their own.
    let mut wire = Wire::open(&app).await;
    assert!([404, 405].contains(&wire.ask("OPTIONS *").await.status));
    let mut wire = Wire::open(&app).await;
    let tunnel = wire.ask("CONNECT evil.example:443").await;
    assert!((400..500).contains(&tunnel.status), "{tunnel:?}");
}
