//! Configuration: the embedded defaults, then a file, then the environment; every fault is found before anything starts.
//!
//! `config/default.toml` is the schema: a key that is not in it is unknown, and the type of its default is its type. Faults never
//! quote a value, which might be a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Deserializer};
use toml::{Table, Value};
use url::Url;

mod hosts;
mod legacy;
mod sections;
mod traces;
mod validate;

pub(crate) use traces::{headers, pair};
pub(crate) use validate::{encryption_key, keys_announced_for};

pub(crate) use hosts::each_host;
pub use sections::{
    Admin, Algorithm, Audit, Cleanup, ContextMismatch, Database, Keys, Limits, Log, LogFormat, Passwords, Profile,
    Refresh, RefreshFormat, Server, Tokens, Traces,
};

/// Every setting, its default and its meaning.
pub const DEFAULTS: &str = include_str!("../../config/default.toml");
const PREFIX: &str = "AUTHSERVICE__";
/// Settings that are never shown and may be given as a file.
const SECRETS: [&str; 4] = ["database.url", "keys.encryption_key", "keys.previous_encryption_key", "traces.headers"];

/// The effective configuration.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "config/default.toml documents every section")]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub database: Database,
    pub tokens: Tokens,
    pub refresh: Refresh,
    pub passwords: Passwords,
    pub keys: Keys,
    pub limits: Limits,
    pub cleanup: Cleanup,
    pub audit: Audit,
    pub log: Log,
    pub traces: Traces,
    /// What [`Config::show`] prints.
    #[serde(skip)]
    shown: String,
    /// Files that secrets were read from.
    #[serde(skip)]
    secret_files: Vec<PathBuf>,
    #[serde(skip)]
    sources: Arc<Sources>,
}

/// What was merged at the start; the files of secrets are only named in it.
#[derive(Default)]
struct Sources {
    /// Name and text of the configuration file.
    file: Option<(PathBuf, String)>,
    environment: BTreeMap<String, String>,
}

/// Tells no secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// Everything that is wrong with a configuration, a line each. The process exits with 78 (`EX_CONFIG`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} fault(s):", self.0.len())?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}

impl Config {
    /// Merges the defaults, `file` and `environment`, and checks the whole.
    pub fn load(file: Option<&Path>, environment: &BTreeMap<String, String>) -> Result<Self, Faults> {
        let (mut kept, mut faults) = (None, Vec::new());
        if let Some(path) = file {
            match std::fs::read_to_string(path) {
                Ok(text) => kept = Some((path.to_owned(), text)),
                Err(fault) => faults.push(format!("{}: {fault}", path.display())),
            }
        }
        Self::merge(Arc::new(Sources { file: kept, environment: environment.clone() }), faults)
    }

    /// The same with the files of secrets (`*_FILE`) as they are now. The configuration file and the environment are those of the
    /// start: to change them takes another start.
    pub fn reread(&self) -> Result<Self, Faults> {
        Self::merge(Arc::clone(&self.sources), Vec::new())
    }

    fn merge(sources: Arc<Sources>, faults: Vec<String>) -> Result<Self, Faults> {
        let environment = &sources.environment;
        let mut draft = Draft { faults, ..Draft::new() };
        if let Some((path, text)) = &sources.file {
            draft.read_file(path, text);
        }
        legacy::read(&mut draft, environment);
        traces::read(&mut draft, environment);
        draft.read_environment(environment);
        let faults = [validate::faults(&draft), traces::faults(&draft)].concat();
        draft.faults.extend(faults);
        if !draft.faults.is_empty() {
            return Err(Faults(draft.faults));
        }
        let shown = draft.show();
        let secret_files = std::mem::take(&mut draft.secret_files);
        let mut config: Self = Value::Table(draft.values)
            .try_into()
            .map_err(|fault: toml::de::Error| Faults(vec![fault.message().to_owned()]))?;
        config.shown = shown;
        config.secret_files = secret_files;
        config.sources = sources;
        Ok(config)
    }

    /// The files that secrets were read from: those of `*_FILE`, and a configuration file that holds one.
    #[must_use]
    pub fn secret_files(&self) -> &[PathBuf] {
        &self.secret_files
    }

    /// The effective settings as TOML, each with its source; secrets are masked.
    #[must_use]
    pub fn show(&self) -> &str {
        &self.shown
    }
}

/// Settings while they are collected.
struct Draft {
    values: Table,
    /// Where a setting that is not the default came from, by `section.key`.
    sources: BTreeMap<String, String>,
    secret_files: Vec<PathBuf>,
    faults: Vec<String>,
}

impl Draft {
    fn new() -> Self {
        let values = DEFAULTS.parse().expect("the embedded defaults are TOML");
        Self { values, sources: BTreeMap::new(), secret_files: Vec::new(), faults: Vec::new() }
    }

    /// The value of `section.key`, which must exist.
    fn value(&self, path: &str) -> &Value {
        let (section, key) = path.split_once('.').expect("a path has a section and a key");
        &self.values[section][key]
    }

    /// How a message names the setting: by where it was set.
    fn name(&self, path: &str) -> String {
        self.sources.get(path).map_or_else(|| path.to_owned(), |source| format!("{path} ({source})"))
    }

    fn has(&self, path: &str) -> bool {
        path.split_once('.').is_some_and(|(section, key)| {
            self.values.get(section).and_then(Value::as_table).is_some_and(|table| table.contains_key(key))
        })
    }

    fn set(&mut self, path: &str, value: Value, source: &str) {
        let expected = self.value(path).type_str();
        // 1 is a ratio too.
        let value = match value {
            Value::Integer(whole @ 0..=1) if expected == "float" => Value::Float(if whole == 0 { 0.0 } else { 1.0 }),
            value => value,
        };
        if value.type_str() != expected {
            self.faults.push(format!("{path} ({source}): must be of type {expected}, not {}", value.type_str()));
            return;
        }
        let (section, key) = path.split_once('.').expect("a path has a section and a key");
        self.values[section][key] = value;
        self.sources.insert(path.to_owned(), source.to_owned());
    }

    /// Sets from text, which takes the type of the default.
    fn set_text(&mut self, path: &str, text: &str, source: &str) {
        let parsed = match self.value(path) {
            Value::Integer(_) => text.trim().parse().ok().map(Value::Integer),
            Value::Float(_) => text.trim().parse().ok().map(Value::Float),
            Value::Boolean(_) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(Value::Boolean(true)),
                "false" | "0" | "no" | "off" => Some(Value::Boolean(false)),
                _ => None,
            },
            Value::Array(_) => Some(Value::Array(
                text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(Value::from).collect(),
            )),
            _ => Some(Value::from(text)),
        };
        match parsed {
            Some(value) => self.set(path, value, source),
            None => self.faults.push(format!("{path} ({source}): must be of type {}", self.value(path).type_str())),
        }
    }

    /// Sets from the content of a file, without its last line break.
    fn set_file(&mut self, path: &str, file: &str, source: &str) {
        self.secret_files.push(file.into());
        match std::fs::read_to_string(file) {
            // Not set would mean another database, or a new key beside the one that was meant.
            Ok(text) if text.trim().is_empty() && path != "keys.previous_encryption_key" => {
                self.faults.push(format!("{path} ({source}): the file is empty"));
            }
            Ok(text) => self.set_text(path, text.trim_end_matches(['\r', '\n']), source),
            Err(fault) => self.faults.push(format!("{path} ({source}): the file cannot be read: {fault}")),
        }
    }

    fn read_file(&mut self, path: &Path, text: &str) {
        let source = path.display().to_string();
        let table: Table = match text.parse() {
            Ok(table) => table,
            Err(fault) => {
                let line = fault.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
                return self.faults.push(format!("{source}: line {line}: {}", fault.message()));
            }
        };
        for (section, content) in table {
            let is_known = self.values.contains_key(&section);
            let Some(content) = content.as_table().filter(|content| is_known || !content.is_empty()) else {
                self.faults.push(format!("{source}: unknown setting {section}"));
                continue;
            };
            for (key, value) in content {
                let path = format!("{section}.{key}");
                if SECRETS.contains(&path.as_str()) && value.as_str().is_some_and(|text| !text.starts_with("sqlite:")) {
                    self.secret_files.push(source.clone().into());
                }
                if self.has(&path) {
                    self.set(&path, value.clone(), &source);
                } else {
                    self.faults.push(format!("{source}: unknown setting {path}"));
                }
            }
        }
    }

    fn read_environment(&mut self, environment: &BTreeMap<String, String>) {
        for (name, text) in environment.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let path = name[PREFIX.len()..].to_ascii_lowercase().replacen("__", ".", 1);
            if self.has(&path) {
                self.set_text(&path, text, name);
                continue;
            }
            match path.strip_suffix("_file").filter(|secret| SECRETS.contains(secret)) {
                Some(secret) if environment.contains_key(name.trim_end_matches("_FILE")) => {
                    self.faults.push(format!("{secret} ({name}): is also set without _FILE"));
                }
                Some(secret) => self.set_file(secret, text, name),
                None => self.faults.push(format!("{name}: unknown setting")),
            }
        }
    }

    fn show(&self) -> String {
        let mut lines = Vec::new();
        for (section, content) in &self.values {
            lines.push(format!("[{section}]"));
            for (key, value) in content.as_table().into_iter().flatten() {
                let path = format!("{section}.{key}");
                let value = match path.as_str() {
                    "database.url" => masked(value),
                    secret if SECRETS.contains(&secret) && value.as_str() != Some("") => Value::from("***"),
                    _ => value.clone(),
                };
                let source = self.sources.get(&path).map_or("default", String::as_str);
                lines.push(format!("{key} = {value}  # {source}"));
            }
            lines.push(String::new());
        }
        lines.join("\n")
    }
}

/// A database URL without its password; three stars when it cannot be taken apart.
fn masked(value: &Value) -> Value {
    let text = value.as_str().unwrap_or_default();
    if text.starts_with("sqlite:") {
        return Value::from(text);
    }
    let Ok(mut url) = Url::parse(text) else {
        return Value::from("***");
    };
    url.set_query(None);
    if url.password().is_some() && url.set_password(Some("***")).is_err() {
        return Value::from("***");
    }
    Value::from(url.to_string())
}

/// Parses one trusted proxy: an address or a network.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).ok_or_else(|| serde::de::Error::custom("not a network"))).collect()
}

impl Database {
    /// True when the URL names an `SQLite` file.
    #[must_use]
    pub fn is_sqlite(&self) -> bool {
        self.url.expose_secret().starts_with("sqlite:")
    }

    /// The `SQLite` file; `None` on PostgreSQL.
    #[must_use]
    pub fn sqlite_file(&self) -> Option<PathBuf> {
        let path = self.url.expose_secret().strip_prefix("sqlite:")?.trim_start_matches("//");
        let path = path.split_once('?').map_or(path, |(path, _)| path);
        Some(percent_encoding::percent_decode_str(path).decode_utf8_lossy().into_owned().into())
    }

    /// The word for the engine.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        if self.is_sqlite() { "sqlite" } else { "postgres" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pairs: &[(&str, &str)]) -> Result<Config, Faults> {
        Config::load(None, &pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    #[test]
    fn the_defaults_are_a_valid_configuration() {
        let config = load(&[]).expect("defaults");

        assert_eq!(config.server.issuer(), "http://localhost:9998");
        assert!(config.database.is_sqlite());
    }

    #[test]
    fn all_faults_are_reported_at_once_and_quote_no_value() {
        let faults = load(&[
            ("AUTHSERVICE__SERVER__PORT", "sesame"),
            ("AUTHSERVICE__SERVER__PROT", "1"),
            ("AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS", "-5"),
            ("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "sesame"),
            ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 0.0.0.0/0"),
        ])
        .expect_err("faults")
        .0;

        assert_eq!(faults.len(), 5, "{faults:#?}");
        assert!(!faults.join("\n").contains("sesame"));
    }

    #[test]
    fn the_variables_of_the_seed_work_unchanged() {
        let config = load(&[
            ("POSTGRES_DB", "AuthServiceBD"),
            ("POSTGRES_USER", "AuthServiceUser"),
            ("POSTGRES_PASSWORD", "p@ss/word"),
            ("POSTGRES_HOST", "seed"),
            ("DB_HOST", "db.internal"),
            ("POSTGRES_PORT", "9999"),
            ("SERVICE_HOST", "0.0.0.0"),
            ("SERVICE_PORT", "8080"),
            ("SERVICE_RELOAD", "1"),
            ("JWT_ALG", "RS256"),
            ("JWT_ACCESS_TTL_MIN", "5"),
            ("JWT_REFRESH_TTL_MIN", "20160"),
            ("ECHO", "1"),
        ])
        .expect("the seed's environment");

        let url = config.database.url.expose_secret();
        assert_eq!(url, "postgres://AuthServiceUser:p%40ss%2Fword@db.internal:9999/AuthServiceBD");
        assert_eq!(config.server.issuer(), "http://localhost:8080");
        assert_eq!(config.tokens.access_ttl_seconds, 300);
        assert_eq!(config.log.level, "debug");
    }

    #[test]
    fn database_url_wins_over_the_names_of_the_seed_and_ours_over_both() {
        let urls = [
            (vec![("POSTGRES_DB", "a"), ("POSTGRES_USER", "u"), ("DATABASE_URL", "sqlite://b.db")], "sqlite://b.db"),
            (vec![("DATABASE_URL", "sqlite://b.db"), ("AUTHSERVICE__DATABASE__URL", "sqlite://c.db")], "sqlite://c.db"),
        ];
        for (pairs, expected) in urls {
            assert_eq!(load(&pairs).expect("valid").database.url.expose_secret(), expected);
        }
    }

    #[test]
    fn shown_settings_hold_no_secret() {
        let config = load(&[
            ("DATABASE_URL", "postgres://user:sesame@host/name"),
            ("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "c2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1lc2VzYW1lMTI="),
        ])
        .expect("valid");

        assert!(!config.show().contains("sesame") && !config.show().contains("c2VzYW1l"), "{}", config.show());
        assert!(config.show().contains("postgres://user:***@host/name"));
    }
}
