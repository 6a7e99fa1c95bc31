//! The keys: what the world sees of them, what lies in their directory, how one succeeds another, and what stops the start.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authservice::app::{App, Error};
use authservice::clock::{self, Clock as _, TestClock};
use authservice::config::Config;
use authservice::db::Db;
use authservice::keys::{Management, Purpose};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use openssl::pkey::{HasPublic, PKey, PKeyRef, Private};
use openssl::rsa::Rsa;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::Expr};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::database::Database;
use crate::support::{Engine, TestApp};

mod directory;
mod discovery;
mod exchange;
mod jwks;
mod refused;
mod revocation;
mod ring;
mod rotation;
mod sealed;

/// A migrated database and a directory of keys, without a server.
struct Place {
    database: Database,
    /// Holds `keys/`, which is missing at first, and the database file.
    directory: TempDir,
    clock: TestClock,
}

impl Place {
    async fn new(engine: Engine) -> Self {
        eprintln!("engine: {engine:?}");
        let directory = TempDir::new().unwrap();
        let place = Self {
            database: Database::create(engine, directory.path()).await,
            directory,
            clock: TestClock::new(clock::local()),
        };
        migration::up(place.db().await.writer()).await.unwrap();
        place
    }

    fn keys(&self) -> PathBuf {
        self.directory.path().join("keys")
    }

    fn config(&self, settings: &[(&str, &str)]) -> Config {
        let keys = self.keys().display().to_string();
        let ours = [
            ("DATABASE_URL", self.database.url.as_str()),
            ("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "4"),
            ("AUTHSERVICE__KEYS__DIRECTORY", &keys),
        ];
        let environment = ours.iter().chain(settings);
        let environment = environment.map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        Config::load(None, &environment).unwrap()
    }

    async fn db(&self) -> Db {
        Db::connect(&self.config(&[]).database).await.unwrap()
    }

    /// What a start does as far as keys are concerned.
    async fn open(&self, settings: &[(&str, &str)]) -> Result<Arc<App>, Error> {
        let config = self.config(settings);
        let db = Db::connect(&config.database).await.unwrap();
        App::new(config, db, Arc::new(TestClock::new(self.clock.now()))).await
    }

    /// Why the start is refused.
    async fn refusal(&self, settings: &[(&str, &str)]) -> String {
        self.open(settings).await.err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// Every key of the ring, by kid.
    async fn rows(&self) -> Vec<authservice::entity::signing_key::Model> {
        let mut rows = authservice::entity::signing_key::Entity::find().all(self.db().await.reader()).await.unwrap();
        rows.sort_by(|a, b| a.kid.cmp(&b.kid));
        rows
    }

    /// Names, modes and contents of the files in the directory of keys.
    fn files(&self) -> Vec<(String, u32, Vec<u8>)> {
        let mut files: Vec<_> = std::fs::read_dir(self.keys())
            .into_iter()
            .flatten()
            .map(|entry| {
                let path = entry.unwrap().path();
                let mode = path.metadata().unwrap().permissions().mode() & 0o777;
                (path.file_name().unwrap().to_str().unwrap().to_owned(), mode, std::fs::read(&path).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    /// Puts a file into the directory of keys.
    fn put(&self, name: &str, content: impl AsRef<[u8]>, mode: u32) {
        std::fs::create_dir_all(self.keys()).unwrap();
        write(&self.keys().join(name), content, mode);
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(TimeDelta::seconds(seconds));
    }
}

/// The kids of the JWK Set that a server publishes.
async fn published(app: &TestApp) -> BTreeSet<String> {
    let set = app.get("/.well-known/jwks.json").await.json();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

/// What an operator has at hand beside a server.
fn operator(app: &App) -> Management {
    Management::new(app.db.clone(), &app.config).unwrap()
}

/// The kid of the key that makes tokens of a kind.
fn maker(app: &App, purpose: Purpose) -> String {
    let now = app.clock.now();
    match purpose {
        Purpose::Signing => app.keyring.signer(now).unwrap().kid.clone(),
        Purpose::Refresh => app.keyring.mac(now).unwrap().kid.clone(),
    }
}

/// Spoils the private half of a key.
async fn damage(db: &Db, kid: &str) {
    use authservice::entity::signing_key::{Column, Entity};
    let update = Entity::update_many().col_expr(Column::SealedPrivate, Expr::value(vec![1_u8; 60]));
    let done = update.filter(Column::Kid.eq(kid)).exec(db.writer()).await.unwrap();
    assert_eq!(done.rows_affected, 1);
}

fn write(path: &Path, content: impl AsRef<[u8]>, mode: u32) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A new RSA key of a good size.
fn rsa() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

/// The key that tests know.
fn known() -> PKey<Private> {
    PKey::private_key_from_pem(&std::fs::read("tests/keys/private.pem").unwrap()).unwrap()
}

/// RFC 7638 3: SHA-256 over the required members in their order.
fn thumbprint(jwk: &Value) -> String {
    let members: &[&str] = match jwk["kty"].as_str().unwrap() {
        "RSA" => &["e", "kty", "n"],
        "EC" => &["crv", "kty", "x", "y"],
        _ => &["crv", "kty", "x"],
    };
    let members: Vec<String> = members.iter().map(|name| format!("\"{name}\":{}", jwk[name])).collect();
    encode(openssl::sha::sha256(format!("{{{}}}", members.join(",")).as_bytes()))
}

/// The thumbprint of an RSA key.
fn kid(key: &PKeyRef<impl HasPublic>) -> String {
    let rsa = key.rsa().unwrap();
    let (n, e) = (encode(rsa.n().to_vec()), encode(rsa.e().to_vec()));
    thumbprint(&serde_json::json!({"kty": "RSA", "n": n, "e": e}))
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}
