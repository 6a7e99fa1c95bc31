//! A server as the examples see it: behind a front that can be away and counts, with tokens of every sort.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use authservice::clock;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::sign::Signer;
use poem::http::StatusCode;
use poem::listener::{Acceptor as _, Listener as _, TcpListener};
use poem::{Body, IntoEndpoint, Request, Response, Server};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::{Engine, Pair, TestApp, claims, copy_private, jwt_header};

const JWKS: &str = "/.well-known/jwks.json";
const KEY: &str = "tests/keys/private.pem";
/// How long ago the server was started, by its own clock.
const AGE: TimeDelta = TimeDelta::seconds(2000);
/// How long ago the tokens were issued that are valid: before other keys were announced.
const ISSUED: TimeDelta = TimeDelta::seconds(400);
/// How long a key is announced before it is used: three times this are less than `ISSUED`.
const ANNOUNCED: TimeDelta = TimeDelta::seconds(100);

/// A server whose key tests know. Its clock begins in the past, so that a token can be past its end while the clock of the
/// examples, which nobody can move, shows the present.
pub(super) struct Issuer {
    app: TestApp,
    front: Arc<Front>,
    /// The address of the front, and `iss`.
    pub(super) url: String,
    pub(super) pair: Pair,
    expired: String,
}

/// What stands between the examples and the server.
#[derive(Default)]
struct Front {
    is_up: AtomicBool,
    readings: AtomicUsize,
}

impl Issuer {
    /// Starts a server that cannot be reached yet.
    pub(super) async fn start() -> Self {
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        copy_private(KEY.as_ref(), &directory.path().join("keys/private.pem"));
        let database = Database::create(Engine::Sqlite, directory.path()).await;
        let acceptor = TcpListener::bind("127.0.0.1:0").into_acceptor().await.unwrap();
        let url = format!("http://{}", acceptor.local_addr()[0].as_socket_addr().unwrap());
        // A new key signs a minute after its announcement.
        let settings =
            [("AUTHSERVICE__SERVER__ISSUER", url.as_str()), ("AUTHSERVICE__KEYS__JWKS_MAX_AGE_SECONDS", "0")];
        let app = TestApp::on(Engine::Sqlite, database, directory, &settings, clock::local() - AGE).await;
        let front = Arc::new(Front::default());
        serve(acceptor, app.base.clone(), Arc::clone(&front));

        let expired = app.alice().await.access;
        app.advance(AGE - ISSUED);
        let pair = app.sign_in("alice@example.com").await;
        Self { app, front, url, pair, expired }
    }

    pub(super) fn come_up(&self) {
        self.front.is_up.store(true, Ordering::SeqCst);
    }

    pub(super) fn go_down(&self) {
        self.front.is_up.store(false, Ordering::SeqCst);
    }

    /// How often the JWK Set was read.
    pub(super) fn readings(&self) -> usize {
        self.front.readings.load(Ordering::SeqCst)
    }

    /// A token signed by a key of this algorithm, which is announced only now.
    pub(super) async fn token_of_a_new_key(&self, algorithm: &str) -> String {
        // Refresh tokens that are JWTs do not go with signatures that differ each time.
        let settings = [("AUTHSERVICE__KEYS__ALGORITHM", algorithm), ("AUTHSERVICE__REFRESH__FORMAT", "opaque")];
        let replica = self.app.another_replica_with(&settings).await;
        self.app.advance(ANNOUNCED);
        let token = replica.sign_in("alice@example.com").await.access;
        let header = jwt_header(&token);
        assert_eq!(header["alg"], algorithm);
        // The ring is read once a second at most, so this may take one.
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.app.get(JWKS).await.body.contains(header["kid"].as_str().unwrap()) {
            assert!(Instant::now() < deadline, "the key is not published");
            self.app.app.keyring.reload(self.app.now()).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        token
    }

    /// Ends the session of [`Self::pair`].
    pub(super) async fn end_session(&self) {
        let answer = self.app.logout(&self.pair.refresh).await;
        assert_eq!(answer.status, 204, "{answer:?}");
    }

    /// What must be refused, each with its name. All but the last three would be valid but for one thing.
    pub(super) async fn forgeries(&self) -> Vec<(&'static str, String)> {
        let (header, good) = (jwt_header(&self.pair.access), claims(&self.pair.access));
        let typed = |typ: &str| signed(&changed(&header, "typ", &json!(typ)), &good);
        let claiming = |name: &str, value: Value| signed(&header, &changed(&good, name, &value));
        let mut parts: Vec<&str> = self.pair.access.split('.').collect();
        let flipped = flipped(parts[2]);
        parts[2] = &flipped;
        let stranger = TestApp::start(Engine::Sqlite, &[]).await.alice().await.access;
        vec![
            ("a bit of the signature is changed", parts.join(".")),
            ("the payload is another", [parts[0], &encode(&changed(&good, "sub", &json!("x"))), parts[2]].join(".")),
            ("a token of another server", stranger),
            ("another issuer", claiming("iss", json!("https://elsewhere.example"))),
            ("another audience", claiming("aud", json!("https://elsewhere.example"))),
            ("no audience", claiming("aud", Value::Null)),
            ("it has expired", self.expired.clone()),
            ("it never expires", claiming("exp", Value::Null)),
            ("a refresh token", self.pair.refresh.clone()),
            ("a refresh token, but for the claims", typed("refresh+jwt")),
            ("a JWT of no special kind", typed("JWT")),
            ("no typ", signed(&changed(&header, "typ", &Value::Null), &good)),
            ("alg none", format!("{}.{}.", encode(&changed(&header, "alg", &json!("none"))), encode(&good))),
            ("alg none, with a signature", {
                let input = format!("{}.{}", encode(&changed(&header, "alg", &json!("none"))), encode(&good));
                format!("{input}.{}", parts[2])
            }),
            ("HMAC with the public key", hmac_with_public_key(&header, &good)),
            ("no JWT", "x".to_owned()),
            ("three dots", "...".to_owned()),
        ]
    }

    /// As many good tokens as asked for, but for a kid that nobody knows.
    pub(super) fn unknown_kids(&self, count: usize) -> Vec<String> {
        let (header, good) = (jwt_header(&self.pair.access), claims(&self.pair.access));
        (0..count).map(|number| signed(&changed(&header, "kid", &json!(format!("x{number}"))), &good)).collect()
    }
}

/// Passes requests on to the server while it is up, and answers 503 while it is not.
fn serve(acceptor: impl poem::listener::Acceptor + 'static, base: String, front: Arc<Front>) {
    let client = reqwest::Client::new();
    let endpoint = poem::endpoint::make(move |request: Request| {
        let (client, base, front) = (client.clone(), base.clone(), Arc::clone(&front));
        async move { Ok::<_, poem::Error>(pass(&client, &base, &front, &request).await) }
    });
    tokio::spawn(Server::new_with_acceptor(acceptor).run(endpoint.into_endpoint()));
}

async fn pass(client: &reqwest::Client, base: &str, front: &Front, request: &Request) -> Response {
    if request.uri().path() == JWKS {
        front.readings.fetch_add(1, Ordering::SeqCst);
    }
    if !front.is_up.load(Ordering::SeqCst) {
        return StatusCode::SERVICE_UNAVAILABLE.into();
    }
    let mut headers = request.headers().clone();
    for own in ["host", "connection", "content-length"] {
        headers.remove(own);
    }
    let onward = client.request(request.method().clone(), format!("{base}{}", request.uri())).headers(headers);
    let answer = onward.send().await.unwrap();
    let mut response = Response::builder().status(answer.status());
    for name in ["content-type", "cache-control", "www-authenticate"] {
        if let Some(value) = answer.headers().get(name) {
            response = response.header(name, value.clone());
        }
    }
    response.body(Body::from_bytes(answer.bytes().await.unwrap()))
}

/// A token signed as the server does with its first key.
fn signed(header: &Value, payload: &Value) -> String {
    let key = PKey::private_key_from_pem(&std::fs::read(KEY).unwrap()).unwrap();
    let input = format!("{}.{}", encode(header), encode(payload));
    let mut signer = Signer::new(MessageDigest::sha256(), &key).unwrap();
    let signature = signer.sign_oneshot_to_vec(input.as_bytes()).unwrap();
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

/// RFC 8725 2.1: who verifies with whatever `alg` says takes the public key for a secret.
fn hmac_with_public_key(header: &Value, payload: &Value) -> String {
    let public = PKey::private_key_from_pem(&std::fs::read(KEY).unwrap()).unwrap().public_key_to_pem().unwrap();
    let input = format!("{}.{}", encode(&changed(header, "alg", &json!("HS256"))), encode(payload));
    let secret = PKey::hmac(&public).unwrap();
    let mut signer = Signer::new(MessageDigest::sha256(), &secret).unwrap();
    let signature = signer.sign_oneshot_to_vec(input.as_bytes()).unwrap();
    format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

fn encode(json: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(json.to_string())
}

/// With one member replaced, or absent when the value is null.
fn changed(object: &Value, name: &str, value: &Value) -> Value {
    let mut object = object.as_object().unwrap().clone();
    match value {
        Value::Null => object.remove(name),
        value => object.insert(name.to_owned(), value.clone()),
    };
    Value::Object(object)
}

/// A part with one bit of the byte in its middle changed.
fn flipped(part: &str) -> String {
    let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
