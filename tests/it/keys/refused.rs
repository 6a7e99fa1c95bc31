//! What stops the start: exit code 78 (`EX_CONFIG`) at once, a message that names the file and the fault, no port, no change.

use std::io::Read as _;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::rsa::{Rsa, RsaPrivateKeyBuilder};
use openssl::symm::Cipher;
use serde_json::Value;

use super::{Place, known, rsa};
use crate::support::Engine;

/// A start that is refused takes no longer.
const LIMIT: Duration = Duration::from_secs(2);

/// How a command ended.
struct End {
    code: Option<i32>,
    errors: String,
    took: Duration,
}

/// Runs the binary on the place, with nothing else in its environment.
fn run(place: &Place, arguments: &[&str], settings: &[(&str, &str)]) -> End {
    let started = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_authservice"))
        .args(arguments)
        .current_dir(place.directory.path())
        .env_clear()
        .env("DATABASE_URL", &place.database.url)
        .env("AUTHSERVICE__KEYS__DIRECTORY", place.keys())
        .env("AUTHSERVICE__ADMIN__ENABLED", "false")
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stderr.take().unwrap();
    let (told, heard) = mpsc::channel();
    std::thread::spawn(move || {
        let mut errors = String::new();
        pipe.read_to_string(&mut errors).map(|_| told.send(errors))
    });
    // The pipe ends with the process. One that serves instead never does.
    let errors = heard.recv_timeout(LIMIT * 5);
    if errors.is_err() {
        child.kill().unwrap();
    }
    End {
        code: child.wait().unwrap().code(),
        errors: errors.unwrap_or_else(|_| "it went on".to_owned()),
        took: started.elapsed(),
    }
}

/// A name, what is put into the directory (file, content, mode), settings, and what the message must name.
type Row = (&'static str, Vec<(&'static str, Vec<u8>, u32)>, Vec<(&'static str, &'static str)>, [&'static str; 2]);

/// The PEM file of an RSA key of Wycheproof.
fn wycheproof(vector: u64) -> Vec<u8> {
    let file: Value = serde_json::from_str(include_str!("../wycheproof/json_web_key_test.json")).unwrap();
    let mut groups = file["testGroups"].as_array().unwrap().iter();
    let jwk = &groups.find(|group| group["tests"][0]["tcId"] == vector).unwrap()["private"]["keys"][0];
    let number =
        |name| BigNum::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap()).unwrap();
    let key = RsaPrivateKeyBuilder::new(number("n"), number("e"), number("d")).unwrap();
    let key = key.set_factors(number("p"), number("q")).unwrap();
    key.set_crt_params(number("dp"), number("dq"), number("qi")).unwrap().build().private_key_to_pem().unwrap()
}

fn rows() -> Vec<Row> {
    let good = known().private_key_to_pem_pkcs8().unwrap();
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let (curve, other) = (EcKey::generate(&group).unwrap(), EcKey::generate(&group).unwrap());
    let halves = EcKey::from_private_components(&group, curve.private_key(), other.public_key()).unwrap();
    let halves = PKey::from_ec_key(halves).unwrap().private_key_to_pem_pkcs8().unwrap();
    let ec = PKey::from_ec_key(curve).unwrap();
    let ecdsa = vec![("AUTHSERVICE__KEYS__ALGORITHM", "ES256"), ("AUTHSERVICE__REFRESH__FORMAT", "opaque")];
    let small = Rsa::generate(1024).unwrap().private_key_to_pem().unwrap();
    let exponent = Rsa::generate_with_e(2048, &BigNum::from_u32(3).unwrap()).unwrap();
    let encrypted = known().private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"word").unwrap();
    let public = known().public_key_to_pem().unwrap();
    let private = |pem: Vec<u8>| vec![("private.pem", pem, 0o600)];
    vec![
        ("readable by others", vec![("private.pem", good.clone(), 0o644)], vec![], ["private.pem", "0644"]),
        ("truncated", private(good[..good.len() / 2].to_vec()), vec![], ["private.pem", "PEM"]),
        ("empty", private(Vec::new()), vec![], ["private.pem", "PEM"]),
        ("1024 bits", private(small), vec![], ["private.pem", "1024 bits"]),
        ("exponent 3", private(exponent.private_key_to_pem().unwrap()), vec![], ["private.pem", "exponent"]),
        ("exponent 1 (Wycheproof key 9)", private(wycheproof(9)), vec![], ["private.pem", "exponent"]),
        ("1024 bits (Wycheproof key 8)", private(wycheproof(8)), vec![], ["private.pem", "1024 bits"]),
        ("ROCA (Wycheproof key 7)", private(wycheproof(7)), vec![], ["private.pem", "ROCA"]),
        ("halves of two curve keys", private(halves), ecdsa, ["private.pem", "do not belong together"]),
        ("elliptic curve", private(ec.private_key_to_pem_pkcs8().unwrap()), vec![], ["private.pem", "RS256"]),
        ("encrypted", private(encrypted), vec![], ["private.pem", "encrypted"]),
        ("public only", vec![("private.pem", public.clone(), 0o600)], vec![], ["private.pem", "private key"]),
        (
            "public half of another",
            vec![("private.pem", good.clone(), 0o600), ("public.pem", rsa().public_key_to_pem().unwrap(), 0o644)],
            vec![],
            ["public.pem", "private key"],
        ),
        ("no such file", vec![], vec![("PRIVATE_KEY_PATH", "missing.pem")], ["missing.pem", "No such file"]),
        (
            "garbage as key-encryption key",
            vec![("encryption.key", b"sesame".to_vec(), 0o600)],
            vec![],
            ["encryption.key", "32 bytes"],
        ),
        (
            "empty key-encryption key",
            vec![("encryption.key", Vec::new(), 0o600)],
            vec![],
            ["encryption.key", "32 bytes"],
        ),
        (
            "short key-encryption key",
            vec![("encryption.key", BASE64_STANDARD.encode([7; 31]).into_bytes(), 0o600)],
            vec![],
            ["encryption.key", "32 bytes"],
        ),
        (
            "key-encryption key readable by others",
            vec![("encryption.key", BASE64_STANDARD.encode(openssl::sha::sha256(b"test")).into_bytes(), 0o644)],
            vec![],
            ["encryption.key", "0644"],
        ),
        (
            "garbage as a setting",
            vec![],
            vec![("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "sesame")],
            ["AUTHSERVICE__KEYS__ENCRYPTION_KEY", "32 bytes"],
        ),
        (
            "an algorithm whose signatures vary, for refresh tokens",
            vec![],
            vec![("AUTHSERVICE__KEYS__ALGORITHM", "ES256")],
            ["keys.algorithm", "refresh.format"],
        ),
    ]
}

/// RFC 7518 3.3, RFC 8725 3.5: bad keys stop the start before anything is made or a port is bound.
#[tokio::test]
async fn a_bad_key_stops_the_start_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    // Whoever got as far as binding it would end with 69 and another message.
    let port = taken.local_addr().unwrap().port().to_string();
    let mut faults = Vec::new();
    for (name, files, mut settings, words) in rows() {
        let place = Place::new(Engine::Sqlite).await;
        for (file, content, mode) in files {
            place.put(file, content, mode);
        }
        let before = place.files();
        settings.push(("AUTHSERVICE__SERVER__PORT", &port));

        let end = run(&place, &["serve"], &settings);

        if end.code != Some(78) || words.iter().any(|word| !end.errors.contains(word)) {
            faults.push(format!("{name}: {:?} {}", end.code, end.errors));
        }
        if end.errors.contains("sesame") || end.errors.contains("BEGIN") {
            faults.push(format!("{name}: the message quotes a secret: {}", end.errors));
        }
        if end.took > LIMIT {
            faults.push(format!("{name}: took {:?}", end.took));
        }
        if place.files() != before || !place.rows().await.is_empty() {
            faults.push(format!("{name}: something was made: {:?}", place.files()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A filled ring and the wrong key-encryption key, or none: 78, on both engines.
#[tokio::test]
async fn a_wrong_or_missing_key_encryption_key_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.open(&[]).await.unwrap();
        let rows = place.rows().await;
        for content in [None, Some(BASE64_STANDARD.encode(openssl::sha::sha256(b"wrong")))] {
            std::fs::remove_file(place.keys().join("encryption.key")).unwrap_or_default();
            if let Some(content) = &content {
                place.put("encryption.key", content, 0o600);
            }
            let files = place.files();

            let end = run(&place, &["serve"], &[("AUTHSERVICE__SERVER__PORT", &port)]);

            assert_eq!(end.code, Some(78), "{}", end.errors);
            assert!(
                end.errors.contains("key-encryption key") || end.errors.contains("encryption.key"),
                "{}",
                end.errors
            );
            assert!(end.took < LIMIT, "{:?}", end.took);
            assert_eq!((place.rows().await, place.files()), (rows.clone(), files));
        }
    }
}

/// Processes that open an empty ring at once agree on one key. The port is taken, so that each ends after that.
#[tokio::test]
async fn processes_that_start_at_once_make_one_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let list = run(&place, &["users", "list"], &[]);
        assert_eq!((list.code, place.files().len()), (Some(0), 0), "an operator's command makes no keys");
        std::thread::scope(|scope| {
            let serve = || run(&place, &["serve"], &[("AUTHSERVICE__SERVER__PORT", &port)]);
            let starts: Vec<_> = (0..4).map(|_| scope.spawn(serve)).collect();
            for start in starts {
                let end = start.join().unwrap();
                assert_eq!(end.code, Some(69), "{}", end.errors);
            }
        });
        let purposes: Vec<String> = place.rows().await.into_iter().map(|row| row.purpose).collect();
        assert_eq!(purposes.len(), 2, "{purposes:?}");
        assert_eq!(place.files().len(), 1);
    }
}
