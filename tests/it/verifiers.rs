//! Resource servers that are strangers to us verify our access tokens with nothing but the JWK Set: `PyJWT` and `jose`.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::support::{Engine, TestApp, claims, each_engine_with};

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
