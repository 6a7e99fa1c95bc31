//! Tokens, JWT and opaque: anything, and genuine ones with changes. Only what was issued is accepted.
#![no_main]

use std::sync::LazyLock;

use authservice::tokens::{Error, Grant, RefreshGrant};
use authservice_fuzz::{Server, server};
use chrono::TimeDelta;
use libfuzzer_sys::fuzz_target;
use secrecy::ExposeSecret as _;
use uuid::Uuid;

/// Access and refresh token as JWTs, and the opaque refresh token.
static GENUINE: LazyLock<[String; 3]> = LazyLock::new(|| genuine(server()));

fn genuine(server: &Server) -> [String; 3] {
    let now = server.now();
    let grant = Grant {
        user_id: 1,
        subject: Uuid::from_u128(1),
        session_id: Uuid::from_u128(2),
        client_id: "authservice".to_owned(),
        scope: String::new(),
        auth_time: now,
        absolute_end: now + TimeDelta::days(180),
    };
    let pair = |tokens: &authservice::tokens::Tokens| {
        let refresh = RefreshGrant {
            family_id: Uuid::from_u128(3),
            jti: Uuid::from_u128(4),
            generation: 5,
            issued_at: now,
            expires_at: now + TimeDelta::days(14),
            key_id: tokens.refresh_key_id(now).expect("a key"),
        };
        let pair = server.wait(tokens.pair(&grant, &refresh, now)).expect("issued");
        (pair.access.expose_secret().to_owned(), pair.refresh.expose_secret().to_owned())
    };
    let (access, refresh) = pair(&server.jwt);
    let (_, opaque) = pair(&server.opaque);
    assert!(opaque.starts_with("rt1."));
    for (token, is_access) in [(&access, true), (&refresh, false), (&opaque, false)] {
        let verified = verify(server, token);
        assert_eq!((verified.0.is_ok(), verified.1.is_ok()), (is_access, !is_access), "a genuine token is taken, once");
    }
    [access, refresh, opaque]
}

type Verdicts = (Result<(), Error>, Result<(), Error>);

/// As an access token, and as a refresh token.
fn verify(server: &Server, token: &str) -> Verdicts {
    let now = server.now();
    let access = server.wait(server.jwt.verify_access(token, now)).map(drop);
    (access, server.wait(server.jwt.verify_refresh(token, now)).map(drop))
}

/// The first byte says what is changed: nothing is given, or a genuine token to which changes (place, byte) are made.
fn token(data: &[u8]) -> Option<String> {
    let (choice, rest) = data.split_first()?;
    let Some(genuine) = GENUINE.get(usize::from(*choice)) else {
        return String::from_utf8(rest.to_vec()).ok();
    };
    let mut token = genuine.clone().into_bytes();
    for change in rest.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % (token.len() + 1);
        match change[2] % 4 {
            0 => token.insert(at, change[3]),
            1 if at < token.len() => _ = token.remove(at),
            2 => token.truncate(at),
            _ if at < token.len() => token[at] = change[3],
            _ => token.push(change[3]),
        }
    }
    String::from_utf8(token).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some(token) = token(data) else { return };
    let (access, refresh) = verify(server(), &token);
    let is_genuine = GENUINE.contains(&token);
    assert!(access.is_err() || token == GENUINE[0], "{token}");
    assert!(refresh.is_err() || is_genuine && token != GENUINE[0], "{token}");
    for verdict in [access, refresh] {
        let is_verdict = matches!(verdict, Ok(()) | Err(Error::Invalid(_)));
        assert!(is_verdict || is_genuine, "trouble is not a verdict: {verdict:?}");
    }
});
