//! "POST /auth/refresh", "GET /auth/sessions", "POST /auth/logout", "Concurrent refresh", "POST /auth/logout-all".

use super::row::{Before, END_OF_SESSION, LOGOUT_ENDS, RETRY, REUSE_ENDS, Row, Seen, get, post};
use super::token::Bearer::{Access, OldRefresh, Refresh, SignedRefresh};
use super::token::Claim::{Gone, Json};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = refresh();
    rows.extend(list());
    rows.extend(logout());
    rows.extend(concurrent_refresh());
    rows.extend(logout_all());
    rows
}

fn reused() -> Seen {
    Seen::coded(401, "refresh_reuse_detected", "Refresh token reuse detected")
}

fn nobody() -> Seen {
    Seen::coded(401, "not_authenticated", "Not authenticated")
}

fn wrong_type() -> Seen {
    Seen::coded(400, "invalid_token_type", "Invalid token type.")
}

#[rustfmt::skip]
fn refresh() -> Vec<Row> {
    let refresh = |heading| post(heading, "auth/refresh");
    vec![
        refresh("refresh ok").bearer(Refresh("user")).gives(Seen::pair()).decoded().saved("user")
            .fact("rows of the family, rotated once", "SELECT count(*) FROM refresh_tokens r JOIN auth_sessions s ON s.id = r.session_id WHERE s.user_agent = 'DemoClient/1.0' AND r.generation = 1 AND r.revoked_at IS NULL", 1),
        refresh("refresh with access token").bearer(Access("user")).gives(wrong_type()),
        refresh("refresh no token").gives(nobody()),
        refresh("refresh with a JSON body instead").json(r#"{"refresh_token": "eyJhbGciOiJ"}"#).gives(nobody()),
        refresh("refresh malformed (no sid/fam)").bearer(SignedRefresh("user", &[("sid", Gone), ("fam", Gone)]))
            .gives(Seen::coded(400, "malformed_refresh_token", "Malformed refresh token.")),
        refresh("refresh validly signed but unknown")
            .bearer(SignedRefresh("user", &[
                ("sid", Json("\"8bddcff6-9040-4d1d-a9eb-c1d1d8d0cdc9\"")),
                ("fam", Json("\"0d04692e-b7c4-42ed-a77f-05d7aba6b2fe\"")),
                ("jti", Json("\"927a63c0-5b6f-4aa5-866b-5c588aa97f2a\"")),
            ]))
            .gives(reused()),
        refresh("refresh REUSE of the rotated token").bearer(OldRefresh("user"))
            .gives(reused()).changed(RETRY, Seen::pair())
            .fact("sessions alive", "SELECT count(*) FROM auth_sessions WHERE user_agent = 'DemoClient/1.0' AND revoked_at IS NULL", 1),
        refresh("refresh REUSE of the rotated token, after the retry window").bearer(OldRefresh("user"))
            .before(Before::Wait(30))
            .gives(reused())
            .fact("families ended", "SELECT count(*) FROM refresh_tokens WHERE revoked_reason = 'REUSE_DETECTED' AND revoked_at IS NOT NULL", 1)
            .fact("sessions ended", "SELECT count(*) FROM auth_sessions WHERE user_agent = 'DemoClient/1.0' AND revoked_reason = 'REUSE_DETECTED' AND revoked_at IS NOT NULL", 1),
        refresh("refresh with the newest token AFTER reuse was detected (README: must fail)").bearer(Refresh("user"))
            .gives(Seen::pair()).changed(REUSE_ENDS, reused()),
    ]
}

fn list() -> Vec<Row> {
    let session = |user_agent: &str, more: &str| {
        format!(
            r#"{{"session_id":"<uuid>","user_agent":"{user_agent}","ip_address":"127.0.0.1","created_at":"<time>","last_seen_at":"<time>"{more}}}"#
        )
    };
    let listed = |sessions: &[String]| Seen::json(200, format!("[{}]", sessions.join(",")));
    let seeds = [session("Second", ""), session("DemoClient/1.0", ""), session("curl/7.88.1", "")];
    // The session whose token was used again has ended; the address in another case has opened one; `current` is new.
    let (current, other) = (r#","current":true"#, r#","current":false"#);
    let ours = [session("Second", current), session("curl/7.88.1", other), session("curl/7.88.1", other)];
    vec![
        get("sessions", "auth/sessions")
            .before(Before::SignIn("second", "user@example.com", "Second"))
            .bearer(Access("second"))
            .gives(listed(&seeds))
            .changed(REUSE_ENDS, listed(&ours)),
        get("sessions with refresh token", "auth/sessions").bearer(Refresh("second")).gives(wrong_type()),
        get("sessions none", "auth/sessions").gives(nobody()),
    ]
}

#[rustfmt::skip]
fn logout() -> Vec<Row> {
    let logout = |heading| post(heading, "auth/logout");
    let done = || Seen::json(204, "");
    vec![
        logout("logout with access token").bearer(Access("b"))
            .before(Before::SignIn("b", "b@example.com", "Leaving"))
            .gives(wrong_type()),
        logout("logout ok").bearer(Refresh("b")).gives(done()),
        logout("logout again").bearer(Refresh("b")).gives(done()),
        post("refresh after logout", "auth/refresh").bearer(Refresh("b")).gives(reused()),
        get("access token after logout", "users/me").bearer(Access("b"))
            .gives(Seen::user(200, "b@example.com", "null"))
            .changed(END_OF_SESSION, Seen::invalid_token())
            .fact("sessions ended", "SELECT count(*) FROM auth_sessions WHERE user_agent = 'Leaving' AND revoked_reason = 'USER_LOGOUT' AND revoked_at IS NOT NULL", 1)
            .fact("families ended", "SELECT count(*) FROM refresh_tokens r JOIN auth_sessions s ON s.id = r.session_id WHERE s.user_agent = 'Leaving' AND r.revoked_reason = 'USER_LOGOUT' AND r.revoked_at IS NOT NULL", 1),
        logout("logout with an OLD (rotated) refresh token").bearer(OldRefresh("old"))
            .before(Before::SignIn("old", "b@example.com", "Rotated"))
            .before(Before::Refresh("old"))
            .gives(done()),
        post("refresh with the newest one after that (session is revoked)", "auth/refresh").bearer(Refresh("old"))
            .gives(Seen::pair()).changed(LOGOUT_ENDS, reused()),
        logout("logout no jti").bearer(SignedRefresh("old", &[("jti", Gone)])).gives(Seen::detail(400, "Malformed refresh token")),
        logout("logout no token").gives(nobody()),
    ]
}

fn concurrent_refresh() -> Vec<Row> {
    vec![
        post("6 requests at once with ONE refresh token", "auth/refresh")
            .before(Before::SignIn("six", "b@example.com", "Six"))
            .bearer(Refresh("six"))
            .gives([200, 401, 401, 401, 401, 401])
            .changed(RETRY, [200; 6])
            .saved("six"),
        post("the winner's new refresh token afterwards", "auth/refresh").bearer(Refresh("six")).gives(Seen::pair()),
    ]
}

#[rustfmt::skip]
fn logout_all() -> Vec<Row> {
    let everywhere = |heading| post(heading, "auth/logout-all");
    let ended = Seen::invalid_token;
    vec![
        everywhere("logout-all with refresh").bearer(Refresh("all"))
            .before(Before::SignIn("all", "user@example.com", "All"))
            .gives(wrong_type()),
        everywhere("logout-all").bearer(Access("all"))
            .gives(Seen::empty(204))
            .fact("live sessions of the user", "SELECT count(*) FROM auth_sessions s JOIN users u ON u.id = s.user_id WHERE u.email = 'user@example.com' AND s.revoked_at IS NULL", 0)
            .fact("live families of the user", "SELECT count(*) FROM refresh_tokens r JOIN users u ON u.id = r.user_id WHERE u.email = 'user@example.com' AND r.revoked_at IS NULL", 0)
            .fact("sessions ended by it", "SELECT count(*) FROM auth_sessions WHERE revoked_reason = 'USER_LOGOUT_ALL'", 4)
            .fact("sessions that keep their reason", "SELECT count(*) FROM auth_sessions WHERE revoked_reason = 'REUSE_DETECTED'", 1),
        everywhere("logout-all again").bearer(Access("all"))
            .gives(Seen::empty(204)).changed(END_OF_SESSION, ended()),
        everywhere("logout-all with a body").json("{}").bearer(Access("all"))
            .gives(Seen::empty(204)).changed(END_OF_SESSION, ended()),
        everywhere("logout-all with a body, of a live session").json("{}").bearer(Access("body"))
            .before(Before::SignIn("body", "user@example.com", "Body"))
            .gives(Seen::empty(204)),
        get("sessions after", "auth/sessions").bearer(Access("all"))
            .gives(Seen::json(200, "[]")).changed(END_OF_SESSION, ended()),
        get("me after logout-all with the old access token", "users/me").bearer(Access("all"))
            .gives(Seen::user(200, "user@example.com", "\"Alice\"")).changed(END_OF_SESSION, ended()),
        post("refresh after logout-all", "auth/refresh").bearer(Refresh("all")).gives(reused()),
    ]
}
