//! Sign-in against stored password hashes of every kind.

use sea_orm::{ConnectionTrait as _, Statement};
use serde_json::json;

use crate::support::{Answer, PASSWORD, TestApp, each_engine};

/// [`PASSWORD`] by bcrypt of cost 12.
const BCRYPT: &str = "$2b$12$abcdefghijklmnopqrstuugrERCAS.o67fsFQPS0YhqoS7b2gfMOO";
/// 72 times `y` and any tail, by bcrypt of cost 4.
const BCRYPT_LONG: &str = "$2b$04$abcdefghijklmnopqrstuuwurWIdVVT4m5pTArtqnFNM69nySdHj.";

async fn login(app: &TestApp, email: &str, password: &str) -> Answer {
    app.post("auth/login", &json!({"email": email, "password": password})).await
}

async fn set_hash(app: &TestApp, hash: &str) {
    app.sql(&format!("UPDATE users SET hashed_password = '{hash}'")).await;
}

/// The hash of the only user.
async fn hash(app: &TestApp) -> String {
    let db = app.app.db.writer();
    let query = Statement::from_string(db.get_database_backend(), "SELECT hashed_password FROM users");
    let row = db.query_one_raw(query).await.unwrap();
    row.unwrap().try_get_by_index(0).unwrap()
}

#[tokio::test]
async fn d15_a_hash_that_the_seed_left_becomes_argon2id() {
    let rows = [
        ("2b, cost 12", BCRYPT),
        ("2a, cost 4", "$2a$04$abcdefghijklmnopqrstuu56vf6cTB42Nm1baS7ezKXXOuJZPOt2u"),
        ("2y, cost 4", "$2y$04$abcdefghijklmnopqrstuu56vf6cTB42Nm1baS7ezKXXOuJZPOt2u"),
    ];
    each_engine(async |app| {
        app.register("alice@example.com").await;
        for (name, old) in rows {
            set_hash(&app, old).await;
            login(&app, "alice@example.com", "wrongwrong").await.refused(401, "invalid_credentials");
            assert_eq!(hash(&app).await, old, "{name}");

            let answer = login(&app, "alice@example.com", PASSWORD).await;

            assert_eq!(answer.status, 200, "{name}: {answer:?}");
            let renewed = hash(&app).await;
            assert!(renewed.starts_with("$argon2id$v=19$m="), "{name}: {renewed}");
            assert_eq!(login(&app, "alice@example.com", PASSWORD).await.status, 200, "{name}");
            assert_eq!(hash(&app).await, renewed, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_bcrypt_hash_of_more_than_72_bytes_is_kept() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        set_hash(&app, BCRYPT_LONG).await;
        let typed = |tail: &str| format!("{}{tail}", "y".repeat(72));
        let rows = [
            ("the password", typed("AAAA"), 200, false),
            ("another tail", typed("ZZZZZZ"), 200, false),
            ("another head", format!("x{}", typed("AAAA")), 401, false),
            ("no tail", typed(""), 200, true),
            ("a tail after that", typed("AAAA"), 401, true),
        ];
        for (name, password, status, is_renewed) in rows {
            let answer = login(&app, "alice@example.com", &password).await;

            assert_eq!(answer.status, status, "{name}: {answer:?}");
            assert_eq!(hash(&app).await != BCRYPT_LONG, is_renewed, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn d06_a_stored_hash_that_cannot_be_read_is_a_wrong_password() {
    let hostile = BCRYPT.replace("$12$", "$31$");
    let rows = [
        ("empty", ""),
        ("plain text", PASSWORD),
        ("rubbish", "$$$"),
        ("half of argon2id", "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ"),
        ("hostile argon2id", "$argon2id$v=19$m=4294967295,t=2,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA"),
        ("half of bcrypt", "$2b$12$abcdefghijkl"),
        ("bcrypt without a cost", "$2b$xx$abcdefghijklmnopqrstuu"),
        ("D15 hostile bcrypt", hostile.as_str()),
        ("other scheme", "$5$rounds=5000$salt$hash"),
    ];
    each_engine(async |app| {
        app.register("alice@example.com").await;
        for (name, stored) in rows {
            set_hash(&app, stored).await;

            let answer = login(&app, "alice@example.com", PASSWORD).await;

            assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_credentials"), "{name}: {answer:?}");
            assert_eq!(hash(&app).await, stored, "{name}");
        }
    })
    .await;
}

#[tokio::test]
async fn d05_a_hash_is_not_a_password() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        for stored in [hash(&app).await, BCRYPT.to_owned()] {
            set_hash(&app, &stored).await;

            let answer = login(&app, "alice@example.com", &stored).await;

            answer.refused(401, "invalid_credentials");
        }
    })
    .await;
}

#[tokio::test]
async fn a_common_password_that_was_set_before_still_signs_in() {
    each_engine(async |app| {
        app.register("alice@example.com").await;
        // `password` by bcrypt.
        set_hash(&app, "$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm").await;

        let answer = login(&app, "alice@example.com", "password").await;

        assert_eq!(answer.status, 200, "{answer:?}");
    })
    .await;
}
