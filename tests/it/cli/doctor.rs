//! `doctor` finds what is wrong, says what to do, changes nothing and never hangs.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use serde_json::Value;

use super::healthcheck::tls_stand_in;
use super::{KEY, Operator, Outcome, free_port};
use crate::support::Engine;

/// Checks with their level and everything that was said.
struct Findings {
    outcome: Outcome,
    findings: Vec<(String, String, String)>,
}

impl Findings {
    /// The level and the words of a check.
    fn of(&self, check: &str) -> (&str, &str) {
        let found = self.findings.iter().find(|(name, _, _)| name == check);
        found.map_or_else(
            || panic!("no {check}: {:?}", self.outcome),
            |(_, level, words)| (level.as_str(), words.as_str()),
        )
    }

    /// Asserts what the check found; the exit code must agree.
    #[track_caller]
    fn says(&self, check: &str, level: &str, words: &str) {
        let (is, said) = self.of(check);
        assert!(is == level && said.contains(words), "{check} should {level} with {words:?}: {:#?}", self.findings);
        let has_failed = self.findings.iter().any(|(_, level, _)| level == "fail");
        assert_eq!(self.outcome.code, Some(i32::from(has_failed)), "{:?}", self.outcome);
    }
}

fn examine(operator: &Operator, arguments: &[&str]) -> Findings {
    let outcome = operator.run(&[&["doctor", "--json"], arguments].concat());
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let findings = outcome.stdout.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let words = format!("{} -> {}", text(&line, "message"), text(&line, "remedy"));
        if ["warn", "fail"].contains(&line["level"].as_str().unwrap()) {
            assert_ne!(line["remedy"], "", "it does not say what to do: {line}");
        }
        (text(&line, "check"), text(&line, "level"), words)
    });
    let findings = findings.collect();
    assert!(!outcome.printed().contains("CANARY"), "{outcome:?}");
    Findings { outcome, findings }
}

/// Bytes of every file by its name.
fn bytes(operator: &Operator) -> BTreeMap<String, Vec<u8>> {
    operator.files().into_iter().map(|name| (name.clone(), fs::read(operator.path(&name)).unwrap())).collect()
}

#[tokio::test]
async fn nothing_fails_beside_a_server_that_is_well() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let port = free_port().to_string();
        let operator = Operator::on(engine).await.with("AUTHSERVICE__SERVER__PORT", &port);
        let operator = operator.with("AUTHSERVICE__SERVER__ISSUER", format!("http://127.0.0.1:{port}"));
        let server = operator.serve().await;

        let found = examine(&operator, &[]);

        found.says("issuer", "ok", "the 1 key(s) of this database");
        found.says("signing-key", "ok", "(RS256)");
        found.says("schema", "ok", "current");
        found.says("outage", "ok", "a server is up");
        let bad: Vec<_> = found.findings.iter().filter(|(_, level, _)| level == "fail").collect();
        assert!(bad.is_empty() && found.outcome.code == Some(0), "{engine:?}: {bad:#?}");
        // For people: the same checks, a line each.
        let told = operator.run(&["doctor"]).exits(0);
        let names: Vec<&str> = told
            .stdout
            .lines()
            .filter(|line| !line.starts_with(' '))
            .map(|line| line.split_whitespace().nth(1).unwrap())
            .collect();
        assert_eq!(names, found.findings.iter().map(|(name, _, _)| name.as_str()).collect::<Vec<_>>());
        server.stop().await;
    }
}

#[test]
fn every_check_is_documented_and_nothing_else() {
    let operator = Operator::new().with("AUTHSERVICE__SERVER__PORT", free_port().to_string());
    let found = examine(&operator, &[]);

    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doctor.md")).unwrap();
    let documented: Vec<&str> =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(name, _)| name).collect();
    assert_eq!(documented, found.findings.iter().map(|(name, _, _)| name.as_str()).collect::<Vec<_>>());
    // Without a database there is nothing to fail, and none is made.
    found.says("database", "warn", "the first start makes it");
    assert_eq!(found.outcome.code, Some(0));
    assert_eq!(operator.files(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_changed() {
    let operator = Operator::on(Engine::Sqlite).await;
    operator.serve().await.stop().await;
    let before = bytes(&operator);
    examine(&operator, &[]).says("integrity", "ok", "whole");
    assert!(bytes(&operator) == before, "{:?} became {:?}", before.keys(), operator.files());

    let operator = Operator::on(Engine::Postgres).await;
    examine(&operator, &[]).says("schema", "warn", "missing");
    assert_eq!(operator.tables().await, Vec::<String>::new());
    operator.serve().await.stop().await;
    let stamp = "SELECT seen_at::text FROM service_clock";
    let before = operator.texts(stamp).await;
    examine(&operator, &[]).says("schema", "ok", "current");
    assert_eq!(operator.texts(stamp).await, before);
}

#[test]
fn faults_of_the_configuration_are_told_all_at_once() {
    let operator = Operator::new()
        .with("AUTHSERVICE__SERVER__PORT", "CANARY")
        .with("AUTHSERVICE__SERVER__PROT", "1")
        .with("AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS", "-5");
    let found = examine(&operator, &[]);
    assert_eq!(found.findings.len(), 3, "{:?}", found.outcome);
    found.says("configuration", "fail", "server.port");
    assert!(operator.run(&["doctor"]).exits(1).stdout.starts_with("FAIL  configuration"));
}

#[test]
fn a_database_that_does_not_answer_is_not_waited_for() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = Operator::new().with("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1/name");
    examine(&closed, &[]).says("database", "fail", "refused");

    let url = format!("postgres://user:CANARY@{}/name", silent.local_addr().unwrap());
    let operator = Operator::new()
        .with("DATABASE_URL", url)
        .with("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "30")
        .with("AUTHSERVICE__SERVER__PORT", free_port().to_string());
    let found = examine(&operator, &[]);
    found.says("database", "fail", "no answer within 5 s");
    found.says("schema", "skip", "no database");
    assert!(found.outcome.took < Duration::from_secs(20), "{:?}", found.outcome.took);
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_examined() {
    let operator = Operator::on(Engine::Postgres).await;
    operator.run(&["migrate", "up"]).exits(0);
    let url = operator.database.as_ref().unwrap().url.clone();
    let (user, host) = url.split_once('@').unwrap();

    // Nobody listens at the first.
    let operator = operator.with("DATABASE_URL", format!("{user}@127.0.0.1:1,{host}"));
    let found = examine(&operator, &[]);
    found.says("database", "ok", "PostgreSQL answers");
    found.says("database-writable", "ok", "");
    found.says("schema", "ok", "current");

    let operator = operator.with("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1,127.0.0.1:2/name");
    let found = examine(&operator, &[]);
    found.says("database", "fail", "127.0.0.1:1: ");
    found.says("database", "fail", "127.0.0.1:2: ");
}

#[tokio::test]
async fn a_schema_of_another_release_is_told() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        operator.run(&["migrate", "up"]).exits(0);
        operator.sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_later', 0)").await;
        examine(&operator, &[]).says("schema", "warn", "newer release");
        operator.sql("UPDATE schema_compatibility SET oldest = 'm29991231_000001_later'").await;
        let found = examine(&operator, &[]);
        found.says("schema", "fail", "m29991231_000001_later");
        found.says("signing-key", "skip", "schema");

        operator.sql("DELETE FROM seaql_migrations").await;
        examine(&operator, &[]).says("schema", "warn", "migrate up");
    }
}

#[tokio::test]
async fn keys_that_do_not_fit_are_told() {
    let operator = Operator::on(Engine::Sqlite).await;
    operator.run(&["migrate", "up"]).exits(0);
    examine(&operator, &[]).says("encryption-key", "warn", "none yet");
    operator.serve().await.stop().await;
    let file = operator.path("keys/encryption.key");

    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    examine(&operator, &[]).says("encryption-key", "fail", "0644");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    fs::set_permissions(operator.path("keys"), fs::Permissions::from_mode(0o777)).unwrap();
    examine(&operator, &[]).says("key-files", "fail", "anybody can put a key there");
    fs::set_permissions(operator.path("keys"), fs::Permissions::from_mode(0o700)).unwrap();

    operator.write("keys/other.pem", "-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n");
    fs::set_permissions(operator.path("keys/other.pem"), fs::Permissions::from_mode(0o600)).unwrap();
    examine(&operator, &[]).says("key-files", "fail", "other.pem");
    fs::remove_file(operator.path("keys/other.pem")).unwrap();

    operator.sql("UPDATE signing_keys SET signing_at = '2020-01-01 00:00:00+00:00'").await;
    examine(&operator, &[]).says("signing-key", "warn", "is due since");

    let operator = operator.with("AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY", KEY);
    examine(&operator, &[]).says("previous-key", "warn", "opens nothing");
    let operator = operator
        .with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", KEY)
        .with("AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY", fs::read_to_string(&file).unwrap().trim());
    examine(&operator, &[]).says("previous-key", "warn", "2 key(s) are still sealed");
    let operator = operator.with("AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY", "");
    let found = examine(&operator, &[]);
    found.says("encryption-key", "fail", "does not open");
    found.says("signing-key", "fail", "no key may make tokens");

    fs::remove_file(&file).unwrap();
    let operator = operator.with("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "");
    examine(&operator, &[]).says("encryption-key", "fail", "there is none");
    assert!(!file.exists());
}

#[tokio::test]
async fn rights_and_limits_of_postgresql_are_told() {
    let operator = Operator::on(Engine::Postgres).await;
    operator.run(&["migrate", "up"]).exits(0);
    let url = operator.database.as_ref().unwrap().url.clone();
    examine(&operator, &["--replicas", "1000"]).says("connections", "warn", "20000 connection(s)");

    let role = format!("doctor_{}", std::process::id());
    operator.sql(&format!("CREATE ROLE {role}; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")).await;
    let separator = if url.contains('?') { '&' } else { '?' };
    let operator = operator.with("DATABASE_URL", format!("{url}{separator}options=-c%20role%3D{role}"));
    let found = examine(&operator, &[]);
    operator.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    found.says("database-role", "fail", "auth_sessions");

    let operator = operator.with("DATABASE_URL", &url);
    // Behind a pooler the server sets nothing on its connections.
    let operator = operator.with("AUTHSERVICE__DATABASE__TRANSACTION_POOLING", "true");
    examine(&operator, &[]).says("time-limits", "warn", "ALTER ROLE");

    let name = operator.texts("SELECT current_database()::text").await.remove(0);
    operator.sql(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    examine(&operator, &[]).says("database-writable", "fail", "only reading");
}

#[tokio::test]
async fn what_lies_about_in_the_database_is_told() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        operator.serve().await.stop().await;
        operator.sql("CREATE TABLE seed_users (id integer)").await;
        operator.sql("UPDATE service_clock SET seen_at = '2999-01-01 00:00:00+00:00'").await;
        let found = examine(&operator, &[]);
        found.says("old-service", "warn", "seed_users");
        found.says("clock", "warn", "set back");
    }
}

#[tokio::test]
async fn a_damaged_file_is_told() {
    let operator = Operator::on(Engine::Sqlite).await;
    operator.serve().await.stop().await;
    let path = operator.path("authservice.db");
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    for page in pages / 2..pages {
        file.seek(SeekFrom::Start(page * 4096)).unwrap();
        file.write_all(&[0xa5; 512]).unwrap();
    }
    drop(file);
    let found = examine(&operator, &[]);
    // Damage of the first page keeps it from being opened at all.
    let (check, words) =
        if found.of("database").0 == "ok" { ("integrity", "damaged") } else { ("database", "malformed") };
    found.says(check, "fail", words);
    assert!(found.of(check).1.contains("restore a backup"), "{:#?}", found.findings);
}

#[tokio::test]
async fn an_issuer_that_is_somebody_else_is_told() {
    let port = free_port().to_string();
    let issuer = format!("http://127.0.0.1:{port}");
    let other = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__PORT", &port);
    let other = other.with("AUTHSERVICE__SERVER__ISSUER", &issuer);
    let _server = other.serve().await;

    // The same issuer and another database.
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__ISSUER", &issuer);
    operator.serve().await.stop().await;
    examine(&operator, &[]).says("issuer", "fail", "not the 1 of this database");

    let operator = operator.with("AUTHSERVICE__SERVER__ISSUER", format!("http://localhost:{port}"));
    examine(&operator, &[]).says("issuer", "fail", "names the issuer");

    let nobody = operator.with("AUTHSERVICE__SERVER__ISSUER", format!("http://localhost:{}", free_port()));
    examine(&nobody, &[]).says("issuer", "warn", "curl -v");
}

#[test]
fn the_certificate_of_an_issuer_is_told() {
    for (days, level, words) in [(30, "ok", "is good for 29 days"), (5, "warn", "ends at")] {
        let (base, certificate) = tls_stand_in(days);
        let operator = Operator::new().with("AUTHSERVICE__SERVER__ISSUER", &base);
        operator.write("certificate.pem", &certificate);
        let found = examine(&operator, &[]);
        found.says("issuer", "fail", "certificate");
        found.says("proxies", "warn", "a proxy stands before this server");

        let operator = operator.with("SSL_CERT_FILE", "certificate.pem");
        examine(&operator, &[]).says("issuer", level, words);
    }
}

#[test]
fn settings_that_do_not_fit_this_machine_are_told() {
    let operator = Operator::new()
        .with("AUTHSERVICE__LIMITS__CONNECTIONS", "1000000")
        .with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "0.0.0.0/1")
        .with("AUTHSERVICE__SERVER__HOST", "0.0.0.0")
        .with("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE", "key");
    operator.write("key", KEY);
    fs::set_permissions(operator.path("key"), fs::Permissions::from_mode(0o644)).unwrap();
    let found = examine(&operator, &[]);
    found.says("descriptors", "warn", "LimitNOFILE");
    found.says("proxies", "warn", "0.0.0.0/1");
    found.says("secret-files", "warn", "key (mode 0644)");

    let operator = operator.with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "");
    fs::set_permissions(operator.path("key"), fs::Permissions::from_mode(0o440)).unwrap();
    let found = examine(&operator, &[]);
    found.says("proxies", "warn", "listens for other machines");
    found.says("secret-files", "ok", "1 file(s)");
}
