//! How one key succeeds another, without a restart of verifiers and without a message between replicas.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use authservice::app::App;
use chrono::TimeDelta;
use openssl::hash::MessageDigest;
use openssl::sign::Signer;
use serde_json::Value;

use super::{Place, encode, kid, known, published, rsa, write};
use crate::support::{Engine, TestApp, claims, jwt_header};

/// Two readings of the set by a verifier that caches it for its max-age of 300 s, and a minute.
const ANNOUNCED: i64 = 2 * 300 + 60;
/// The last access token of 900 s, and two minutes for clocks that differ.
const PUBLISHED: i64 = 900 + 120;
/// The last refresh token, and two minutes.
const RETAINED: i64 = 180 * 24 * 3600 + 120;

fn kids(kids: &[&String]) -> BTreeSet<String> {
    kids.iter().map(|kid| (*kid).clone()).collect()
}

/// RFC 7517 4.5: announced, signing, retained, gone, each at its second on every replica.
#[tokio::test]
async fn a_key_that_is_added_is_announced_and_then_succeeds() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        eprintln!("engine: {engine:?}");
        let old = TestApp::start_with_known_key(engine, &[]).await;
        old.alice().await;
        let key = rsa();
        let (a, b) = (kid(&known()), kid(&key));
        write(&old.directory().join("keys/next.pem"), key.private_key_to_pem_pkcs8().unwrap(), 0o600);
        let etag = old.get("/.well-known/jwks.json").await.header("etag").to_owned();

        // Announced: published, not signing.
        let new = old.another_replica().await;
        assert_eq!(published(&new).await, kids(&[&a, &b]));
        let waiting = new.sign_in("alice@example.com").await;
        assert_eq!(jwt_header(&waiting.access)["kid"], a);
        // The other replica hears of it when it reads the ring anew.
        old.app.keyring.reload(old.now()).await;
        assert_eq!(published(&old).await, kids(&[&a, &b]));
        assert_ne!(old.get("/.well-known/jwks.json").await.header("etag"), etag);
        // A restart with the same files changes nothing.
        let third = old.another_replica().await;
        assert_eq!(third.count("SELECT COUNT(*) FROM signing_keys WHERE purpose = 'signing'").await, 2);

        old.advance(TimeDelta::seconds(ANNOUNCED - 1));
        let last = old.sign_in("alice@example.com").await;
        assert_eq!(jwt_header(&last.access)["kid"], a);

        // Signing: the same second everywhere, and what the old key signed is as good as before.
        old.advance(TimeDelta::seconds(1));
        for replica in [&old, &new, &third] {
            let pair = replica.sign_in("alice@example.com").await;
            assert_eq!(
                (&jwt_header(&pair.access)["kid"], &jwt_header(&pair.refresh)["kid"]),
                (&b.as_str().into(), &b.as_str().into())
            );
            for other in [&old, &new, &third] {
                assert_eq!(other.me(&pair.access).await.status, 200);
                assert_eq!(other.me(&last.access).await.status, 200);
            }
        }
        old.advance(TimeDelta::seconds(898));
        assert_eq!(new.me(&last.access).await.status, 200);

        // Retained: published until the last access token is dead, kept for refresh tokens.
        old.advance(TimeDelta::seconds(PUBLISHED - 898 - 1));
        assert_eq!(published(&old).await, kids(&[&a, &b]));
        old.advance(TimeDelta::seconds(1));
        for replica in [&old, &new, &third] {
            assert_eq!(published(replica).await, kids(&[&b]));
        }
        let next = new.refresh(&last.refresh).await.pair();
        assert_eq!(jwt_header(&next.refresh)["kid"], b);

        // Gone: not even a well-signed token counts any more (RFC 8725 3.10).
        old.advance(TimeDelta::seconds(RETAINED - PUBLISHED - 1));
        let pair = old.sign_in("alice@example.com").await;
        let forged = resigned(&pair.access, &a);
        for replica in [&old, &new] {
            assert_eq!(replica.me(&forged).await.status, 200);
        }
        old.advance(TimeDelta::seconds(1));
        for replica in [&old, &new] {
            replica.me(&forged).await.refused(401, "invalid_token");
            assert_eq!(replica.me(&pair.access).await.status, 200);
        }
    }
}

/// The claims of a token under the known key.
fn resigned(token: &str, kid: &str) -> String {
    let header = encode(format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":"{kid}"}}"#));
    let input = format!("{header}.{}", token.split('.').nth(1).unwrap());
    let mut signer = Signer::new(MessageDigest::sha256(), &known()).unwrap();
    let signature = encode(signer.sign_oneshot_to_vec(input.as_bytes()).unwrap());
    format!("{input}.{signature}")
}

/// A replica that has not heard of a key asks the database when it meets the kid: no token of another replica is refused.
#[tokio::test]
async fn a_replica_asks_for_a_kid_that_it_does_not_know() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let old = TestApp::start_with_known_key(engine, &[]).await;
        old.alice().await;
        write(&old.directory().join("keys/next.pem"), rsa().private_key_to_pem_pkcs8().unwrap(), 0o600);
        let new = old.another_replica().await;
        old.advance(TimeDelta::seconds(ANNOUNCED));

        let pair = new.sign_in("alice@example.com").await;

        assert_ne!(jwt_header(&pair.access)["kid"], kid(&known()));
        assert_eq!(old.me(&pair.access).await.status, 200);
        assert_eq!(claims(&old.refresh(&pair.refresh).await.pair().refresh)["gen"], 1);
    }
}

/// The longer a verifier may cache the set, the longer a key is announced.
#[tokio::test]
async fn the_announcement_follows_the_max_age() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let settings = [("AUTHSERVICE__KEYS__JWKS_MAX_AGE_SECONDS", "3600")];
        let first = signer(&place.open(&settings).await.unwrap());
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        place.open(&settings).await.unwrap();

        place.advance(2 * 3600 + 59);
        assert_eq!(signer(&place.open(&settings).await.unwrap()), first);
        place.advance(1);
        assert_eq!(signer(&place.open(&settings).await.unwrap()), ("RS256".to_owned(), kid(&known())));
    }
}

/// Another algorithm by setting is another key: announced first, like any other.
#[tokio::test]
async fn another_algorithm_is_announced_too() {
    let settings =
        |algorithm| [("AUTHSERVICE__KEYS__ALGORITHM", algorithm), ("AUTHSERVICE__REFRESH__FORMAT", "opaque")];
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let mut before = signer(&place.open(&[]).await.unwrap());
        for algorithm in ["EdDSA", "ES256", "PS256", "RS256"] {
            let app = place.open(&settings(algorithm)).await.unwrap();
            assert_eq!(signer(&app), before, "{algorithm} is announced");
            let algorithms = set(&app).await;
            assert!(algorithms.contains(&algorithm.to_owned()), "{algorithms:?}");
            let count = place.rows().await.len();
            place.open(&settings(algorithm)).await.unwrap();
            assert_eq!(place.rows().await.len(), count, "a second start adds nothing");

            place.advance(ANNOUNCED);
            let now = signer(&place.open(&settings(algorithm)).await.unwrap());
            assert_eq!(now.0, algorithm);
            before = now;
        }
    }
}

fn signer(app: &App) -> (String, String) {
    let key = app.keyring.signer(app.clock.now()).unwrap();
    (key.algorithm.name().to_owned(), key.kid.clone())
}

/// The algorithms of the JWK Set.
async fn set(app: &App) -> Vec<String> {
    let set: Value = serde_json::from_slice(&app.keyring.jwk_set(app.clock.now()).await).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["alg"].as_str().unwrap().to_owned()).collect()
}

/// One key after the other: while one is announced, another waits for a later start and nothing is lost.
#[tokio::test]
async fn a_second_key_waits_until_the_first_signs() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let (second, third) = (known(), rsa());
        place.open(&[]).await.unwrap();
        place.put("second.pem", second.private_key_to_pem_pkcs8().unwrap(), 0o600);
        place.open(&[]).await.unwrap();
        place.put("third.pem", third.private_key_to_pem_pkcs8().unwrap(), 0o600);

        let waiting = place.open(&[]).await.unwrap();
        assert_eq!(set(&waiting).await.len(), 2);
        place.advance(ANNOUNCED);
        let announced = place.open(&[]).await.unwrap();
        assert_eq!(signer(&announced).1, kid(&second));
        place.advance(ANNOUNCED);
        assert_eq!(signer(&place.open(&[]).await.unwrap()).1, kid(&third));
    }
}

/// Two new keys at once: which one shall succeed is the operator's choice.
#[tokio::test]
async fn two_new_keys_at_once_are_refused() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.put("one.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        place.put("two.pem", rsa().private_key_to_pem_pkcs8().unwrap(), 0o600);
        let files = place.files();

        let refusal = place.refusal(&[]).await;

        assert!(refusal.contains("one.pem") && refusal.contains("two.pem"), "{refusal}");
        assert_eq!(place.files(), files);
        assert!(place.rows().await.is_empty());
    }
}

/// Replicas that start at once on an empty ring agree on one key, though each of them finds none at first.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_start_at_once_make_one_key() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for round in 0..4 {
            let place = Arc::new(Place::new(engine).await);
            let starts: Vec<_> = (0..6)
                .map(|_| {
                    let place = Arc::clone(&place);
                    tokio::spawn(async move { place.open(&[("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA")]).await })
                })
                .collect();
            let mut signers = BTreeSet::new();
            for start in starts {
                let app = start.await.unwrap().unwrap_or_else(|error| panic!("round {round}: {error}"));
                signers.insert(signer(&app));
            }

            assert_eq!(signers.len(), 1, "round {round}: {signers:?}");
            let purposes: Vec<String> = place.rows().await.into_iter().map(|row| row.purpose).collect();
            assert_eq!(purposes.len(), 2, "round {round}: {purposes:?}");
            assert_eq!(place.files().len(), 1, "round {round}: no draft is left");
        }
    }
}

/// Replicas that import the same new key at once announce it once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn replicas_that_import_at_once_announce_one_key() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Arc::new(Place::new(engine).await);
        let before = signer(&place.open(&[]).await.unwrap());
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        let starts: Vec<_> = (0..6)
            .map(|_| {
                let place = Arc::clone(&place);
                tokio::spawn(async move { place.open(&[]).await.unwrap() })
            })
            .collect();
        for start in starts {
            let app = start.await.unwrap();
            assert_eq!(signer(&app), before);
            assert_eq!(set(&app).await.len(), 2);
        }
        assert_eq!(place.rows().await.iter().filter(|row| row.purpose == "signing").count(), 2);
        place.advance(ANNOUNCED);
        assert_eq!(signer(&place.open(&[]).await.unwrap()).1, kid(&known()));
    }
}

/// A replica whose clock is a little behind the one that made the first keys uses them and changes nothing.
#[tokio::test]
async fn a_clock_that_is_a_little_behind_changes_nothing() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let first = signer(&place.open(&[]).await.unwrap());
        let rows = place.rows().await;
        place.advance(-5);

        let app = place.open(&[]).await.unwrap();
        app.keyring.upkeep(app.clock.now()).await.unwrap();

        assert_eq!((signer(&app), place.rows().await), (first, rows));
    }
}

/// A row that cannot be opened is left out; the others work on.
#[tokio::test]
async fn a_damaged_row_does_not_stop_the_others() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let app = TestApp::start_with_known_key(engine, &[]).await;
        let pair = app.alice().await;
        write(Path::new(&app.directory().join("keys/next.pem")), rsa().private_key_to_pem_pkcs8().unwrap(), 0o600);
        let new = app.another_replica().await;
        assert_eq!(published(&new).await.len(), 2);
        app.sql("UPDATE signing_keys SET sealed_private = public_jwk_bytes FROM (SELECT sealed_private AS public_jwk_bytes FROM signing_keys WHERE purpose = 'refresh') AS other WHERE purpose = 'signing' AND retained_at IS NULL")
            .await;

        let third = app.another_replica().await;

        assert_eq!(published(&third).await, kids(&[&kid(&known())]));
        assert_eq!(third.me(&pair.access).await.status, 200);
    }
}
