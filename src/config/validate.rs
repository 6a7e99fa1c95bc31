//! What values and which combinations of settings are possible.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use url::Url;

use super::hosts::each_host;
use super::{Draft, network};

const YEAR: i64 = 365 * 24 * 3600;

/// Integers: setting, least, most.
const RANGES: [(&str, i64, i64); 37] = [
    ("server.port", 0, 65535),
    ("server.drain_seconds", 0, 300),
    ("server.shutdown_seconds", 1, 300),
    ("admin.port", 0, 65535),
    ("database.max_connections", 1, 1000),
    ("database.acquire_timeout_seconds", 1, 30),
    ("database.statement_timeout_seconds", 1, 300),
    ("database.connect_timeout_seconds", 0, 3600),
    ("tokens.access_ttl_seconds", 1, 3600),
    ("tokens.leeway_seconds", 0, 120),
    ("refresh.retry_window_seconds", 0, 600),
    ("refresh.idle_ttl_seconds", 1, YEAR),
    ("refresh.absolute_ttl_seconds", 1, 10 * YEAR),
    ("refresh.max_sessions_per_user", 1, 1000),
    // The floor of the OWASP Password Storage Cheat Sheet: m=19 MiB, t=2, p=1.
    ("passwords.memory_kib", 19456, 4 * 1024 * 1024),
    ("passwords.iterations", 2, 100),
    ("passwords.parallelism", 1, 16),
    ("passwords.max_concurrent", 0, 256),
    ("passwords.queue", 0, 10000),
    ("passwords.queue_timeout_seconds", 1, 30),
    ("keys.rsa_bits", 2048, 4096),
    ("keys.jwks_max_age_seconds", 0, 86400),
    ("keys.rotate_after_seconds", 0, 10 * YEAR),
    ("keys.announce_seconds", 0, 30 * 24 * 3600),
    ("keys.retain_seconds", 0, YEAR),
    ("limits.connections_per_address", 1, 1_000_000),
    ("limits.connections", 1, 1_000_000),
    ("limits.refreshes_per_minute", 1, 100_000),
    ("limits.sign_in_failures_per_account_per_day", 0, 100_000),
    ("limits.sign_in_failures_per_address_per_hour", 0, 1_000_000),
    ("limits.known_address_days", 0, 365),
    ("limits.registrations_per_address_per_hour", 0, 1_000_000),
    ("limits.sign_ins_per_second", 0, 100_000),
    ("cleanup.interval_seconds", 1, 86400),
    ("cleanup.retention_days", 0, 3650),
    ("audit.retention_days", 0, 36500),
    ("traces.timeout_seconds", 1, 60),
];
/// Texts: setting, what it may be.
const CHOICES: [(&str, &[&str]); 5] = [
    ("tokens.profile", &["standard", "seed"]),
    ("refresh.format", &["jwt", "opaque"]),
    ("refresh.retry_context_mismatch", &["audit", "theft"]),
    ("keys.algorithm", &["RS256", "PS256", "ES256", "EdDSA"]),
    ("log.format", &["json", "pretty"]),
];

/// Everything that is wrong with the values that were set.
pub(super) fn faults(draft: &Draft) -> Vec<String> {
    let mut faults = Vec::new();
    for (path, least, most) in RANGES {
        if draft.value(path).as_integer().is_some_and(|number| number < least || number > most) {
            faults.push(format!("{}: must be between {least} and {most}", draft.name(path)));
        }
    }
    for (path, choices) in CHOICES {
        if draft.value(path).as_str().is_some_and(|text| !choices.contains(&text)) {
            faults.push(format!("{}: must be one of {}", draft.name(path), choices.join(", ")));
        }
    }
    let proxies = draft.value("server.trusted_proxies").as_array();
    if proxies.into_iter().flatten().any(|item| item.as_str().and_then(network).is_none_or(|net| net.prefix_len() == 0))
    {
        let name = draft.name("server.trusted_proxies");
        faults.push(format!("{name}: must be addresses or networks such as 10.0.0.0/8, and not the whole internet"));
    }
    let text = |path: &str| draft.value(path).as_str().unwrap_or_default().to_owned();
    let mut check = |path: &str, fault: Option<&str>| {
        if let Some(fault) = fault {
            faults.push(format!("{}: {fault}", draft.name(path)));
        }
    };
    let allow_http = draft.value("server.allow_http_issuer").as_bool() == Some(true);
    check("server.issuer", issuer(&text("server.issuer"), allow_http));
    check("server.host", text("server.host").trim().is_empty().then_some("must not be empty"));
    check("admin.host", text("admin.host").trim().is_empty().then_some("must not be empty"));
    check("server.api_prefix", prefix(&text("server.api_prefix")));
    check("database.url", database_url(&text("database.url")));
    check("keys.encryption_key", encryption_key_fault(&text("keys.encryption_key")));
    check("keys.previous_encryption_key", encryption_key_fault(&text("keys.previous_encryption_key")));
    check("log.level", log_level(&text("log.level")));
    let client_id = text("tokens.client_id");
    let is_client_id = (1..=255).contains(&client_id.chars().count());
    check("tokens.client_id", (!is_client_id).then_some("must have 1 to 255 characters"));
    check("tokens.scope", scope(&text("tokens.scope")));
    let reserved =
        ["iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "fam", "gen", "user_id", "client_id", "scope"];
    let type_claim = text("tokens.type_claim");
    check(
        "tokens.type_claim",
        (type_claim.is_empty() || reserved.contains(&type_claim.as_str()))
            .then_some("must be a claim that is not in use"),
    );
    check(
        "tokens.refresh_type",
        (text("tokens.access_type") == text("tokens.refresh_type")).then_some("must differ from tokens.access_type"),
    );
    faults.extend(combinations(draft));
    faults
}

/// Faults of values that are possible alone but not together.
fn combinations(draft: &Draft) -> impl Iterator<Item = String> {
    let number = |path: &str| draft.value(path).as_integer().unwrap_or_default();
    let is = |path: &str, text: &str| draft.value(path).as_str() == Some(text);
    let secret = |path: &str| encryption_key(&draft.value(path).as_str().unwrap_or_default().into());
    let encryption_keys = [secret("keys.encryption_key"), secret("keys.previous_encryption_key")];
    let (max_age, announce) = (number("keys.jwks_max_age_seconds"), number("keys.announce_seconds"));
    let (retain, rotate_after) = (number("keys.retain_seconds"), number("keys.rotate_after_seconds"));
    let is_jwt_varying =
        is("refresh.format", "jwt") && (is("keys.algorithm", "PS256") || is("keys.algorithm", "ES256"));
    let rows = [
        (
            number("tokens.access_ttl_seconds") > number("refresh.idle_ttl_seconds"),
            "tokens.access_ttl_seconds must not be longer than refresh.idle_ttl_seconds",
        ),
        (
            number("refresh.idle_ttl_seconds") > number("refresh.absolute_ttl_seconds"),
            "refresh.idle_ttl_seconds must not be longer than refresh.absolute_ttl_seconds",
        ),
        (
            is_jwt_varying,
            "keys.algorithm must be RS256 or EdDSA while refresh.format is jwt: a retry gets the same bytes",
        ),
        (
            announce > 0 && announce < max_age.saturating_mul(2),
            "keys.announce_seconds must be at least twice keys.jwks_max_age_seconds: verifiers must have the key before it signs",
        ),
        (
            rotate_after > 0 && rotate_after <= keys_announced_for(announce, max_age),
            "keys.rotate_after_seconds must be longer than keys.announce_seconds (0: twice keys.jwks_max_age_seconds and a minute)",
        ),
        (
            retain > 0 && retain < number("tokens.access_ttl_seconds").saturating_add(number("tokens.leeway_seconds")),
            "keys.retain_seconds must be at least tokens.access_ttl_seconds and tokens.leeway_seconds together: verifiers need the \
             key until its last token has expired",
        ),
        (
            encryption_keys[0].is_some() && encryption_keys[0] == encryption_keys[1],
            "keys.previous_encryption_key must differ from keys.encryption_key",
        ),
        (
            number("limits.connections_per_address") > number("limits.connections"),
            "limits.connections_per_address must not be more than limits.connections",
        ),
        (
            draft.value("admin.enabled").as_bool() == Some(true)
                && number("admin.port") != 0
                && number("admin.port") == number("server.port"),
            "admin.port must differ from server.port",
        ),
        (number("server.port") == 0 && is("server.issuer", ""), "server.issuer must be set when server.port is 0"),
    ];
    rows.into_iter().filter(|(is_fault, _)| *is_fault).map(|(_, fault)| fault.to_owned())
}

/// How long a key is announced before it signs: a verifier that caches the set for its max-age has then read it twice.
pub(crate) fn keys_announced_for(setting: i64, max_age: i64) -> i64 {
    if setting == 0 { max_age.saturating_mul(2).saturating_add(60) } else { setting }
}

/// RFC 8414 2: an https URL without query or fragment. Loopback may be http.
fn issuer(text: &str, allow_http: bool) -> Option<&'static str> {
    if text.is_empty() {
        return None;
    }
    let Ok(url) = Url::parse(text) else {
        return Some("must be a URL");
    };
    let is_loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return Some("must be a URL with a host"),
    };
    match url.scheme() {
        "https" => {}
        "http" if is_loopback || allow_http => {}
        "http" => return Some("must be https, or http on a loopback host (see server.allow_http_issuer)"),
        _ => return Some("must be an https URL"),
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Some("must have no query, fragment or user");
    }
    let is_plain = text.ends_with('/') || text.trim() != text || text.chars().any(char::is_control);
    is_plain.then_some("must have no trailing slash and no blanks")
}

fn prefix(text: &str) -> Option<&'static str> {
    let is_path = text.starts_with('/') && text.len() > 1 && !text.ends_with('/') && !text.contains("//");
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-.~".contains(&byte));
    let taken = ["/.well-known", "/health", "/docs", "/redoc", "/openapi.json", "/oauth2"];
    if !is_path || !is_plain || text.split('/').any(|segment| segment == "." || segment == "..") {
        return Some("must be a path such as /auth_api/v1");
    }
    let is_taken = taken.iter().any(|name| text == *name || text.starts_with(&format!("{name}/")));
    is_taken.then_some("is used by the server itself")
}

/// RFC 6749 3.3: scope tokens of printable ASCII, parted by single blanks.
fn scope(text: &str) -> Option<&'static str> {
    let is_token =
        |token: &str| !token.is_empty() && token.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
    let is_scope = text.len() <= 1024 && text.split(' ').all(is_token);
    (!is_scope).then_some("must be scope tokens parted by single blanks")
}

/// A lone word is a level: as a filter any word would do, and a misspelt level would silence everything.
fn log_level(text: &str) -> Option<&'static str> {
    let is_word = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let is_fine = if is_word { text.parse::<LevelFilter>().is_ok() } else { EnvFilter::try_new(text).is_ok() };
    (!is_fine).then_some("must be error, warn, info, debug or trace, or a filter such as info,sqlx=warn")
}

fn database_url(text: &str) -> Option<&'static str> {
    let is_known = ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| text.starts_with(scheme));
    if !is_known {
        return Some("must begin with postgres:// or sqlite:");
    }
    if text.starts_with("sqlite:") {
        let is_memory = text.contains(":memory:") || text.contains("mode=memory");
        return is_memory.then_some("must name a file: a database in memory forgets every session");
    }
    let is_other_target = |pair: &str| {
        pair.strip_prefix("target_session_attrs=").is_some_and(|target| !["read-write", "primary"].contains(&target))
    };
    if text.split(['?', '&']).any(is_other_target) {
        return Some("target_session_attrs must be read-write: nothing works on a standby");
    }
    let is_fault = each_host(text).iter().any(|url| Url::parse(url).is_err());
    is_fault.then_some("is not a URL; characters such as @ and / in a password are written %40 and %2F")
}

/// The 32 bytes of a key-encryption key, written as base64 or hexadecimal.
pub(crate) fn encryption_key(text: &SecretString) -> Option<[u8; 32]> {
    let text = text.expose_secret().trim();
    let hexadecimal = || {
        let digits: Option<Vec<u8>> = text
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        digits.filter(|_| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    let bytes = hexadecimal().or_else(|| {
        [BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD]
            .iter()
            .find_map(|engine| engine.decode(text).ok())
    })?;
    bytes.try_into().ok()
}

fn encryption_key_fault(text: &str) -> Option<&'static str> {
    if text.is_empty() {
        return None;
    }
    match encryption_key(&SecretString::from(text)) {
        None => Some("must be 32 bytes as base64 or hexadecimal (openssl rand -base64 32)"),
        Some(key) if key.iter().all(|byte| *byte == key[0]) => Some("must be random"),
        Some(_) => None,
    }
}
