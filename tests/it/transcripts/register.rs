//! "Root, docs, misc", "POST /users/register", "Register race", and what was added by hand about registrations.

use reqwest::Method;

use super::row::{
    Before, CASELESS, HEAD_ANSWERS, NEVER_500, NO_ECHO, NUL, PASSWORDS, Row, Seen, get, post, register, register_email,
};
use crate::support::PASSWORD;

const COMMON: &str = "the password is one of the most common passwords";
const NOT_AN_OBJECT: &str = r#""type":"model_attributes_type","loc":["body"],"msg":"Input should be a valid dictionary or object to extract fields from""#;

pub(super) fn rows() -> Vec<Row> {
    let mut rows = misc();
    rows.extend(accepted());
    rows.extend(passwords());
    rows.extend(addresses());
    rows.extend(bodies());
    rows.extend(race());
    rows
}

#[rustfmt::skip]
fn misc() -> Vec<Row> {
    let html = || Seen::text(200, "text/html; charset=utf-8", "<all>");
    vec![
        get("root", "/").gives(Seen::json(200, r#"{"message":"3, 2, 1, Start! Service Auth!"}"#)),
        get("GET /docs", "/docs").gives(html()),
        get("GET /redoc", "/redoc").gives(html()),
        get("unknown path", "/nope").gives(Seen::detail(404, "Not Found")),
        get("wrong method", "auth/login").gives(Seen::not_allowed("POST")),
        post("trailing slash", "auth/login/").json("{}").gives(Seen::moved("<base>/auth_api/v1/auth/login")),
        Row::new("CORS preflight", Method::OPTIONS, "auth/login")
            .header("origin", "http://a.example").header("access-control-request-method", "POST")
            .gives(Seen::not_allowed("POST")),
        Row::new("HEAD me", Method::HEAD, "users/me")
            .gives(Seen::not_allowed("GET").bodyless())
            .changed(HEAD_ANSWERS, Seen::coded(401, "not_authenticated", "Not authenticated").bodyless()),
    ]
}

#[rustfmt::skip]
fn accepted() -> Vec<Row> {
    let taken = || Seen::coded(409, "email_taken", "Email already registered");
    vec![
        register("register ok", r#"{"email": "user@example.com", "password": "Str0ng!Passw0rd", "full_name": "Alice"}"#)
            .gives(Seen::user(201, "user@example.com", "\"Alice\"")),
        register("register without full_name", r#"{"email": "b@example.com", "password": "Str0ng!Passw0rd"}"#)
            .gives(Seen::user(201, "b@example.com", "null")),
        register("register full_name null", r#"{"email": "c@example.com", "password": "Str0ng!Passw0rd", "full_name": null}"#)
            .gives(Seen::user(201, "c@example.com", "null")),
        register("register duplicate", r#"{"email": "user@example.com", "password": "Str0ng!Passw0rd"}"#)
            .gives(taken()),
        register("register case variant of the local part", r#"{"email": "USER@EXAMPLE.COM", "password": "Str0ng!Passw0rd"}"#)
            .gives(Seen::user(201, "USER@example.com", "null"))
            .changed(CASELESS, taken()),
        register("register with display name form", r#"{"email": "Bob <bob@Example.com>", "password": "Str0ng!Passw0rd"}"#)
            .gives(Seen::user(201, "bob@example.com", "null")),
        register("register with blanks around", r#"{"email": "  pad@example.com ", "password": "Str0ng!Passw0rd"}"#)
            .gives(Seen::user(201, "pad@example.com", "null")),
        register("register unknown extra field", r#"{"email": "d@example.com", "password": "Str0ng!Passw0rd", "is_superuser": true, "zzz": 1}"#)
            .gives(Seen::user(201, "d@example.com", "null")),
        register("register empty full_name", r#"{"email": "e@example.com", "password": "Str0ng!Passw0rd", "full_name": ""}"#)
            .gives(Seen::user(201, "e@example.com", "\"\"")),
        register("register IDN domain", r#"{"email": "u@пример.рф", "password": "Str0ng!Passw0rd", "full_name": "Юникод"}"#)
            .gives(Seen::user(201, "u@пример.рф", "\"Юникод\"")),
        register("register unicode local part", r#"{"email": "юзер@example.com", "password": "Str0ng!Passw0rd"}"#)
            .gives(Seen::user(201, "юзер@example.com", "null")),
    ]
}

#[rustfmt::skip]
fn passwords() -> Vec<Row> {
    let of = |email: &str, password: &str| format!(r#"{{"email": "{email}", "password": "{password}"}}"#);
    let (x128, x129, y72) = ("x".repeat(128), "x".repeat(129), "y".repeat(72));
    let long_name = "n".repeat(256);
    let too_long = r#"{"type":"too_long","loc":["body","password"],"msg":"Value should have at most 128 items after validation, not 129","#;
    let ctx = r#""ctx":{"field_type":"Value","max_length":128,"actual_length":129}}"#;
    let no_nul = |field: &str, input: &str| Seen::faults(&format!(
        r#"{{"type":"value_error","loc":["body","{field}"],"msg":"value is not a valid text: NUL characters are not allowed",{input}"ctx":{{"reason":"NUL characters are not allowed"}}}}"#
    ));
    vec![
        register("short password (7)", of("f@example.com", "1234567"))
            .gives(Seen::faults(r#"{"type":"too_short","loc":["body","password"],"msg":"Value should have at least 8 items after validation, not 7","input":"1234567","ctx":{"field_type":"Value","min_length":8,"actual_length":7}}"#))
            .changed(NO_ECHO, Seen::faults(r#"{"type":"too_short","loc":["body","password"],"msg":"Value should have at least 8 items after validation, not 7","ctx":{"field_type":"Value","min_length":8,"actual_length":7}}"#)),
        register("weak password of 8 digits accepted?", of("weak@example.com", "12345678"))
            .gives(Seen::user(201, "weak@example.com", "null"))
            .changed(PASSWORDS, Seen::bad_password(COMMON)),
        register("password 128", of("g@example.com", &x128))
            .gives(Seen::user(201, "g@example.com", "null"))
            .changed(PASSWORDS, Seen::bad_password("the password repeats a single character")),
        register("password 128, not one character", of("g@example.com", &"xy".repeat(64)))
            .gives(Seen::user(201, "g@example.com", "null")),
        register("password 129", of("h@example.com", &x129))
            .gives(Seen::faults(&format!(r#"{too_long}"input":"{x129}",{ctx}"#)))
            .changed(NO_ECHO, Seen::faults(&format!("{too_long}{ctx}"))),
        register("password with 72+ bytes (login later with a different tail)", of("long@example.com", &format!("{y72}AAAA")))
            .gives(Seen::user(201, "long@example.com", "null")),
        register("password 8 non-ASCII chars", of("cyr@example.com", "парольюю"))
            .gives(Seen::user(201, "cyr@example.com", "null")),
        register("password with NUL", r#"{"email":"nul@example.com","password":"abc\u0000defgh"}"#)
            .gives(Seen::crash())
            .changed(NUL, no_nul("password", "")),
        register("full_name with NUL", r#"{"email":"nul2@example.com","password":"abcdefgh1","full_name":"a\u0000b"}"#)
            .gives(Seen::crash())
            .changed(NUL, no_nul("full_name", r#""input":"a\u0000b","#)),
        register("full_name 256", format!(r#"{{"email": "i@example.com", "password": "Str0ng!Passw0rd", "full_name": "{long_name}"}}"#))
            .gives(Seen::faults(&format!(
                r#"{{"type":"string_too_long","loc":["body","full_name"],"msg":"String should have at most 255 characters","input":"{long_name}","ctx":{{"max_length":255}}}}"#
            ))),
    ]
}

#[rustfmt::skip]
fn addresses() -> Vec<Row> {
    let long_local = format!("{}@example.com", "l".repeat(65));
    let bad = |heading, email: &str, reason| register_email(heading, email).gives(Seen::bad_email(email, reason));
    vec![
        bad("bad email", "not-an-email", "An email address must have an @-sign."),
        bad("email a@localhost", "a@localhost", "The part after the @-sign is not valid. It should have a period."),
        bad("email a@b.test (special-use TLD)", "a@b.test", "The part after the @-sign is a special-use or reserved name that cannot be used with email."),
        bad("email at IP literal", "a@[127.0.0.1]", "A bracketed IP address after the @-sign is not allowed here."),
        bad("email local part of 65", &long_local, "The email address is too long before the @-sign (1 character too many)."),
        bad("more addresses: empty", "", "An email address must have an @-sign."),
        bad("more addresses: a blank", "a b@example.com", "The email address contains invalid characters before the @-sign: SPACE."),
        bad("more addresses: quotes", "\"q q\"@example.com", "Quoting the part before the @-sign is not allowed here."),
        bad("more addresses: two periods", "a..b@example.com", "An email address cannot have two periods in a row."),
        register_email("more addresses: a tag", "plus+tag@ex-ample.co.uk")
            .gives(Seen::user(201, "plus+tag@ex-ample.co.uk", "null")),
        register_email("more addresses: Punycode", "x@xn--e1afmkfd.xn--p1ai")
            .gives(Seen::user(201, "x@пример.рф", "null")),
    ]
}

#[rustfmt::skip]
fn bodies() -> Vec<Row> {
    let missing = || Seen::faults(r#"{"type":"missing","loc":["body"],"msg":"Field required","input":null}"#);
    let common = |heading, content_type: &str, email: &str| {
        post(heading, "users/register").header("content-type", content_type)
            .body(format!(r#"{{"email":"{email}","password":"abcdefgh1"}}"#))
            .gives(Seen::user(201, email, "null"))
            .changed(PASSWORDS, Seen::bad_password(COMMON))
    };
    let uncommon = |heading, content_type: &str, email: &str| {
        post(heading, "users/register").header("content-type", content_type)
            .body(format!(r#"{{"email":"{email}","password":"{PASSWORD}"}}"#))
            .gives(Seen::user(201, email, "null"))
    };
    let without_input = || Seen::faults(&format!("{{{NOT_AN_OBJECT}}}"));
    vec![
        register("missing both", "{}")
            .gives(Seen::faults(r#"{"type":"missing","loc":["body","email"],"msg":"Field required","input":{}},{"type":"missing","loc":["body","password"],"msg":"Field required","input":{}}"#)),
        register("wrong types", r#"{"email": 1, "password": 2, "full_name": 3}"#)
            .gives(Seen::faults(r#"{"type":"string_type","loc":["body","email"],"msg":"Input should be a valid string","input":1},{"type":"string_type","loc":["body","password"],"msg":"Input should be a valid string","input":2},{"type":"string_type","loc":["body","full_name"],"msg":"Input should be a valid string","input":3}"#))
            .changed(NO_ECHO, Seen::faults(r#"{"type":"string_type","loc":["body","email"],"msg":"Input should be a valid string","input":1},{"type":"string_type","loc":["body","password"],"msg":"Input should be a valid string"},{"type":"string_type","loc":["body","full_name"],"msg":"Input should be a valid string","input":3}"#)),
        register("null email", r#"{"email": null, "password": null}"#)
            .gives(Seen::faults(r#"{"type":"string_type","loc":["body","email"],"msg":"Input should be a valid string","input":null},{"type":"string_type","loc":["body","password"],"msg":"Input should be a valid string","input":null}"#))
            .changed(NO_ECHO, Seen::faults(r#"{"type":"string_type","loc":["body","email"],"msg":"Input should be a valid string","input":null},{"type":"string_type","loc":["body","password"],"msg":"Input should be a valid string"}"#)),
        register("body is a list", "[]").gives(Seen::faults(&format!(r#"{{{NOT_AN_OBJECT},"input":[]}}"#))),
        register("malformed JSON", r#"{"email": "#)
            .gives(Seen::faults(r#"{"type":"json_invalid","loc":["body",10],"msg":"JSON decode error","input":{},"ctx":{"error":"Expecting value"}}"#)),
        register("empty body with JSON content type", "").gives(missing()),
        post("no body at all", "users/register").gives(missing()),
        post("form body", "users/register").header("content-type", "application/x-www-form-urlencoded")
            .body("email=a@example.com&password=abcdefgh1")
            .gives(Seen::faults(&format!(r#"{{{NOT_AN_OBJECT},"input":"email=a@example.com&password=abcdefgh1"}}"#)))
            .changed(NO_ECHO, without_input()),
        post("text/plain JSON", "users/register").header("content-type", "text/plain")
            .body(r#"{"email":"tp@example.com","password":"abcdefgh1"}"#)
            .gives(Seen::faults(&format!(r#"{{{NOT_AN_OBJECT},"input":"{{\"email\":\"tp@example.com\",\"password\":\"abcdefgh1\"}}"}}"#)))
            .changed(NO_ECHO, without_input()),
        common("JSON with no Content-Type", "", "noct@example.com"),
        uncommon("JSON with no Content-Type, not a common password", "", "noct@example.com"),
        register("JSON with bad UTF-8 (a 0xFF byte in the e-mail)", b"{\"email\":\"\xff@example.com\",\"password\":\"abcdefgh1\"}")
            .gives(Seen::detail(400, "There was an error parsing the body")),
        common("application/vnd.x+json", "application/vnd.x+json", "vnd@example.com"),
        uncommon("application/vnd.x+json, not a common password", "application/vnd.x+json", "vnd@example.com"),
    ]
}

fn race() -> Vec<Row> {
    let mut rows = vec![
        register_email("Register race: 4 identical requests at once", "race@example.com")
            .gives([201, 409, 409, 409])
            .fact("users", "SELECT count(*) FROM users", 17)
            .fact(
                "users of argon2id, active, not superuser",
                "SELECT count(*) FROM users WHERE hashed_password LIKE '$argon2id$%' AND is_active AND NOT is_superuser",
                17,
            ),
    ];
    let rounds = [
        ("round1@example.com", [201, 409, 409, 500]),
        ("round2@example.com", [201, 409, 409, 500]),
        ("round3@example.com", [201, 409, 500, 500]),
        ("round4@example.com", [201, 409, 409, 500]),
        ("round5@example.com", [201, 409, 409, 500]),
    ];
    rows.extend(rounds.map(|(email, seeds)| {
        register_email("two uvicorn workers: simultaneous registrations", email)
            .on_replicas(2)
            .gives(seeds)
            .changed(NEVER_500, [201, 409, 409, 409])
    }));
    rows.push(
        get("times without and with a fraction", "users/me")
            .before(Before::Sql(
                "UPDATE users SET created_at = '2025-01-01T00:00:00+00:00', \
                 updated_at = '2025-01-01T00:00:00.5+00:00' WHERE email = 'race@example.com'",
            ))
            .before(Before::SignIn("race", "race@example.com", "Dated"))
            .bearer(super::Bearer::Access("race"))
            .gives(
                Seen::user(200, "race@example.com", "null")
                    .dated(r#""created_at":"2025-01-01T00:00:00Z","updated_at":"2025-01-01T00:00:00.500000Z""#),
            ),
    );
    rows
}
