//! 2F: refresh tokens that are not the newest, not ours, or not tokens. `flows/` has the state machine with its clock.

use super::forge::Forge;
use super::wire::{bearer, posted_as, request};
use super::{Case, LOGOUT, LOGOUT_ALL, ME, REFRESH, SESSIONS, Stage, case, each_engine};
use crate::support::{Pair, claims};
use crate::tokens::encode;

const INVALID: &str = "401 invalid_token";
const DEAD: &str = "401 refresh_reuse_detected";
const MALFORMED: &str = "400 malformed_refresh_token";
const KIND: &str = "400 invalid_token_type";
const ALICE: &str = "canary.alice@example.com";

fn refresh(token: &str) -> Vec<u8> {
    bearer(&format!("POST {REFRESH}"), token)
}

fn logout(token: &str) -> Vec<u8> {
    bearer(&format!("POST {LOGOUT}"), token)
}

fn me(token: &str) -> Vec<u8> {
    bearer(&format!("GET {ME}"), token)
}

#[tokio::test]
async fn refresh_tokens() {
    each_engine(&[], &[], async |stage| {
        let older = stage.account(ALICE);
        let pair = stage.ask(&refresh(&older.refresh), 200).pair();
        let other = stage.sign_in(ALICE);
        let forge = Forge::new(stage, pair.clone());
        for case in not_authentic(&pair, &other).iter().chain(&authorization(&pair)) {
            stage.run(case);
        }
        for (name, token, expected) in well_signed(&forge, &older, &other) {
            stage.run(&case("F04", name, refresh(&token), expected));
        }
        // None of them has ended or moved a session.
        stage.run(&case("F01", "the session is untouched", me(&pair.access), "200"));
        let next = stage.ask(&refresh(&pair.refresh), 200).pair();
        bodies(stage, &next);
        stage.ask(&refresh(&other.refresh), 200);
        lives(stage);
        theft(stage);
        parallel(stage);
    })
    .await;
}

fn authorization(pair: &Pair) -> Vec<Case> {
    let mut cases = Vec::new();
    for path in [REFRESH, LOGOUT] {
        let with = |lines: &str| request(&format!("POST {path}"), lines, "");
        let token = &pair.refresh;
        cases.extend([
            case("F01", format!("no token at {path}"), with(""), "401 not_authenticated"),
            case("+F01", "an empty token", with("Authorization: Bearer \r\n"), "401 not_authenticated"),
            case(
                "+F01",
                "another scheme",
                with(&format!("Authorization: Refresh {token}\r\n")),
                "401 invalid_auth_scheme",
            ),
            case(
                "+F01",
                "two tokens",
                with(&format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n")),
                "400",
            ),
            case("+F01", "in a cookie", with(&format!("Cookie: refresh_token={token}\r\n")), "401 not_authenticated"),
            case(
                "+F01",
                "as a form (RFC 6749 6)",
                posted_as(
                    path,
                    "application/x-www-form-urlencoded",
                    format!("grant_type=refresh_token&refresh_token={token}"),
                ),
                "401 not_authenticated",
            ),
            case(
                "+F01",
                "as JSON",
                posted_as(path, "application/json", format!("{{\"refresh_token\":\"{token}\"}}")),
                "401 not_authenticated",
            ),
            case(
                "+F01",
                "in the query",
                bearer(&format!("POST {path}?refresh_token=evil&access_token=evil"), token),
                "400",
            ),
            case("F03", "an access token", bearer(&format!("POST {path}"), &pair.access), KIND),
            case(
                "F21",
                "an access token in another scheme",
                with(&format!("Authorization: DPoP {}\r\n", pair.access)),
                "401 invalid_auth_scheme",
            ),
        ]);
    }
    for line in [format!("POST {LOGOUT_ALL}"), format!("GET {ME}"), format!("GET {SESSIONS}")] {
        cases.push(case("F23", format!("a refresh token at {line}"), bearer(&line, &pair.refresh), KIND));
    }
    cases
}

/// Nobody else can have signed these.
fn not_authentic(pair: &Pair, other: &Pair) -> Vec<Case> {
    let token = &pair.refresh;
    let parts: Vec<&str> = token.split('.').collect();
    let foreign: Vec<&str> = other.refresh.split('.').collect();
    let mut tokens = vec![
        ("garbage".to_owned(), "garbage".to_owned()),
        ("two dots".to_owned(), "..".to_owned()),
        ("an opaque token of zeros".to_owned(), format!("rt1.{}", encode([0; 81]))),
        ("an opaque token of 0xFF".to_owned(), format!("rt1.{}", encode([255; 81]))),
        ("an opaque token of one byte".to_owned(), "rt1.AA".to_owned()),
        ("an opaque token of another version".to_owned(), format!("rt2.{}", encode([0; 81]))),
        ("an opaque token of 8 KiB".to_owned(), format!("rt1.{}", "A".repeat(8 << 10))),
        ("an opaque token in another case".to_owned(), format!("RT1.{}", encode([0; 81]))),
        ("cut by one".to_owned(), token[..token.len() - 1].to_owned()),
        ("without its first character".to_owned(), token[1..].to_owned()),
        ("without a signature".to_owned(), format!("{}.{}.", parts[0], parts[1])),
        ("extended".to_owned(), format!("{token}A")),
        ("extended by a part".to_owned(), format!("{token}.A")),
        ("twice".to_owned(), format!("{token}{token}")),
        ("another's payload".to_owned(), format!("{}.{}.{}", parts[0], foreign[1], parts[2])),
        ("another's signature".to_owned(), format!("{}.{}.{}", parts[0], parts[1], foreign[2])),
        ("in upper case".to_owned(), token.to_uppercase()),
        ("backwards".to_owned(), token.chars().rev().collect()),
    ];
    for at in (0..token.len()).step_by(37) {
        let mut bytes = token.clone().into_bytes();
        // Within the alphabet, so that it is another token and no broken one.
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        tokens.push((format!("character {at} flipped"), String::from_utf8(bytes).unwrap()));
    }
    let mut cases = Vec::new();
    for (name, forged) in tokens {
        if forged != *token {
            cases.push(case("F01", format!("{name} at refresh"), refresh(&forged), INVALID));
            cases.push(case("F01", format!("{name} at logout"), logout(&forged), INVALID));
        }
    }
    cases
}

/// Whoever has stolen the signing key still cannot prove a generation (RFC 6749 10.4).
fn well_signed(forge: &Forge, older: &Pair, other: &Pair) -> Vec<(String, String, &'static str)> {
    let (old, foreign) = (claims(&older.refresh), claims(&other.refresh));
    let mut rows = Vec::new();
    let mut add = |name: &str, json: Option<&str>, expected| {
        let shown = json.map_or_else(|| "missing".to_owned(), |json| format!("{json:.40}"));
        rows.push((format!("{name} {shown}"), forge.refresh(name, json), expected));
    };
    for json in ["2", "0", "-1", "9223372036854775807", "-9223372036854775808"] {
        add("gen", Some(json), DEAD);
    }
    add("gen", None, DEAD);
    for json in [r#""1""#, "1.5", "1e300", "null", "true", "[1]", "9223372036854775808"] {
        add("gen", Some(json), INVALID);
    }
    add("jti", Some(r#""7b4a3f0e-5d8c-8a1b-9c2d-3e4f5a6b7c8d""#), DEAD);
    add("jti", Some(&old["jti"].to_string()), DEAD);
    add("jti", None, DEAD);
    add("jti", Some("1"), DEAD);
    add("sid", Some(&foreign["sid"].to_string()), DEAD);
    add("fam", Some(&foreign["fam"].to_string()), DEAD);
    add("fam", Some(r#""7b4a3f0e-5d8c-4a1b-9c2d-3e4f5a6b7c8d""#), DEAD);
    for name in ["sid", "fam"] {
        for json in [None, Some("1"), Some("null"), Some(r#""""#), Some(r#""x""#), Some(r#""' OR 1=1--""#)] {
            add(name, json, MALFORMED);
        }
    }
    for name in ["exp", "iat"] {
        for json in
            [None, Some("null"), Some(r#""1""#), Some("1.5"), Some("1e300"), Some("-1"), Some("9223372036854775808")]
        {
            add(name, json, INVALID);
        }
    }
    for json in ["0", "-1", r#""1""#, "1e300", "null"] {
        add("user_id", Some(json), INVALID);
    }
    add("iss", Some(r#""https://evil.example""#), INVALID);
    add("aud", Some(&claims(&forge.pair.access)["aud"].to_string()), INVALID);
    add("aud", Some("[]"), INVALID);
    add("type", Some(r#""access""#), KIND);
    add("type", None, KIND);
    add("gen\":1,\"gen", Some("2"), INVALID);
    let header = forge.header("at+jwt");
    let payload = crate::tokens::part(&forge.pair.refresh, 1);
    rows.push(("typ of an access token".to_owned(), forge.sign(header, &payload), KIND));
    rows.push(("typ JWT".to_owned(), forge.sign(forge.header("JWT"), &payload), INVALID));
    rows
}

/// F24: a body is nobody's business, up to its size.
fn bodies(stage: &mut Stage, pair: &Pair) {
    let with = |length: usize, media: &str, body: &[u8], token: &str| {
        let headers = format!("Authorization: Bearer {token}\r\nContent-Type: {media}\r\nContent-Length: {length}\r\n");
        request(&format!("POST {REFRESH}"), headers, body)
    };
    let mut newest = pair.refresh.clone();
    let rows: [(&str, &str, &[u8]); 6] = [
        ("null", "application/json", b"null"),
        ("broken JSON", "application/json", b"{"),
        ("a form", "application/x-www-form-urlencoded", b"refresh_token=evil"),
        ("multipart", "multipart/form-data; boundary=x", b"--x\r\n\r\n--x--"),
        ("bytes", "application/octet-stream", b"\xff\0\xfe"),
        ("16 KiB", "text/plain", &[b'a'; 16 << 10]),
    ];
    for (name, media, body) in rows {
        let answers = stage.run(&case("F24", name, with(body.len(), media, body, &newest), "200"));
        newest = answers.first().map_or(newest, |answer| answer.pair().refresh);
    }
    let large = vec![b'a'; 1 << 20];
    let large = with(large.len(), "application/json", &large, &newest);
    stage.run(&case("F24", "1 MiB", large, "413 payload_too_large"));
    // It was not used up.
    stage.run(&case("F24", "after 1 MiB", refresh(&newest), "200"));
}

/// F06, F09, F14: what an honest client meets.
fn lives(stage: &mut Stage) {
    let first = stage.sign_in(ALICE);
    let answers = stage.run(&case("F06", "first use", refresh(&first.refresh), "200"));
    let second = answers[0].pair();
    let answers = stage.run(&case("F09", "again within the window", refresh(&first.refresh), "200"));
    if answers[0].pair().refresh != second.refresh || second.refresh == first.refresh {
        stage.fault("F09: not the same successor");
    }
    if claims(&second.access)["sid"] != claims(&first.access)["sid"] {
        stage.fault("F06: another session");
    }
    stage.run(&case("F14", "logout with an older token", logout(&first.refresh), "204"));
    stage.run(&case("F14", "logout again", logout(&second.refresh), "204"));
    stage.run(&case("F14", "refresh after logout", refresh(&second.refresh), DEAD));
    stage.run(&case("F14", "me after logout", me(&second.access), INVALID));
}

/// F11, F13, F34: an older token ends its session and no other.
fn theft(stage: &mut Stage) {
    let bystander = stage.sign_in(ALICE);
    let mut generations = vec![stage.sign_in(ALICE)];
    for at in 0..20 {
        let next = stage.ask(&refresh(&generations[at].refresh), 200).pair();
        generations.push(next);
    }
    stage.run(&case("F11", "the token before the last but one", refresh(&generations[18].refresh), DEAD));
    let newest = generations.last().cloned().unwrap();
    stage.run(&case("F13", "the newest after a theft", refresh(&newest.refresh), DEAD));
    stage.run(&case("F13", "the access token after a theft", me(&newest.access), INVALID));
    for (at, pair) in generations.iter().enumerate().rev() {
        stage.run(&case("F34", format!("generation {at}"), refresh(&pair.refresh), DEAD));
    }
    stage.run(&case("F13", "another session goes on", refresh(&bystander.refresh), "200"));
}

/// F07, F20: many at once. On two replicas: `flows/races.rs`.
fn parallel(stage: &mut Stage) {
    let pair = stage.sign_in(ALICE);
    let address = stage.address;
    let bytes = refresh(&pair.refresh);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..32).map(|_| scope.spawn(|| super::wire::exchange(address, &bytes, 1))).collect();
        asked.into_iter().flat_map(|handle| handle.join().unwrap().answers).collect()
    });
    stage.remember(&answers);
    let mut successors: Vec<String> =
        answers.iter().filter(|answer| answer.status == 200).map(|answer| answer.pair().refresh).collect();
    successors.dedup();
    if successors.len() != 1 || answers.iter().any(|answer| ![200, 503].contains(&answer.status)) {
        stage.fault(&format!("F07: {} successors of one token", successors.len()));
    }
    for fault in stage.health() {
        stage.fault(&format!("F07: {fault}"));
    }
}
