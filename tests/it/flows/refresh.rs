//! The life of a refresh token: every state that an authentic one can be in, and what each state leaves behind.

use std::collections::HashSet;

use authservice::accounts::Email;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::{Method, RequestBuilder};
use serde_json::json;

use super::{ALICE, events, family, is_over, uuid};
use crate::support::{Answer, PASSWORD, TestApp, claims, each_engine, each_engine_with};

const WINDOW: TimeDelta = TimeDelta::seconds(30);
const IDLE: TimeDelta = TimeDelta::days(14);
const ABSOLUTE: TimeDelta = TimeDelta::days(180);
/// What both engines tell apart.
const MOMENT: TimeDelta = TimeDelta::microseconds(1);
const OTHER_AGENT: &str = "Other/1.0";

fn refresh_request(app: &TestApp, token: &str) -> RequestBuilder {
    app.request(Method::POST, "auth/refresh").bearer_auth(token)
}

fn seconds(time: DateTime<Utc>) -> i64 {
    time.timestamp()
}

/// RFC 6749 6 and 10.4: a refresh token is exchanged for a new one.
#[tokio::test]
async fn the_newest_token_is_exchanged_for_its_successor() {
    each_engine(async |app| {
        let first = app.alice().await;
        app.advance(TimeDelta::minutes(5));

        let answer = app.refresh(&first.refresh).await;

        let next = answer.pair();
        assert_eq!(answer.header("cache-control"), "no-store");
        assert_eq!(answer.json()["token_type"], "Bearer");
        assert_eq!(answer.json()["expires_in"], 900);
        let (old, new) = (claims(&first.refresh), claims(&next.refresh));
        for unchanged in ["sid", "fam", "user_id", "sub", "iss", "aud", "type"] {
            assert_eq!(old[unchanged], new[unchanged], "{unchanged}");
        }
        assert_eq!((&old["gen"], &new["gen"]), (&json!(0), &json!(1)));
        assert_ne!(old["jti"], new["jti"]);
        assert_eq!(uuid(&next.refresh, "jti").get_version_num(), 8);
        assert_eq!(new["iat"], seconds(app.now()));
        assert_eq!(new["exp"], seconds(app.now() + IDLE));
        assert_ne!(first.access, next.access);
        assert_eq!(app.me(&next.access).await.status, 200);
        let row = family(&app, &next.refresh).await;
        assert_eq!((row.generation, row.rotated_at), (1, app.now()));
        assert_eq!(row.idle_end, app.now() + IDLE);
    })
    .await;
}

/// A lost answer or a second tab logs nobody out: the same successor, byte for byte, until the window ends.
#[tokio::test]
async fn a_token_sent_again_within_the_window_gets_the_same_successor() {
    each_engine(async |app| {
        app.register(ALICE).await;
        let replica = app.another_replica().await;
        let rows = [("at once", TimeDelta::zero()), ("half-way", WINDOW / 2), ("at the last moment", WINDOW - MOMENT)];
        for (name, pause) in rows {
            let first = app.sign_in(ALICE).await;
            let next = app.refresh(&first.refresh).await.pair();
            let row = family(&app, &first.refresh).await;
            app.advance(pause);

            let again = replica.refresh(&first.refresh).await.pair();

            assert_eq!(again.refresh, next.refresh, "{name}");
            assert_ne!(again.access, next.access, "{name}");
            assert_eq!(app.me(&again.access).await.status, 200, "{name}");
            assert_eq!(family(&app, &first.refresh).await, row, "{name}");
            assert_eq!(claims(&app.refresh(&next.refresh).await.pair().refresh)["gen"], 2);
        }
        assert!(events(&app, "refresh_retry").await.is_empty());
    })
    .await;
}

/// RFC 9700 4.14.2: the window ends exactly after its seconds.
#[tokio::test]
async fn a_token_sent_again_at_the_end_of_the_window_is_theft() {
    each_engine(async |app| {
        let first = app.alice().await;
        let next = app.refresh(&first.refresh).await.pair();
        app.advance(WINDOW);

        let replay = app.refresh(&first.refresh).await;

        replay.refused(401, "refresh_reuse_detected");
        is_over(&app, &next, "REUSE_DETECTED").await;
    })
    .await;
}

/// RFC 9700 4.14.2, as the service before this one meant it.
#[tokio::test]
async fn a_window_of_zero_makes_any_second_use_theft() {
    let strict = [("AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS", "0")];
    each_engine_with(&strict, async |app| {
        let first = app.alice().await;
        let next = app.refresh(&first.refresh).await.pair();

        let replay = app.refresh(&first.refresh).await;

        replay.refused(401, "refresh_reuse_detected");
        is_over(&app, &next, "REUSE_DETECTED").await;
    })
    .await;
}

/// RFC 9700 4.14.2: only the token before the newest may be a retry. Whoever has used its successor has had the answer.
#[tokio::test]
async fn the_token_before_the_last_but_one_is_theft_also_within_the_window() {
    each_engine(async |app| {
        let first = app.alice().await;
        let second = app.refresh(&first.refresh).await.pair();
        let third = app.refresh(&second.refresh).await.pair();

        let replay = app.refresh(&first.refresh).await;

        replay.refused(401, "refresh_reuse_detected");
        is_over(&app, &third, "REUSE_DETECTED").await;
    })
    .await;
}

/// RFC 9700 4.14.2: a token is recognised as long as its session lives, however old it is.
#[tokio::test]
async fn a_replay_after_29_days_is_theft() {
    each_engine(async |app| {
        let stolen = app.alice().await;
        let mut newest = stolen.clone();
        for days in [10, 10, 9] {
            app.advance(TimeDelta::days(days));
            newest = app.refresh(&newest.refresh).await.pair();
        }
        app.advance(WINDOW);

        let replay = app.refresh(&stolen.refresh).await;

        replay.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

/// RFC 9700 4.14.2: whoever of the two comes second with a token that the other has used ends the session for both.
#[tokio::test]
async fn owner_and_thief_who_alternate_are_found_out_at_the_second_step() {
    each_engine(async |app| {
        app.register(ALICE).await;
        for (name, is_owner_first) in [("owner first", true), ("thief first", false)] {
            let copied = app.sign_in(ALICE).await;
            let step = async |is_owner: bool, token: &str| {
                let agent = if is_owner { "" } else { OTHER_AGENT };
                app.advance(WINDOW);
                Answer::of(refresh_request(&app, token).header("user-agent", agent)).await
            };

            let won = step(is_owner_first, &copied.refresh).await.pair();
            let lost = step(!is_owner_first, &copied.refresh).await;

            lost.refused(401, "refresh_reuse_detected");
            is_over(&app, &won, "REUSE_DETECTED").await;
            app.me(&copied.access).await.refused(401, "invalid_token");
            assert_eq!(family(&app, &copied.refresh).await.generation, 1, "{name}");
        }
    })
    .await;
}

/// The thief who is quick gets no branch of their own either: both hold the same token, and the next step tells.
#[tokio::test]
async fn owner_and_thief_within_one_window_hold_the_same_token_and_are_found_out_at_the_next_step() {
    each_engine(async |app| {
        let copied = app.alice().await;
        let thief = app.refresh(&copied.refresh).await.pair();
        let owner = app.refresh(&copied.refresh).await.pair();
        assert_eq!(thief.refresh, owner.refresh);
        app.advance(WINDOW);
        let thief = app.refresh(&thief.refresh).await.pair();
        app.advance(WINDOW);

        let found_out = app.refresh(&owner.refresh).await;

        found_out.refused(401, "refresh_reuse_detected");
        is_over(&app, &thief, "REUSE_DETECTED").await;
    })
    .await;
}

/// RFC 9700 4.14.2. The answer is an error, and yet the revocation is committed: it counts on every replica at once.
#[tokio::test]
async fn a_theft_ends_its_session_on_every_replica_and_no_other_session() {
    each_engine(async |app| {
        let first = app.alice().await;
        let other = app.sign_in(ALICE).await;
        app.register("bob@example.com").await;
        let bob = app.sign_in("bob@example.com").await;
        let replica = app.another_replica().await;
        let next = app.refresh(&first.refresh).await.pair();
        assert_eq!(replica.me(&next.access).await.status, 200);
        app.advance(WINDOW);

        app.refresh(&first.refresh).await.refused(401, "refresh_reuse_detected");

        for replica in [&app, &replica] {
            replica.me(&first.access).await.refused(401, "invalid_token");
            is_over(replica, &next, "REUSE_DETECTED").await;
            replica.sessions(&next.access).await.refused(401, "invalid_token");
            assert_eq!(replica.me(&other.access).await.status, 200);
            assert_eq!(replica.me(&bob.access).await.status, 200);
        }
        let sessions = app.sessions(&other.access).await.json();
        assert_eq!(sessions.as_array().unwrap().len(), 1);
        assert_eq!(sessions[0]["session_id"], claims(&other.refresh)["sid"]);
        app.refresh(&other.refresh).await.pair();
        app.refresh(&bob.refresh).await.pair();
        let noted = events(&app, "refresh_reuse").await;
        assert_eq!(noted.len(), 1);
        assert_eq!(noted[0].session_id, Some(uuid(&first.refresh, "sid")));
        assert_eq!(noted[0].at, app.now());
        let details: serde_json::Value = serde_json::from_str(noted[0].details.as_deref().unwrap()).unwrap();
        assert_eq!(details, json!({"presented": 0, "current": 1}));
    })
    .await;
}

/// RFC 9700 4.14.2: the first replay ends the session; the others find it ended and are not noted again.
#[tokio::test]
async fn twenty_generations_replayed_from_newest_to_oldest_are_one_theft() {
    each_engine(async |app| {
        let mut tokens = vec![app.alice().await.refresh];
        for _ in 0..20 {
            let next = app.refresh(tokens.last().unwrap()).await.pair();
            tokens.push(next.refresh);
        }
        assert_eq!(tokens.iter().collect::<HashSet<_>>().len(), 21);
        app.advance(WINDOW);

        for token in tokens.iter().rev().skip(1) {
            app.refresh(token).await.refused(401, "refresh_reuse_detected");
        }

        let row = family(&app, &tokens[0]).await;
        assert_eq!(row.revoked_reason.as_deref(), Some("REUSE_DETECTED"));
        assert_eq!((row.generation, row.revoked_at), (20, Some(app.now())));
        assert_eq!(events(&app, "refresh_reuse").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_not_refreshed_in_time_has_expired() {
    each_engine(async |app| {
        app.register(ALICE).await;
        for (name, pause, expected) in [("in time", IDLE - MOMENT, 200), ("too late", IDLE, 401)] {
            let first = app.sign_in(ALICE).await;
            let newest = app.refresh(&first.refresh).await.pair();
            let row = family(&app, &newest.refresh).await;
            app.advance(pause);

            let answer = app.refresh(&newest.refresh).await;

            assert_eq!(answer.status, expected, "{name}");
            if expected == 401 {
                answer.refused(401, "token_expired");
                app.refresh(&first.refresh).await.refused(401, "token_expired");
                assert_eq!(family(&app, &newest.refresh).await, row, "nothing is revoked");
            }
        }
        assert!(events(&app, "refresh_reuse").await.is_empty());
    })
    .await;
}

/// However often a session is refreshed, its absolute end stays where sign-in put it.
#[tokio::test]
async fn the_absolute_end_of_a_session_never_moves() {
    each_engine(async |app| {
        let mut newest = app.alice().await;
        let end = app.now() + ABSOLUTE;
        assert_eq!(family(&app, &newest.refresh).await.absolute_end, end);
        for _ in 0..13 {
            app.advance(TimeDelta::days(13));
            newest = app.refresh(&newest.refresh).await.pair();
            assert_eq!(family(&app, &newest.refresh).await.absolute_end, end);
        }
        app.advance(end - app.now() - MOMENT);

        let last = app.refresh(&newest.refresh).await;

        assert_eq!(last.json()["expires_in"], 0, "no access token outlives the session");
        let last = last.pair();
        assert_eq!(claims(&last.refresh)["exp"], seconds(end));
        assert_eq!(family(&app, &last.refresh).await.idle_end, end);
        app.advance(MOMENT);
        let row = family(&app, &last.refresh).await;
        app.refresh(&last.refresh).await.refused(401, "token_expired");
        app.refresh(&newest.refresh).await.refused(401, "token_expired");
        assert_eq!(family(&app, &last.refresh).await, row);
        assert_eq!(row.absolute_end, end);
    })
    .await;
}

#[tokio::test]
async fn the_tokens_of_an_ended_session_are_dead() {
    each_engine(async |app| {
        app.register(ALICE).await;
        let email = Email::parse(ALICE).unwrap();
        let enders = ["logout", "logout-all", "delete", "password", "deactivation"];
        for ender in enders {
            let older = app.sign_in(ALICE).await;
            let newest = app.refresh(&older.refresh).await.pair();

            let reason = match ender {
                "logout" => {
                    assert_eq!(app.logout(&newest.refresh).await.status, 204);
                    "USER_LOGOUT"
                }
                "logout-all" => {
                    let answer = app.with_token(Method::POST, "auth/logout-all", &newest.access).await;
                    assert_eq!(answer.status, 204);
                    "USER_LOGOUT_ALL"
                }
                "delete" => {
                    let path = format!("auth/sessions/{}", uuid(&newest.refresh, "sid"));
                    let answer = app.with_token(Method::DELETE, &path, &newest.access).await;
                    assert_eq!(answer.status, 204);
                    "USER_LOGOUT"
                }
                "password" => {
                    let accounts = app.app.accounts.management();
                    let set = accounts.set_password(&email, PASSWORD.into(), app.now());
                    set.await.unwrap();
                    "PASSWORD_CHANGE"
                }
                _ => {
                    let accounts = app.app.accounts.management();
                    assert!(accounts.set_active(&email, false, app.now()).await.unwrap());
                    app.refresh(&newest.refresh).await.refused(401, "refresh_reuse_detected");
                    app.me(&newest.access).await.refused(403, "user_inactive");
                    // What has ended does not come back with its user.
                    assert!(accounts.set_active(&email, true, app.now()).await.unwrap());
                    "DEACTIVATED"
                }
            };

            let row = family(&app, &newest.refresh).await;
            app.refresh(&older.refresh).await.refused(401, "refresh_reuse_detected");
            app.me(&older.access).await.refused(401, "invalid_token");
            is_over(&app, &newest, reason).await;
            assert_eq!(family(&app, &newest.refresh).await, row, "{ender}");
        }
        assert!(events(&app, "refresh_reuse").await.is_empty());
    })
    .await;
}

/// A row that was changed or deleted by hand counts from the next request.
#[tokio::test]
async fn the_tokens_of_a_user_who_is_inactive_or_gone_are_dead() {
    each_engine(async |app| {
        let pair = app.alice().await;
        let row = family(&app, &pair.refresh).await;

        app.sql("UPDATE users SET is_active = false").await;

        app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
        app.me(&pair.access).await.refused(403, "user_inactive");
        assert_eq!(family(&app, &pair.refresh).await, row, "a refusal revokes nothing");

        app.sql("UPDATE users SET is_active = true").await;
        let pair = app.refresh(&pair.refresh).await.pair();

        app.sql("DELETE FROM users").await;

        app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
        app.me(&pair.access).await.refused(404, "user_not_found");
        assert_eq!(app.logout(&pair.refresh).await.status, 204);
        assert_eq!(app.count("SELECT COUNT(*) FROM refresh_tokens").await, 0);
    })
    .await;
}

/// A database that was restored, or lost commits, knows less than its clients: nobody can tell which of them is honest.
#[tokio::test]
async fn a_token_that_is_newer_than_the_database_ends_the_session() {
    each_engine(async |app| {
        let first = app.alice().await;
        let second = app.refresh(&first.refresh).await.pair();
        let third = app.refresh(&second.refresh).await.pair();
        app.sql("UPDATE refresh_tokens SET generation = 1").await;

        let answer = app.refresh(&third.refresh).await;

        answer.refused(401, "refresh_reuse_detected");
        is_over(&app, &second, "FUTURE_TOKEN").await;
        is_over(&app, &third, "FUTURE_TOKEN").await;
        let noted = events(&app, "refresh_from_the_future").await;
        assert_eq!(noted.len(), 1);
        assert_eq!(noted[0].session_id, Some(uuid(&first.refresh, "sid")));
    })
    .await;
}

/// RFC 7009 2.1 by analogy: whoever holds any token of a session may end it, and ending it twice is no error.
#[tokio::test]
async fn a_session_is_ended_by_any_of_its_tokens_and_more_than_once() {
    each_engine(async |app| {
        app.register(ALICE).await;
        let rows = [
            ("the newest", 2, TimeDelta::zero()),
            ("the one before", 1, TimeDelta::zero()),
            ("an older one", 0, TimeDelta::zero()),
            ("an older one after the window", 0, WINDOW * 2),
            ("an expired one", 2, IDLE),
            ("an older and expired one", 0, IDLE + TimeDelta::days(30)),
        ];
        for (name, generation, pause) in rows {
            let mut pairs = vec![app.sign_in(ALICE).await];
            for _ in 0..2 {
                let next = app.refresh(&pairs.last().unwrap().refresh).await.pair();
                pairs.push(next);
            }
            app.advance(pause);
            let before = events(&app, "logged_out").await.len();

            let answer = app.logout(&pairs[generation].refresh).await;

            assert_eq!((answer.status, answer.body.as_str()), (204, ""), "{name}");
            let row = family(&app, &pairs[2].refresh).await;
            assert_eq!(row.revoked_reason.as_deref(), Some("USER_LOGOUT"), "{name}");
            for pair in &pairs {
                app.refresh(&pair.refresh).await.refused(401, "refresh_reuse_detected");
                let me = app.me(&pair.access).await;
                me.refused(401, if pause >= IDLE { "token_expired" } else { "invalid_token" });
                assert_eq!(app.logout(&pair.refresh).await.status, 204, "{name}: again");
            }
            assert_eq!(family(&app, &pairs[2].refresh).await, row, "{name}: again");
            assert_eq!(events(&app, "logged_out").await.len(), before + 1, "{name}");
        }
        assert!(events(&app, "refresh_reuse").await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_retry_from_another_device_is_answered_and_noted() {
    let proxy = [("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1")];
    each_engine_with(&proxy, async |app| {
        app.register(ALICE).await;
        for (header, value) in [("user-agent", OTHER_AGENT), ("x-forwarded-for", "203.0.113.9")] {
            let first = app.sign_in(ALICE).await;
            let next = app.refresh(&first.refresh).await.pair();
            let row = family(&app, &first.refresh).await;
            let before = events(&app, "refresh_retry").await.len();

            let again = Answer::of(refresh_request(&app, &first.refresh).header(header, value)).await;

            assert_eq!(again.pair().refresh, next.refresh, "{header}");
            assert_eq!(family(&app, &first.refresh).await, row, "{header}");
            let noted = events(&app, "refresh_retry").await;
            assert_eq!(noted.len(), before + 1, "{header}");
            let noted = noted.last().unwrap();
            assert_eq!(noted.session_id, Some(uuid(&first.refresh, "sid")));
            let (agent, address) = (noted.user_agent.as_deref(), noted.ip_address.as_deref());
            let expected = if header == "user-agent" {
                (Some(OTHER_AGENT), Some("127.0.0.1"))
            } else {
                (Some(""), Some("203.0.113.9"))
            };
            assert_eq!((agent, address), expected);
            let details: serde_json::Value = serde_json::from_str(noted.details.as_deref().unwrap()).unwrap();
            assert_eq!(details["context_mismatch"], true);
        }
    })
    .await;
}

/// Only a retry needs the device: the newest token may come from anywhere, as a phone changes its network.
#[tokio::test]
async fn a_retry_from_another_device_is_theft_when_the_setting_says_so() {
    let strict = [
        ("AUTHSERVICE__REFRESH__RETRY_CONTEXT_MISMATCH", "theft"),
        ("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1"),
    ];
    each_engine_with(&strict, async |app| {
        app.register(ALICE).await;
        for (header, value) in [("user-agent", OTHER_AGENT), ("x-forwarded-for", "203.0.113.9")] {
            let first = app.sign_in(ALICE).await;
            let moved = Answer::of(refresh_request(&app, &first.refresh).header(header, value)).await;
            let next = moved.pair();
            assert_eq!(app.refresh(&first.refresh).await.pair().refresh, next.refresh, "{header}");

            let again = Answer::of(refresh_request(&app, &first.refresh).header(header, value)).await;

            again.refused(401, "refresh_reuse_detected");
            is_over(&app, &next, "REUSE_DETECTED").await;
        }
        assert_eq!(events(&app, "refresh_reuse").await.len(), 2);
    })
    .await;
}
