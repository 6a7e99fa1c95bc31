//! Which source of a setting wins, and that `config show` tells without telling secrets.

use super::{Environment, KEY, Operator, Outcome};
use crate::support::Engine;

/// Value and source of a setting in the output of `config show`.
fn shown(outcome: &Outcome, path: &str) -> (String, String) {
    let (section, key) = path.split_once('.').unwrap();
    let line = outcome
        .stdout
        .lines()
        .skip_while(|line| *line != format!("[{section}]"))
        .take_while(|line| !line.is_empty())
        .find(|line| line.starts_with(&format!("{key} = ")))
        .unwrap_or_else(|| panic!("{path} is not in {}", outcome.stdout));
    let (value, source) = line[key.len() + 3..].rsplit_once("  # ").unwrap();
    (value.trim_matches('"').to_owned(), source.to_owned())
}

#[test]
fn shown_settings_name_their_sources_and_hold_no_secret() {
    let operator = Operator::new()
        .with("SERVICE_HOST", "0.0.0.0")
        .with("DATABASE_URL", "postgres://user:CANARY-1@db.internal:5433/name?sslpassword=CANARY-2")
        .with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", KEY);
    operator.write("server.toml", "[server]\nport = 8080\n");

    let outcome = operator.run(&["config", "show", "--config", "server.toml"]).exits(0);

    let rows = [
        ("server.host", "0.0.0.0", "SERVICE_HOST"),
        ("server.port", "8080", "server.toml"),
        ("database.url", "postgres://user:***@db.internal:5433/name", "DATABASE_URL"),
        ("keys.encryption_key", "***", "AUTHSERVICE__KEYS__ENCRYPTION_KEY"),
        ("tokens.access_ttl_seconds", "900", "default"),
    ];
    for (path, value, source) in rows {
        assert_eq!(shown(&outcome, path), (value.to_owned(), source.to_owned()), "{path}");
    }
    assert!(!outcome.printed().contains("CANARY"), "{outcome:?}");
    assert!(!outcome.printed().contains(&KEY[..8]), "{outcome:?}");
    // What is shown is a configuration again.
    let table: toml::Table = outcome.stdout.parse().unwrap();
    let defaults: toml::Table = authservice::config::DEFAULTS.parse().unwrap();
    assert!(table.keys().eq(defaults.keys()), "{table:?}");
    assert_eq!(operator.files(), ["server.toml"]);
}

/// What the URL does not say of TLS, the environment of every PostgreSQL client does; the Helm chart relies on it.
#[tokio::test]
async fn tls_to_postgres_may_be_asked_for_as_of_any_client() {
    let operator = Operator::on(Engine::Postgres).await.with("AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS", "0");

    operator.run(&["migrate", "status"]).exits(0);
    // The server of the tests has no certificate.
    let refused = operator.with("PGSSLMODE", "verify-full").run(&["migrate", "status"]).exits(69);

    assert!(refused.stderr.contains("TLS"), "{refused:?}");
}

#[test]
fn later_sources_win() {
    let sources = [
        ("postgres://u@the-file/n", "server.toml"),
        ("postgres://u:***@the-postgres-names:5432/n", "POSTGRES_* / DB_*"),
        ("postgres://u:***@the-db-names:5432/n", "POSTGRES_* / DB_*"),
        ("postgres://u@the-url/n", "DATABASE_URL"),
        ("postgres://u@ours/n", "AUTHSERVICE__DATABASE__URL"),
    ];
    let mut operator = Operator::new().with("AUTHSERVICE_CONFIG", "server.toml");
    operator.write(
        "server.toml",
        "[database]\nurl = \"postgres://u@the-file/n\"\n[server]\nport = 1\nhost = \"192.0.2.1\"\n",
    );
    for (step, (url, source)) in sources.into_iter().enumerate() {
        operator = match step {
            0 => operator,
            1 => operator
                .with("POSTGRES_DB", "n")
                .with("POSTGRES_USER", "u")
                .with("POSTGRES_PASSWORD", "p")
                .with("POSTGRES_HOST", "the-postgres-names"),
            2 => operator.with("DB_HOST", "the-db-names"),
            3 => operator.with("DATABASE_URL", "postgres://u@the-url/n"),
            _ => operator.with("AUTHSERVICE__DATABASE__URL", "postgres://u@ours/n"),
        };
        let outcome = operator.run(&["config", "show"]).exits(0);
        assert_eq!(shown(&outcome, "database.url"), (url.to_owned(), source.to_owned()), "step {step}");
    }

    let operator = operator.with("SERVICE_PORT", "2");
    assert_eq!(shown(&operator.run(&["config", "show"]), "server.port").0, "2");
    let operator = operator.with("AUTHSERVICE__SERVER__PORT", "3");
    let outcome = operator.run(&["config", "show"]);
    assert_eq!(shown(&outcome, "server.port").0, "3");
    assert_eq!(shown(&outcome, "server.host"), ("192.0.2.1".to_owned(), "server.toml".to_owned()));
}

#[test]
fn a_file_named_on_the_command_line_wins_over_one_in_the_environment() {
    let operator = Operator::new().with("AUTHSERVICE_CONFIG", "one.toml");
    operator.write("one.toml", "[server]\nport = 1\n");
    operator.write("two.toml", "[server]\nport = 2\n");

    let outcome = operator.run(&["--config", "two.toml", "config", "show"]).exits(0);

    assert_eq!(shown(&outcome, "server.port"), ("2".to_owned(), "two.toml".to_owned()));
}

#[test]
fn secrets_may_lie_in_files() {
    let operator = Operator::new();
    operator.write("url.txt", "postgres://u:CANARY@from-a-file/n\n");
    operator.write("key.txt", &format!("{KEY}\r\n"));
    operator.write("password.txt", "CANARY/@:\n");
    let masked = "postgres://u:***@from-a-file/n";
    let rows: [(&Environment, &str, &str); 6] = [
        (&[("DATABASE_URL_FILE", "url.txt")], "database.url", masked),
        (&[("AUTHSERVICE__DATABASE__URL_FILE", "url.txt")], "database.url", masked),
        (
            &[("AUTHSERVICE__DATABASE__URL_FILE", "url.txt"), ("DATABASE_URL", "postgres://u@other/n")],
            "database.url",
            masked,
        ),
        (&[("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE", "key.txt")], "keys.encryption_key", "***"),
        (
            &[("POSTGRES_DB", "n"), ("POSTGRES_USER", "u"), ("POSTGRES_PASSWORD_FILE", "password.txt")],
            "database.url",
            "postgres://u:***@localhost:5432/n",
        ),
        (
            &[("DB_NAME", "n"), ("DB_USER", "u"), ("DB_PASSWORD_FILE", "password.txt")],
            "database.url",
            "postgres://u:***@localhost:5432/n",
        ),
    ];
    for (environment, path, expected) in rows {
        let mut command = Operator::new();
        for (name, text) in environment {
            let text =
                if name.ends_with("_FILE") { operator.path(text).display().to_string() } else { (*text).to_owned() };
            command = command.with(name, text);
        }
        let outcome = command.run(&["config", "show"]).exits(0);

        assert_eq!(shown(&outcome, path).0, expected, "{environment:?}");
        assert!(!outcome.printed().contains("CANARY"), "{environment:?}: {outcome:?}");
        assert!(!outcome.printed().contains(KEY), "{environment:?}: {outcome:?}");
    }
}

#[test]
fn every_variable_of_the_seed_works_unchanged() {
    let rows = [
        ("POSTGRES_DB", "Auth DB", "database.url", "postgres://user:***@db.internal:9999/Auth%20DB"),
        ("POSTGRES_USER", "user", "database.url", "postgres://user:***@db.internal:9999/Auth%20DB"),
        ("POSTGRES_PASSWORD", "p@ss/w:rd", "database.url", "postgres://user:***@db.internal:9999/Auth%20DB"),
        ("POSTGRES_HOST", "db.internal", "database.url", "postgres://user:***@db.internal:9999/Auth%20DB"),
        ("POSTGRES_PORT", "9999", "database.url", "postgres://user:***@db.internal:9999/Auth%20DB"),
        ("SERVICE_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("SERVICE_PORT", "8080", "server.port", "8080"),
        ("API_V1_PREFIX", "/api/v7", "server.api_prefix", "/api/v7"),
        ("JWT_ALG", "EdDSA", "keys.algorithm", "EdDSA"),
        ("JWT_TYPE_FIELD", "kind", "tokens.type_claim", "kind"),
        ("JWT_ACCESS_TYPE", "short", "tokens.access_type", "short"),
        ("JWT_REFRESH_TYPE", "long", "tokens.refresh_type", "long"),
        ("JWT_ACCESS_TTL_MIN", "5", "tokens.access_ttl_seconds", "300"),
        ("JWT_REFRESH_TTL_MIN", "60", "refresh.idle_ttl_seconds", "3600"),
        ("PRIVATE_KEY_PATH", "certs/private.pem", "keys.private_key_path", "certs/private.pem"),
        ("PUBLIC_KEY_PATH", "certs/public.pem", "keys.public_key_path", "certs/public.pem"),
        ("ECHO", "1", "log.level", "debug"),
        // Read by the seed and without effect here.
        ("SERVICE_RELOAD", "1", "server.port", "8080"),
        ("JWT_TOKEN_TYPE", "Bearer", "tokens.access_type", "short"),
    ];
    let operator = rows.iter().fold(Operator::new(), |operator, (name, text, ..)| operator.with(name, *text));

    let outcome = operator.run(&["config", "show"]).exits(0);

    for (name, _, path, expected) in rows {
        assert_eq!(shown(&outcome, path).0, expected, "{name}");
    }

    // Each DB_ name wins over its POSTGRES_ twin.
    let names = [
        ("DB_NAME", "other"),
        ("DB_USER", "someone"),
        ("DB_PASSWORD", "CANARY"),
        ("DB_HOST", "other.internal"),
        ("DB_PORT", "1111"),
    ];
    let operator = names.iter().fold(operator, |operator, (name, text)| operator.with(name, *text));
    let outcome = operator.run(&["config", "show"]).exits(0);
    assert_eq!(shown(&outcome, "database.url").0, "postgres://someone:***@other.internal:1111/other");
    assert!(!outcome.printed().contains("CANARY"));

    // The seed's echo is off by default and may be said to be off.
    for echo in ["0", "false", ""] {
        let outcome = Operator::new().with("ECHO", echo).run(&["config", "show"]).exits(0);
        assert_eq!(shown(&outcome, "log.level").0, "info", "{echo:?}");
    }
}
