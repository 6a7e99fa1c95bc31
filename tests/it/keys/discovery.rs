//! The metadata documents say what is true, and all that they name works.

use std::collections::BTreeSet;

use reqwest::Method;
use reqwest::header::{HOST, IF_NONE_MATCH, ORIGIN};
use serde_json::{Value, json};

use crate::support::{Answer, TestApp, claims, each_engine, each_engine_with};

const DOCUMENTS: [&str; 2] = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

/// RFC 8414 3.2, RFC 9111 5.2.2: JSON that caches may keep and any page may read.
#[tokio::test]
async fn a_document_may_be_cached_and_read_by_any_page() {
    each_engine(async |app| {
        for path in DOCUMENTS {
            let answer = Answer::of(app.request(Method::GET, path).header(ORIGIN, "https://page.example")).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(answer.header("content-type"), "application/json");
            assert!(answer.header("cache-control").starts_with("public, max-age="), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), "*");
            let head = Answer::of(app.request(Method::HEAD, path)).await;
            assert_eq!(head.header("content-length"), answer.body.len().to_string());
            let etag = answer.header("etag");
            assert!(etag.starts_with('"'), "{etag}");
            let known = Answer::of(app.request(Method::GET, path).header(IF_NONE_MATCH, etag)).await;
            assert_eq!((known.status, known.body.as_str()), (304, ""));
        }
    })
    .await;
}

/// RFC 8414 2 and 3.3, OpenID Connect Discovery 3 and 4.3: the issuer is exactly that of tokens.
#[tokio::test]
async fn the_issuer_is_that_of_tokens() {
    each_engine(async |app| {
        let iss = claims(&app.alice().await.access)["iss"].clone();
        for path in DOCUMENTS {
            let document = app.get(path).await.json();
            assert_eq!(document["issuer"], iss, "{path}");
            assert_eq!(document["jwks_uri"], format!("{}/.well-known/jwks.json", app.issuer));
        }
    })
    .await;
}

/// RFC 8414 2: every URL answers, and there is no word of an endpoint, a grant or a method that does not exist.
#[tokio::test]
async fn everything_that_is_named_exists() {
    each_engine(async |app| {
        for path in DOCUMENTS {
            let document = app.get(path).await.json();
            let urls = urls(&document);
            assert!(urls.len() >= 2, "{document}");
            for url in urls.iter().filter(|url| **url != app.issuer) {
                assert_eq!(app.client.get(url).send().await.unwrap().status(), 200, "{path}: {url}");
            }
            for name in document.as_object().unwrap().keys() {
                assert!(!name.ends_with("_endpoint"), "{path}: {name}");
            }
            for name in ["grant_types_supported", "response_types_supported", "token_endpoint_auth_methods_supported"] {
                assert_eq!(document[name], json!([]), "{path}: {name}");
            }
        }
    })
    .await;
}

fn urls(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) if text.starts_with("http") => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(urls).collect(),
        Value::Object(members) => members.values().flat_map(urls).collect(),
        _ => Vec::new(),
    }
}

/// RFC 8414 7.3: links come from the configuration, never from the request.
#[tokio::test]
async fn the_host_of_a_request_changes_nothing() {
    each_engine(async |app| {
        for path in DOCUMENTS {
            let plain = app.get(path).await;
            let evil = app
                .request(Method::GET, path)
                .header(HOST, "evil.example")
                .header("x-forwarded-host", "evil.example")
                .header("x-forwarded-proto", "https")
                .header("forwarded", "host=evil.example;proto=https");
            let evil = Answer::of(evil).await;
            assert_eq!((evil.status, &evil.body), (200, &plain.body), "{path}");
            assert!(evil.headers.values().all(|value| !value.as_bytes().windows(4).any(|part| part == b"evil")));
        }
    })
    .await;
}

/// OpenID Connect Discovery 3: scopes, claims and algorithms are those of the tokens, whatever the settings are.
#[tokio::test]
async fn scopes_claims_and_algorithms_are_those_of_tokens() {
    let rows: [(&str, &[(&str, &str)]); 5] = [
        ("default", &[]),
        ("two scopes", &[("AUTHSERVICE__TOKENS__SCOPE", "account profile")]),
        ("bare profile", &[("AUTHSERVICE__TOKENS__PROFILE", "seed")]),
        ("another type claim", &[("AUTHSERVICE__TOKENS__TYPE_CLAIM", "kind")]),
        ("another algorithm", &[("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA")]),
    ];
    let mut faults = Vec::new();
    for (name, settings) in rows {
        let app = TestApp::start(crate::support::Engine::Sqlite, settings).await;
        faults.extend(differences(&app).await.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

async fn differences(app: &TestApp) -> Vec<String> {
    let token = claims(&app.alice().await.access);
    let keys = app.get("/.well-known/jwks.json").await.json();
    let set = |value: &Value| -> BTreeSet<String> {
        let items = value.as_array().into_iter().flatten();
        items.map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let document = app.get(DOCUMENTS[1]).await.json();
    let claimed: BTreeSet<String> = token.as_object().unwrap().keys().cloned().collect();
    // Bare tokens have no scope claim: whatever is announced then is not contradicted by them.
    let scopes = token["scope"].as_str().map(|scope| scope.split(' ').map(str::to_owned).collect::<BTreeSet<_>>());
    let mut faults = Vec::new();
    let mut compare = |name: &str, expected: &BTreeSet<String>| {
        let got = set(&document[name]);
        if got != *expected {
            faults.push(format!("{name}: expected {expected:?}, got {got:?}"));
        }
    };
    compare("claims_supported", &claimed);
    if let Some(scopes) = scopes {
        compare("scopes_supported", &scopes);
    }
    compare("id_token_signing_alg_values_supported", &set(&json!([keys["keys"][0]["alg"]])));
    faults
}

/// A deployment behind a proxy under another name answers with that name.
#[tokio::test]
async fn a_set_issuer_is_what_the_documents_say() {
    each_engine_with(&[("AUTHSERVICE__SERVER__ISSUER", "https://id.example.com")], async |app| {
        for path in DOCUMENTS {
            let document = app.get(path).await.json();
            assert_eq!(document["issuer"], "https://id.example.com");
            assert!(urls(&document).iter().all(|url| url.starts_with("https://id.example.com")), "{document}");
        }
        assert_eq!(claims(&app.alice().await.access)["iss"], "https://id.example.com");
    })
    .await;
}
