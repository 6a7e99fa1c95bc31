//! The environment names of the FastAPI service that this one replaces, and `DATABASE_URL`. They lose against `AUTHSERVICE__*`.

use std::collections::BTreeMap;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::Draft;

/// Names with the same meaning and unit as ours.
const SAME: [(&str, &str); 9] = [
    ("SERVICE_HOST", "server.host"),
    ("SERVICE_PORT", "server.port"),
    ("API_V1_PREFIX", "server.api_prefix"),
    ("JWT_ALG", "keys.algorithm"),
    ("JWT_TYPE_FIELD", "tokens.type_claim"),
    ("JWT_ACCESS_TYPE", "tokens.access_type"),
    ("JWT_REFRESH_TYPE", "tokens.refresh_type"),
    ("PRIVATE_KEY_PATH", "keys.private_key_path"),
    ("PUBLIC_KEY_PATH", "keys.public_key_path"),
];
/// Names that count minutes.
const MINUTES: [(&str, &str); 2] =
    [("JWT_ACCESS_TTL_MIN", "tokens.access_ttl_seconds"), ("JWT_REFRESH_TTL_MIN", "refresh.idle_ttl_seconds")];

pub(super) fn read(draft: &mut Draft, environment: &BTreeMap<String, String>) {
    for (name, path) in SAME {
        if let Some(text) = environment.get(name) {
            draft.set_text(path, text, name);
        }
    }
    for (name, path) in MINUTES {
        if let Some(text) = environment.get(name) {
            let seconds = text.trim().parse::<i64>().ok().and_then(|minutes| minutes.checked_mul(60));
            draft.set_text(path, &seconds.map_or_else(|| text.clone(), |seconds| seconds.to_string()), name);
        }
    }
    // The seed's ECHO prints every SQL statement; ours is the debug log, which holds no values.
    if environment.get("ECHO").is_some_and(|echo| matches!(echo.as_str(), "1" | "true" | "True" | "yes" | "on")) {
        draft.set_text("log.level", "debug", "ECHO");
    }
    database(draft, environment);
}

/// `DATABASE_URL`, else a PostgreSQL URL from `DB_*` and `POSTGRES_*`, of which `DB_*` wins name by name.
fn database(draft: &mut Draft, environment: &BTreeMap<String, String>) {
    if let Some(url) = environment.get("DATABASE_URL") {
        return draft.set_text("database.url", url, "DATABASE_URL");
    }
    if let Some(file) = environment.get("DATABASE_URL_FILE") {
        return draft.set_file("database.url", file, "DATABASE_URL_FILE");
    }
    let named = |ours: &str, postgres: &str| {
        [format!("DB_{ours}"), format!("POSTGRES_{postgres}")].iter().find_map(|name| environment.get(name)).cloned()
    };
    let (name, user, host, port) =
        (named("NAME", "DB"), named("USER", "USER"), named("HOST", "HOST"), named("PORT", "PORT"));
    if [&name, &user, &host, &port].iter().all(|part| part.is_none()) {
        return;
    }
    let (Some(name), Some(user)) = (name, user) else {
        draft
            .faults
            .push("database.url: POSTGRES_DB and POSTGRES_USER belong together (or DB_NAME and DB_USER)".to_owned());
        return;
    };
    let password_file = ["DB_PASSWORD_FILE", "POSTGRES_PASSWORD_FILE"]
        .into_iter()
        .find_map(|name| Some((name, environment.get(name)?)));
    let password = match (named("PASSWORD", "PASSWORD"), password_file) {
        (Some(password), _) => Some(password),
        (None, None) => None,
        (None, Some((name, file))) => match std::fs::read_to_string(file) {
            Ok(text) => {
                draft.secret_files.push(file.into());
                Some(text.trim_end_matches(['\r', '\n']).to_owned())
            }
            Err(fault) => {
                return draft.faults.push(format!("database.url ({name}): the file cannot be read: {fault}"));
            }
        },
    };
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let password = password.map_or_else(String::new, |password| format!(":{}", encode(&password)));
    let host = host.unwrap_or_else(|| "localhost".to_owned());
    let port = port.unwrap_or_else(|| "5432".to_owned());
    let url = format!("postgres://{}{password}@{host}:{port}/{}", encode(&user), encode(&name));
    draft.set_text("database.url", &url, "POSTGRES_* / DB_*");
}
