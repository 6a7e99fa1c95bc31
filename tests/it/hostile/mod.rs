//! Bad input of every kind, byte by byte, at the real binary: slow, oversized, ambiguous, forged, absurd.
//!
//! A section is a table of cases. Each starts one server on each engine, in a process of its own, and after **every** case asks the
//! [oracle]. The numbers are those of the project's catalogue of bad input; `+` marks a case of the same kind that the catalogue
//! does not list. What another test proves better is not proved again:
//!
//! | rows | where |
//! |---|---|
//! | A41, A42 behind a trusted proxy | `web/origin.rs` |
//! | A27 to A31, floods beyond the caps | `web/listener.rs` (and `slow.rs` here) |
//! | C24 on two replicas, C29, D19, D26, F07, F19, F20, F27, F31 | `rest/users.rs`, `flows/races.rs`, `proofs/` (R10 to R14) |
//! | C25, D02: the same time for all | `flows/broken_promises.rs` 9.9 |
//! | D18: the 51st session; D24: the headers of tokens | `rest/auth.rs` |
//! | E23: keys that are retained or gone | `keys/rotation.rs`, `keys/revocation.rs` |
//! | E46, F10, F14, F16, F17 with the clock moved | `tokens/ended.rs`, `flows/refresh.rs` |
//! | F29, F30: other MAC keys, a restored database | `flows/opaque.rs`, `flows/refresh.rs` |
//! | J21: no database | `web/trouble.rs`, `proofs/` (R01, R03) |
//! | M01 to M08: each setting | `cli/config.rs`, `cli/sources.rs` |

use crate::support::Engine;

mod access;
mod discovery;
mod forge;
mod framing;
mod json;
mod login;
mod mutations;
mod operations;
mod oracle;
mod refresh;
mod register;
mod sessions;
mod signatures;
mod slow;
mod transport;
mod wire;

use oracle::Stage;

const REGISTER: &str = "/auth_api/v1/users/register";
const ME: &str = "/auth_api/v1/users/me";
const LOGIN: &str = "/auth_api/v1/auth/login";
const REFRESH: &str = "/auth_api/v1/auth/refresh";
const LOGOUT: &str = "/auth_api/v1/auth/logout";
const LOGOUT_ALL: &str = "/auth_api/v1/auth/logout-all";
const SESSIONS: &str = "/auth_api/v1/auth/sessions";

/// One thing that is sent.
struct Case {
    /// As in the catalogue, `+` when it is not listed there.
    id: &'static str,
    name: String,
    bytes: Vec<u8>,
    /// What may come back, answer by answer.
    expected: Vec<String>,
}

/// A case. `expected` lists the answers in their order, parted by `;`, and what each may be, parted by `|`: a status, a status and an
/// error code, or `closed`.
fn case(id: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>, expected: &str) -> Case {
    let expected = expected.split(';').map(|answer| answer.trim().to_owned()).collect();
    Case { id, name: name.into(), bytes: bytes.into(), expected }
}

/// What an answer may be.
fn answers(allowed: &str) -> impl Iterator<Item = &str> {
    allowed.split('|').map(str::trim)
}

/// Runs a section on both engines. `never` are queries that count rows that may not be, besides [`NEVER`].
async fn each_engine(settings: &[(&str, &str)], never: &[(&str, &str)], section: impl AsyncFn(&mut Stage)) {
    for engine in [Engine::Sqlite, Engine::Postgres] {
        let mut stage = Stage::start(engine, settings).await;
        section(&mut stage).await;
        stage.finish(never).await;
    }
}

/// Rows that may not be, whatever was sent: each query counts them.
const NEVER: [(&str, &str); 12] = [
    (
        "N1: a session with other than one family",
        "SELECT COUNT(*) FROM auth_sessions s WHERE (SELECT COUNT(*) FROM refresh_tokens r WHERE r.session_id = s.id) <> 1",
    ),
    ("N1: a generation below 0", "SELECT COUNT(*) FROM refresh_tokens WHERE generation < 0"),
    ("N3: an idle end past the absolute end", "SELECT COUNT(*) FROM refresh_tokens WHERE idle_end > absolute_end"),
    (
        "N4: a session of no user",
        "SELECT COUNT(*) FROM auth_sessions s LEFT JOIN users u ON u.id = s.user_id WHERE u.id IS NULL",
    ),
    (
        "N4: a family of no session, or of another user's",
        "SELECT COUNT(*) FROM refresh_tokens r LEFT JOIN auth_sessions s ON s.id = r.session_id AND s.user_id = r.user_id WHERE s.id IS NULL",
    ),
    (
        "N5: half-ended: session and family differ",
        "SELECT COUNT(*) FROM refresh_tokens r JOIN auth_sessions s ON s.id = r.session_id WHERE (s.revoked_at IS NULL) <> (r.revoked_at IS NULL)",
    ),
    (
        "ended without a reason",
        "SELECT COUNT(*) FROM auth_sessions WHERE (revoked_at IS NULL) <> (revoked_reason IS NULL)",
    ),
    ("two users with one address", "SELECT COUNT(*) - COUNT(DISTINCT email_canonical) FROM users"),
    ("somebody who made themselves a superuser", "SELECT COUNT(*) FROM users WHERE is_superuser"),
    ("a password that is not hashed", "SELECT COUNT(*) FROM users WHERE hashed_password LIKE '%C4nary%'"),
    ("an address that nobody has", "SELECT COUNT(*) FROM auth_sessions WHERE ip_address <> '127.0.0.1'"),
    (
        "a secret in the audit",
        "SELECT COUNT(*) FROM audit_events WHERE details LIKE '%C4nary%' OR details LIKE '%eyJ%' OR user_agent LIKE '%C4nary%'",
    ),
];
