//! Outages: a client that could not retry is no thief, and a thief gains nothing from one (RFC 9700 4.14.2).

use chrono::TimeDelta;

use super::is_over;
use crate::support::{Engine, TestApp, each_engine, each_engine_with};

/// From now on a clock that moves without stamps is an outage.
async fn starts(app: &TestApp) {
    app.sql(if app.engine == Engine::Sqlite {
        "DROP TRIGGER no_outages"
    } else {
        "DROP TRIGGER no_outages ON service_clock"
    })
    .await;
    runs(app, 20).await;
}

/// The service runs for so long: it stamps as the background job does.
async fn runs(app: &TestApp, seconds: i64) {
    for _ in 0..seconds / 5 {
        app.advance(TimeDelta::seconds(5));
        app.app.sessions.stamp(app.now()).await.unwrap();
    }
}

/// Nothing runs for so long; then the service is up again.
async fn is_down(app: &TestApp, seconds: i64) {
    app.advance(TimeDelta::seconds(seconds));
    app.app.sessions.stamp(app.now()).await.unwrap();
}

#[tokio::test]
async fn a_client_whose_answer_was_lost_goes_on_after_an_outage() {
    each_engine(async |app| {
        starts(&app).await;
        let held = app.alice().await;
        let lost = app.refresh(&held.refresh).await.pair();
        runs(&app, 10).await;

        is_down(&app, 3600).await;

        app.advance(TimeDelta::seconds(29));
        assert_eq!(app.refresh(&held.refresh).await.pair().refresh, lost.refresh);
        app.refresh(&lost.refresh).await.pair();
    })
    .await;
}

/// Also when this retry is the first that anybody hears of the outage.
#[tokio::test]
async fn the_first_request_after_an_outage_finds_it() {
    each_engine(async |app| {
        starts(&app).await;
        let held = app.alice().await;
        let lost = app.refresh(&held.refresh).await.pair();

        app.advance(TimeDelta::seconds(600));

        assert_eq!(app.refresh(&held.refresh).await.pair().refresh, lost.refresh);
    })
    .await;
}

#[tokio::test]
async fn without_an_outage_a_late_retry_is_theft() {
    each_engine(async |app| {
        starts(&app).await;
        let stolen = app.alice().await;
        let newest = app.refresh(&stolen.refresh).await.pair();

        runs(&app, 30).await;

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

#[tokio::test]
async fn while_any_replica_is_up_there_is_no_outage() {
    each_engine(async |app| {
        let other = app.another_replica().await;
        starts(&app).await;
        let stolen = app.alice().await;
        let newest = app.refresh(&stolen.refresh).await.pair();

        runs(&other, 60).await;
        app.app.sessions.stamp(app.now()).await.unwrap();

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

#[tokio::test]
async fn the_window_begins_anew_at_the_recovery_and_ends() {
    each_engine(async |app| {
        starts(&app).await;
        let stolen = app.alice().await;
        let newest = app.refresh(&stolen.refresh).await.pair();

        is_down(&app, 600).await;
        runs(&app, 30).await;

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_excuses_nobody_who_was_late_before_it() {
    each_engine(async |app| {
        starts(&app).await;
        let stolen = app.alice().await;
        let newest = app.refresh(&stolen.refresh).await.pair();
        runs(&app, 35).await;

        is_down(&app, 600).await;

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

#[tokio::test]
async fn an_outage_excuses_no_older_token() {
    each_engine(async |app| {
        starts(&app).await;
        let stolen = app.alice().await;
        let second = app.refresh(&stolen.refresh).await.pair();
        let newest = app.refresh(&second.refresh).await.pair();

        is_down(&app, 600).await;

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}

/// A database that comes and goes leaves a client no moment to retry.
#[tokio::test]
async fn outages_close_together_count_as_one() {
    each_engine(async |app| {
        starts(&app).await;
        let held = app.alice().await;
        let lost = app.refresh(&held.refresh).await.pair();

        is_down(&app, 100).await;
        runs(&app, 10).await;
        is_down(&app, 100).await;
        runs(&app, 20).await;
        is_down(&app, 100).await;

        assert_eq!(app.refresh(&held.refresh).await.pair().refresh, lost.refresh);
    })
    .await;
}

#[tokio::test]
async fn strict_rotation_knows_no_outage() {
    each_engine_with(&[("AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS", "0")], async |app| {
        starts(&app).await;
        let stolen = app.alice().await;
        let newest = app.refresh(&stolen.refresh).await.pair();

        is_down(&app, 600).await;

        app.refresh(&stolen.refresh).await.refused(401, "refresh_reuse_detected");
        is_over(&app, &newest, "REUSE_DETECTED").await;
    })
    .await;
}
