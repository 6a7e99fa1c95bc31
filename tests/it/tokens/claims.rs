//! Claims that are missing, of the wrong type, out of range, or somebody else's.

use chrono::TimeDelta;

use super::{Forge, INVALID, WRONG_KIND, mutated, part};
use crate::support::{Engine, claims};

const EXPIRED: (u16, &str) = (401, "token_expired");

/// RFC 9068 2.2 and 4, RFC 7519 4.1: every claim that is required is there and of its type.
#[tokio::test]
async fn every_required_claim_is_there_and_of_its_type() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let mut faults = Vec::new();

        for name in ["user_id", "iat", "exp", "sid", "iss", "sub", "aud", "jti", "client_id", "scope"] {
            faults.extend(forge.refusals(&format!("no {name}"), &forge.without_claim(name), INVALID).await);
            // `aud` may be an array (RFC 7519 4.1.3), but not an empty one.
            for json in ["null", "true", "[]", "{}", "-1", "0.5", "1e300", "18446744073709551615"] {
                let token = forge.with_claim(name, json);
                faults.extend(forge.refusals(&format!("{name} {json}"), &token, INVALID).await);
            }
        }
        for name in ["user_id", "iat", "exp"] {
            let number = claims(&forge.pair.access)[name].to_string();
            for json in [format!("\"{number}\""), format!("{number}.0"), format!("[{number}]")] {
                let token = forge.with_claim(name, &json);
                faults.extend(forge.refusals(&format!("{name} {json}"), &token, INVALID).await);
            }
        }
        for name in ["sid", "sub", "jti"] {
            for json in [r#""""#, r#""alice""#, r#""00000000-0000-0000-0000-00000000000""#, "1"] {
                let token = forge.with_claim(name, json);
                faults.extend(forge.refusals(&format!("{name} {json}"), &token, INVALID).await);
            }
        }
        for json in ["0", "9223372036854775808", "99999999999999999999999999"] {
            faults
                .extend(forge.refusals(&format!("user_id {json}"), &forge.with_claim("user_id", json), INVALID).await);
        }

        forge.finish(faults).await;
    }
}

/// RFC 7519 4.1.4 to 4.1.6: times are whole seconds of this age. Nothing overflows a clock, and `exp` has no leeway.
#[tokio::test]
async fn times_are_whole_seconds_in_a_sane_range() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let now = forge.app.now().timestamp();
        let mut faults = Vec::new();

        for json in
            ["8589934593", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "1e10", "-0.5", "NaN"]
        {
            for name in ["exp", "iat", "nbf"] {
                let token = forge.with_claim(name, json);
                faults.extend(forge.refusals(&format!("{name} {json}"), &token, INVALID).await);
            }
        }
        for json in ["\"1\"", "null", "true", "[]", "1.5", "-1", "1e300"] {
            faults.extend(forge.refusals(&format!("nbf {json}"), &forge.with_claim("nbf", json), INVALID).await);
        }
        for (name, seconds) in [("exp 0", 0), ("exp now", now), ("exp a second ago", now - 1)] {
            let payload = mutated(&forge.pair.access, "exp", Some(&seconds.to_string()));
            // Issued long ago, so that `exp` alone is at fault.
            let payload = mutated(&forge.access(payload), "iat", Some("0"));
            faults.extend(forge.refusals(name, &forge.access(payload), EXPIRED).await);
        }
        let soon = mutated(&forge.pair.access, "exp", Some(&(now + 10).to_string()));
        let backwards = mutated(&forge.access(soon), "iat", Some(&(now + 20).to_string()));
        faults.extend(forge.refusals("iat after exp", &forge.access(backwards), INVALID).await);
        for (name, claim, seconds) in [("iat 31 s ahead", "iat", now + 31), ("nbf 31 s ahead", "nbf", now + 31)] {
            faults.extend(forge.refusals(name, &forge.with_claim(claim, &seconds.to_string()), INVALID).await);
        }
        for (name, claim, seconds) in [
            ("iat 30 s ahead", "iat", now + 30),
            ("nbf 30 s ahead", "nbf", now + 30),
            ("nbf long ago", "nbf", 0),
            ("exp in a second", "exp", now + 1),
            ("exp at the end of the range", "exp", 1 << 33),
        ] {
            faults.extend(forge.acceptances(name, &forge.with_claim(claim, &seconds.to_string())).await);
        }

        forge.finish(faults).await;
    }
}

/// RFC 7519 4.1.4 to 4.1.6: a server whose clock is behind by up to the leeway takes a token of one whose clock is right; none takes
/// an expired one.
#[tokio::test]
async fn leeway_is_for_the_beginning_of_a_life_and_not_for_its_end() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let access = &forge.pair.access;
        let status = async || {
            let answer = forge.app.me(access).await;
            (answer.status, answer.code())
        };
        let [fine, early, late] = [(200, ""), INVALID, EXPIRED].map(|(status, code)| (status, code.to_owned()));

        forge.app.advance(TimeDelta::seconds(-30));
        assert_eq!(status().await, fine, "30 s early");
        forge.app.advance(TimeDelta::seconds(-1));
        assert_eq!(status().await, early, "31 s early");
        forge.app.advance(TimeDelta::seconds(31 + 899));
        assert_eq!(status().await, fine, "in the last second");
        forge.app.advance(TimeDelta::seconds(1));
        assert_eq!(status().await, late, "at exp");
    }
}

/// RFC 7519 4.1.5: the leeway is a setting, and none is none.
#[tokio::test]
async fn without_leeway_a_token_is_valid_from_its_second_on() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::with(engine, &[("AUTHSERVICE__TOKENS__LEEWAY_SECONDS", "0")]).await;
        let now = forge.app.now().timestamp();
        let mut faults = forge.acceptances("nbf now", &forge.with_claim("nbf", &now.to_string())).await;
        let ahead = forge.with_claim("nbf", &(now + 1).to_string());
        faults.extend(forge.refusals("nbf a second ahead", &ahead, INVALID).await);
        forge.finish(faults).await;
    }
}

/// RFC 8725 3.8 and 3.9, RFC 9068 4: the issuer is compared exactly, and the audience names us.
#[tokio::test]
async fn a_token_of_another_issuer_or_for_another_audience_is_refused() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let us = forge.app.issuer.clone();
        let refresh_audience = claims(&forge.pair.refresh)["aud"].to_string();
        let mut faults = Vec::new();

        for json in [
            r#""https://other.example""#.to_owned(),
            format!("\"{us}/\""),
            format!("\" {us}\""),
            format!("\"{}\"", us.to_uppercase()),
            format!("\"{}\"", us.replace("127.0.0.1", "localhost")),
            format!("[\"{us}\"]"),
            r#""""#.to_owned(),
        ] {
            faults.extend(forge.refusals(&format!("iss {json}"), &forge.with_claim("iss", &json), INVALID).await);
        }
        for json in [
            r#""https://other.example""#.to_owned(),
            r#"["https://other.example"]"#.to_owned(),
            format!("\"{us}/\""),
            format!("[[\"{us}\"]]"),
            format!("{{\"aud\":\"{us}\"}}"),
            r#""""#.to_owned(),
            "[1,null]".to_owned(),
            refresh_audience,
        ] {
            faults.extend(forge.refusals(&format!("aud {json}"), &forge.with_claim("aud", &json), INVALID).await);
        }
        for json in [format!("[\"{us}\"]"), format!("[\"https://other.example\",\"{us}\"]")] {
            faults.extend(forge.acceptances(&format!("aud {json}"), &forge.with_claim("aud", &json)).await);
        }

        forge.finish(faults).await;
    }
}

/// RFC 9068 4: an audience by setting is the one that is checked.
#[tokio::test]
async fn the_audience_can_be_set() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let audience = "https://api.example.com";
        let forge = Forge::with(engine, &[("AUTHSERVICE__TOKENS__AUDIENCE", audience)]).await;
        assert_eq!(claims(&forge.pair.access)["aud"], audience);
        let issuer = format!("\"{}\"", forge.app.issuer);
        let faults = forge.refusals("aud is the issuer", &forge.with_claim("aud", &issuer), INVALID).await;
        forge.finish(faults).await;
    }
}

/// RFC 8725 3.10 and 3.12: subject, row number and session belong together.
#[tokio::test]
async fn user_subject_and_session_belong_together() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        forge.app.register("bob@example.com").await;
        let bob = claims(&forge.app.sign_in("bob@example.com").await.access);
        let stranger = r#""5f2b3c1e-8c53-4c55-9c0e-0f3a1d2b4c5d""#;
        let mut faults = Vec::new();

        for (name, claim, json, expected) in [
            ("sub of bob", "sub", bob["sub"].to_string(), INVALID),
            ("sub of nobody", "sub", stranger.to_owned(), INVALID),
            ("sid of bob", "sid", bob["sid"].to_string(), INVALID),
            ("sid of nobody", "sid", stranger.to_owned(), INVALID),
            ("user_id of bob", "user_id", bob["user_id"].to_string(), INVALID),
            ("user_id of nobody", "user_id", "4242".to_owned(), (404, "user_not_found")),
        ] {
            faults.extend(forge.refusals(name, &forge.with_claim(claim, &json), expected).await);
        }
        // Bob's row and session with Alice's subject.
        let both = mutated(&forge.pair.access, "user_id", Some(&bob["user_id"].to_string()));
        let both = mutated(&forge.access(both), "sid", Some(&bob["sid"].to_string()));
        faults.extend(forge.refusals("bob with alice's sub", &forge.access(both), INVALID).await);

        forge.finish(faults).await;
    }
}

/// RFC 7519 4: a claim that stands twice could be read twice, and a payload is one JSON object.
#[tokio::test]
async fn a_payload_is_one_object_without_duplicates() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let payload = part(&forge.pair.access, 1);
        let inner = payload.trim_start_matches('{').trim_end_matches('}');
        let mut faults = Vec::new();

        for member in [
            r#""sub":"00000000-0000-0000-0000-000000000000""#,
            r#""exp":8589934592"#,
            r#""\u0065xp":8589934592"#,
            r#""user_id":1"#,
            r#""type":"access""#,
            r#""other":{"a":1,"a":2}"#,
        ] {
            let before = member.starts_with(r#""other""#).then(|| format!("{{{member},{inner}}}"));
            let rows = [before.unwrap_or_else(|| format!("{{{member},{inner}}}")), format!("{{{inner},{member}}}")];
            for payload in rows {
                faults.extend(forge.refusals(member, &forge.access(payload), INVALID).await);
            }
        }
        for (name, bytes) in [
            ("array", format!("[{payload}]").into_bytes()),
            ("leading blank", format!(" {payload}").into_bytes()),
            ("byte order mark", format!("\u{feff}{payload}").into_bytes()),
            ("two objects", format!("{payload}{payload}").into_bytes()),
            ("nested too deeply", format!("{{{inner},\"x\":{}{}}}", "[".repeat(40), "]".repeat(40)).into_bytes()),
            ("invalid UTF-8", [b"{\"x\":\"\xff\",", inner.as_bytes(), b"}"].concat()),
            ("nothing", Vec::new()),
            ("a JWS within", forge.pair.access.clone().into_bytes()),
        ] {
            faults.extend(forge.refusals(name, &forge.access(bytes), INVALID).await);
        }

        forge.finish(faults).await;
    }
}

/// RFC 8725 3.11 and 3.12: a genuine token of another kind is told so, by its media type and by its claim.
#[tokio::test]
async fn a_token_of_another_kind_is_refused_as_such() {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let forge = Forge::new(engine).await;
        let (access, refresh) = (forge.pair.access.clone(), forge.pair.refresh.clone());
        let mut faults = Vec::new();

        for (name, token) in [
            ("refresh token", refresh.clone()),
            ("refresh claims as access token", forge.access(refresh_with_access_parties(&forge))),
            ("type refresh", forge.with_claim("type", r#""refresh""#)),
            ("type of neither", forge.with_claim("type", r#""id""#)),
            ("type in the other case", forge.with_claim("type", r#""Access""#)),
            ("no type", forge.without_claim("type")),
            ("type 1", forge.with_claim("type", "1")),
            ("type null", forge.with_claim("type", "null")),
        ] {
            faults.extend(forge.refusals(name, &token, WRONG_KIND).await);
        }
        let as_refresh = forge.sign(forge.header("refresh+jwt"), part(&access, 1));
        for (name, token) in [("access token", &access), ("access claims as refresh token", &as_refresh)] {
            for path in ["auth/refresh", "auth/logout"] {
                let answer = forge.app.with_token(reqwest::Method::POST, path, token).await;
                faults.extend(super::fault(&answer, WRONG_KIND).map(|fault| format!("{name} at {path}: {fault}")));
            }
        }

        forge.finish(faults).await;
    }
}

/// Everything that an access token needs, and the type of a refresh token.
fn refresh_with_access_parties(forge: &Forge) -> String {
    let payload = mutated(&forge.pair.refresh, "aud", Some(&claims(&forge.pair.access)["aud"].to_string()));
    let payload = mutated(&forge.access(payload), "client_id", Some(r#""authservice""#));
    mutated(&forge.access(payload), "scope", Some(r#""account""#))
}
