//! Rows of sessions that are over go, all others stay.

use std::collections::HashSet;

use authservice::entity::{auth_session, refresh_token, user};
use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ActiveValue::Set, EntityTrait as _};
use uuid::Uuid;

use super::ALICE;
use crate::support::{TestApp, claims, each_engine, each_engine_with};

const RETENTION: TimeDelta = TimeDelta::days(7);
const IDLE: TimeDelta = TimeDelta::days(14);
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

async fn sweep(app: &TestApp) -> usize {
    let (deleted, next) = app.app.sessions.sweep(Uuid::nil(), app.now()).await.unwrap();
    assert_eq!(next, Uuid::nil(), "the whole table was seen");
    deleted
}

/// The sessions that have rows, which both tables agree on.
async fn rows(app: &TestApp) -> HashSet<Uuid> {
    let db = app.app.db.writer();
    let sessions = auth_session::Entity::find().all(db).await.unwrap();
    let families = refresh_token::Entity::find().all(db).await.unwrap();
    let sessions: HashSet<Uuid> = sessions.iter().map(|row| row.id).collect();
    assert_eq!(sessions, families.iter().map(|row| row.session_id).collect());
    sessions
}

#[tokio::test]
async fn the_sweep_deletes_sessions_that_are_over_once_they_were_kept_long_enough() {
    each_engine(async |app| {
        let ended = app.alice().await;
        let idle = app.sign_in(ALICE).await;
        let mut live = app.sign_in(ALICE).await;
        assert_eq!(app.logout(&ended.refresh).await.status, 204);
        app.advance(RETENTION - MOMENT);
        assert_eq!(sweep(&app).await, 0);
        app.advance(MOMENT);

        assert_eq!(sweep(&app).await, 1, "the ended one");

        app.refresh(&ended.refresh).await.refused(401, "refresh_reuse_detected");
        assert_eq!(app.logout(&ended.refresh).await.status, 204);
        live = app.refresh(&live.refresh).await.pair();
        // Idle for 14 days, kept for 7 more.
        app.advance(IDLE - MOMENT);
        live = app.refresh(&live.refresh).await.pair();
        app.refresh(&idle.refresh).await.refused(401, "token_expired");
        assert_eq!(sweep(&app).await, 0);
        app.advance(MOMENT);

        assert_eq!(sweep(&app).await, 1, "the idle one");

        app.refresh(&idle.refresh).await.refused(401, "refresh_reuse_detected");
        assert_eq!(sweep(&app).await, 0);
        live = app.refresh(&live.refresh).await.pair();
        assert_eq!(app.me(&live.access).await.status, 200);
        let own = claims(&live.refresh)["sid"].as_str().unwrap().parse().unwrap();
        assert_eq!(rows(&app).await, HashSet::from([own]));
    })
    .await;
}

#[tokio::test]
async fn a_session_past_its_absolute_end_is_swept_after_retention() {
    let short = [
        ("AUTHSERVICE__REFRESH__IDLE_TTL_SECONDS", "3600"),
        ("AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS", "5400"),
        ("AUTHSERVICE__CLEANUP__RETENTION_DAYS", "0"),
    ];
    each_engine_with(&short, async |app| {
        let first = app.alice().await;
        app.advance(TimeDelta::hours(1) - MOMENT);
        app.refresh(&first.refresh).await.pair();
        app.advance(TimeDelta::minutes(30));
        assert_eq!(sweep(&app).await, 0);
        app.advance(MOMENT);

        assert_eq!(sweep(&app).await, 1);

        assert!(rows(&app).await.is_empty());
    })
    .await;
}

/// Batches of a thousand rows, from any place in the table, by one replica at a time.
#[tokio::test]
async fn the_sweep_goes_through_any_number_of_rows() {
    const ROWS: u128 = 2500;
    each_engine(async |app| {
        app.register(ALICE).await;
        let alice = user::Entity::find().one(app.app.db.reader()).await.unwrap().unwrap();
        let long_ago = app.now() - RETENTION;
        // Every third is over: ended, idle or past its absolute end.
        let is_over = |number: u128| number.is_multiple_of(3);
        let kept: HashSet<Uuid> = (1..=ROWS).filter(|number| !is_over(*number)).map(Uuid::from_u128).collect();
        let fill = async || {
            let later = app.now() + TimeDelta::days(1);
            let numbers: Vec<u128> = (1..=ROWS).filter(|number| is_over(*number)).collect();
            insert(&app, alice.id, &numbers, |number| match number % 9 {
                0 => (Some(long_ago), later, later),
                3 => (None, long_ago, later),
                _ => (None, later, long_ago),
            })
            .await;
        };
        let later = app.now() + TimeDelta::days(1);
        let live: Vec<u128> = (1..=ROWS).filter(|number| !is_over(*number)).collect();
        insert(&app, alice.id, &live, |number| match number % 3 {
            // Ended, but not long enough ago.
            1 => (Some(long_ago + MOMENT), later, later),
            _ => (None, later, later),
        })
        .await;

        fill().await;
        assert_eq!(sweep(&app).await, 833);
        assert_eq!(rows(&app).await, kept);

        // From a cursor only what follows it is seen.
        fill().await;
        let from = app.app.sessions.sweep(Uuid::from_u128(1500), app.now()).await.unwrap();
        assert_eq!(from, (333, Uuid::nil()));
        assert_eq!(sweep(&app).await, 500);
        assert_eq!(rows(&app).await, kept);

        // Two replicas at once: whoever finds the other at work leaves it to them.
        fill().await;
        let replica = app.another_replica().await;
        let (one, other) = tokio::join!(
            app.app.sessions.sweep(Uuid::nil(), app.now()),
            replica.app.sessions.sweep(Uuid::nil(), app.now())
        );
        assert_eq!(one.unwrap().0 + other.unwrap().0, 833);
        assert_eq!(rows(&app).await, kept);
    })
    .await;
}

type Ends = (Option<DateTime<Utc>>, DateTime<Utc>, DateTime<Utc>);

/// Inserts sessions by hand; `ends` says when each was ended, and its idle and absolute end.
async fn insert(app: &TestApp, user_id: i64, numbers: &[u128], ends: impl Fn(u128) -> Ends) {
    let reason = |revoked_at: Option<DateTime<Utc>>| Set(revoked_at.map(|_| "USER_LOGOUT".to_owned()));
    for numbers in numbers.chunks(500) {
        let sessions = numbers.iter().map(|number| {
            let (revoked_at, ..) = ends(*number);
            auth_session::ActiveModel {
                id: Set(Uuid::from_u128(*number)),
                user_id: Set(user_id),
                user_agent: Set(String::new()),
                ip_address: Set(None),
                created_at: Set(app.now()),
                revoked_at: Set(revoked_at),
                revoked_reason: reason(revoked_at),
            }
        });
        let families = numbers.iter().map(|number| {
            let (revoked_at, idle_end, absolute_end) = ends(*number);
            refresh_token::ActiveModel {
                // Not in the order of the sessions.
                family_id: Set(Uuid::from_u128(u128::MAX - number)),
                session_id: Set(Uuid::from_u128(*number)),
                user_id: Set(user_id),
                client_id: Set("authservice".to_owned()),
                scope: Set("account".to_owned()),
                generation: Set(0),
                family_secret: Set(vec![7; 32]),
                key_id: Set("none".to_owned()),
                rotated_at: Set(app.now()),
                idle_end: Set(idle_end),
                absolute_end: Set(absolute_end),
                revoked_at: Set(revoked_at),
                revoked_reason: reason(revoked_at),
                legacy_hash: Set(None),
            }
        });
        let db = app.app.db.writer();
        auth_session::Entity::insert_many(sessions).exec_without_returning(db).await.unwrap();
        refresh_token::Entity::insert_many(families).exec_without_returning(db).await.unwrap();
    }
}
