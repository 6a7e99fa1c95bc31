//! 2M: configuration that is wrong in ways of its own. Each setting by itself: `cli/config.rs`, `cli/sources.rs`.
//!
//! The oracle of a command that must refuse: exit 78 within two seconds, the place is named, nothing is quoted that may be a secret,
//! nothing is printed on standard output, nothing was made.

use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

use crate::cli::{Operator, Outcome};

const SECRET: &str = "C4nary";

/// What is wrong with a refusal.
fn wrong(name: &str, place: &str, operator: &Operator, files: &[String], outcome: &Outcome) -> Option<String> {
    let is_right = outcome.code == Some(78)
        && outcome.stderr.contains(place)
        && outcome.stdout.is_empty()
        && !outcome.stderr.contains(SECRET)
        && !outcome.stderr.contains("panicked")
        && outcome.stderr.len() < 4096
        && outcome.took < Duration::from_secs(10)
        && operator.files() == files;
    (!is_right).then(|| format!("{name}: {outcome:?}, {:?}", operator.files()))
}

#[test]
fn files_that_are_no_configuration() {
    let deep = format!("x = {}{}\n# C4nary\n", "[".repeat(100_000), "]".repeat(100_000));
    let dotted = format!("{}x = 1\n", "a.".repeat(50_000));
    let utf16: Vec<u8> = "[server]\nport = 1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let rows: Vec<(&str, Vec<u8>)> = vec![
        ("binary", vec![0, 159, 146, 150, 255]),
        ("invalid UTF-8", b"[database]\nurl = \"C4nary\xff\"\n".to_vec()),
        ("UTF-16", utf16),
        ("NUL", b"[server]\nport = 1\0\n# C4nary".to_vec()),
        ("a program", b"\x7fELF\x02\x01\x01C4nary".to_vec()),
        ("JSON", br#"{"database":{"url":"C4nary"}}"#.to_vec()),
        ("YAML", b"database:\n  url: C4nary\n".to_vec()),
        ("an environment file", b"DATABASE_URL=C4nary\nexport X=y\n".to_vec()),
        ("XML", b"<config><url>C4nary</url></config>".to_vec()),
        ("a key", b"-----BEGIN PRIVATE KEY-----\nC4nary\n-----END PRIVATE KEY-----\n".to_vec()),
        ("100,000 lists", deep.into_bytes()),
        ("50,000 dots", dotted.into_bytes()),
        ("a section for a value", b"[server.port.C4nary]\n".to_vec()),
        ("a value for a section", b"server = \"C4nary\"\n".to_vec()),
        ("a list of sections", b"[[server]]\nhost = \"C4nary\"\n".to_vec()),
        ("an unknown section of ours", b"[server_]\nhost = \"C4nary\"\n".to_vec()),
        ("a section in upper case", b"[SERVER]\nhost = \"C4nary\"\n".to_vec()),
        ("look-alike letters", "[s\u{435}rver]\nhost = \"C4nary\"\n".into()),
        ("a dash for an underscore", b"[tokens]\naccess-ttl-seconds = 900\n".to_vec()),
        ("a date", b"[tokens]\naccess_ttl_seconds = 2026-11-24\n".to_vec()),
        ("infinity", b"[tokens]\naccess_ttl_seconds = inf\n".to_vec()),
        ("not a number", b"[tokens]\naccess_ttl_seconds = nan\n".to_vec()),
        ("a number beyond 64 bits", b"[tokens]\naccess_ttl_seconds = 99999999999999999999\n".to_vec()),
        ("a text for a number", b"[tokens]\naccess_ttl_seconds = \"900\"\n".to_vec()),
        ("a text for a truth", b"[limits]\nenabled = \"false\"\n".to_vec()),
        ("a number for a truth", b"[limits]\nenabled = 0\n".to_vec()),
        ("a text for a list", b"[server]\ntrusted_proxies = \"C4nary\"\n".to_vec()),
        ("the whole internet in halves", b"[server]\ntrusted_proxies = [\"::/0\"]\n".to_vec()),
        (
            "M09: clients, which there are not",
            b"[[clients]]\nclient_id = \"C4nary\"\nredirect_uris = [\"http://evil\"]\n".to_vec(),
        ),
    ];
    let mut faults = Vec::new();
    for (name, bytes) in rows {
        let operator = Operator::new();
        std::fs::write(operator.path("server.toml"), bytes).unwrap();
        for command in ["config check", "serve"] {
            let arguments: Vec<&str> = command.split(' ').chain(["--config", "server.toml"]).collect();
            let outcome = operator.run(&arguments);
            faults.extend(wrong(
                &format!("{command}, {name}"),
                "server.toml",
                &operator,
                &["server.toml".to_owned()],
                &outcome,
            ));
        }
    }
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn paths_that_are_no_configuration() {
    let operator = Operator::new();
    std::fs::create_dir(operator.path("folder")).unwrap();
    std::os::unix::fs::symlink("itself", operator.path("itself")).unwrap();
    std::os::unix::fs::symlink("nowhere", operator.path("dangling")).unwrap();
    let long = "a".repeat(5000);
    let mut faults = Vec::new();
    for path in [
        "nowhere.toml",
        "folder",
        "itself",
        "dangling",
        "folder/nowhere/x",
        &long,
        "",
        "/proc/self/mem",
        "\u{202e}toml",
    ] {
        let outcome = operator.run(&["config", "check", "--config", path]);
        // An empty path is refused with the command line.
        let is_empty = path.is_empty() && outcome.code == Some(2);
        let files = operator.files();
        let short = path.chars().take(20).collect::<String>();
        let fault = wrong(&short, "", &operator, &files, &outcome);
        // A long path is quoted whole, so that message is long.
        let is_long = path == long.as_str() && outcome.code == Some(78);
        faults.extend(fault.filter(|_| !is_empty && !is_long));
    }
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn variables_that_are_no_configuration() {
    let long = "9".repeat(100_000);
    let rows: Vec<(&str, Vec<u8>, &str)> = vec![
        ("AUTHSERVICE__SERVER__ISSUER", b"https://auth.example.com\r\nSet-Cookie: C4nary".to_vec(), "server.issuer"),
        ("AUTHSERVICE__SERVER__ISSUER", b"https://C4nary\xff.example.com".to_vec(), "ISSUER"),
        ("AUTHSERVICE__SERVER__ISSUER", b"javascript:C4nary".to_vec(), "server.issuer"),
        ("AUTHSERVICE__SERVER__ISSUER", b"https://".to_vec(), "server.issuer"),
        ("AUTHSERVICE__SERVER__ISSUER", b"//C4nary.example.com".to_vec(), "server.issuer"),
        ("AUTHSERVICE__SERVER__ISSUER", b"https://auth.example.com:99999".to_vec(), "server.issuer"),
        ("AUTHSERVICE__SERVER__PORT", long.into_bytes(), "server.port"),
        ("AUTHSERVICE__SERVER__PORT", b"0x50".to_vec(), "server.port"),
        ("AUTHSERVICE__SERVER__PORT", b"8_0".to_vec(), "server.port"),
        ("AUTHSERVICE__SERVER__PORT", "８０".into(), "server.port"),
        ("AUTHSERVICE__SERVER__HOST", b"not a host".to_vec(), ""),
        ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", b"10.0.0.0/8;C4nary".to_vec(), "server.trusted_proxies"),
        ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", b"0.0.0.0/00".to_vec(), "server.trusted_proxies"),
        ("AUTHSERVICE__SERVER__API_PREFIX", b"/a\r\nC4nary".to_vec(), "server.api_prefix"),
        ("AUTHSERVICE__SERVER__API_PREFIX", b"/%61".to_vec(), "server.api_prefix"),
        ("AUTHSERVICE__SERVER__API_PREFIX", b"/a?b".to_vec(), "server.api_prefix"),
        ("AUTHSERVICE__SERVER__API_PREFIX", b"/:a".to_vec(), "server.api_prefix"),
        ("AUTHSERVICE__SERVER__API_PREFIX", b"/*a".to_vec(), "server.api_prefix"),
        ("AUTHSERVICE__DATABASE__URL", b"C4nary".to_vec(), "database.url"),
        ("AUTHSERVICE__DATABASE__URL", b"postgres://u:C4nary@[::1/n".to_vec(), "database.url"),
        ("AUTHSERVICE__DATABASE__URL", b"".to_vec(), "database.url"),
        ("AUTHSERVICE__KEYS__ENCRYPTION_KEY", b"C4nary".to_vec(), "keys.encryption_key"),
        (
            "AUTHSERVICE__KEYS__ENCRYPTION_KEY",
            b"0000000000000000000000000000000000000000000000000000000000000000".to_vec(),
            "keys.encryption_key",
        ),
        (
            "AUTHSERVICE__KEYS__ENCRYPTION_KEY",
            b"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=C4nary".to_vec(),
            "keys.encryption_key",
        ),
        ("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE", b"/dev/null".to_vec(), "keys.encryption_key"),
        ("AUTHSERVICE__KEYS__ENCRYPTION_KEY_FILE", b".".to_vec(), "keys.encryption_key"),
        (
            "AUTHSERVICE__TOKENS__AUDIENCE",
            b"C4nary\0".iter().filter(|byte| **byte != 0).copied().chain(*b"\n").collect(),
            "",
        ),
        ("AUTHSERVICE__TOKENS__TYPE_CLAIM", b"exp".to_vec(), "tokens.type_claim"),
        ("AUTHSERVICE__TOKENS__SCOPE", b"a\"b".to_vec(), "tokens.scope"),
        ("AUTHSERVICE__TOKENS__SCOPE", b"a\\b".to_vec(), "tokens.scope"),
        ("AUTHSERVICE__LOG__LEVEL", b"[C4nary{".to_vec(), "log.level"),
        ("AUTHSERVICE__SERVER__", b"C4nary".to_vec(), "AUTHSERVICE__SERVER__"),
        ("AUTHSERVICE__server__port", b"C4nary".to_vec(), ""),
        ("AUTHSERVICE_CONFIG", b"nowhere\n.toml".to_vec(), ""),
    ];
    let mut faults = Vec::new();
    for (name, value, place) in rows {
        let operator = Operator::new().with(name, std::ffi::OsString::from_vec(value.clone()));
        let outcome = operator.run(&["config", "check"]);
        // Places left open: what is refused later, by the system, or is a text like any other.
        let is_open = place.is_empty() && outcome.code == Some(0);
        let fault = wrong(&format!("{name}={:.60}", value.escape_ascii()), place, &operator, &[], &outcome);
        faults.extend(fault.filter(|_| !is_open));
    }
    assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
}
