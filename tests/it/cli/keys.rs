//! `keys`: what an operator does beside a running server.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::pkey::PKey;
use serde_json::Value;

use super::{KEY, Operator, Server};
use crate::support::{Engine, PASSWORD, jwt_header};

const CURRENT: &str = "AUTHSERVICE__KEYS__ENCRYPTION_KEY";
const PREVIOUS: &str = "AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY";

/// A server on each engine, and the operator beside it.
async fn each_engine(test: impl AsyncFn(Operator, &Server)) {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await.with("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA");
        let server = operator.serve().await;
        test(operator, &server).await;
    }
}

/// What `keys list --json` says.
fn list(operator: &Operator) -> Vec<Value> {
    let listed = operator.run(&["keys", "list", "--json"]).exits(0);
    assert_eq!(listed.stderr, "");
    listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn of(operator: &Operator, kid: &str) -> Value {
    list(operator).into_iter().find(|key| key["kid"] == kid).unwrap()
}

/// Writes an Ed25519 key that only its owner reads, and returns its name.
fn put(operator: &Operator, name: &str, key: &PKey<openssl::pkey::Private>) {
    operator.write(name, &String::from_utf8(key.private_key_to_pem_pkcs8().unwrap()).unwrap());
    std::fs::set_permissions(operator.path(name), std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Asserts that the server comes to publish exactly these keys by itself.
async fn publishes(server: &Server, kids: &[&str]) -> Duration {
    let started = Instant::now();
    let mut expected = kids.to_vec();
    expected.sort_unstable();
    loop {
        let mut kids = server.kids().await;
        kids.sort();
        if kids == expected {
            return started.elapsed();
        }
        assert!(started.elapsed() < super::PATIENCE, "{kids:?} are not {expected:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn keys_are_listed_with_their_states_and_without_their_secrets() {
    each_engine(async |operator, server| {
        let kid = server.kids().await.remove(0);
        operator.run(&["keys", "rotate", "--purpose", "signing"]).exits(0);

        let rows = list(&operator);
        let table = operator.run(&["keys", "list"]).exits(0).stdout;

        assert_eq!(rows.len(), 3);
        let signing: Vec<_> = rows.iter().filter(|row| row["purpose"] == "signing").collect();
        assert_eq!((&signing[0]["kid"], &signing[0]["state"]), (&kid.as_str().into(), &"signing".into()));
        assert_eq!((&signing[1]["state"], &signing[1]["algorithm"]), (&"announced".into(), &"EdDSA".into()));
        assert_eq!(signing[0]["retained_at"], signing[1]["signing_at"]);
        assert_eq!(signing[1]["retained_at"], Value::Null);
        assert!(rows.iter().all(|row| row["encryption_key"] == "current" && row["revoked_at"].is_null()));
        let lines: Vec<&str> = table.lines().collect();
        assert!(lines[0].starts_with("KID ") && lines.len() == 4, "{table}");
        for (line, row) in lines[1..].iter().zip(&rows) {
            let cells: Vec<&str> = line.split_whitespace().collect();
            assert_eq!((cells[0], cells[3]), (row["kid"].as_str().unwrap(), row["state"].as_str().unwrap()));
        }
        let secret = std::fs::read_to_string(operator.path("keys/encryption.key")).unwrap();
        for printed in [serde_json::to_string(&rows).unwrap(), table] {
            assert!(
                !printed.contains(secret.trim()) && !printed.contains("\"d\"") && !printed.contains("sealed_private")
            );
        }
    })
    .await;
}

/// The announced key is published by the running server, and signs when the operator says so.
#[tokio::test]
async fn a_successor_is_announced_and_may_be_hurried() {
    each_engine(async |operator, server| {
        let first = server.kids().await.remove(0);
        server.register("alice@example.com", PASSWORD).await;

        let planned = operator.run(&["keys", "rotate"]).exits(0).stdout;
        let again = operator.run(&["keys", "rotate"]).exits(0).stdout;

        let next = planned.lines().find_map(|line| line.strip_prefix("signing: ")?.split(' ').next()).unwrap();
        assert_eq!((planned.lines().count(), again.matches("announced already").count()), (2, 2), "{planned}{again}");
        publishes(server, &[&first, next]).await;
        let pair = server.login("alice@example.com", PASSWORD).await.pair();
        assert_eq!(jwt_header(&pair.access)["kid"], first);

        operator.run(&["keys", "rotate", "--now", "--purpose", "signing"]).exits(0);

        assert_eq!(of(&operator, next)["state"], "signing");
        assert_eq!(of(&operator, &first)["state"], "retained");
        let started = Instant::now();
        while jwt_header(&server.login("alice@example.com", PASSWORD).await.pair().access)["kid"] != next {
            assert!(started.elapsed() < super::PATIENCE, "it does not sign");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert_eq!(server.me(&pair.access).await.status, 200);
        let events = operator.texts("SELECT event FROM audit_events WHERE event = 'key_brought_forward'").await;
        assert_eq!(events.len(), 1);
    })
    .await;
}

/// security.md R16 with a real server, which nobody tells.
#[tokio::test]
async fn a_revoked_key_is_refused_by_a_running_server() {
    each_engine(async |operator, server| {
        let first = server.kids().await.remove(0);
        let pair = server.alice().await;
        for (arguments, word) in [
            (&["keys", "revoke", &first][..], "--yes"),
            (&["keys", "revoke", "nothing", "--yes"], "there is no key nothing"),
            (&["keys", "revoke", "-nothing", "--yes"], "there is no key -nothing"),
        ] {
            let refused = operator.run(arguments).exits(65);
            assert!(refused.stderr.contains(word) && refused.stdout.is_empty(), "{refused:?}");
        }
        assert_eq!(of(&operator, &first)["state"], "signing", "nothing was changed");

        let revoked = operator.run(&["keys", "revoke", &first, "--yes"]).exits(0).stdout;

        let started = Instant::now();
        while server.me(&pair.access).await.status == 200 {
            assert!(started.elapsed() < super::PATIENCE, "the key is not refused");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.me(&pair.access).await.refused(401, "invalid_token");
        server.refresh(&pair.refresh).await.refused(401, "invalid_token");
        let next = server.kids().await;
        assert!(next.len() == 1 && next[0] != first);
        assert!(revoked.contains("300 s") && revoked.contains("sign in again"), "{revoked}");
        assert!(revoked.contains(&format!("{} takes over at once", next[0])), "{revoked}");
        let pair = server.login("alice@example.com", PASSWORD).await.pair();
        assert_eq!(jwt_header(&pair.access)["kid"], next[0]);
        let again = operator.run(&["keys", "revoke", "--yes", &first]).exits(0).stdout;
        assert_eq!(again, format!("{first} was revoked already\n"));
        assert_eq!(of(&operator, &first)["state"], "gone");
    })
    .await;
}

/// The checks are those of the directory; the key is announced, whatever its kid begins with.
#[tokio::test]
async fn a_key_is_imported_after_its_checks() {
    each_engine(async |operator, server| {
        let first = server.kids().await.remove(0);
        // One kid in 64 looks like an option.
        let (key, kid) = loop {
            let key = PKey::generate_ed25519().unwrap();
            let x = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(key.raw_public_key().unwrap());
            let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
            let kid = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(openssl::sha::sha256(members.as_bytes()));
            if kid.starts_with('-') {
                break (key, kid);
            }
        };
        let rsa = PKey::from_rsa(openssl::rsa::Rsa::generate(1024).unwrap()).unwrap();
        put(&operator, "key.pem", &key);
        put(&operator, "small.pem", &rsa);
        operator.write("open.pem", &std::fs::read_to_string(operator.path("key.pem")).unwrap());
        operator.write("half.pem", "-----BEGIN PRIVATE KEY-----\nsesame");
        std::fs::set_permissions(operator.path("half.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(operator.path("open.pem"), std::fs::Permissions::from_mode(0o644)).unwrap();
        for (file, word) in
            [("missing.pem", "No such file"), ("small.pem", "1024 bits"), ("open.pem", "0644"), ("half.pem", "PEM")]
        {
            let refused = operator.run(&["keys", "import", file]).exits(65);
            assert!(refused.stderr.contains(word) && refused.stderr.contains(file), "{refused:?}");
            assert!(!refused.printed().contains("sesame"), "{refused:?}");
        }

        let imported = operator.run(&["keys", "import", "key.pem"]).exits(0);

        assert!(imported.stdout.contains(&kid) && !imported.printed().contains("PRIVATE"), "{imported:?}");
        assert_eq!(
            (&of(&operator, &kid)["state"], &of(&operator, &kid)["is_imported"]),
            (&"announced".into(), &true.into())
        );
        publishes(server, &[&first, &kid]).await;
        let refused = operator.run(&["keys", "import", "key.pem"]).exits(65);
        assert!(refused.stderr.contains("in the ring already: announced"), "{refused:?}");
        put(&operator, "other.pem", &PKey::generate_ed25519().unwrap());
        let refused = operator.run(&["keys", "import", "other.pem"]).exits(65);
        assert!(refused.stderr.contains("is announced"), "{refused:?}");

        let exported = operator.run(&["keys", "export-public", &kid]).exits(0).stdout;
        assert_eq!(exported.as_bytes(), key.public_key_to_pem().unwrap());
        operator.run(&["keys", "revoke", &kid, "--yes"]).exits(0);
        publishes(server, &[&first]).await;
        let refused = operator.run(&["keys", "import", "key.pem"]).exits(65);
        assert!(refused.stderr.contains("was revoked"), "{refused:?}");
    })
    .await;
}

#[tokio::test]
async fn the_public_half_of_a_key_is_exported() {
    each_engine(async |operator, server| {
        let published = server.get("/.well-known/jwks.json").await.json()["keys"][0].clone();
        let export = |arguments: &[&str]| operator.run(&[&["keys", "export-public"], arguments].concat());

        let jwk: Value = serde_json::from_str(&export(&["--jwk"]).exits(0).stdout).unwrap();
        assert_eq!(jwk, published, "the signer, as the set has it");
        let pem = export(&[]).exits(0).stdout;
        let key = PKey::public_key_from_pem(pem.as_bytes()).unwrap();
        let x = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(key.raw_public_key().unwrap());
        assert_eq!(published["x"], x);
        assert_eq!(export(&[jwk["kid"].as_str().unwrap()]).exits(0).stdout, pem);
        assert!(!pem.contains("PRIVATE"));

        let mac = list(&operator).into_iter().find(|key| key["purpose"] == "refresh").unwrap();
        let refused = export(&[mac["kid"].as_str().unwrap()]).exits(65);
        assert!(refused.stderr.contains("symmetric") && refused.stdout.is_empty(), "{refused:?}");
        assert!(export(&["nothing"]).exits(65).stderr.contains("there is no key nothing"));
    })
    .await;
}

/// The way of docs/keys.md, with real servers: no sign-in fails in between.
#[tokio::test]
async fn the_key_encryption_key_is_exchanged_while_servers_run() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let other = BASE64_STANDARD.encode(openssl::sha::sha256(b"other"));
        let operator = Operator::on(engine).await.with("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA").with(CURRENT, KEY);
        let oldest = operator.serve().await;
        oldest.register("alice@example.com", PASSWORD).await;
        let kid = oldest.kids().await.remove(0);

        operator.write("next.key", &format!("{other}\n"));
        let mut operator = operator.with("AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY_FILE", "next.key");
        let first = operator.serve().await;
        oldest.stop().await;
        operator.environment.remove("AUTHSERVICE__KEYS__PREVIOUS_ENCRYPTION_KEY_FILE");
        let operator = operator.with(CURRENT, &other).with(PREVIOUS, KEY);
        let second = operator.serve().await;
        assert_eq!(of(&operator, &kid)["encryption_key"], "previous");
        let resealed = operator.run(&["keys", "reseal"]).exits(0);
        assert_eq!(resealed.printed(), "sealed with the current key-encryption key: 2; were already: 0\n");
        assert!(!resealed.printed().contains(KEY) && !resealed.printed().contains(&other));
        first.login("alice@example.com", PASSWORD).await.pair();
        first.stop().await;
        let operator = operator.with(PREVIOUS, "");
        let last = operator.serve().await;
        second.stop().await;

        assert_eq!((last.kids().await, &of(&operator, &kid)["encryption_key"]), (vec![kid.clone()], &"current".into()));
        last.login("alice@example.com", PASSWORD).await.pair();
        let operator = operator.with(CURRENT, KEY);
        let before = operator.texts("SELECT kid || encryption_key_id FROM signing_keys ORDER BY 1").await;
        for command in [&["serve"][..], &["keys", "rotate"], &["keys", "reseal"], &["keys", "export-public"]] {
            let refused = operator.run(command).exits(78);
            assert!(!refused.printed().contains(KEY), "{refused:?}");
        }
        assert_eq!(operator.texts("SELECT kid || encryption_key_id FROM signing_keys ORDER BY 1").await, before);
        assert_eq!(of(&operator, &kid)["state"], "undecryptable", "an operator without it may look");
    }
}

/// An operator's command makes no files and no keys where there are none, and needs a database of this release.
#[tokio::test]
async fn commands_on_an_empty_ring_make_nothing() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let operator = Operator::on(engine).await;
        operator.run(&["keys", "list"]).exits(78);
        operator.run(&["migrate", "up"]).exits(0);
        assert!(list(&operator).is_empty());
        for command in [&["keys", "rotate"][..], &["keys", "reseal"]] {
            let refused = operator.run(command).exits(78);
            assert!(refused.stderr.contains("encryption.key"), "{refused:?}");
        }
        assert!(operator.run(&["keys", "export-public"]).exits(65).stderr.contains("no key that signs"));
        assert!(list(&operator).is_empty());
        assert!(!operator.path("keys").exists());
    }
}
