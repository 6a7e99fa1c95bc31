//! What stands in the tokens that the server issues.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::ecdsa::EcdsaSig;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey};
use openssl::rsa::{Padding, Rsa};
use openssl::sign::{RsaPssSaltlen, Verifier};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ACCESS, Forge, INVALID, mutated, part};
use crate::support::{Engine, Pair, TestApp, claims, each_engine, each_engine_with, jwt_header};

const ABSOLUTE: &str = "AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS";
const IDLE: &str = "AUTHSERVICE__REFRESH__IDLE_TTL_SECONDS";

/// A random UUID (RFC 9562 5.4) of a claim.
fn random_uuid(value: &Value) -> Uuid {
    let uuid: Uuid = value.as_str().unwrap().parse().unwrap();
    assert_eq!(uuid.get_version_num(), 4, "{uuid}");
    uuid
}

/// RFC 9068 2.1 and 2.2: these members, in this order (the seed's first), and whole seconds.
#[tokio::test]
async fn an_access_token_holds_exactly_these_claims() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let access = &forge.pair.access;
        let (claims, now, issuer) = (claims(access), forge.app.now().timestamp(), &forge.app.issuer);
        let [sid, sub, jti] = ["sid", "sub", "jti"].map(|name| random_uuid(&claims[name]));

        assert_eq!(part(access, 0), format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":"{}"}}"#, forge.kid));
        let expected = format!(
            r#"{{"user_id":1,"type":"access","iat":{now},"exp":{exp},"sid":"{sid}","iss":"{issuer}","sub":"{sub}","aud":"{issuer}","jti":"{jti}","client_id":"authservice","scope":"account","auth_time":{now}}}"#,
            exp = now + 900
        );
        assert_eq!(part(access, 1), expected);
    }
}

/// RFC 9068 2.2.1, RFC 7519 4.1.7: a refresh makes a new token of the same sign-in.
#[tokio::test]
async fn a_refreshed_access_token_differs_by_its_times_and_its_jti() {
    each_engine(async |app| {
        let first = app.alice().await;
        app.advance(TimeDelta::seconds(100));

        let second = app.refresh(&first.refresh).await.pair();

        let (before, mut after) = (claims(&first.access), claims(&second.access));
        assert_ne!(after["jti"], before["jti"]);
        assert_eq!(after["iat"], json!(before["iat"].as_i64().unwrap() + 100));
        assert_eq!(after["exp"], json!(before["exp"].as_i64().unwrap() + 100));
        for name in ["jti", "iat", "exp"] {
            after[name] = before[name].clone();
        }
        assert_eq!(after, before);
    })
    .await;
}

/// The subject is random and another one for each user; the row number is not it.
#[tokio::test]
async fn a_subject_is_random_and_stays() {
    each_engine(async |app| {
        let alice = claims(&app.alice().await.access);
        let again = claims(&app.sign_in("alice@example.com").await.access);
        app.register("bob@example.com").await;
        let bob = claims(&app.sign_in("bob@example.com").await.access);

        assert_eq!(again["sub"], alice["sub"]);
        assert_ne!(again["sid"], alice["sid"]);
        assert_ne!(bob["sub"], alice["sub"]);
    })
    .await;
}

/// The seed's refresh claims in the seed's order, then ours. RFC 8725 3.9: only the refresh endpoint is its audience.
#[tokio::test]
async fn a_refresh_token_holds_exactly_these_claims() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let refresh = &forge.pair.refresh;
        let (claims, now, issuer) = (claims(refresh), forge.app.now().timestamp(), &forge.app.issuer);
        let [sid, fam, sub] = ["sid", "fam", "sub"].map(|name| random_uuid(&claims[name]));
        let jti: Uuid = claims["jti"].as_str().unwrap().parse().unwrap();

        assert_eq!(part(refresh, 0), format!(r#"{{"alg":"RS256","typ":"refresh+jwt","kid":"{}"}}"#, forge.kid));
        let expected = format!(
            r#"{{"user_id":1,"type":"refresh","iat":{now},"exp":{exp},"sid":"{sid}","fam":"{fam}","jti":"{jti}","gen":0,"iss":"{issuer}","sub":"{sub}","aud":"{issuer}/auth_api/v1/auth/refresh"}}"#,
            exp = now + 14 * 24 * 3600
        );
        assert_eq!(part(refresh, 1), expected);
    }
}

/// The seed's bare profile, for verifiers that break on `aud`: exactly the seed's claims, and our own endpoints take them.
#[tokio::test]
async fn the_bare_profile_holds_the_seeds_claims_and_works() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::with(engine, &[("AUTHSERVICE__TOKENS__PROFILE", "seed")]).await;
        let access = &forge.pair.access;
        let (sid, now) = (random_uuid(&claims(access)["sid"]), forge.app.now().timestamp());

        let expected = format!(r#"{{"user_id":1,"type":"access","iat":{now},"exp":{},"sid":"{sid}"}}"#, now + 900);
        assert_eq!(part(access, 1), expected);
        let mut faults = forge.acceptances("bare", access).await;

        // What it has is still checked, and so is what it need not have.
        for (claim, json) in [
            ("iss", r#""https://other.example""#),
            ("aud", r#""https://other.example""#),
            ("sub", r#""5f2b3c1e-8c53-4c55-9c0e-0f3a1d2b4c5d""#),
            ("sub", "1"),
            ("exp", "null"),
            ("sid", "null"),
            ("user_id", r#""1""#),
        ] {
            let token = forge.access(mutated(access, claim, Some(json)));
            faults.extend(forge.refusals(&format!("{claim} {json}"), &token, INVALID).await);
        }
        forge.finish(faults).await;
        let (method, path) = ACCESS[2].clone();
        assert_eq!(forge.app.with_token(method, path, access).await.status, 204);
        assert_eq!(forge.app.me(access).await.status, 401);
    }
}

/// RFC 9068 4: a server of the standard profile takes no bare token.
#[tokio::test]
async fn the_standard_profile_takes_no_bare_token() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let mut claims = claims(&forge.pair.access);
        for name in ["iss", "sub", "aud", "jti", "client_id", "scope", "auth_time"] {
            claims.as_object_mut().unwrap().remove(name);
        }
        let faults = forge.refusals("bare", &forge.access(claims.to_string()), INVALID).await;
        forge.finish(faults).await;
    }
}

/// The seed's names for the claim and its values can be set, and then are the ones that count.
#[tokio::test]
async fn the_type_claim_can_be_renamed() {
    let settings = [("JWT_TYPE_FIELD", "kind"), ("JWT_ACCESS_TYPE", "a"), ("JWT_REFRESH_TYPE", "r")];
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::with(engine, &settings).await;
        assert_eq!(claims(&forge.pair.access)["kind"], "a");
        assert_eq!(claims(&forge.pair.refresh)["kind"], "r");
        assert!(claims(&forge.pair.access).get("type").is_none());
        let mut faults = forge.acceptances("renamed", &forge.pair.access).await;
        let other = forge.with_claim("kind", r#""r""#);
        faults.extend(forge.refusals("the other kind", &other, super::WRONG_KIND).await);
        forge.finish(faults).await;
    }
}

/// RFC 7518 3.1, RFC 8037 3.1: each algorithm with each form of refresh tokens that it allows, from sign-in to the JWK Set.
#[tokio::test]
async fn every_algorithm_works_end_to_end() {
    let rows = [
        ("RS256", "RSA", "jwt"),
        ("EdDSA", "OKP", "jwt"),
        ("EdDSA", "OKP", "opaque"),
        ("ES256", "EC", "opaque"),
        ("PS256", "RSA", "opaque"),
    ];
    for (algorithm, kind, format) in rows {
        let settings = [("AUTHSERVICE__KEYS__ALGORITHM", algorithm), ("AUTHSERVICE__REFRESH__FORMAT", format)];
        each_engine_with(&settings, async |app| {
            let first = app.alice().await;
            let jwk = app.get("/.well-known/jwks.json").await.json()["keys"][0].clone();

            let jwts = if format == "jwt" { vec![&first.access, &first.refresh] } else { vec![&first.access] };
            for token in jwts {
                assert_eq!(jwt_header(token)["alg"], algorithm);
                assert_eq!(jwt_header(token)["kid"], jwk["kid"]);
                assert!(is_signed_by(token, &jwk), "{algorithm}");
            }
            assert_eq!((&jwk["kty"], &jwk["alg"]), (&json!(kind), &json!(algorithm)));
            assert_eq!(app.me(&first.access).await.status, 200);
            let second = app.refresh(&first.refresh).await.pair();
            let retry = app.refresh(&first.refresh).await.pair();
            assert_eq!(retry.refresh, second.refresh, "a retry gets the same bytes");
            assert_eq!(app.me(&second.access).await.status, 200);
            assert_eq!(app.logout(&second.refresh).await.status, 204);
        })
        .await;
    }
}

/// RFC 7518 3.4 and 3.5: signatures that differ each time cannot be those of a refresh token whose retry gets the same bytes.
#[test]
fn an_algorithm_whose_signatures_vary_signs_no_refresh_token() {
    for algorithm in ["ES256", "PS256"] {
        let environment = [("AUTHSERVICE__KEYS__ALGORITHM".to_owned(), algorithm.to_owned())].into();
        let faults = authservice::config::Config::load(None, &environment).unwrap_err().0;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("keys.algorithm"), "{faults:?}");
    }
}

/// Verifies a signature with nothing but the JWK.
fn is_signed_by(token: &str, jwk: &Value) -> bool {
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let member = |name: &str| decode(jwk[name].as_str().unwrap());
    let number = |name: &str| BigNum::from_slice(&member(name)).unwrap();
    let (input, signature) = token.rsplit_once('.').unwrap();
    let (input, mut signature) = (input.as_bytes(), decode(signature));
    let (kind, algorithm) = (jwk["kty"].as_str().unwrap(), jwk["alg"].as_str().unwrap());
    let key = match kind {
        "OKP" => PKey::public_key_from_raw_bytes(&member("x"), Id::ED25519).unwrap(),
        "EC" => {
            let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
            let key = EcKey::from_public_key_affine_coordinates(&group, &number("x"), &number("y")).unwrap();
            // RFC 7518 3.4: two numbers of 32 bytes each, where OpenSSL has DER.
            let half = |range: std::ops::Range<usize>| BigNum::from_slice(&signature[range]).unwrap();
            signature = EcdsaSig::from_private_components(half(0..32), half(32..64)).unwrap().to_der().unwrap();
            PKey::from_ec_key(key).unwrap()
        }
        _ => PKey::from_rsa(Rsa::from_public_components(number("n"), number("e")).unwrap()).unwrap(),
    };
    let mut verifier = match kind {
        "OKP" => Verifier::new_without_digest(&key),
        _ => Verifier::new(MessageDigest::sha256(), &key),
    }
    .unwrap();
    if algorithm == "PS256" {
        verifier.set_rsa_padding(Padding::PKCS1_PSS).unwrap();
        verifier.set_rsa_pss_saltlen(RsaPssSaltlen::DIGEST_LENGTH).unwrap();
    }
    verifier.verify_oneshot(&signature, input).unwrap()
}

/// RFC 9700 2.2.1: no token outlives its session's absolute end, and the answer says how long it lives.
#[tokio::test]
async fn no_token_outlives_the_absolute_end() {
    each_engine_with(&[(ABSOLUTE, "1000"), (IDLE, "1000")], async |app| {
        let first = app.alice().await;
        let end = app.now().timestamp() + 1000;
        assert_eq!(claims(&first.access)["exp"], end - 100);
        assert_eq!(claims(&first.refresh)["exp"], end);

        app.advance(TimeDelta::seconds(600));
        let (second, expires_in) = refreshed(&app, &first).await;
        assert_eq!((expires_in, &claims(&second.access)["exp"]), (400, &json!(end)));
        assert_eq!(claims(&second.refresh)["exp"], end);

        app.advance(TimeDelta::seconds(399));
        let (third, expires_in) = refreshed(&app, &second).await;
        assert_eq!((expires_in, &claims(&third.access)["exp"]), (1, &json!(end)));
        assert_eq!(app.me(&third.access).await.status, 200);

        app.advance(TimeDelta::seconds(1));
        app.me(&third.access).await.refused(401, "token_expired");
        app.refresh(&third.refresh).await.refused(401, "token_expired");
    })
    .await;
}

async fn refreshed(app: &TestApp, pair: &Pair) -> (Pair, i64) {
    let answer = app.refresh(&pair.refresh).await;
    let expires_in = answer.json()["expires_in"].as_i64().unwrap();
    (answer.pair(), expires_in)
}
