//! "GET /users/me and bearer errors".

use super::row::{ACCESS_CHECK, ACCESS_TOKEN, Before, INACTIVE, NEVER_500, Row, Seen, TYPED_CLAIMS, get, post};
use super::token::Bearer::{Access, Broken, Forged, Refresh, SignedAccess};
use super::token::Claim::{Gone, Json, Now};
use super::token::{Bearer, Claim};

pub(super) fn rows() -> Vec<Row> {
    let mut rows = headers();
    rows.extend(tokens());
    rows.extend(users());
    rows
}

#[rustfmt::skip]
fn headers() -> Vec<Row> {
    let me = |heading| get(heading, "users/me");
    let alice = || Seen::user(200, "user@example.com", "\"Alice\"");
    let nobody = || Seen::coded(401, "not_authenticated", "Not authenticated");
    vec![
        me("me ok").bearer(Access("user")).gives(alice()),
        me("me no header").gives(nobody()),
        me("me Bearer without token").auth("Bearer").gives(nobody()),
        me("me Basic").auth("Basic abc").gives(Seen::coded(401, "invalid_auth_scheme", "Invalid authentication scheme")),
        me("me scheme only 'Token'").auth("Token").gives(nobody()),
        me("me lower-case bearer").bearer(Access("user")).lower_case().gives(alice()),
        me("me refresh token").bearer(Refresh("user")).gives(Seen::coded(400, "invalid_token_type", "Invalid token type.")),
        me("me rubbish token").auth("Bearer abc").gives(Seen::invalid_token()),
        me("me a.b.c").auth("Bearer a.b.c").gives(Seen::invalid_token()),
    ]
}

#[rustfmt::skip]
fn tokens() -> Vec<Row> {
    let me = |heading, bearer: Bearer| get(heading, "users/me").bearer(bearer);
    let signed = |heading, mutation: &'static [(&str, Claim)]| me(heading, SignedAccess("user", mutation));
    let alice = || Seen::user(200, "user@example.com", "\"Alice\"");
    let expired = || Seen::coded(401, "token_expired", "Token expired.");
    let invalid = Seen::invalid_token;
    vec![
        me("me broken signature", Broken("user")).gives(invalid()),
        signed("me expired", &[("iat", Now(-1000)), ("exp", Now(-10))]).gives(expired()),
        signed("me exp == now", &[("exp", Now(0))]).gives(expired()),
        signed("me iat in the future (+60s)", &[("iat", Now(60))]).gives(invalid()),
        signed("me iat in the future (+1s)", &[("iat", Now(1))]).gives(alice()),
        signed("me no exp", &[("exp", Gone)]).gives(invalid()),
        signed("me no iat", &[("iat", Gone)]).gives(invalid()),
        signed("me no type", &[("type", Gone)]).gives(Seen::coded(400, "invalid_token_type", "Invalid token type.")),
        signed("me no user_id", &[("user_id", Gone)]).gives(Seen::crash()).changed(NEVER_500, invalid()),
        signed("me user_id text '1'", &[("user_id", Json("\"1\""))]).gives(alice()).changed(TYPED_CLAIMS, invalid()),
        signed("me user_id 'x'", &[("user_id", Json("\"x\""))]).gives(Seen::crash()).changed(NEVER_500, invalid()),
        signed("me unknown user", &[("user_id", Json("999999"))]).gives(Seen::coded(404, "user_not_found", "User not found")),
        signed("me user_id beyond bigint", &[("user_id", Json("9223372036854775808"))])
            .gives(Seen::crash()).changed(NEVER_500, invalid()),
        signed("me exp not a number", &[("exp", Json("\"soon\""))]).gives(invalid()),
        signed("me with nbf in future", &[("nbf", Now(60))]).gives(invalid()),
        me("me alg none", Forged("none", "user")).gives(invalid()),
        me("me HS256 signed with the public key", Forged("HS256", "user")).gives(invalid()),
        me("me RS512", Forged("RS512", "user")).gives(invalid()),
        me("me PS256", Forged("PS256", "user")).gives(invalid()),
        signed("me with aud/iss", &[("aud", Json("\"other\"")), ("iss", Json("\"other\""))])
            .gives(alice()).changed(ACCESS_TOKEN, invalid()),
        signed("me signed by hand, unchanged", &[]).gives(alice()),
    ]
}

#[rustfmt::skip]
fn users() -> Vec<Row> {
    let inactive = || Seen::coded(403, "user_inactive", "User is inactive");
    let gone = || Seen::coded(404, "user_not_found", "User not found");
    let reused = || Seen::coded(401, "refresh_reuse_detected", "Refresh token reuse detected");
    vec![
        get("me inactive user", "users/me").bearer(Access("pad"))
            .before(Before::SignIn("pad", "pad@example.com", "curl/7.88.1"))
            .before(Before::Sql("UPDATE users SET is_active = FALSE WHERE email = 'pad@example.com'"))
            .gives(inactive()),
        post("refresh of an inactive user", "auth/refresh").bearer(Refresh("pad"))
            .gives(Seen::pair()).changed(INACTIVE, reused()),
        get("sessions of an inactive user", "auth/sessions").bearer(Access("pad"))
            .gives(Seen::json(200, r#"[{"session_id":"<uuid>","user_agent":"curl/7.88.1","ip_address":"127.0.0.1","created_at":"<time>","last_seen_at":"<time>"}]"#))
            .changed(ACCESS_CHECK, inactive()),
        post("logout-all of an inactive user", "auth/logout-all").bearer(Access("pad"))
            .gives(Seen::empty(204)).changed(ACCESS_CHECK, inactive()),
        get("me of a deleted user", "users/me").bearer(Access("bob"))
            .before(Before::SignIn("bob", "bob@example.com", "curl/7.88.1"))
            .before(Before::Sql("DELETE FROM users WHERE email = 'bob@example.com'"))
            .gives(gone())
            .fact("orphans", "SELECT count(*) FROM auth_sessions WHERE user_id NOT IN (SELECT id FROM users)", 0),
        get("sessions of a deleted user", "auth/sessions").bearer(Access("bob"))
            .gives(Seen::json(200, "[]")).changed(ACCESS_CHECK, gone()),
        post("refresh of a deleted user", "auth/refresh").bearer(Refresh("bob")).gives(reused()),
    ]
}
