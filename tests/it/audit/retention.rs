//! Events go when they were kept long enough, and no earlier.

use authservice::entity::audit_event;
use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{ActiveValue::Set, EntityTrait as _, PaginatorTrait as _};

use crate::support::{TestApp, each_engine, each_engine_with};

const RETENTION: TimeDelta = TimeDelta::days(180);
const MOMENT: TimeDelta = TimeDelta::microseconds(1);

async fn sweep(app: &TestApp) -> u64 {
    app.app.trail.sweep(app.now()).await.unwrap()
}

async fn count(app: &TestApp) -> u64 {
    audit_event::Entity::find().count(app.app.db.writer()).await.unwrap()
}

/// Inserts so many events of one time.
async fn insert(app: &TestApp, number: usize, at: DateTime<Utc>) {
    let mut left = number;
    while left > 0 {
        let some = left.min(500);
        let rows = (0..some).map(|_| audit_event::ActiveModel {
            at: Set(at),
            event: Set("signed_in".to_owned()),
            ..Default::default()
        });
        audit_event::Entity::insert_many(rows).exec_without_returning(app.app.db.writer()).await.unwrap();
        left -= some;
    }
}

#[tokio::test]
async fn an_event_is_kept_for_180_days() {
    each_engine(async |app| {
        app.alice().await;
        let old = count(&app).await;
        app.advance(TimeDelta::days(1));
        app.register("bob@example.com").await;
        app.advance(RETENTION - TimeDelta::days(1) - MOMENT);
        assert_eq!(sweep(&app).await, 0);
        assert_eq!(count(&app).await, old + 1);

        app.advance(MOMENT);

        assert_eq!(sweep(&app).await, old);
        assert_eq!(count(&app).await, 1, "that of a day later");
        assert_eq!(sweep(&app).await, 0);
        app.advance(TimeDelta::days(1));
        assert_eq!(sweep(&app).await, 1);
    })
    .await;
}

#[tokio::test]
async fn with_0_events_are_kept_for_ever() {
    each_engine_with(&[("AUTHSERVICE__AUDIT__RETENTION_DAYS", "0")], async |app| {
        app.alice().await;
        let all = count(&app).await;
        app.advance(TimeDelta::days(36500));

        assert_eq!(sweep(&app).await, 0);
        assert_eq!(count(&app).await, all);
    })
    .await;
}

/// More than a batch, by one replica at a time.
#[tokio::test]
async fn any_number_of_events_goes_in_batches() {
    each_engine_with(&[("AUTHSERVICE__AUDIT__RETENTION_DAYS", "1")], async |app| {
        let kept = count(&app).await;
        let replica = app.another_replica().await;
        let old = app.now() - TimeDelta::days(1);

        insert(&app, 2000, old).await;
        assert_eq!(sweep(&app).await, 2000);
        assert_eq!(count(&app).await, kept);

        insert(&app, 2500, old).await;
        let (one, other) = tokio::join!(app.app.trail.sweep(app.now()), replica.app.trail.sweep(app.now()));
        assert_eq!(one.unwrap() + other.unwrap(), 2500);
        assert_eq!(count(&app).await, kept);
    })
    .await;
}
