//! Resource servers that are strangers to us verify our access tokens with nothing but the JWK Set: `PyJWT` and `jose`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use authservice::keys::{Management, Purpose, Succeeded};
use serde_json::Value;

use crate::support::{Engine, TestApp, claims, each_engine_with, jwt_header};

/// A library that verifies.
#[derive(Debug, Clone, Copy)]
enum Verifier {
    PyJwt,
    Jose,
}

/// What a verifier says: the claims, or why not.
type Verdict = Result<Value, String>;

impl Verifier {
    const ALL: [Self; 2] = [Self::PyJwt, Self::Jose];

    fn command(self) -> Command {
        let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/it/verifiers");
        let (program, script) = match self {
            Self::PyJwt => (setting("VERIFIER_PYTHON"), "verify.py"),
            Self::Jose => {
                setting("VERIFIER_NODE_DIR");
                ("node".to_owned(), "verify.mjs")
            }
        };
        let mut command = Command::new(program);
        // The server is on this machine, whatever proxy the environment names.
        command.arg(scripts.join(script)).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
        command
    }

    /// Runs beside the server, which must go on answering.
    async fn verify(self, app: &TestApp, audience: &str, algorithm: &str, token: &str) -> Verdict {
        let mut command = self.command();
        command.args([&format!("{}/.well-known/jwks.json", app.base), &app.issuer, audience, algorithm, token]);
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap();
        let output = output.unwrap_or_else(|error| panic!("{self:?} does not start: {error}"));
        let (words, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        match output.status.code() {
            Some(0) => Ok(serde_json::from_str(&words).unwrap()),
            // A script that breaks has refused nothing.
            Some(1) if !errors.contains("Traceback") && !errors.contains("    at ") => Err(errors),
            other => panic!("{self:?} broke with {other:?}: {errors}"),
        }
    }
}

/// These tests are never left out in silence.
fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with scripts/test.sh"))
}

/// RFC 9068 4, RFC 7517 5: a stranger finds the key by its kid and every claim in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_verify_an_access_token_with_the_jwk_set_alone() {
    for (algorithm, format) in [("RS256", "jwt"), ("EdDSA", "jwt"), ("ES256", "opaque"), ("PS256", "opaque")] {
        let settings = [("AUTHSERVICE__KEYS__ALGORITHM", algorithm), ("AUTHSERVICE__REFRESH__FORMAT", format)];
        let app = TestApp::start(Engine::Sqlite, &settings).await;
        let token = app.alice().await.access;
        for verifier in Verifier::ALL {
            let verdict = verifier.verify(&app, &app.issuer, algorithm, &token).await;
            assert_eq!(verdict, Ok(claims(&token)), "{verifier:?} with {algorithm}");
        }
    }
}

/// The same from the production database, for another audience than the issuer, after a refresh.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_verify_a_token_for_their_own_audience() {
    let audience = "https://api.example.com";
    each_engine_with(&[("AUTHSERVICE__TOKENS__AUDIENCE", audience)], async |app| {
        let first = app.alice().await;
        let token = app.refresh(&first.refresh).await.pair().access;
        for verifier in Verifier::ALL {
            let verdict = verifier.verify(&app, audience, "RS256", &token).await;
            assert_eq!(verdict, Ok(claims(&token)), "{verifier:?}");
            assert_eq!(verdict.unwrap()["aud"], audience);
        }
    })
    .await;
}

/// RFC 7517 4.5: across a rotation, strangers verify what either key signed, each by its kid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_verify_across_a_rotation() {
    let algorithm = [("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA")];
    let app = TestApp::start(Engine::Sqlite, &algorithm).await;
    let before = app.alice().await.access;
    let keys = Management::new(app.app.db.clone(), &app.app.config).unwrap();
    keys.rotate(Purpose::Signing, true, app.now()).await.unwrap();
    assert!(app.app.keyring.poll(app.now()).await);
    let after = app.sign_in("alice@example.com").await.access;
    assert_ne!(jwt_header(&before)["kid"], jwt_header(&after)["kid"]);
    for verifier in Verifier::ALL {
        for token in [&before, &after] {
            assert_eq!(verifier.verify(&app, &app.issuer, "EdDSA", token).await, Ok(claims(token)), "{verifier:?}");
        }
    }
}

/// RFC 7518 3.3 and 3.5: the largest RSA key that is accepted, brought by an operator, with each algorithm it may be used with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_verify_with_an_imported_key_of_4096_bits() {
    let key = openssl::rsa::Rsa::generate(4096).unwrap();
    for (algorithm, format) in [("RS256", "jwt"), ("PS256", "opaque")] {
        let settings = [("AUTHSERVICE__KEYS__ALGORITHM", algorithm), ("AUTHSERVICE__REFRESH__FORMAT", format)];
        let app = TestApp::start(Engine::Sqlite, &settings).await;
        let file = app.directory().join("large.pem");
        std::fs::write(&file, key.private_key_to_pem().unwrap()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let keys = Management::new(app.app.db.clone(), &app.app.config).unwrap();
        let imported = keys.import(&file, app.now()).await.unwrap();
        let Succeeded::By { kid, .. } = imported else { panic!("{imported:?}") };
        // Announced; strangers have clocks of their own, so it is hurried instead of waited for.
        keys.rotate(Purpose::Signing, true, app.now()).await.unwrap();
        assert!(app.app.keyring.poll(app.now()).await);

        let pair = app.alice().await;

        assert_eq!(jwt_header(&pair.access)["kid"], kid);
        let set = app.get("/.well-known/jwks.json").await.json();
        let published = set["keys"].as_array().unwrap().iter().find(|key| key["kid"] == kid).unwrap();
        assert_eq!(published["n"].as_str().unwrap().len(), 683, "512 bytes as base64url");
        for verifier in Verifier::ALL {
            let verdict = verifier.verify(&app, &app.issuer, algorithm, &pair.access).await;
            assert_eq!(verdict, Ok(claims(&pair.access)), "{verifier:?} with {algorithm}");
        }
        let next = app.refresh(&pair.refresh).await.pair();
        assert_eq!(app.me(&next.access).await.status, 200);
    }
}

/// RFC 8725 3.3, 3.9 and 3.11: a changed bit, another audience, another kind.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_refuse_what_is_not_an_access_token_for_them() {
    let app = TestApp::start(Engine::Sqlite, &[]).await;
    let pair = app.alice().await;
    let refresh_audience = claims(&pair.refresh)["aud"].as_str().unwrap().to_owned();
    let parts: Vec<&str> = pair.access.split('.').collect();
    let flipped = |part: usize| {
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        parts[part] = with_a_bit_flipped(&parts[part]);
        parts.join(".")
    };
    let rows = [
        ("a bit of the signature", app.issuer.clone(), flipped(2)),
        ("a bit of the payload", app.issuer.clone(), flipped(1)),
        ("another audience", "https://other.example".to_owned(), pair.access.clone()),
        ("a refresh token", app.issuer.clone(), pair.refresh.clone()),
        // Though the audience is right, the media type is not.
        ("a refresh token where it belongs", refresh_audience, pair.refresh.clone()),
    ];
    for verifier in Verifier::ALL {
        for (name, audience, token) in &rows {
            let verdict = verifier.verify(&app, audience, "RS256", token).await;
            assert!(verdict.is_err(), "{verifier:?} takes {name}: {verdict:?}");
        }
        let verdict = verifier.verify(&app, &app.issuer, "RS256", &pair.access).await;
        assert!(verdict.is_ok(), "{verifier:?}: {verdict:?}");
    }
}

/// The part with one bit of a byte in its middle changed: it still decodes.
fn with_a_bit_flipped(part: &str) -> String {
    use base64::Engine as _;
    let engine = base64::prelude::BASE64_URL_SAFE_NO_PAD;
    let mut bytes = engine.decode(part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    engine.encode(bytes)
}
