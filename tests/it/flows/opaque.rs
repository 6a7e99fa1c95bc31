//! Refresh tokens in the opaque form: the same life as the signed form's.

use std::collections::HashSet;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::TimeDelta;
use reqwest::Method;
use tokio::task::JoinSet;

use super::{ALICE, events, families, uuid};
use crate::support::{Answer, Pair, TestApp, each_engine_with};

const OPAQUE: (&str, &str) = ("AUTHSERVICE__REFRESH__FORMAT", "opaque");
const WINDOW: TimeDelta = TimeDelta::seconds(30);
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

/// Why the session of the pair ended; `None` while it lives.
async fn end_of(app: &TestApp, pair: &Pair) -> Option<String> {
    let session_id = uuid(&pair.access, "sid");
    let row = families(app).await.into_iter().find(|row| row.session_id == session_id);
    row.unwrap().revoked_reason
}

/// RFC 9700 4.14.2.
#[tokio::test]
async fn an_opaque_token_lives_and_dies_as_a_signed_one_does() {
    each_engine_with(&[OPAQUE], async |app| {
        let first = app.alice().await;
        let other = app.sign_in(ALICE).await;
        assert!(first.refresh.starts_with("rt1."));
        let second = app.refresh(&first.refresh).await.pair();
        app.advance(WINDOW - MOMENT);

        let again = app.another_replica().await.refresh(&first.refresh).await.pair();

        assert_eq!(again.refresh, second.refresh);
        assert_ne!(again.access, second.access);
        let third = app.refresh(&second.refresh).await.pair();
        assert_eq!(HashSet::from([&first.refresh, &second.refresh, &third.refresh]).len(), 3);
        assert_eq!(end_of(&app, &third).await, None);

        app.refresh(&first.refresh).await.refused(401, "refresh_reuse_detected");

        app.refresh(&third.refresh).await.refused(401, "refresh_reuse_detected");
        app.me(&third.access).await.refused(401, "invalid_token");
        assert_eq!(end_of(&app, &third).await.as_deref(), Some("REUSE_DETECTED"));
        assert_eq!(events(&app, "refresh_reuse").await.len(), 1);

        let newest = app.refresh(&other.refresh).await.pair();
        assert_eq!(app.logout(&other.refresh).await.status, 204);
        app.refresh(&newest.refresh).await.refused(401, "refresh_reuse_detected");
        assert_eq!(end_of(&app, &newest).await.as_deref(), Some("USER_LOGOUT"));

        let idle = app.sign_in(ALICE).await;
        app.advance(TimeDelta::days(14));
        app.refresh(&idle.refresh).await.refused(401, "token_expired");
        assert_eq!(end_of(&app, &idle).await, None);
    })
    .await;
}

/// Algorithms whose signatures differ each time can sign no refresh token, and need not.
#[tokio::test]
async fn opaque_tokens_go_with_any_signing_algorithm() {
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA"] {
        let settings = [OPAQUE, ("AUTHSERVICE__KEYS__ALGORITHM", algorithm)];
        each_engine_with(&settings, async |app| {
            let first = app.alice().await;
            let next = app.refresh(&first.refresh).await.pair();

            let again = app.refresh(&first.refresh).await.pair();

            assert_eq!(again.refresh, next.refresh, "{algorithm}");
            assert_eq!(app.me(&again.access).await.status, 200, "{algorithm}");
        })
        .await;
    }
}

/// RFC 6749 10.4: refresh tokens cannot be modified or guessed; whoever tries ends nobody's session.
#[tokio::test]
async fn an_opaque_token_that_was_changed_never_revokes_anything() {
    each_engine_with(&[OPAQUE], async |app| {
        let older = app.alice().await;
        let pair = app.refresh(&older.refresh).await.pair();
        let other = app.sign_in(ALICE).await;
        let before = families(&app).await;
        let decode = |token: &str| BASE64_URL_SAFE_NO_PAD.decode(&token[4..]).unwrap();
        let encode = |bytes: &[u8]| format!("rt1.{}", BASE64_URL_SAFE_NO_PAD.encode(bytes));
        let (own, foreign, old) = (decode(&pair.refresh), decode(&other.refresh), decode(&older.refresh));
        assert_eq!(encode(&own), pair.refresh);

        let mut forgeries = Vec::new();
        for index in 0..own.len() {
            for (bytes, bit) in [(&own, index % 8), (&old, (index + 3) % 8)] {
                let mut bytes = bytes.clone();
                bytes[index] ^= 1 << bit;
                forgeries.push(encode(&bytes));
            }
            forgeries.push(encode(&own[..index]));
            forgeries.push(encode(&own[index + 1..]));
            // The beginning of one genuine token and the end of another.
            for genuine in [&foreign, &old] {
                let spliced = [&own[..index], &genuine[index..]].concat();
                if spliced != own && spliced != **genuine {
                    forgeries.push(encode(&spliced));
                }
            }
        }
        forgeries.push(encode(&[own.as_slice(), &[0]].concat()));
        forgeries.extend(["A", "=", ".", ".AA"].map(|end| format!("{}{end}", pair.refresh)));
        forgeries.extend(["rt2.", "RT1.", "rt1", ""].map(|start| pair.refresh.replacen("rt1.", start, 1)));
        for forgery in &forgeries {
            for answer in [app.refresh(forgery).await, app.logout(forgery).await, app.me(forgery).await] {
                assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_token"), "{forgery}");
            }
        }

        assert!(forgeries.len() > 400);
        assert_eq!(families(&app).await, before);
        assert!(events(&app, "refresh_reuse").await.is_empty());
        app.refresh(&pair.refresh).await.pair();
        app.refresh(&other.refresh).await.pair();
    })
    .await;
}

/// RFC 9700 4.14.2: however many use one token at once, it is exchanged once, and there is one successor.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_refreshes_with_one_opaque_token_take_one_step() {
    each_engine_with(&[OPAQUE], async |app| {
        let mut newest = app.alice().await.refresh;
        let replica = app.another_replica().await;
        for round in 1..=10 {
            let mut tasks = JoinSet::new();
            for replica in [&app, &replica].into_iter().cycle().take(16) {
                let request = replica.request(Method::POST, "auth/refresh");
                tasks.spawn(Answer::of(request.bearer_auth(&newest)));
            }

            let answers = tasks.join_all().await;

            let successors: HashSet<String> = answers.iter().map(|answer| answer.pair().refresh).collect();
            assert_eq!(successors.len(), 1, "round {round}");
            newest = successors.into_iter().next().unwrap();
            assert_eq!(families(&app).await[0].generation, round);
        }
    })
    .await;
}
