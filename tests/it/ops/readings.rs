//! What is read when somebody asks, and what background work counts.

use authservice::jobs;
use chrono::TimeDelta;
use uuid::Uuid;

use super::Scrape;
use crate::support::{Engine, each_engine, each_engine_with};

/// A moment in Prometheus' way, which a test's clock stands at.
#[expect(clippy::cast_precision_loss, reason = "as the server does")]
fn seconds(time: chrono::DateTime<chrono::Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}

const NEXT: &str = "signing_key_next_rotation_timestamp_seconds";
const AGE: &str = "signing_key_age_seconds";

#[tokio::test]
async fn the_life_of_the_signing_keys_is_told() {
    each_engine(async |app| {
        let states = async || {
            let scrape = Scrape::of(&app).await;
            ["announced", "signing", "retained"]
                .map(|state| scrape.value(&format!("signing_keys{{state=\"{state}\"}}")))
        };
        let began = app.now();
        assert_eq!(states().await, [0.0, 1.0, 0.0]);

        app.advance(TimeDelta::days(89));
        let scrape = Scrape::of(&app).await;
        assert_eq!(scrape.value(AGE), 89.0 * 86400.0);
        assert_eq!(scrape.value(NEXT), seconds(began + TimeDelta::days(90)));

        app.advance(TimeDelta::hours(23) + TimeDelta::minutes(55));
        app.app.keyring.upkeep(app.now()).await.unwrap();
        assert_eq!(states().await, [1.0, 1.0, 0.0]);
        // What was announced counts, not what was due.
        let next = Scrape::of(&app).await.value(NEXT);
        assert!(next > seconds(app.now()), "{next}");

        app.advance(TimeDelta::minutes(12));
        app.app.keyring.poll(app.now()).await;
        assert_eq!(states().await, [0.0, 1.0, 1.0]);
        let scrape = Scrape::of(&app).await;
        assert!(scrape.value(AGE) < 720.0 && scrape.value(NEXT) == next + 90.0 * 86400.0, "{}", scrape.text);
    })
    .await;
    each_engine_with(&[("AUTHSERVICE__KEYS__ROTATE_AFTER_SECONDS", "0")], async |app| {
        let scrape = Scrape::of(&app).await;
        assert_eq!((scrape.find(NEXT), scrape.value(AGE)), (None, 0.0));
    })
    .await;
}

#[tokio::test]
async fn a_key_ring_that_is_not_read_is_counted() {
    each_engine(async |app| {
        assert_eq!(Scrape::of(&app).await.value("key_ring_failures_total"), 0.0);
        app.sql("ALTER TABLE signing_keys RENAME TO elsewhere").await;

        assert!(!app.app.keyring.poll(app.now()).await);

        assert_eq!(Scrape::of(&app).await.value("key_ring_failures_total"), 1.0);
    })
    .await;
}

#[tokio::test]
async fn the_cleanup_counts_what_it_deletes_and_what_it_could_not() {
    const COUNTERS: [&str; 2] = ["cleanup_deleted_total", "cleanup_failures_total"];
    const LAST: &str = "cleanup_last_success_timestamp_seconds";
    each_engine_with(&[("AUTHSERVICE__LIMITS__ENABLED", "true")], async |app| {
        app.alice().await;
        assert_eq!(Scrape::of(&app).await.find(LAST), None);
        app.advance(TimeDelta::days(400));
        let rows = ["audit_events", "rate_limits", "auth_sessions"];
        let mut counts = Vec::new();
        for table in rows {
            counts.push(app.count(&format!("SELECT COUNT(*) FROM {table}")).await);
        }
        let before = Scrape::of(&app).await;

        jobs::clean_up(&app.app, Uuid::nil()).await;

        let after = Scrape::of(&app).await;
        let deleted = ["audit_events", "rate_limits", "sessions"].into_iter().zip(counts);
        let deleted: Vec<_> =
            deleted.map(|(what, count)| (format!("cleanup_deleted_total{{what=\"{what}\"}}"), count as f64)).collect();
        assert!(deleted.iter().all(|(_, count)| *count > 0.0), "{deleted:?}");
        assert_eq!(after.moved(&before, &COUNTERS), deleted);
        let success = seconds(app.now());
        assert_eq!(after.value(LAST), success);

        app.sql("ALTER TABLE rate_limits RENAME TO elsewhere").await;
        app.advance(TimeDelta::minutes(5));
        jobs::clean_up(&app.app, Uuid::nil()).await;

        let failed = Scrape::of(&app).await;
        let expected = [("cleanup_failures_total{what=\"rate_limits\"}".to_owned(), 1.0)];
        assert_eq!(failed.moved(&after, &COUNTERS), expected);
        assert_eq!(failed.value(LAST), success);
    })
    .await;
}

#[tokio::test]
async fn an_outage_is_counted_by_the_replica_that_notices_its_end() {
    each_engine(async |app| {
        let on = if app.engine == Engine::Sqlite { "" } else { " ON service_clock" };
        app.sql(&format!("DROP TRIGGER no_outages{on}")).await;
        let another = app.another_replica().await;
        app.sql(&format!("DROP TRIGGER no_outages{on}")).await;
        let total = async || {
            let scrapes = [Scrape::of(&app).await, Scrape::of(&another).await];
            scrapes.map(|scrape| scrape.value("outages_total"))
        };
        app.app.sessions.stamp(app.now()).await.unwrap();
        assert_eq!(total().await, [0.0, 0.0]);

        app.advance(TimeDelta::minutes(10));
        another.app.sessions.stamp(app.now()).await.unwrap();
        app.app.sessions.stamp(app.now()).await.unwrap();

        assert_eq!(total().await, [0.0, 1.0]);
    })
    .await;
}

#[tokio::test]
async fn what_is_full_can_be_told_from_what_may_become_so() {
    let settings = [("AUTHSERVICE__PASSWORDS__MAX_CONCURRENT", "3"), ("AUTHSERVICE__PASSWORDS__QUEUE", "7")];
    each_engine_with(&settings, async |app| {
        let scrape = Scrape::of(&app).await;

        assert_eq!(scrape.value("ready"), 1.0);
        assert_eq!(scrape.value("password_hashes_max"), 3.0);
        assert_eq!(scrape.value("password_hashes_waiting_max"), 7.0);
        assert_eq!(scrape.value("password_hashes_in_progress") + scrape.value("password_hashes_waiting"), 0.0);
        let is_sqlite = app.engine == Engine::Sqlite;
        // On SQLite the one that writes comes to those that read.
        assert_eq!(scrape.value("db_connections_max"), if is_sqlite { 9.0 } else { 8.0 });
        let open = scrape.value("db_connections{state=\"used\"}") + scrape.value("db_connections{state=\"idle\"}");
        assert!((1.0..=9.0).contains(&open), "{open}");
        let (version, engine) = (env!("CARGO_PKG_VERSION"), if is_sqlite { "sqlite" } else { "postgres" });
        assert_eq!(scrape.value(&format!("build_info{{engine=\"{engine}\",version=\"{version}\"}}")), 1.0);

        // A transaction holds a connection.
        let transaction = app.app.db.begin().await.unwrap();
        assert!(Scrape::of(&app).await.value("db_connections{state=\"used\"}") >= 1.0);
        drop(transaction);

        app.app.stop();
        assert_eq!(Scrape::of(&app).await.value("ready"), 0.0);
    })
    .await;
}

#[tokio::test]
async fn the_process_is_told_under_the_usual_names() {
    each_engine(async |app| {
        let text = Scrape::of(&app).await;
        let value = |name: &str| text.samples[&format!("process_{name}")];
        assert!(value("cpu_seconds_total") > 0.0);
        assert!((1e6..1e11).contains(&value("resident_memory_bytes")));
        assert!(value("open_fds") > 3.0 && value("open_fds") <= value("max_fds"));
        assert!(value("threads") >= 1.0);
        let since = seconds(authservice::clock::local()) - value("start_time_seconds");
        assert!((0.0..3600.0).contains(&since), "{since}");
    })
    .await;
}
