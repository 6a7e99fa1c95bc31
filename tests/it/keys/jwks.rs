//! `/.well-known/jwks.json`: what verifiers fetch and keep.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use reqwest::header::{HOST, IF_NONE_MATCH, ORIGIN};
use serde_json::Value;

use super::{kid, known, thumbprint};
use crate::support::{Answer, Engine, TestApp, each_engine, each_engine_with};

const JWKS: &str = "/.well-known/jwks.json";

/// RFC 7517 8.5.1, RFC 9111 5.2.2, RFC 9110 8.8.3: a media type of its own, cacheable by everybody, with a strong tag.
#[tokio::test]
async fn the_set_may_be_cached_and_read_by_any_page() {
    each_engine_with(&[("AUTHSERVICE__KEYS__JWKS_MAX_AGE_SECONDS", "123")], async |app| {
        let answer = Answer::of(app.request(Method::GET, JWKS).header(ORIGIN, "https://page.example")).await;

        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/jwk-set+json");
        assert_eq!(answer.header("cache-control"), "public, max-age=123");
        assert_eq!(answer.header("pragma"), "");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("access-control-allow-credentials"), "");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("set-cookie"), "");
        let etag = answer.header("etag");
        assert!(etag.len() > 10 && etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        let again = app.get(JWKS).await;
        assert_eq!((again.header("etag"), &again.body), (etag, &answer.body));
    })
    .await;
}

/// RFC 9110 13.1.2 and 15.4.5: whoever has the set is told so, without content and with the headers that caches need.
#[tokio::test]
async fn whoever_has_the_set_gets_304() {
    each_engine(async |app| {
        let known = app.get(JWKS).await;
        let etag = known.header("etag").to_owned();
        let rows = [
            (etag.clone(), 304),
            (format!("W/{etag}"), 304),
            (format!("\"other\", {etag}"), 304),
            (format!("\"other\",W/{etag} , \"third\""), 304),
            ("*".to_owned(), 304),
            ("\"other\"".to_owned(), 200),
            (etag.trim_matches('"').to_owned(), 200),
            (String::new(), 200),
        ];
        for (tags, status) in rows {
            for method in [Method::GET, Method::HEAD] {
                let answer = Answer::of(app.request(method.clone(), JWKS).header(IF_NONE_MATCH, &tags)).await;
                assert_eq!(answer.status, status, "{method} {tags}");
                for name in ["etag", "cache-control", "access-control-allow-origin"] {
                    assert_eq!(answer.header(name), known.header(name), "{method} {tags}");
                }
                if status == 304 {
                    assert_eq!((answer.body.as_str(), answer.header("content-type")), ("", ""), "{method} {tags}");
                }
            }
        }
        let twice = app.request(Method::GET, JWKS).header(IF_NONE_MATCH, "\"other\"").header(IF_NONE_MATCH, &etag);
        assert_eq!(Answer::of(twice).await.status, 304, "two lines are one list (RFC 9110 5.3)");
    })
    .await;
}

/// RFC 9110 9.3.2: HEAD is GET without its content.
#[tokio::test]
async fn head_has_the_headers_of_get() {
    each_engine(async |app| {
        let get = app.get(JWKS).await;
        let head = Answer::of(app.request(Method::HEAD, JWKS)).await;

        assert_eq!((head.status, head.body.as_str()), (200, ""));
        assert_eq!(get.header("content-length"), get.body.len().to_string());
        for name in ["content-length", "content-type", "etag", "cache-control", "access-control-allow-origin"] {
            assert_eq!(head.header(name), get.header(name), "{name}");
        }
        let post = Answer::of(app.request(Method::POST, JWKS)).await;
        assert_eq!((post.status, post.header("allow").contains("GET")), (405, true), "{post:?}");
    })
    .await;
}

/// RFC 7517 4 and 8.1.1, RFC 7518 6.3.1, RFC 8037 2: the public members, and nothing that is not public. RFC 7638: the kid is the
/// thumbprint.
#[tokio::test]
async fn a_key_shows_its_public_members_only() {
    let rows = [
        ("RS256", "RSA", &["alg", "e", "kid", "kty", "n", "use"][..]),
        ("PS256", "RSA", &["alg", "e", "kid", "kty", "n", "use"]),
        ("ES256", "EC", &["alg", "crv", "kid", "kty", "use", "x", "y"]),
        ("EdDSA", "OKP", &["alg", "crv", "kid", "kty", "use", "x"]),
    ];
    for (algorithm, kind, members) in rows {
        let settings = [("AUTHSERVICE__KEYS__ALGORITHM", algorithm), ("AUTHSERVICE__REFRESH__FORMAT", "opaque")];
        each_engine_with(&settings, async |app| {
            app.alice().await;
            let set = app.get(JWKS).await.json();

            assert_eq!(names(&set), ["keys"]);
            // The key of opaque refresh tokens is symmetric: it is nobody's business.
            assert_eq!(set["keys"].as_array().unwrap().len(), 1, "{set}");
            let key = &set["keys"][0];
            assert_eq!(names(key), members, "{algorithm}");
            assert_eq!((&key["kty"], &key["alg"], &key["use"]), (&kind.into(), &algorithm.into(), &"sig".into()));
            assert_eq!(key["kid"], thumbprint(key), "{algorithm}");
            assert_no_private_member(&set);
        })
        .await;
    }
}

/// RFC 7518 6.3.1: numbers without leading zeros, 2048 bits by default, the exponent 65537.
#[tokio::test]
async fn a_generated_rsa_key_is_of_the_size_that_is_set() {
    let setting = ("AUTHSERVICE__KEYS__RSA_BITS", "3072");
    for (settings, bytes) in [(&[][..], 256), (&[setting][..], 384)] {
        let app = TestApp::start(Engine::Sqlite, settings).await;
        let key = app.get(JWKS).await.json()["keys"][0].clone();
        let n = BASE64_URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
        assert_eq!((n.len(), n[0] >= 0x80), (bytes, true));
        assert_eq!(key["e"], "AQAB");
    }
}

/// RFC 7638: an imported key keeps its thumbprint as kid, so that verifiers know it already.
#[tokio::test]
async fn an_imported_key_is_known_by_its_thumbprint() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let app = TestApp::start_with_known_key(engine, &[]).await;
        let set = app.get(JWKS).await.json();
        assert_eq!(set["keys"].as_array().unwrap().len(), 1);
        assert_eq!(set["keys"][0]["kid"], kid(&known()));
    }
}

/// Who asks, and by which name, changes nothing.
#[tokio::test]
async fn the_set_is_the_same_for_everybody() {
    each_engine(async |app| {
        let plain = app.get(JWKS).await;
        let other = app
            .request(Method::GET, &format!("{JWKS}?kid=other"))
            .header(HOST, "evil.example")
            .header("x-forwarded-host", "evil.example")
            .bearer_auth("not a token");
        let other = Answer::of(other).await;
        assert_eq!((other.status, other.body), (200, plain.body));
    })
    .await;
}

fn names(object: &Value) -> Vec<&str> {
    let names: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    names.into_iter().collect()
}

/// RFC 7518 6.2.2, 6.3.2 and 6.4.1.
fn assert_no_private_member(value: &Value) {
    match value {
        Value::Object(members) => {
            for name in ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] {
                assert!(!members.contains_key(name), "{name}");
            }
            members.values().for_each(assert_no_private_member);
        }
        Value::Array(items) => items.iter().for_each(assert_no_private_member),
        Value::String(text) => assert!(!text.contains("PRIVATE")),
        _ => {}
    }
}

/// The ring is in memory: verifiers get the set while the database is away, and whoever asks for readiness learns no more than that.
#[tokio::test]
async fn the_set_is_served_while_the_database_is_away() {
    each_engine(async |app| {
        let before = app.get(JWKS).await;

        app.app.db.clone().close().await;

        let after = app.get(JWKS).await;
        assert_eq!((after.status, &after.body), (200, &before.body));
        assert_eq!(app.get("/health/live").await.status, 200);
        let ready = app.get("/health/ready").await;
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["checks"]["database"], false);
        for secret in ["sqlite", "postgres", "pool", "127.0.0.1", "error"] {
            assert!(!ready.body.to_lowercase().contains(secret), "{ready:?}");
        }
    })
    .await;
}
