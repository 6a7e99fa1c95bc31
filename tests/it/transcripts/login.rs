//! "POST /auth/login".

use super::row::{Before, CASELESS, FORWARDED, NO_ECHO, NO_PLAIN_TEXT, PASSWORDS, Row, Seen, get, login, post};
use super::token::Bearer;
use crate::support::PASSWORD;

/// What the seed left for the password of `long@example.com`: bcrypt, cut at 72 bytes.
const AS_THE_SEED_HASHED: &str = "UPDATE users \
    SET hashed_password = '$2b$12$abcdefghijklmnopqrstuuPXT95dXFe9NlB47XRB9M7EHE1ouHL1e' WHERE email = 'long@example.com'";

#[rustfmt::skip]
pub(super) fn rows() -> Vec<Row> {
    let wrong = || Seen::coded(401, "invalid_credentials", "Invalid credentials");
    let other_tail = format!("{}ZZZZZZ", "y".repeat(72));
    let forwarded = |heading, email, hops: &str| login(heading, email, PASSWORD).header("x-forwarded-for", hops);
    vec![
        login("login ok", "user@example.com", PASSWORD).header("user-agent", "DemoClient/1.0")
            .gives(Seen::pair()).decoded().saved("user")
            .fact("live sessions", "SELECT count(*) FROM auth_sessions WHERE user_agent = 'DemoClient/1.0' AND ip_address = '127.0.0.1' AND revoked_at IS NULL", 1)
            .fact("families", "SELECT count(*) FROM refresh_tokens r JOIN auth_sessions s ON s.id = r.session_id WHERE s.user_agent = 'DemoClient/1.0' AND r.generation = 0", 1),
        login("login wrong password", "user@example.com", "wrongwrong").gives(wrong()),
        login("login unknown user", "nobody@example.com", "wrongwrong").gives(wrong()),
        login("login short password", "user@example.com", "short")
            .gives(Seen::faults(r#"{"type":"too_short","loc":["body","password"],"msg":"Value should have at least 8 items after validation, not 5","input":"short","ctx":{"field_type":"Value","min_length":8,"actual_length":5}}"#))
            .changed(NO_ECHO, Seen::faults(r#"{"type":"too_short","loc":["body","password"],"msg":"Value should have at least 8 items after validation, not 5","ctx":{"field_type":"Value","min_length":8,"actual_length":5}}"#)),
        login("login domain upper case", "user@EXAMPLE.com", PASSWORD).gives(Seen::pair()),
        login("login local upper case", "User@example.com", PASSWORD)
            .gives(wrong()).changed(CASELESS, Seen::pair()),
        login("login truncated 72-byte password with another tail", "long@example.com", &other_tail)
            .gives(Seen::pair()).changed(PASSWORDS, wrong()),
        login("login truncated 72-byte password with another tail, hashed by the seed", "long@example.com", &other_tail)
            .before(Before::Sql(AS_THE_SEED_HASHED))
            .gives(Seen::pair())
            .fact("hashes kept", "SELECT count(*) FROM users WHERE email = 'long@example.com' AND hashed_password LIKE '$2b$12$%'", 1),
        post("login missing", "auth/login").json("{}")
            .gives(Seen::faults(r#"{"type":"missing","loc":["body","email"],"msg":"Field required","input":{}},{"type":"missing","loc":["body","password"],"msg":"Field required","input":{}}"#)),
        forwarded("login XFF", "b@example.com", "203.0.113.42, 10.0.0.1").header("user-agent", "A".repeat(300))
            .gives(Seen::pair())
            .fact("sessions from there", "SELECT count(*) FROM auth_sessions WHERE ip_address = '203.0.113.42' AND length(user_agent) = 255", 1),
        forwarded("login XFF v6", "b@example.com", "2001:db8::2").header("user-agent", "")
            .gives(Seen::pair())
            .fact("sessions from there", "SELECT count(*) FROM auth_sessions WHERE ip_address = '2001:db8::2' AND user_agent = ''", 1),
        forwarded("login XFF rubbish", "b@example.com", "unknown")
            .gives(Seen::crash()).changed(FORWARDED, Seen::pair())
            .fact("sessions from the peer", "SELECT count(*) FROM auth_sessions s JOIN users u ON u.id = s.user_id WHERE u.email = 'b@example.com' AND s.ip_address = '127.0.0.1'", 1),
        forwarded("login XFF ip:port", "b@example.com", "1.2.3.4:555")
            .gives(Seen::crash()).changed(FORWARDED, Seen::pair())
            .fact("sessions from there", "SELECT count(*) FROM auth_sessions WHERE ip_address = '1.2.3.4'", 1),
        forwarded("login XFF CIDR", "c@example.com", "10.0.0.0/8").gives(Seen::pair()).saved("c"),
        get("sessions with a CIDR address", "auth/sessions").bearer(Bearer::Access("c"))
            .gives(Seen::crash())
            .changed(FORWARDED, Seen::json(200, r#"[{"session_id":"<uuid>","user_agent":"curl/7.88.1","ip_address":"127.0.0.1","created_at":"<time>","last_seen_at":"<time>","current":true}]"#)),
        login("login UA utf-8", "b@example.com", PASSWORD).header("user-agent", "клиент")
            .gives(Seen::pair())
            .fact("user agents of as many characters as bytes", "SELECT count(*) FROM auth_sessions WHERE length(user_agent) = 12 AND user_agent LIKE 'Ðº%'", 1),
        login("login inactive, right password", "d@example.com", PASSWORD)
            .before(Before::Sql("UPDATE users SET is_active = FALSE WHERE email = 'd@example.com'"))
            .gives(Seen::coded(403, "user_inactive", "User is inactive")),
        login("login inactive, wrong password", "d@example.com", "wrongwrong").gives(wrong()),
        login("login where the DB holds plain text (soft migration)", "e@example.com", "plainpass1")
            .before(Before::Sql("UPDATE users SET hashed_password = 'plainpass1' WHERE email = 'e@example.com'"))
            .gives(Seen::pair()).changed(NO_PLAIN_TEXT, wrong())
            .fact("rows as they were", "SELECT count(*) FROM users WHERE email = 'e@example.com' AND hashed_password = 'plainpass1'", 1),
    ]
}
