//! Claims, well signed: any payload under the header of any kind. What is accepted keeps RFC 7519 4.1 and RFC 9068 4.
#![no_main]

use authservice::tokens::Error;
use authservice_fuzz::server;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const KINDS: [&str; 4] = ["at+jwt", "refresh+jwt", "application/AT+JWT", "JWT"];

fuzz_target!(|data: &[u8]| {
    let Some((kind, payload)) = data.split_first() else { return };
    let server = server();
    let typ = KINDS[usize::from(*kind) % KINDS.len()];
    let token = server.sign(typ, payload);
    let now = server.now();
    let access = server.wait(server.jwt.verify_access(&token, now));
    let refresh = server.wait(server.jwt.verify_refresh(&token, now));

    for error in [access.as_ref().err(), refresh.as_ref().err()].into_iter().flatten() {
        assert!(!matches!(error, Error::Keys(_) | Error::Random(_)), "trouble is not a verdict: {error}");
    }
    assert!(access.is_err() || refresh.is_err(), "a token of two kinds");
    let Some(claims) = serde_json::from_slice::<Value>(payload).ok().filter(Value::is_object) else {
        assert!(access.is_err() && refresh.is_err());
        return;
    };
    let time = |name: &str| claims[name].as_i64();
    if let Ok(read) = access {
        assert!(typ.eq_ignore_ascii_case("at+jwt") || typ == "application/AT+JWT");
        assert!(time("exp") > Some(now.timestamp()) && time("iat") <= Some(now.timestamp() + 30), "{claims}");
        assert_eq!(
            (claims["iss"].as_str(), claims["type"].as_str()),
            (Some("https://auth.example.com"), Some("access"))
        );
        assert_eq!(claims["user_id"].as_i64(), Some(read.user_id));
        assert!(read.user_id > 0 && read.subject.is_some());
    }
    if let Ok(read) = refresh {
        assert_eq!((typ, claims["type"].as_str()), ("refresh+jwt", Some("refresh")));
        assert!(read.session_id.is_some() && time("exp").is_some_and(|exp| exp >= 0), "{claims}");
        assert_eq!(claims["gen"].as_i64(), read.generation);
    }
});
