//! One struct per section of the configuration. The meaning of each field is written beside its default in
//! `config/default.toml`, which a test keeps equal to these structs.
#![expect(missing_docs, reason = "config/default.toml documents every field; twice would be once too many")]

use std::path::PathBuf;

use ipnet::IpNet;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

/// `[server]`
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    pub host: String,
    pub port: u16,
    pub issuer: String,
    pub allow_http_issuer: bool,
    pub api_prefix: String,
    #[serde(deserialize_with = "super::networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub drain_seconds: u64,
    pub shutdown_seconds: u64,
}

/// `[admin]`
#[derive(Debug, Clone, Deserialize)]
pub struct Admin {
    pub enabled: bool,
    pub host: String,
    pub port: u16,
}

/// `[database]`
#[derive(Debug, Clone, Deserialize)]
pub struct Database {
    pub url: SecretString,
    pub max_connections: u32,
    pub acquire_timeout_seconds: u64,
    pub statement_timeout_seconds: u64,
    pub connect_timeout_seconds: u64,
    pub allow_data_loss: bool,
    pub transaction_pooling: bool,
}

/// `[tokens]`
#[derive(Debug, Clone, Deserialize)]
pub struct Tokens {
    pub access_ttl_seconds: i64,
    pub audience: String,
    pub client_id: String,
    pub scope: String,
    pub leeway_seconds: i64,
    pub profile: Profile,
    pub type_claim: String,
    pub access_type: String,
    pub refresh_type: String,
}

/// Which claims an access token carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// RFC 9068 claims beside the seed's.
    Standard,
    /// The seed's claims only.
    Seed,
}

/// `[refresh]`
#[derive(Debug, Clone, Deserialize)]
pub struct Refresh {
    pub format: RefreshFormat,
    pub retry_window_seconds: i64,
    pub retry_context_mismatch: ContextMismatch,
    pub idle_ttl_seconds: i64,
    pub absolute_ttl_seconds: i64,
    pub max_sessions_per_user: u64,
}

/// Form of new refresh tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshFormat {
    /// A signed JWT with the seed's claims.
    Jwt,
    /// A short random-looking text of fixed length.
    Opaque,
}

/// What a retry from another address or user agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContextMismatch {
    /// Answered, with an audit event.
    Audit,
    /// Theft: the session ends.
    Theft,
}

/// `[passwords]`
#[derive(Debug, Clone, Deserialize)]
pub struct Passwords {
    pub memory_kib: u32,
    pub iterations: u32,
    pub parallelism: u32,
    pub max_concurrent: usize,
    pub queue: usize,
    pub queue_timeout_seconds: u64,
}

/// `[keys]`
#[derive(Debug, Clone, Deserialize)]
pub struct Keys {
    pub directory: PathBuf,
    pub encryption_key: SecretString,
    pub previous_encryption_key: SecretString,
    pub private_key_path: PathBuf,
    pub public_key_path: PathBuf,
    pub algorithm: Algorithm,
    pub rsa_bits: u32,
    pub jwks_max_age_seconds: u64,
    pub rotate_after_seconds: i64,
    pub announce_seconds: i64,
    pub retain_seconds: i64,
}

/// A JWS algorithm (RFC 7518 3.1, RFC 8037 3.1) that access tokens may be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    RS256,
    PS256,
    ES256,
    #[serde(rename = "EdDSA")]
    EdDSA,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
pub struct Limits {
    pub enabled: bool,
    pub connections_per_address: usize,
    pub connections: usize,
    pub refreshes_per_minute: u32,
    pub sign_in_failures_per_account_per_day: u32,
    pub sign_in_failures_per_address_per_hour: u32,
    pub known_address_days: u32,
    pub registrations_per_address_per_hour: u32,
    pub sign_ins_per_second: u32,
}

/// `[cleanup]`
#[derive(Debug, Clone, Deserialize)]
pub struct Cleanup {
    pub interval_seconds: u64,
    pub retention_days: i64,
}

/// `[audit]`
#[derive(Debug, Clone, Deserialize)]
pub struct Audit {
    pub retention_days: i64,
}

/// `[log]`
#[derive(Debug, Clone, Deserialize)]
pub struct Log {
    pub level: String,
    pub format: LogFormat,
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// `[traces]`
#[derive(Debug, Clone, Deserialize)]
pub struct Traces {
    pub endpoint: String,
    pub headers: SecretString,
    pub service_name: String,
    pub resource_attributes: Vec<String>,
    pub sample_ratio: f64,
    pub timeout_seconds: u64,
}

impl Server {
    /// The issuer with its default filled in: what stands in `iss`.
    #[must_use]
    pub fn issuer(&self) -> String {
        if self.issuer.is_empty() { format!("http://localhost:{}", self.port) } else { self.issuer.clone() }
    }

    /// True when clients reach the server by TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        Url::parse(&self.issuer()).is_ok_and(|issuer| issuer.scheme() == "https")
    }
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 4] = [Self::RS256, Self::PS256, Self::ES256, Self::EdDSA];

    /// The name in a JWS header.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    /// True when signing the same input twice gives the same bytes, which a refresh JWT needs: a retry is byte-equal.
    #[must_use]
    pub fn is_deterministic(self) -> bool {
        matches!(self, Self::RS256 | Self::EdDSA)
    }
}
