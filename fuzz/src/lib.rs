//! What the fuzz targets share: a whole server without a socket, and what every answer must be.
//!
//! The targets use what the crate shows to everybody; nothing is opened for them.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};

use authservice::app::App;
use authservice::clock::{Clock as _, TestClock};
use authservice::config::Config;
use authservice::db::Db;
use authservice::keys::Keyring;
use authservice::routes;
use authservice::tokens::Tokens;
use authservice::web::front::Front;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use poem::http::{self, HeaderName, HeaderValue};
use poem::web::{LocalAddr, RemoteAddr};
use poem::{Addr, Body, Request, RequestParts};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The seconds since 1970 at which every clock stands.
const NOW: i64 = 1_800_000_000;

/// A server on a database of its own, whose key the targets know.
pub struct Server {
    runtime: Runtime,
    front: Front,
    /// What reads tokens that are JWTs, and those that are not.
    pub jwt: Tokens,
    pub opaque: Tokens,
    keyring: Arc<Keyring>,
    key: PKey<Private>,
    clock: Arc<TestClock>,
    _directory: TempDir,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// The server, started when it is first asked for.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

impl Server {
    fn start() -> Self {
        let directory = TempDir::new().expect("a folder");
        let key = PKey::generate_ed25519().expect("a key");
        let pem = directory.path().join("private.pem");
        std::fs::write(&pem, key.private_key_to_pem_pkcs8().expect("PEM")).expect("written");
        make_private(&pem);
        let text = |path: &std::path::Path| path.display().to_string();
        let mut environment = BTreeMap::from(
            [
                ("DATABASE_URL", format!("sqlite://{}/fuzz.db?mode=rwc", text(directory.path()))),
                ("AUTHSERVICE__SERVER__ISSUER", "https://auth.example.com".to_owned()),
                ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "10.0.0.0/8".to_owned()),
                ("AUTHSERVICE__KEYS__DIRECTORY", text(directory.path())),
                // It signs and verifies fastest.
                ("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA".to_owned()),
                ("AUTHSERVICE__LIMITS__ENABLED", "false".to_owned()),
            ]
            .map(|(name, value)| (name.to_owned(), value)),
        );
        let config = Config::load(None, &environment).expect("a configuration");
        environment.insert("AUTHSERVICE__REFRESH__FORMAT".to_owned(), "opaque".to_owned());
        let other = Config::load(None, &environment).expect("a configuration");
        let clock = Arc::new(TestClock::new(DateTime::from_timestamp(NOW, 0).expect("a time")));
        // One thread: an input is done when its answer is there.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let app = runtime.block_on(async {
            let db = Db::connect(&config.database).await.expect("a database");
            migration::up(db.writer()).await.expect("migrated");
            App::new(config.clone(), db, Arc::clone(&clock) as _).await.expect("an application")
        });
        let keyring = Arc::clone(&app.keyring);
        Self {
            front: routes::front(&app),
            jwt: Tokens::new(Arc::clone(&keyring), &config),
            opaque: Tokens::new(Arc::clone(&keyring), &other),
            runtime,
            keyring,
            key,
            clock,
            _directory: directory,
        }
    }

    pub fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Signs any payload as the server does.
    pub fn sign(&self, typ: &str, payload: &[u8]) -> String {
        let kid = &self.keyring.signer(self.now()).expect("a signer").kid;
        let header = format!(r#"{{"alg":"EdDSA","typ":"{typ}","kid":"{kid}"}}"#);
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let input = format!("{}.{}", encode(header.as_bytes()), encode(payload));
        let signature = Signer::new_without_digest(&self.key)
            .and_then(|mut signer| signer.sign_oneshot_to_vec(input.as_bytes()))
            .expect("signed");
        format!("{input}.{}", encode(&signature))
    }

    /// Sends a request, if HTTP can hold it. A panic of a handler is seen by the fuzzer before the server makes an answer of it.
    pub fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &[u8])],
        peer: IpAddr,
        body: &[u8],
    ) -> Option<Answer> {
        let mut request = http::Request::builder().method(method).uri(target).header("host", "auth.example.com");
        for (name, value) in headers {
            let name: HeaderName = name.parse().ok()?;
            request = request.header(name, HeaderValue::from_bytes(value).ok()?);
        }
        let (parts, ()) = request.body(()).ok()?.into_parts();
        let peer = RemoteAddr(Addr::SocketAddr(SocketAddr::new(peer, 50_000)));
        let parts = RequestParts::from((parts, LocalAddr::default(), peer, http::uri::Scheme::HTTP));
        let request = Request::from_parts(parts, Body::from(body.to_vec()));
        let answer = self.wait(async {
            let response = self.front.answer(request).await;
            let status = response.status().as_u16();
            assert!(response.headers().contains_key("x-request-id"), "no id");
            assert_eq!(response.headers()["x-content-type-options"], "nosniff");
            Answer { status, body: response.into_body().into_string().await.expect("text") }
        });
        assert!(answer.status < 500, "{} {}", answer.status, answer.body);
        Some(answer)
    }
}

impl Answer {
    /// Refusals are JSON of two shapes and tell nothing of the inside.
    pub fn check(&self) {
        if self.status >= 400 {
            let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
            assert!(body["error"]["code"].is_string() || !body["detail"].is_null(), "{body}");
        }
        for word in ["panicked", "/src/", "sqlx", "SELECT"] {
            assert!(!self.body.contains(word), "{}", self.body);
        }
    }
}

fn make_private(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("private");
}
