//! The directory of keys: what the server makes in it, what it imports from it, what it refuses to touch.

use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use openssl::bn::BigNum;

use super::{Place, kid, known, rsa, write};
use crate::support::Engine;

const ENCRYPTION_KEY: &str = "AUTHSERVICE__KEYS__ENCRYPTION_KEY";

/// The key-encryption key is its owner's alone, random, and made once.
#[tokio::test]
async fn the_key_encryption_key_is_made_private_and_once() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;

        place.open(&[]).await.unwrap();

        let mode = place.keys().metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o700, "{mode:04o}");
        let files = place.files();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!((files[0].0.as_str(), files[0].1), ("encryption.key", 0o600));
        let key = BASE64_STANDARD.decode(files[0].2.trim_ascii_end()).unwrap();
        assert_eq!(key.len(), 32);
        place.open(&[]).await.unwrap();
        assert_eq!(place.files(), files, "a second start changes nothing");
    }
}

/// With the key-encryption key in the settings no file is made.
#[tokio::test]
async fn a_set_key_encryption_key_needs_no_directory() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let bytes = openssl::sha::sha256(b"test");
        let (key, hexadecimal) =
            (BASE64_STANDARD.encode(bytes), BigNum::from_slice(&bytes).unwrap().to_hex_str().unwrap());

        let first = place.open(&[(ENCRYPTION_KEY, &key)]).await.unwrap();
        let second = place.open(&[(ENCRYPTION_KEY, &hexadecimal)]).await.unwrap();

        assert!(!place.keys().exists());
        let now = first.clock.now();
        assert_eq!(first.keyring.signer(now).unwrap().kid, second.keyring.signer(now).unwrap().kid);
    }
}

/// The private halves in the database are sealed: neither a key nor the key-encryption key stands there.
#[tokio::test]
async fn keys_are_sealed_at_rest() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        place.open(&[]).await.unwrap();

        let der = known().private_key_to_pkcs8().unwrap();
        let prime = known().rsa().unwrap().p().unwrap().to_vec();
        let file = std::fs::read(place.keys().join("encryption.key")).unwrap();
        let secret = BASE64_STANDARD.decode(file.trim_ascii_end()).unwrap();
        for row in place.rows().await {
            for part in [&der[40..80], &prime[..32], &secret] {
                assert!(!row.sealed_private.windows(part.len()).any(|window| window == part), "{}", row.purpose);
            }
            assert!(!row.public_jwk.contains("\"d\""));
        }
    }
}

/// An imported key signs at once in an empty ring, in each form and mode that operators mount it with, and keeps its thumbprint.
#[tokio::test]
async fn an_imported_key_signs_at_once() {
    let pkcs1 = known().rsa().unwrap().private_key_to_pem().unwrap();
    let pkcs8 = known().private_key_to_pem_pkcs8().unwrap();
    let public = known().public_key_to_pem().unwrap();
    let rows = [
        ("PKCS#1, 0600", &pkcs1, 0o600, false),
        ("PKCS#8, 0600", &pkcs8, 0o600, false),
        ("PKCS#8, 0400", &pkcs8, 0o400, false),
        ("PKCS#1, 0440", &pkcs1, 0o440, false),
        ("with its public half", &pkcs8, 0o600, true),
    ];
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for (name, pem, mode, with_public) in &rows {
            let place = Place::new(engine).await;
            place.put("private.pem", pem, *mode);
            if *with_public {
                place.put("public.pem", &public, 0o644);
            }

            let app = place.open(&[]).await.unwrap();

            let signer = app.keyring.signer(app.clock.now()).unwrap();
            assert_eq!(signer.kid, kid(&known()), "{name}");
            assert_eq!(place.rows().await.iter().filter(|row| row.purpose == "signing").count(), 1, "{name}");
        }
    }
}

/// The seed's names for the two files work, wherever they point.
#[tokio::test]
async fn a_key_is_imported_from_the_path_that_is_set() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        let (private, public) = (place.directory.path().join("a.key"), place.directory.path().join("b.key"));
        write(&private, known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        write(&public, known().public_key_to_pem().unwrap(), 0o644);
        let settings = [("PRIVATE_KEY_PATH", private.to_str().unwrap()), ("PUBLIC_KEY_PATH", public.to_str().unwrap())];

        let app = place.open(&settings).await.unwrap();

        assert_eq!(app.keyring.signer(app.clock.now()).unwrap().kid, kid(&known()));
    }
}

/// A file that others can read is no secret, whatever its owner meant.
#[tokio::test]
async fn a_file_that_others_can_read_is_refused() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        for mode in [0o644, 0o640, 0o604, 0o444, 0o660, 0o666, 0o777] {
            let place = Place::new(engine).await;
            place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), mode);
            let refusal = place.refusal(&[]).await;
            assert!(refusal.contains("private.pem") && refusal.contains(&format!("{mode:04o}")), "{refusal}");
            assert!(place.rows().await.is_empty());

            let place = Place::new(engine).await;
            place.put("encryption.key", BASE64_STANDARD.encode(openssl::sha::sha256(b"test")), mode);
            let refusal = place.refusal(&[]).await;
            assert!(refusal.contains("encryption.key") && refusal.contains(&format!("{mode:04o}")), "{refusal}");
            assert!(place.rows().await.is_empty());
        }
        for mode in [0o400, 0o440, 0o600] {
            let place = Place::new(engine).await;
            place.put("encryption.key", BASE64_STANDARD.encode(openssl::sha::sha256(b"test")), mode);
            place.open(&[]).await.unwrap();
        }
    }
}

/// A wrong or missing key-encryption key with a filled ring changes nothing, and the right one still opens it afterwards.
#[tokio::test]
async fn a_wrong_or_missing_key_encryption_key_changes_nothing() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.open(&[]).await.unwrap();
        let (rows, path) = (place.rows().await, place.keys().join("encryption.key"));
        let right = std::fs::read(&path).unwrap();
        let wrong = BASE64_STANDARD.encode(openssl::sha::sha256(b"wrong"));
        // A key that waits for import must not slip in either.
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);

        std::fs::remove_file(&path).unwrap();
        let files = place.files();
        let refusal = place.refusal(&[]).await;
        assert!(refusal.contains("encryption.key") && refusal.contains("keys.encryption_key"), "{refusal}");
        assert_eq!((place.rows().await, place.files()), (rows.clone(), files), "missing");

        let files = place.files();
        let refusal = place.refusal(&[(ENCRYPTION_KEY, &wrong)]).await;
        assert!(refusal.contains("nothing was changed") && !refusal.contains(&wrong), "{refusal}");
        assert_eq!((place.rows().await, place.files()), (rows.clone(), files), "wrong by setting");

        place.put("encryption.key", &wrong, 0o600);
        let files = place.files();
        let refusal = place.refusal(&[]).await;
        assert!(refusal.contains("key-encryption key") && !refusal.contains(&wrong), "{refusal}");
        assert_eq!((place.rows().await, place.files()), (rows.clone(), files), "wrong by file");

        place.put("encryption.key", right, 0o600);
        std::fs::remove_file(place.keys().join("private.pem")).unwrap();
        let app = place.open(&[]).await.unwrap();
        let signer = app.keyring.signer(app.clock.now()).unwrap();
        assert!(rows.iter().any(|row| row.kid == signer.kid));
    }
}

/// A public key that belongs to no private key is a mistake of the operator's, and nothing is made before it is mended.
#[tokio::test]
async fn a_public_key_of_another_pair_is_refused() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let place = Place::new(engine).await;
        place.put("private.pem", known().private_key_to_pem_pkcs8().unwrap(), 0o600);
        place.put("public.pem", rsa().public_key_to_pem().unwrap(), 0o644);
        let files = place.files();

        let refusal = place.refusal(&[]).await;

        assert!(refusal.contains("public.pem"), "{refusal}");
        assert_eq!(place.files(), files);
        assert!(place.rows().await.is_empty());
    }
}

/// A directory that cannot be written is a message with its name, not a server without keys.
#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let place = Place::new(Engine::Sqlite).await;
    std::fs::write(place.keys(), "not a directory").unwrap();

    let refusal = place.refusal(&[]).await;

    assert!(refusal.contains("keys"), "{refusal}");
    assert!(place.rows().await.is_empty());
}
