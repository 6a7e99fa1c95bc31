//! 2D: sign-in of nobody, with anything, and too often.

use std::io::Write as _;

use serde_json::json;

use super::oracle::PASSWORD;
use super::wire::{Wire, bare, exchange, posted, request};
use super::{Case, LOGIN, REGISTER, Stage, case, each_engine};

const REFUSED: &str = "401 invalid_credentials";
const ALICE: &str = "canary.alice@example.com";

fn login(email: &str, password: &str) -> Vec<u8> {
    posted(LOGIN, json!({"email": email, "password": password}).to_string())
}

/// [`PASSWORD`] by bcrypt, and its cost.
const BCRYPT: [(u32, &str); 2] = [
    (4, "$2b$04$abcdefghijklmnopqrstuuD/mSmpRHH5Q/RYTBNlDcszdYsSF0kVS"),
    (12, "$2b$12$abcdefghijklmnopqrstuuIdd5yh0rCqLS7nJWv.4RWAxmc6zr1R6"),
];

#[tokio::test]
async fn sign_ins() {
    let never = [(
        "a session of somebody inactive",
        "SELECT COUNT(*) FROM auth_sessions s JOIN users u ON u.id = s.user_id WHERE NOT u.is_active AND s.revoked_at IS NULL",
    )];
    each_engine(&[], &never, async |stage| {
        stage.account(ALICE);
        for case in &nobody() {
            stage.run(case);
        }
        others(stage);
        inactive(stage).await;
        stored_hashes(stage).await;
        flood(stage);
        hang_ups(stage);
    })
    .await;
}

/// Whoever does not know the password learns nothing.
fn nobody() -> Vec<Case> {
    let mut cases = vec![
        case("D01", "a wrong password", login(ALICE, "C4nary!Wr0ng"), REFUSED),
        case("D01", "an unknown address", login("canary.nobody@example.com", PASSWORD), REFUSED),
        case("+D01", "the password in another case", login(ALICE, &PASSWORD.to_uppercase()), REFUSED),
        case("+D01", "the password and a blank", login(ALICE, &format!("{PASSWORD} ")), REFUSED),
        case("+D01", "half of the password", login(ALICE, &PASSWORD[..8]), REFUSED),
        case("+D01", "the password twice", login(ALICE, &PASSWORD.repeat(2)), REFUSED),
        case("+D01", "in full width", login(ALICE, "\u{ff23}4nary!Passw0rd"), REFUSED),
        case("+D01", "8 blanks", login(ALICE, &" ".repeat(8)), REFUSED),
        case("+D01", "128 emoji", login(ALICE, &"\u{1f511}".repeat(128)), REFUSED),
        case("D25", "GET", bare(&format!("GET {LOGIN}?email={ALICE}&password={PASSWORD}")), "405"),
        case("D25", "a query", request(&format!("POST {LOGIN}?email={ALICE}&password={PASSWORD}"), "", ""), "422"),
        case(
            "+D25",
            "Basic",
            request(&format!("POST {LOGIN}"), "Authorization: Basic Y2FuYXJ5OkM0bmFyeQ==\r\n", ""),
            "422",
        ),
    ];
    // The address of the others differs from Alice's, and from any.
    for email in [
        "'or'1'='1'@example.com",
        "canary.alice%@example.com",
        "canary_alice@example.com",
        "%@example.com",
        "*@example.com",
        "canary.alice@example.com.evil.org",
        "canary.alice+x@example.com",
        "canary.alice/*@example.com",
        "canary.alice'--@example.com",
        "c\u{430}nary.alice@example.com",
        "\u{ff43}anary.alice@example.com",
        "canary.al\u{131}ce@example.com",
    ] {
        cases.push(case("D04", format!("{email:?}"), login(email, PASSWORD), REFUSED));
    }
    for password in [
        "' OR '1'='1' --",
        "') OR ('1'='1",
        "*)(uid=*))(|(uid=*",
        "{\"$gt\": \"\"}",
        "$(sleep 10)",
        "`sleep 10`",
        "admin'/*",
        "../../../etc/passwd",
        "${jndi:ldap://x}",
        "%00%00%00%00",
        "\\u0000\\u0000",
        "1;SELECT pg_sleep(10)",
        "{{7*'7'}}{{7*'7'}}",
        "<!--#exec cmd=\"id\"-->",
    ] {
        cases.push(case("D04", format!("password {password}"), login(ALICE, password), REFUSED));
    }
    for (name, body) in [
        ("an operator as the address", json!({"email": {"$ne": null}, "password": PASSWORD})),
        ("an operator as the password", json!({"email": ALICE, "password": {"$ne": null}})),
        ("a regular expression", json!({"email": {"$regex": ".*"}, "password": {"$regex": ".*"}})),
        ("a list of passwords", json!({"email": ALICE, "password": [PASSWORD, "a", "b"]})),
        ("a list of addresses", json!({"email": [ALICE], "password": PASSWORD})),
        ("7 characters", json!({"email": ALICE, "password": "C4nary!"})),
        ("129 characters", json!({"email": ALICE, "password": "x".repeat(129)})),
        ("NUL", json!({"email": ALICE, "password": format!("{PASSWORD}\0")})),
        ("a blank within the address", json!({"email": "canary .alice@example.com", "password": PASSWORD})),
    ] {
        cases.push(case("D04", name, posted(LOGIN, body.to_string()), "422"));
    }
    cases
}

/// D16, and addresses that are hers in another writing.
fn others(stage: &mut Stage) {
    let alice = stage.sign_in(ALICE);
    let bob = stage.account("canary.bob@example.com");
    let body = json!({"email": "canary.bob@example.com", "password": PASSWORD}).to_string();
    let headers = format!("Authorization: Bearer {}\r\nContent-Length: {}\r\n", alice.access, body.len());
    let answers = stage.run(&case(
        "D16",
        "with the token of somebody else",
        request(&format!("POST {LOGIN}"), headers, body),
        "200",
    ));
    let subject = |token: &str| crate::support::claims(token)["sub"].clone();
    if subject(&answers[0].pair().access) != subject(&bob.access) {
        stage.fault("D16: signed in as somebody else");
    }
    for email in ["CANARY.Alice@EXAMPLE.com", " canary.alice@example.com ", "Alice <canary.alice@example.com>"] {
        stage.run(&case("+D09", email, login(email, PASSWORD), "200"));
    }
}

async fn inactive(stage: &mut Stage) {
    let pair = stage.account("canary.inactive@example.com");
    stage.operator.sql("UPDATE users SET is_active = FALSE WHERE email = 'canary.inactive@example.com'").await;
    stage.run(&case(
        "D01",
        "inactive, a wrong password",
        login("canary.inactive@example.com", "C4nary!Wr0ng"),
        REFUSED,
    ));
    stage.run(&case(
        "D01",
        "inactive, the right password",
        login("canary.inactive@example.com", PASSWORD),
        "403 user_inactive",
    ));
    let me = super::wire::bearer(&format!("GET {}", super::ME), &pair.access);
    stage.run(&case("E42", "the token of an inactive user", me, "403 user_inactive"));
    let refresh = super::wire::bearer(&format!("POST {}", super::REFRESH), &pair.refresh);
    stage.run(&case("F17", "refresh of an inactive user", refresh, "401 refresh_reuse_detected"));
    stage.run(&case(
        "+C25",
        "register an inactive address",
        posted(REGISTER, json!({"email": "canary.inactive@example.com", "password": PASSWORD}).to_string()),
        "409 email_taken",
    ));
    stage.operator.sql("DELETE FROM users WHERE email = 'canary.inactive@example.com'").await;
    stage.run(&case(
        "E42",
        "the token of a deleted user",
        super::wire::bearer(&format!("GET {}", super::ME), &pair.access),
        "404 user_not_found",
    ));
    stage.run(&case(
        "F17",
        "refresh of a deleted user",
        super::wire::bearer(&format!("POST {}", super::REFRESH), &pair.refresh),
        "401 refresh_reuse_detected",
    ));
}

/// D05, D06, D15: what stands in the row, whoever wrote it.
async fn stored_hashes(stage: &mut Stage) {
    let hashes = stage.operator.texts(&format!("SELECT hashed_password FROM users WHERE email = '{ALICE}'")).await;
    stage.run(&case("D05", "the hash itself", login(ALICE, &hashes[0]), REFUSED));
    stage.may_log = Some("a stored password hash cannot be read");
    for (id, hash) in [
        ("D06", "rubbish"),
        ("D06", ""),
        ("D06", "C4nary!Passw0rd2"),
        ("D06", "$argon2id$v=19$m=19456,t=2,p=1$"),
        ("D06", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"),
        (
            "+D06",
            "$argon2id$v=19$m=4294967295,t=4294967295,p=255$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        ("+D06", "$argon2id$v=19$m=8388608,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("+D06", "$argon2id$v=19$m=0,t=0,p=0$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("+D06", "$argon2id$v=99$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("+D06", "$argon2d$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("+D06", "$argon2id$v=19$m=19456,t=2,p=1$\u{0}"),
        ("D15", "$2b$31$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("D15", "$2b$99$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("+D15", "$2b$04$"),
        ("+D15", "$2b$04$!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!"),
        ("+D15", "$2x$04$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        ("+D15", "$1$salt$hash"),
        ("+D15", "$6$rounds=999999999$salt$hash"),
        ("+D15", "pbkdf2:sha256:1000000$salt$hash"),
    ] {
        // PostgreSQL keeps no NUL, so neither does the test.
        let hash = hash.replace('\0', "");
        stage.operator.sql(&format!("UPDATE users SET hashed_password = '{hash}' WHERE email = '{ALICE}'")).await;
        stage.run(&case(id, format!("stored: {hash:.40}"), login(ALICE, PASSWORD), REFUSED));
        stage.run(&case(id, format!("the stored text as the password: {hash:.40}"), login(ALICE, &hash), "401|422"));
    }
    stage.may_log = None;
    for (cost, hash) in BCRYPT {
        stage.operator.sql(&format!("UPDATE users SET hashed_password = '{hash}' WHERE email = '{ALICE}'")).await;
        stage.run(&case("D15", format!("bcrypt of cost {cost}"), login(ALICE, PASSWORD), "200"));
        let renewed = stage.operator.texts(&format!("SELECT hashed_password FROM users WHERE email = '{ALICE}'")).await;
        if !renewed[0].starts_with("$argon2id$") {
            stage.fault(&format!("D15: not renewed: {renewed:?}"));
        }
    }
}

/// D21: all are answered, memory is bounded (the oracle sees to it), and nobody else waits.
fn flood(stage: &mut Stage) {
    let address = stage.address;
    let bytes = login(ALICE, PASSWORD);
    // On a busy machine some wait for longer than any may.
    stage.may_log = Some("a handler took too long");
    let (answers, slowest) = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..150).map(|_| scope.spawn(|| exchange(address, &bytes, 1))).collect();
        let live = (0..10).map(|_| exchange(address, &bare("GET /.well-known/jwks.json"), 1).took).max();
        let answers: Vec<_> = asked.into_iter().flat_map(|handle| handle.join().unwrap().answers).collect();
        (answers, live.unwrap_or_default())
    });
    stage.remember(&answers);
    let others: Vec<_> = answers.iter().filter(|answer| ![200, 503].contains(&answer.status)).collect();
    if answers.len() != 150 || !others.is_empty() {
        stage.fault(&format!("D21: {} answers, {others:?}", answers.len()));
    }
    if slowest > std::time::Duration::from_secs(5) {
        stage.fault(&format!("D21: the JWK Set took {slowest:?}"));
    }
    for fault in stage.health() {
        stage.fault(&format!("D21: {fault}"));
    }
    stage.may_log = None;
}

/// D22: whoever hangs up frees nothing early and keeps nothing for ever.
fn hang_ups(stage: &mut Stage) {
    let bytes = login(ALICE, PASSWORD);
    for _ in 0..100 {
        let mut wire = Wire::open(stage.address);
        let _ = wire.stream.write_all(&bytes);
    }
    // Places in the queue are given back as the hashes end.
    let started = std::time::Instant::now();
    while exchange(stage.address, &bytes, 1).answers.first().is_none_or(|answer| answer.status != 200) {
        if started.elapsed() > super::wire::PATIENCE {
            stage.fault("D22: no sign-in any more");
            break;
        }
    }
    stage.run(&case("D22", "after 100 hang-ups", login(ALICE, "C4nary!Wr0ng"), REFUSED));
}
