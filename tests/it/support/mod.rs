//! A whole server in this process, on a real port, with a database of its own and a clock that stands still.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use authservice::app::App;
use authservice::clock::{self, Clock as _, TestClock};
use authservice::config::Config;
use authservice::db::Db;
use authservice::routes;
use authservice::web::listener::{self, Caps};
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::database::Database;

pub(crate) mod collector;
pub(crate) mod database;

/// Path prefix of the REST API.
pub(crate) const API: &str = "/auth_api/v1";
/// A good password.
pub(crate) const PASSWORD: &str = "Str0ng!Passw0rd";

/// Which database a test runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
}

/// Runs a test on both engines, each with a fresh server.
pub(crate) async fn each_engine(test: impl AsyncFn(TestApp)) {
    each_engine_with(&[], test).await;
}

/// Runs a test on both engines with settings, as environment names and values.
pub(crate) async fn each_engine_with(settings: &[(&str, &str)], test: impl AsyncFn(TestApp)) {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        eprintln!("engine: {engine:?}");
        test(TestApp::start(engine, settings).await).await;
    }
}

/// A running server and a client of it.
pub(crate) struct TestApp {
    /// `http://127.0.0.1:<port>`, which is also the issuer of the first replica.
    pub(crate) base: String,
    pub(crate) issuer: String,
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<TestClock>,
    /// The application behind the server: for what only an operator can do.
    pub(crate) app: Arc<App>,
    pub(crate) client: reqwest::Client,
    database: Arc<Database>,
    settings: Vec<(String, String)>,
    /// Database file and keys.
    directory: Arc<TempDir>,
    stop: watch::Sender<bool>,
}

impl Drop for TestApp {
    fn drop(&mut self) {
        let _ = self.stop.send(true);
    }
}

impl TestApp {
    /// Starts a server on an empty, migrated database.
    pub(crate) async fn start(engine: Engine, settings: &[(&str, &str)]) -> Self {
        let directory = Arc::new(TempDir::new().unwrap());
        let database = Arc::new(Database::create(engine, directory.path()).await);
        let settings = settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let clock = Arc::new(TestClock::new(clock::local()));
        Self::replica(engine, database, settings, directory, clock, None).await
    }

    /// Starts a server whose only signing key is `tests/keys/private.pem`, so that tests can sign tokens as it does.
    pub(crate) async fn start_with_known_key(engine: Engine, settings: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let keys = directory.path().join("keys");
        std::fs::create_dir(&keys).unwrap();
        copy_private(Path::new("tests/keys/private.pem"), &keys.join("private.pem"));
        let directory = Arc::new(directory);
        let database = Arc::new(Database::create(engine, directory.path()).await);
        let settings = settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let clock = Arc::new(TestClock::new(clock::local()));
        Self::replica(engine, database, settings, directory, clock, None).await
    }

    /// Starts a server on a database and keys that are there already; its clock stands at `now`.
    pub(crate) async fn on(
        engine: Engine,
        database: Database,
        directory: TempDir,
        settings: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Self {
        let settings = settings.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let clock = Arc::new(TestClock::new(now));
        Self::replica(engine, Arc::new(database), settings, Arc::new(directory), clock, None).await
    }

    /// Starts another replica: the same database, keys, clock and issuer, another port and other memory.
    pub(crate) async fn another_replica(&self) -> Self {
        self.another_replica_with(&[]).await
    }

    /// Starts another replica with settings of its own.
    pub(crate) async fn another_replica_with(&self, own: &[(&str, &str)]) -> Self {
        let (database, directory) = (Arc::clone(&self.database), Arc::clone(&self.directory));
        let (mut settings, clock) = (self.settings.clone(), Arc::clone(&self.clock));
        settings.extend(own.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())));
        Self::replica(self.engine, database, settings, directory, clock, Some(self.issuer.clone())).await
    }

    async fn replica(
        engine: Engine,
        database: Arc<Database>,
        settings: Vec<(String, String)>,
        directory: Arc<TempDir>,
        clock: Arc<TestClock>,
        issuer: Option<String>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let issuer = issuer.unwrap_or_else(|| base.clone());
        let mut environment: BTreeMap<String, String> = [
            ("DATABASE_URL", database.url.clone()),
            ("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "8".to_owned()),
            // Tests run beside each other, on machines that do other things too.
            ("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "10".to_owned()),
            ("AUTHSERVICE__DATABASE__STATEMENT_TIMEOUT_SECONDS", "10".to_owned()),
            ("AUTHSERVICE__SERVER__ISSUER", issuer.clone()),
            ("AUTHSERVICE__KEYS__DIRECTORY", directory.path().join("keys").display().to_string()),
            ("AUTHSERVICE__LIMITS__ENABLED", "false".to_owned()),
        ]
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text))
        .collect();
        environment.extend(settings.iter().cloned());
        let config = Config::load(None, &environment).unwrap();
        let db = Db::connect(&config.database).await.unwrap();
        migration::up(db.writer()).await.unwrap();
        without_outages(&db).await;
        let app = App::new(config, db, Arc::clone(&clock) as _).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let caps = Caps::new(&app.config.limits, &app.config.server);
        let front = Arc::new(routes::front(&app));
        tokio::spawn(listener::serve(listener, front, caps, stopped, Duration::from_secs(5)));
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { base, issuer, engine, clock, app, client, database, settings, directory, stop }
    }

    /// The time that the server sees.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    pub(crate) fn advance(&self, by: TimeDelta) {
        self.clock.advance(by);
    }

    /// The directory with `keys/` and, on SQLite, the database file.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A request to a path of the server (`/health/live`) or, without a leading slash, of the REST API (`auth/login`).
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{API}/{path}") };
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// A request with a bearer token and no body.
    pub(crate) async fn with_token(&self, method: Method, path: &str, token: &str) -> Answer {
        Answer::of(self.request(method, path).bearer_auth(token)).await
    }

    /// Registers a user with [`PASSWORD`].
    pub(crate) async fn register(&self, email: &str) -> Answer {
        let answer = self.post("users/register", &json!({"email": email, "password": PASSWORD})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer
    }

    /// Signs in with [`PASSWORD`].
    pub(crate) async fn sign_in(&self, email: &str) -> Pair {
        self.post("auth/login", &json!({"email": email, "password": PASSWORD})).await.pair()
    }

    /// Registers `alice@example.com` and signs her in.
    pub(crate) async fn alice(&self) -> Pair {
        self.register("alice@example.com").await;
        self.sign_in("alice@example.com").await
    }

    pub(crate) async fn refresh(&self, token: &str) -> Answer {
        self.with_token(Method::POST, "auth/refresh", token).await
    }

    pub(crate) async fn logout(&self, token: &str) -> Answer {
        self.with_token(Method::POST, "auth/logout", token).await
    }

    pub(crate) async fn me(&self, token: &str) -> Answer {
        self.with_token(Method::GET, "users/me", token).await
    }

    pub(crate) async fn sessions(&self, token: &str) -> Answer {
        self.with_token(Method::GET, "auth/sessions", token).await
    }

    /// Runs SQL by hand. No parameters: tests write literals that both engines read.
    pub(crate) async fn sql(&self, sql: &str) {
        use sea_orm::ConnectionTrait as _;
        self.app.db.writer().execute_unprepared(sql).await.unwrap();
    }

    /// The first column of the first row as a number.
    pub(crate) async fn count(&self, sql: &str) -> i64 {
        use sea_orm::{ConnectionTrait as _, Statement};
        let db = self.app.db.writer();
        let row = db.query_one_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        row.unwrap().try_get_by_index(0).unwrap()
    }
}

/// A clock that is moved by hand is no outage: nobody writes down when the service was seen. `flows/outage.rs` lifts this.
async fn without_outages(db: &Db) {
    use sea_orm::ConnectionTrait as _;
    let sql = if db.is_sqlite() {
        "CREATE TRIGGER IF NOT EXISTS no_outages BEFORE INSERT ON service_clock BEGIN SELECT RAISE(IGNORE); END"
    } else {
        "CREATE OR REPLACE FUNCTION no_outages() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE OR REPLACE TRIGGER no_outages BEFORE INSERT ON service_clock FOR EACH ROW EXECUTE FUNCTION no_outages()"
    };
    db.writer().execute_unprepared(sql).await.unwrap();
}

/// Both tokens of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) access: String,
    pub(crate) refresh: String,
}

/// A whole answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Self { status, headers, body: response.text().await.unwrap() }
    }

    /// The header as text; empty when absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// `error.code` of the body; empty when there is none.
    pub(crate) fn code(&self) -> String {
        serde_json::from_str::<Value>(&self.body)
            .ok()
            .and_then(|body| Some(body["error"]["code"].as_str()?.to_owned()))
            .unwrap_or_default()
    }

    /// Asserts 200 and takes the tokens.
    pub(crate) fn pair(&self) -> Pair {
        assert_eq!(self.status, 200, "{self:?}");
        let body = self.json();
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Pair { access: text("access_token"), refresh: text("refresh_token") }
    }

    /// Asserts a domain refusal: status, code, and the header that belongs to a 401.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16, code: &str) {
        assert_eq!((self.status, self.code().as_str()), (status, code), "{self:?}");
        assert_eq!(self.header("www-authenticate"), if status == 401 { "Bearer" } else { "" }, "{self:?}");
    }
}

/// The claims of a JWT, unverified.
pub(crate) fn claims(token: &str) -> Value {
    decoded(token, 1)
}

/// The header of a JWT, unverified.
pub(crate) fn jwt_header(token: &str) -> Value {
    decoded(token, 0)
}

fn decoded(token: &str, part: usize) -> Value {
    use base64::Engine as _;
    let segment = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(segment).unwrap()).unwrap()
}

/// Copies a file and makes it private: git keeps no such mode.
pub(crate) fn copy_private(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap();
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o600)).unwrap();
}
