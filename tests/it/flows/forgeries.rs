//! Refresh tokens that we never issued, or that were changed on their way.

use authservice::entity::refresh_token;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use serde_json::{Map, Value, json};

use super::{ALICE, events, families};
use crate::support::{Engine, Pair, TestApp, claims, each_engine};

/// Asserts that the session goes on as if nothing had happened.
async fn is_untouched(app: &TestApp, before: &[refresh_token::Model], pair: &Pair) {
    assert_eq!(families(app).await, before);
    assert_eq!(app.me(&pair.access).await.status, 200);
    for event in ["refresh_reuse", "refresh_from_the_future", "logged_out", "refresh_retry"] {
        assert!(events(app, event).await.is_empty(), "{event}");
    }
}

/// RFC 6749 10.4: refresh tokens cannot be modified or guessed; whoever tries ends nobody's session.
#[tokio::test]
async fn a_token_that_is_not_authentic_never_revokes_anything() {
    each_engine(async |app| {
        let older = app.alice().await;
        let pair = app.refresh(&older.refresh).await.pair();
        let other = app.sign_in(ALICE).await;
        let before = families(&app).await;

        let mut forgeries = flipped(&pair.refresh);
        forgeries.extend(flipped(&older.refresh));
        forgeries.extend((1..pair.refresh.len()).step_by(41).map(|length| pair.refresh[..length].to_owned()));
        forgeries.extend(truncated(&pair.refresh));
        forgeries.extend(extended(&pair.refresh));
        forgeries.extend(spliced(&pair.refresh, &other.refresh));
        forgeries.extend(spliced(&pair.refresh, &older.refresh));
        for forgery in &forgeries {
            for answer in [app.refresh(forgery).await, app.logout(forgery).await] {
                assert_eq!(answer.header("www-authenticate"), "Bearer", "{forgery}");
                assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"), "{forgery}");
            }
        }

        assert!(forgeries.len() > 200);
        is_untouched(&app, &before, &pair).await;
        app.refresh(&pair.refresh).await.pair();
        app.refresh(&other.refresh).await.pair();
    })
    .await;
}

/// RFC 8725 3.11: an access token is no refresh token, and telling so costs nobody a session.
#[tokio::test]
async fn an_access_token_refreshes_and_ends_nothing() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let before = families(&app).await;

        app.refresh(&pair.access).await.refused(400, "invalid_token_type");
        app.logout(&pair.access).await.refused(400, "invalid_token_type");
        app.me(&pair.refresh).await.refused(400, "invalid_token_type");

        is_untouched(&app, &before, &pair).await;
    })
    .await;
}

/// RFC 6749 10.4: who stole the signing key, but not the database, can still make no refresh token: only the row proves one.
#[tokio::test]
async fn a_token_signed_with_the_stolen_key_proves_nothing_and_revokes_nothing() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let app = TestApp::start_with_known_key(engine, &[]).await;
        let older = app.alice().await;
        let pair = app.refresh(&older.refresh).await.pair();
        let other = app.sign_in(ALICE).await;
        let before = families(&app).await;
        let (own, old, foreign) = (claims(&pair.refresh), claims(&older.refresh), claims(&other.refresh));
        let random = json!("7b4a3f0e-5d8c-8a1b-9c2d-3e4f5a6b7c8d");
        let dead = (401, "refresh_reuse_detected");
        let malformed = (400, "malformed_refresh_token");
        let invalid = (401, "invalid_token");
        let rows = [
            ("forged proof", changed(&own, "jti", &random), dead),
            ("no proof", without(&own, "jti"), dead),
            ("next generation, old proof", changed(&own, "gen", &json!(2)), dead),
            ("older generation, newest proof", changed(&own, "gen", &json!(0)), dead),
            ("newest generation, older proof", changed(&old, "gen", &json!(1)), dead),
            ("negative generation", changed(&own, "gen", &json!(-1)), dead),
            ("largest generation", changed(&own, "gen", &json!(i64::MAX)), dead),
            ("no generation", without(&own, "gen"), dead),
            ("another session's sid", changed(&own, "sid", &foreign["sid"]), dead),
            ("another session's fam", changed(&own, "fam", &foreign["fam"]), dead),
            (
                "another session's sid and fam",
                changed(&changed(&own, "sid", &foreign["sid"]), "fam", &foreign["fam"]),
                dead,
            ),
            ("unknown fam", changed(&own, "fam", &random), dead),
            ("no sid", without(&own, "sid"), malformed),
            ("no fam", without(&own, "fam"), malformed),
            ("sid is no UUID", changed(&own, "sid", &json!("x")), malformed),
            ("no exp", without(&own, "exp"), invalid),
            ("no iat", without(&own, "iat"), invalid),
            ("generation is a text", changed(&own, "gen", &json!("1")), invalid),
            ("another issuer", changed(&own, "iss", &json!("https://elsewhere.example")), invalid),
            ("another audience", changed(&own, "aud", &own["iss"]), invalid),
            ("typed as access", changed(&own, "type", &json!("access")), (400, "invalid_token_type")),
        ];
        for (name, forged, (status, code)) in rows {
            let forgery = sign(&pair.refresh, &forged);

            let answer = app.refresh(&forgery).await;
            let _ = app.logout(&forgery).await;

            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{engine:?}: {name}");
            assert_eq!(families(&app).await, before, "{engine:?}: {name}");
        }
        is_untouched(&app, &before, &pair).await;
        // The forger signs as the server does: what was not changed is accepted.
        assert_eq!(sign(&pair.refresh, &own), pair.refresh);
        // The row judges, not `exp`.
        app.refresh(&sign(&pair.refresh, &changed(&own, "exp", &own["iat"]))).await.pair();
    }
}

/// One bit of one byte changed, all over the token.
fn flipped(token: &str) -> Vec<String> {
    let parts: Vec<&str> = token.split('.').collect();
    let mut forgeries = Vec::new();
    for part in 0..3 {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(parts[part]).unwrap();
        for index in (0..bytes.len()).step_by(9).chain([bytes.len() - 1]) {
            let mut bytes = bytes.clone();
            bytes[index] ^= 1 << (index % 8);
            let changed = BASE64_URL_SAFE_NO_PAD.encode(bytes);
            let mut parts = parts.clone();
            parts[part] = &changed;
            forgeries.push(parts.join("."));
        }
    }
    forgeries
}

fn truncated(token: &str) -> [String; 5] {
    let parts: Vec<&str> = token.split('.').collect();
    [
        token[..token.len() - 1].to_owned(),
        token[..token.len() - 2].to_owned(),
        token[1..].to_owned(),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
    ]
}

fn extended(token: &str) -> [String; 7] {
    // The last character of 256 bytes carries two bits; another with the same two bits must not be read as the same.
    let last = token.chars().next_back().unwrap();
    let alike = char::from(u8::try_from(last).unwrap() + 1);
    [
        format!("{token}A"),
        format!("{token}AA"),
        format!("{token}="),
        format!("{token}=="),
        format!("{token}."),
        format!("{token}.AA"),
        format!("{}{alike}", &token[..token.len() - 1]),
    ]
}

/// Parts of two genuine tokens put together.
fn spliced(one: &str, other: &str) -> Vec<String> {
    let (own, foreign): (Vec<&str>, Vec<&str>) = (one.split('.').collect(), other.split('.').collect());
    let (own_claims, foreign_claims) = (claims(one), claims(other));
    let mut forgeries = vec![[own[0], own[1], foreign[2]].join("."), [own[0], foreign[1], own[2]].join(".")];
    for claim in ["sid", "fam", "jti", "gen"] {
        if own_claims[claim] != foreign_claims[claim] {
            let payload = encode(&changed(&own_claims, claim, &foreign_claims[claim]));
            forgeries.push([own[0], payload.as_str(), own[2]].join("."));
        }
    }
    forgeries
}

fn changed(claims: &Value, name: &str, value: &Value) -> Value {
    let mut claims = claims.clone();
    claims[name] = value.clone();
    claims
}

fn without(claims: &Value, name: &str) -> Value {
    let kept: Map<String, Value> =
        claims.as_object().unwrap().clone().into_iter().filter(|(key, _)| key != name).collect();
    Value::Object(kept)
}

fn encode(claims: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(claims.to_string())
}

/// Signs claims with `tests/keys/private.pem`, under the header of a genuine token.
fn sign(genuine: &str, claims: &Value) -> String {
    let key = PKey::private_key_from_pem(&std::fs::read("tests/keys/private.pem").unwrap()).unwrap();
    let input = format!("{}.{}", genuine.split('.').next().unwrap(), encode(claims));
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    let signature = signer.sign_oneshot_to_vec(input.as_bytes()).unwrap();
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}
