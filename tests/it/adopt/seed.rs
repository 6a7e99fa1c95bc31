//! A database of the FastAPI service with users and sessions, and tokens as that service signed them.

use std::path::Path;

use authservice::clock;
use authservice::config::Config;
use authservice::db::Db;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use openssl::hash::MessageDigest;
use openssl::pkey::{PKey, Private};
use openssl::sign::Signer;
use sea_orm::ConnectionTrait as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::copy_private;
use crate::support::database::Database;

pub(super) const KEY: &str = "tests/keys/private.pem";

/// The old service's database, and a directory with its key.
pub(super) struct Seed {
    pub(super) database: Database,
    pub(super) directory: TempDir,
    pub(super) now: DateTime<Utc>,
    key: PKey<Private>,
}

/// A sign-in at the old service: its tokens and their ids.
#[derive(Clone)]
pub(super) struct SignIn {
    pub(super) user_id: i64,
    pub(super) sid: Uuid,
    pub(super) fam: Uuid,
    pub(super) access: String,
    pub(super) refresh: String,
}

impl Seed {
    pub(super) async fn create() -> Self {
        let database = Database::create_bare().await;
        let directory = TempDir::new().unwrap();
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        copy_private(Path::new(KEY), &directory.path().join("keys/private.pem"));
        let key = PKey::private_key_from_pem(&std::fs::read(KEY).unwrap()).unwrap();
        let seed = Self { database, directory, now: clock::local(), key };
        seed.sql(include_str!("seed.sql")).await;
        seed
    }

    pub(super) fn config(&self) -> Config {
        let pairs = [
            ("DATABASE_URL", self.database.url.clone()),
            ("AUTHSERVICE__KEYS__DIRECTORY", self.directory.path().join("keys").display().to_string()),
        ];
        Config::load(None, &pairs.into_iter().map(|(name, text)| (name.to_owned(), text)).collect()).unwrap()
    }

    pub(super) async fn db(&self) -> Db {
        Db::connect(&self.config().database).await.unwrap()
    }

    pub(super) async fn sql(&self, sql: &str) {
        let db = self.db().await;
        db.writer().execute_unprepared(sql).await.unwrap();
        db.close().await;
    }

    pub(super) async fn user(&self, id: i64, email: &str, hashed_password: &str) {
        self.sql(&format!(
            "INSERT INTO users (id, email, hashed_password) VALUES ({id}, '{email}', '{hashed_password}')"
        ))
        .await;
    }

    /// Signs claims as the old service did: `typ: JWT`, no `kid`.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let input = format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "JWT"})), encode(claims));
        let mut signer = Signer::new(MessageDigest::sha256(), &self.key).unwrap();
        let signature = signer.sign_oneshot_to_vec(input.as_bytes()).unwrap();
        format!("{input}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }

    /// Opens a session `ago`, as sign-in did.
    pub(super) async fn sign_in(&self, user_id: i64, number: u128, ago: TimeDelta) -> SignIn {
        let (sid, fam) = (Uuid::from_u128(number << 8), Uuid::from_u128((number << 8) + 1));
        let at = self.now - ago;
        let ip = if number.is_multiple_of(2) { "'203.0.113.7'" } else { "NULL" };
        self.sql(&format!(
            "INSERT INTO authsessions (user_id, session_id, user_agent, ip_address, last_seen_at, created_at) \
             VALUES ({user_id}, '{sid}', 'Old/1.0', {ip}, '{at}', '{at}')",
            at = at.to_rfc3339()
        ))
        .await;
        self.tokens(user_id, sid, fam, number, at).await
    }

    /// Rotates, as the old service did: the old row is used, a new one is there.
    pub(super) async fn rotate(&self, old: &SignIn, number: u128, ago: TimeDelta) -> SignIn {
        let at = self.now - ago;
        self.sql(&format!(
            "UPDATE refreshtokens SET used_at = '{}', revoked_reason = 'ROTATED' WHERE family_id = '{}' AND used_at IS NULL",
            at.to_rfc3339(),
            old.fam
        ))
        .await;
        self.tokens(old.user_id, old.sid, old.fam, number, at).await
    }

    async fn tokens(&self, user_id: i64, sid: Uuid, fam: Uuid, number: u128, at: DateTime<Utc>) -> SignIn {
        let (iat, jti) = (at.timestamp(), Uuid::from_u128((number << 8) + 2));
        let expires_at = at + TimeDelta::days(14);
        let access = self.sign(&json!({
            "user_id": user_id, "type": "access", "iat": iat, "exp": iat + 900, "sid": sid,
        }));
        let refresh = self.sign(&json!({
            "user_id": user_id, "type": "refresh", "iat": iat, "exp": expires_at.timestamp(), "sid": sid, "fam": fam, "jti": jti,
        }));
        let hash: String = openssl::sha::sha256(refresh.as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .concat();
        self.sql(&format!(
            "INSERT INTO refreshtokens (user_id, jti, family_id, session_id, token_hash, issued_at, expires_at) \
             VALUES ({user_id}, '{jti}', '{fam}', '{sid}', '{hash}', '{}', '{}')",
            at.to_rfc3339(),
            expires_at.to_rfc3339()
        ))
        .await;
        SignIn { user_id, sid, fam, access, refresh }
    }
}
