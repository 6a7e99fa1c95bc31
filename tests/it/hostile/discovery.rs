//! 2J: what anybody may read: keys, metadata, health. And what nobody may.

use serde_json::Value;

use super::wire::{bare, request};
use super::{Stage, case, each_engine};

const JWKS: &str = "/.well-known/jwks.json";
const DOCUMENTS: [&str; 2] = ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"];

#[tokio::test]
async fn public_documents() {
    each_engine(&[], &[], async |stage| {
        keys(stage);
        metadata(stage);
        caches(stage);
        health(stage);
        nothing(stage);
    })
    .await;
}

/// J18: public members only (RFC 7517 8, RFC 7518 6.3.2).
fn keys(stage: &mut Stage) {
    let answers = stage.run(&case("J18", "the JWK Set", bare(&format!("GET {JWKS}")), "200"));
    let set = answers[0].json();
    let mut kids = Vec::new();
    for key in set["keys"].as_array().cloned().unwrap_or_default() {
        let names: Vec<String> = key.as_object().map(|key| key.keys().cloned().collect()).unwrap_or_default();
        if names.iter().any(|name| !["kty", "n", "e", "alg", "use", "kid"].contains(&name.as_str())) {
            stage.fault(&format!("J18: a member that is not public: {names:?}"));
        }
        let modulus = key["n"].as_str().map_or(0, str::len);
        if key["kty"] != "RSA" || key["e"] != "AQAB" || modulus < 342 || key["alg"] != "RS256" || key["use"] != "sig" {
            stage.fault(&format!("J18: a weak or odd key: {key}"));
        }
        kids.push(key["kid"].to_string());
    }
    let all = kids.len();
    kids.sort();
    kids.dedup();
    if kids.len() != all || all == 0 {
        stage.fault(&format!("J18: {kids:?}"));
    }
}

/// J17: what is advertised works, whatever the request says about itself.
fn metadata(stage: &mut Stage) {
    for path in DOCUMENTS {
        let headers = "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: evil\r\nForwarded: host=evil.example\r\n";
        let answers = stage.run(&case("J17", path, request(&format!("GET {path}"), headers, ""), "200"));
        let document = answers[0].json();
        let issuer = document["issuer"].as_str().unwrap_or_default().to_owned();
        for (name, value) in document.as_object().cloned().unwrap_or_default() {
            let urls = value.as_str().filter(|url| url.starts_with("http") && name != "issuer");
            if let Some(path) = urls.map(|url| url.trim_start_matches(&issuer).to_owned()) {
                stage.run(&case("J17", format!("{name} {path}"), bare(&format!("GET {path}")), "200"));
            }
        }
        for name in ["response_types_supported", "grant_types_supported", "token_endpoint_auth_methods_supported"] {
            if document[name] != Value::Array(Vec::new()) {
                stage.fault(&format!("J17: {name}: {}", document[name]));
            }
        }
    }
}

/// J20 (RFC 9110 13.1.2), and validators that are nonsense.
fn caches(stage: &mut Stage) {
    for path in [JWKS, DOCUMENTS[0], DOCUMENTS[1]] {
        let head = stage.run(&case("J20", format!("HEAD {path}"), bare(&format!("HEAD {path}")), "200"));
        let etag = head[0].header("etag").to_owned();
        let with = |headers: String| request(&format!("GET {path}"), headers, "");
        let known = format!("If-None-Match: {etag}\r\n");
        stage.run(&case("J20", "If-None-Match", with(known.clone()), "304"));
        stage.run(&case(
            "J20",
            "If-None-Match, weak, in a list",
            with(format!("If-None-Match: \"x\", W/{etag}\r\n")),
            "304",
        ));
        stage.run(&case("J20", "If-None-Match: *", with("If-None-Match: *\r\n".to_owned()), "304"));
        stage.run(&case("+J20", "HEAD, If-None-Match", request(&format!("HEAD {path}"), known, ""), "304"));
        for (name, headers) in [
            ("another tag", "If-None-Match: \"evil\"\r\n".to_owned()),
            ("no quotes", "If-None-Match: evil\r\n".to_owned()),
            ("bytes above ASCII", "If-None-Match: \"\u{e9}\"\r\n".to_owned()),
            ("8 KiB of commas", format!("If-None-Match: {}\r\n", ",".repeat(8 << 10))),
            ("a range", "Range: bytes=0-0\r\n".to_owned()),
            ("99 ranges", format!("Range: bytes={}\r\n", "0-0,".repeat(99))),
            ("a date", "If-Modified-Since: evil\r\n".to_owned()),
            ("no-cache", "Cache-Control: no-cache, no-store, max-age=evil\r\nPragma: no-cache\r\n".to_owned()),
            ("a token", "Authorization: Bearer evil\r\n".to_owned()),
            ("an origin", "Origin: https://evil.example\r\n".to_owned()),
        ] {
            stage.run(&case("+J20", format!("{name} at {path}"), with(headers), "200"));
        }
        stage.run(&case("+J20", "a query", bare(&format!("GET {path}?kid=evil&resource=evil")), "200"));
        stage.run(&case("+J20", "POST", bare(&format!("POST {path}")), "405"));
        stage.run(&case("+J20", "a path behind", bare(&format!("GET {path}/evil")), "404"));
        stage.run(&case("+J20", "another case", bare(&format!("GET {}", path.to_uppercase())), "404"));
    }
}

/// J21: says whether, never why. Without a database: `web/trouble.rs`, `proofs/` (R01, R03).
fn health(stage: &mut Stage) {
    for path in ["/health/live", "/health/ready"] {
        stage.run(&case("J21", path, bare(&format!("GET {path}")), "200"));
        stage.run(&case("J21", "a query", bare(&format!("GET {path}?verbose=1&check=evil")), "200"));
        stage.run(&case("J21", "POST", bare(&format!("POST {path}")), "405"));
        stage.run(&case("J21", "HEAD", bare(&format!("HEAD {path}")), "200"));
        stage.run(&case("J21", "a path behind", bare(&format!("GET {path}/evil")), "404"));
    }
}

/// J22: what other services show there, this one does not have. `/docs` is public on purpose.
fn nothing(stage: &mut Stage) {
    let paths = [
        "/metrics",
        "/debug/pprof",
        "/actuator",
        "/actuator/env",
        "/env",
        "/.env",
        "/.git/config",
        "/config",
        "/server-status",
        "/admin",
        "/console",
        "/health",
        "/health/",
        "/healthz",
        "/status",
        "/info",
        "/version",
        "/swagger.json",
        "/graphql",
        "/robots.txt",
        "/favicon.ico",
        "/.well-known/",
        "/.well-known/security.txt",
        "/.well-known/webfinger",
        "/token",
        "/oauth/token",
        "/authorize",
        "/introspect",
        "/revoke",
        "/register",
        "/userinfo",
        "/auth_api",
        "/auth_api/",
        "/auth_api/v1",
        "/auth_api/v1/",
        "/auth_api/v2/users/me",
        "/auth_api/v1/users",
        "/auth_api/v1/auth",
        "/keys/private.pem",
        "/authservice.db",
        "/docs/../keys/encryption.key",
        "/docs/swagger-ui.js.map",
        "/openapi.yaml",
        "/openapi.json/x",
    ];
    for path in paths {
        for method in ["GET", "POST"] {
            stage.run(&case("J22", format!("{method} {path}"), bare(&format!("{method} {path}")), "404"));
        }
    }
}
