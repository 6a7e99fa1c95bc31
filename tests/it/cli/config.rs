//! What is refused before anything starts: every fault at once, and no value printed.

use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use super::{Environment, KEY, Operator};

#[test]
fn all_faults_are_reported_in_one_run_before_a_port_is_bound() {
    // Taken: a server that came so far as to listen would end with 69 instead.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let operator = Operator::new()
        .with("SERVICE_PORT", listener.local_addr().unwrap().port().to_string())
        .with("AUTHSERVICE__SERVER__PROT", "CANARY-01")
        .with("AUTHSERVICE__NOTHING__AT_ALL", "CANARY-02")
        .with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "CANARY-03")
        .with("AUTHSERVICE__SERVER__ISSUER", "http://canary-04.example.com")
        .with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 0.0.0.0/0")
        .with("AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS", "-77777")
        .with("AUTHSERVICE__TOKENS__LEEWAY_SECONDS", "77777")
        .with("AUTHSERVICE__PASSWORDS__MEMORY_KIB", "7777")
        .with("AUTHSERVICE__PASSWORDS__ITERATIONS", "1")
        .with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "CANARY-05")
        .with("AUTHSERVICE__KEYS__ALGORITHM", "ES256")
        .with("AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS", "100000")
        .with("DATABASE_URL", "mysql://CANARY-06:CANARY-07@host/name");
    operator
        .write("server.toml", "[server]\nport = \"CANARY-08\"\nhots = \"CANARY-09\"\n[mail]\nfrom = \"CANARY-10\"\n");

    for command in ["serve", "config check", "config show", "migrate up", "users list"] {
        let arguments: Vec<&str> = command.split(' ').chain(["--config", "server.toml"]).collect();
        let outcome = operator.run(&arguments).exits(78);

        for name in [
            "server.toml: unknown setting server.hots",
            "server.toml: unknown setting mail.from",
            "server.port (server.toml): must be of type integer",
            "AUTHSERVICE__SERVER__PROT: unknown setting",
            "AUTHSERVICE__NOTHING__AT_ALL: unknown setting",
            "server.drain_seconds (AUTHSERVICE__SERVER__DRAIN_SECONDS): must be of type integer",
            "server.issuer (AUTHSERVICE__SERVER__ISSUER): must be https",
            "server.trusted_proxies (AUTHSERVICE__SERVER__TRUSTED_PROXIES): ",
            "tokens.access_ttl_seconds (AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS): must be between 1 and 3600",
            "tokens.leeway_seconds (AUTHSERVICE__TOKENS__LEEWAY_SECONDS): must be between 0 and 120",
            "passwords.memory_kib (AUTHSERVICE__PASSWORDS__MEMORY_KIB): must be between 19456 and",
            "passwords.iterations (AUTHSERVICE__PASSWORDS__ITERATIONS): must be between 2 and",
            "keys.encryption_key (AUTHSERVICE__KEYS__ENCRYPTION_KEY): must be 32 bytes",
            "keys.algorithm must be RS256 or EdDSA",
            "refresh.idle_ttl_seconds must not be longer than refresh.absolute_ttl_seconds",
            "database.url (DATABASE_URL): must begin with",
        ] {
            assert!(outcome.stderr.contains(name), "{command}: {name}: {outcome:?}");
        }
        assert!(outcome.stderr.contains(" 16 fault(s)"), "{command}: {outcome:?}");
        assert!(!outcome.printed().to_uppercase().contains("CANARY"), "{command}: {outcome:?}");
        assert!(!outcome.printed().contains("7777"), "{command}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{command}");
        assert!(outcome.took < Duration::from_secs(2), "{command}: {outcome:?}");
    }
    assert_eq!(operator.files(), ["server.toml"]);
}

/// Settings and values that they cannot have.
const IMPOSSIBLE: [(&str, &str); 63] = [
    ("server.port", "65536"),
    ("server.port", "-1"),
    ("server.port", "80.5"),
    ("server.port", "9999999999999999999999999999"),
    ("server.host", ""),
    ("server.host", "   "),
    ("server.issuer", "auth.example.com"),
    ("server.issuer", "http://auth.example.com"),
    ("server.issuer", "http://10.0.0.1"),
    ("server.issuer", "http://localhost.example.com"),
    ("server.issuer", "ftp://auth.example.com"),
    ("server.issuer", "https://auth.example.com/"),
    ("server.issuer", "https://auth.example.com/base/"),
    ("server.issuer", "https://auth.example.com?a=b"),
    ("server.issuer", "https://auth.example.com?"),
    ("server.issuer", "https://auth.example.com#part"),
    ("server.issuer", "https://user@auth.example.com"),
    ("server.issuer", " https://auth.example.com"),
    ("server.issuer", "https://auth.example.com "),
    ("server.issuer", "https://auth.exa\nmple.com"),
    ("server.allow_http_issuer", "perhaps"),
    ("server.trusted_proxies", "0.0.0.0/0"),
    ("server.trusted_proxies", "::/0"),
    ("server.trusted_proxies", "10.0.0.0/33"),
    ("server.trusted_proxies", "proxy.internal"),
    ("server.api_prefix", "other/v7"),
    ("server.api_prefix", "/other/v7/"),
    ("server.api_prefix", "/other//v7"),
    ("server.api_prefix", "/other/../v7"),
    ("server.api_prefix", "/other v7"),
    ("server.api_prefix", "/{other}"),
    ("server.drain_seconds", "301"),
    ("server.shutdown_seconds", "0"),
    ("database.url", "mongodb://host/name"),
    ("database.url", "sqlite::memory:"),
    ("database.url", "sqlite://x?mode=memory"),
    ("database.max_connections", "0"),
    ("tokens.access_ttl_seconds", "0"),
    ("tokens.access_ttl_seconds", "-900"),
    ("tokens.access_ttl_seconds", "3601"),
    ("tokens.leeway_seconds", "10000"),
    ("tokens.profile", "seeds"),
    ("tokens.client_id", ""),
    ("tokens.scope", "two  blanks"),
    ("refresh.format", "paseto"),
    ("refresh.retry_window_seconds", "601"),
    ("refresh.retry_context_mismatch", "ignore"),
    ("refresh.max_sessions_per_user", "0"),
    ("passwords.memory_kib", "19455"),
    ("passwords.iterations", "1"),
    ("passwords.parallelism", "0"),
    ("passwords.queue_timeout_seconds", "31"),
    ("keys.encryption_key", "c2hvcnQ="),
    ("keys.encryption_key", "changeme"),
    ("keys.encryption_key", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    ("keys.rsa_bits", "1024"),
    ("limits.refreshes_per_minute", "0"),
    ("limits.sign_in_failures_per_account_per_day", "-1"),
    ("limits.known_address_days", "366"),
    ("limits.sign_ins_per_second", "100001"),
    ("cleanup.interval_seconds", "0"),
    ("log.level", "info,sqlx=loud"),
    ("log.format", "xml"),
];

/// Other variables, their values and what the message says.
const REFUSED: [(&str, &str, &str); 29] = [
    ("AUTHSERVICE__SERVER__PORT", "0", "server.issuer must be set"),
    ("AUTHSERVICE__SERVER__PORT_FILE", "port.txt", "AUTHSERVICE__SERVER__PORT_FILE: unknown"),
    ("AUTHSERVICE__SERVER", "whatever", "AUTHSERVICE__SERVER: unknown"),
    ("AUTHSERVICE__", "whatever", "AUTHSERVICE__: unknown"),
    ("AUTHSERVICE__SERVER__PORT__X", "12345", "AUTHSERVICE__SERVER__PORT__X: unknown"),
    ("AUTHSERVICE__DATABASE__URL_FILE", "nowhere.txt", "database.url"),
    ("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE", "nowhere.txt", "keys.encryption_key"),
    ("AUTHSERVICE__REFRESH__IDLE_TTL_SECONDS", "300", "tokens.access_ttl_seconds must not be longer"),
    ("AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS", "3600", "refresh.idle_ttl_seconds must not be longer"),
    ("AUTHSERVICE__LIMITS__CONNECTIONS", "50", "limits.connections_per_address must not be more"),
    ("AUTHSERVICE_CONFIG", "nowhere.toml", "nowhere.toml"),
    ("SERVICE_PORT", "eighty", "server.port (SERVICE_PORT)"),
    ("SERVICE_HOST", "", "server.host (SERVICE_HOST)"),
    ("API_V1_PREFIX", "/.well-known", "server.api_prefix (API_V1_PREFIX)"),
    ("DATABASE_URL", "postgres://user:pa/ss@host/name", "database.url (DATABASE_URL)"),
    ("DATABASE_URL_FILE", "nowhere.txt", "database.url (DATABASE_URL_FILE)"),
    ("POSTGRES_DB", "only-the-name", "POSTGRES_DB and POSTGRES_USER"),
    ("DB_HOST", "only-the-host", "POSTGRES_DB and POSTGRES_USER"),
    ("JWT_ACCESS_TTL_MIN", "61", "tokens.access_ttl_seconds (JWT_ACCESS_TTL_MIN)"),
    ("JWT_ACCESS_TTL_MIN", "fifteen", "tokens.access_ttl_seconds (JWT_ACCESS_TTL_MIN)"),
    ("JWT_ACCESS_TTL_MIN", "-15", "tokens.access_ttl_seconds (JWT_ACCESS_TTL_MIN)"),
    ("JWT_REFRESH_TTL_MIN", "9223372036854775807", "refresh.idle_ttl_seconds (JWT_REFRESH_TTL_MIN)"),
    ("JWT_TYPE_FIELD", "sub", "tokens.type_claim (JWT_TYPE_FIELD)"),
    ("JWT_TYPE_FIELD", "", "tokens.type_claim (JWT_TYPE_FIELD)"),
    ("JWT_ACCESS_TYPE", "refresh", "tokens.refresh_type"),
    ("JWT_REFRESH_TYPE", "access", "tokens.refresh_type (JWT_REFRESH_TYPE)"),
    ("JWT_ALG", "HS256", "keys.algorithm (JWT_ALG)"),
    ("JWT_ALG", "none", "keys.algorithm (JWT_ALG)"),
    ("JWT_ALG", "PS256", "keys.algorithm must be RS256 or EdDSA"),
];

#[test]
fn each_impossible_value_names_its_setting_and_is_not_quoted() {
    let ours = IMPOSSIBLE.map(|(path, value)| {
        let name = format!("AUTHSERVICE__{}", path.to_uppercase().replace('.', "__"));
        (name.clone(), value, format!("{path} ({name}): "))
    });
    let others = REFUSED.map(|(name, value, expected)| (name.to_owned(), value, expected.to_owned()));
    let mut wrong = Vec::new();
    for (name, value, expected) in ours.into_iter().chain(others) {
        let outcome = Operator::new().with(&name, value).run(&["config", "check"]);
        // What is short, or the word of a rule, stands in the message anyway; files are named on purpose.
        let may_be_quoted = value.trim().len() < 5
            || ["HS256", "PS256", "access", "refresh"].contains(&value)
            || name.ends_with("_FILE")
            || name == "AUTHSERVICE_CONFIG";
        let is_right = outcome.code == Some(78)
            && outcome.stderr.contains(&expected)
            && (may_be_quoted || !outcome.printed().contains(value));
        if !is_right {
            wrong.push(format!("{name}={value:?}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_fault_of_a_file_names_the_file_and_is_not_quoted() {
    let rows = [
        ("unknown section", "[mail]\nfrom = \"CANARY\"\n", "unknown setting mail"),
        ("empty unknown section", "[mail]\n", "unknown setting mail"),
        ("unknown key", "[server]\nhots = \"CANARY\"\n", "unknown setting server.hots"),
        ("key without a section", "port = 1\n", "unknown setting port"),
        ("wrong type", "[server]\nport = \"CANARY\"\n", "server.port"),
        ("a float", "[server]\nport = 80.0\n", "server.port"),
        ("a table", "[server.port]\nnumber = 1\n", "server.port"),
        ("a list of numbers", "[server]\ntrusted_proxies = [1]\n", "server.trusted_proxies"),
        ("out of range", "[server]\nport = 70000\n", "server.port"),
        ("a secret that is no URL", "[database]\nurl = \"CANARY\"\n", "database.url"),
        ("a text without an end", "[database]\n\nurl = \"postgres://u:CANARY@h/n\n", "line 3"),
        ("no equals sign", "[server]\nport 80 # CANARY\n", "line 2"),
        ("a key twice", "[server]\nport = 1\nport = 2\n", "line 3"),
        ("a section twice", "[server]\n[server]\nhost = \"CANARY\"\n", "line 2"),
        ("a value without quotes", "[keys]\nencryption_key = CANARY\n", "line 2"),
    ];
    let mut wrong = Vec::new();
    for (name, text, expected) in rows {
        let operator = Operator::new();
        operator.write("server.toml", text);
        let outcome = operator.run(&["config", "check", "--config", "server.toml"]);
        let is_right = outcome.code == Some(78)
            && outcome.stderr.contains("server.toml")
            && outcome.stderr.contains(expected)
            && !outcome.printed().contains("CANARY");
        if !is_right {
            wrong.push(format!("{name}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_broken_file_does_not_hide_the_faults_of_the_environment() {
    let operator = Operator::new().with("AUTHSERVICE_CONFIG", "server.toml").with("AUTHSERVICE__SERVER__PORT", "wrong");
    operator.write("server.toml", "[server\n");

    let outcome = operator.run(&["config", "check"]).exits(78);

    assert!(outcome.stderr.contains("server.toml: line 1"), "{outcome:?}");
    assert!(outcome.stderr.contains("AUTHSERVICE__SERVER__PORT"), "{outcome:?}");
}

#[test]
fn a_value_that_is_not_unicode_is_a_fault_and_not_ignored() {
    let value = std::ffi::OsString::from_vec(b"host-\xff".to_vec());

    let outcome = Operator::new().with("AUTHSERVICE__SERVER__HOST", value).run(&["config", "check"]).exits(78);

    assert!(outcome.stderr.contains("AUTHSERVICE__SERVER__HOST"), "{outcome:?}");
}

#[test]
fn a_password_file_that_cannot_be_read_is_a_fault() {
    let outcome = Operator::new()
        .with("POSTGRES_DB", "name")
        .with("POSTGRES_USER", "user")
        .with("POSTGRES_PASSWORD_FILE", "nowhere.txt")
        .run(&["config", "check"])
        .exits(78);

    assert!(outcome.stderr.contains("POSTGRES_PASSWORD_FILE"), "{outcome:?}");
}

#[test]
fn a_secret_given_twice_is_a_fault() {
    let operator = Operator::new()
        .with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", KEY)
        .with("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE", "key.txt");
    operator.write("key.txt", KEY);

    let outcome = operator.run(&["config", "check"]).exits(78);

    assert!(outcome.stderr.contains("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE"), "{outcome:?}");
    assert!(!outcome.printed().contains(KEY), "{outcome:?}");
}

#[test]
fn a_valid_configuration_is_said_to_be_valid_and_nothing_is_touched() {
    // What is unusual and still right.
    let rows: [&Environment; 9] = [
        &[],
        &[("AUTHSERVICE__SERVER__ISSUER", "http://127.0.0.1:1234")],
        &[("AUTHSERVICE__SERVER__ISSUER", "http://[::1]:1234")],
        &[("AUTHSERVICE__SERVER__ISSUER", "https://auth.example.com/base")],
        &[("AUTHSERVICE__SERVER__ISSUER", "http://auth.internal"), ("AUTHSERVICE__SERVER__ALLOW_HTTP_ISSUER", "true")],
        &[("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "10.0.0.0/8, 192.0.2.1 ,2001:db8::/32,")],
        &[("JWT_ALG", "EdDSA")],
        &[("SERVICE_RELOAD", "1"), ("JWT_TOKEN_TYPE", "Bearer")],
        // Kubernetes adds such names for a Service called authservice.
        &[("AUTHSERVICE_PORT", "tcp://10.0.0.1:9998"), ("AUTHSERVICE_SERVICE_HOST", "10.0.0.1")],
    ];
    for row in rows {
        let operator = row.iter().fold(Operator::new(), |operator, (name, text)| operator.with(name, *text));
        let outcome = operator.run(&["config", "check"]).exits(0);

        assert_eq!(outcome.stdout, "the configuration is valid\n", "{row:?}");
        assert_eq!(outcome.stderr, "", "{row:?}");
        assert_eq!(operator.files(), Vec::<String>::new(), "{row:?}");
    }
}
