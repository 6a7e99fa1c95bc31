//! 2G: the list of sessions, and ending one.

use serde_json::{Value, json};
use uuid::Uuid;

use super::oracle::PASSWORD;
use super::wire::{bare, bearer, request};
use super::{LOGIN, ME, REFRESH, SESSIONS, Stage, case, each_engine};
use crate::support::{Pair, claims};

const ALICE: &str = "canary.alice@example.com";

#[tokio::test]
async fn sessions() {
    each_engine(&[], &[], async |stage| {
        let alice = stage.account(ALICE);
        let bob = stage.account("canary.bob@example.com");
        endings(stage, &alice, &bob);
        paths(stage, &alice);
        lists(stage, &alice);
        user_agents(stage, &alice);
        many(stage, &alice).await;
        stage.ask(&bearer(&format!("GET {ME}"), &bob.access), 200);
        stage.ask(&bearer(&format!("POST {REFRESH}"), &bob.refresh), 200);
    })
    .await;
}

fn end(id: &str, token: &str) -> Vec<u8> {
    bearer(&format!("DELETE {SESSIONS}/{id}"), token)
}

fn id_of(pair: &Pair) -> String {
    claims(&pair.access)["sid"].as_str().unwrap().to_owned()
}

/// G02, G03: one's own, and nobody else's.
fn endings(stage: &mut Stage, alice: &Pair, bob: &Pair) {
    let second = stage.sign_in(ALICE);
    let own = id_of(&second);
    stage.run(&case("G03", "another user's", end(&id_of(bob), &alice.access), "404 session_not_found"));
    stage.run(&case("G03", "random", end(&Uuid::from_u128(7).to_string(), &alice.access), "404 session_not_found"));
    stage.run(&case("+G03", "without a token", bare(&format!("DELETE {SESSIONS}/{own}")), "401 not_authenticated"));
    stage.run(&case("+G03", "with a refresh token", end(&own, &alice.refresh), "400 invalid_token_type"));
    stage.run(&case(
        "+G03",
        "its family",
        end(claims(&second.refresh)["fam"].as_str().unwrap(), &alice.access),
        "404 session_not_found",
    ));
    stage.run(&case("G02", "own", end(&own, &alice.access), "204"));
    stage.run(&case("G02", "again", end(&own, &alice.access), "404 session_not_found"));
    stage.run(&case(
        "G02",
        "its refresh token",
        bearer(&format!("POST {REFRESH}"), &second.refresh),
        "401 refresh_reuse_detected",
    ));
    stage.run(&case("G02", "its access token", bearer(&format!("GET {ME}"), &second.access), "401 invalid_token"));
    stage.run(&case("+G02", "an ended session ends no other", end(&id_of(alice), &second.access), "401 invalid_token"));
    let third = stage.sign_in(ALICE);
    let upper = id_of(&third).to_uppercase();
    stage.run(&case("+G02", "in upper case", end(&upper, &alice.access), "204|422"));
}

/// What is no UUID is 422; what is no segment, or is not UTF-8, is no route.
fn paths(stage: &mut Stage, alice: &Pair) {
    let own = id_of(alice);
    let segments = [
        ("G03", "x".to_owned(), "422"),
        ("G03", format!("{own}x"), "422"),
        ("G03", own[1..].to_owned(), "422"),
        ("+G03", format!("{own},{own}"), "422"),
        ("+G03", "*".to_owned(), "422"),
        ("+G03", "..".to_owned(), "404|422"),
        ("+G03", "%2e%2e".to_owned(), "404|422"),
        ("+G03", "..%2fsessions".to_owned(), "400|404|422"),
        ("+G03", "%00".to_owned(), "400|404|422"),
        ("+G03", format!("{own}%00"), "400|404|422"),
        ("+G03", format!("{own}%0d%0aevil"), "400|404|422"),
        ("+G03", "%ff".to_owned(), "400|404|422"),
        ("+G03", "%zz".to_owned(), "400|404|422"),
        ("+G03", "%c0%ae".to_owned(), "400|404|422"),
        ("+G03", "'%20OR%20'1'='1".to_owned(), "422"),
        ("+G03", format!("{own}'--"), "422"),
        ("+G03", "0".to_owned(), "422"),
        ("+G03", "-1".to_owned(), "422"),
        ("+G03", "9".repeat(4096), "422"),
        ("+G03", "a".repeat(9 << 10), "414"),
        ("+G03", format!("{own}/x"), "404"),
        ("+G03", format!("{own}/"), "307"),
        ("+G03", String::new(), "307|404|405"),
        ("+G03", format!("{own};x"), "422"),
        ("+G03", "%7B%7D".to_owned(), "422"),
        ("+G03", "current".to_owned(), "422"),
        ("+G03", "null".to_owned(), "422"),
        ("+G03", "ключ".to_owned(), "400|404|422"),
    ];
    for (id, segment, expected) in segments {
        stage.run(&case(id, format!("{segment:.60}"), end(&segment, &alice.access), expected));
    }
    stage.run(&case("+G03", "the session is untouched", bearer(&format!("GET {ME}"), &alice.access), "200"));
}

/// G05: the list has no parameters, so none can break it.
fn lists(stage: &mut Stage, alice: &Pair) {
    let queries = [
        "limit=-1",
        "limit=0",
        "limit=1e9",
        "limit=abc",
        "limit=99999999999999999999",
        "cursor=evil",
        "cursor=%00",
        "cursor='%3BDROP%20TABLE%20users",
        "user_id=1",
        "user_id[]=1",
        "user_id[$ne]=1",
        "limit=1&limit=2",
        "=",
        "&&&",
        "a",
        "%",
        "%zz=%zz",
        "%ff=%ff",
        "order=1;SELECT%20pg_sleep(10)",
        "callback=evil",
        "format=xml",
        "a=b#c",
    ];
    for query in queries {
        let expected = if query.contains('#') { "200|400" } else { "200" };
        stage.run(&case("G05", query, bearer(&format!("GET {SESSIONS}?{query}"), &alice.access), expected));
    }
}

/// G07: shown as JSON, whatever it holds. G09: `web/origin.rs`.
fn user_agents(stage: &mut Stage, alice: &Pair) {
    let body = json!({"email": ALICE, "password": PASSWORD}).to_string();
    let agents: [&[u8]; 6] = [
        b"<img src=x onerror=alert(1)>",
        b"\"}],\"x\":[{\"",
        b"\\u0000\\",
        b"\x80\x9f\xff",
        b"a\tb",
        b"</script><script>alert(1)</script>",
    ];
    for agent in agents {
        let length = format!("\r\nContent-Length: {}\r\n", body.len());
        let headers = [b"User-Agent: ".as_slice(), agent, length.as_bytes()].concat();
        let answers = stage.run(&case("G07", "sign in", request(&format!("POST {LOGIN}"), headers, &body), "200"));
        let latin: String = agent.iter().map(|byte| char::from(*byte)).collect();
        let listed =
            stage.run(&case("G07", format!("{latin:?}"), bearer(&format!("GET {SESSIONS}"), &alice.access), "200"));
        let sid = claims(&answers[0].pair().access)["sid"].clone();
        let own = listed[0].json().as_array().unwrap().iter().find(|session| session["session_id"] == sid).cloned();
        if own.is_none_or(|session| session["user_agent"] != Value::String(latin.clone())) {
            stage.fault(&format!("G07: {latin:?} is shown otherwise"));
        }
    }
}

/// G06: more sessions than there may be, as another service might have left them. The list stays as short as the cap.
async fn many(stage: &mut Stage, alice: &Pair) {
    let user = claims(&alice.access)["user_id"].to_string();
    let later = "'2999-01-01 00:00:00+00:00'";
    let (numbers, session, family) = match stage.engine {
        crate::support::Engine::Sqlite => (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)",
            "CAST(substr('0000000000000000', 1, 16 - length(i)) || i AS BLOB)",
            "CAST(substr('1000000000000000', 1, 16 - length(i)) || i AS BLOB)",
        ),
        crate::support::Engine::Postgres => (
            "WITH n(i) AS (SELECT generate_series(1, 10000))",
            "CAST(lpad(i::text, 32, '0') AS uuid)",
            "CAST('1' || lpad(i::text, 31, '0') AS uuid)",
        ),
    };
    stage
        .operator
        .sql(&format!("INSERT INTO auth_sessions (id, user_id, user_agent, created_at) {numbers} SELECT {session}, {user}, 'x', CURRENT_TIMESTAMP FROM n"))
        .await;
    let secret = match stage.engine {
        crate::support::Engine::Sqlite => "x'00'",
        crate::support::Engine::Postgres => "'\\x00'::bytea",
    };
    let columns = "family_id, session_id, user_id, client_id, scope, generation, family_secret, key_id, rotated_at, idle_end, absolute_end";
    stage
        .operator
        .sql(&format!("INSERT INTO refresh_tokens ({columns}) {numbers} SELECT {family}, {session}, {user}, 'x', 'x', 0, {secret}, 'x', CURRENT_TIMESTAMP, {later}, {later} FROM n"))
        .await;
    let listed = stage.run(&case("G06", "10,000 sessions", bearer(&format!("GET {SESSIONS}"), &alice.access), "200"));
    let count = listed[0].json().as_array().map_or(0, Vec::len);
    if count > 50 {
        stage.fault(&format!("G06: {count} sessions in one answer of {} bytes", listed[0].body.len()));
    }
    stage.run(&case("G06", "log out everywhere", bearer("POST /auth_api/v1/auth/logout-all", &alice.access), "204"));
}
