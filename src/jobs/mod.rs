//! Work in the background of a running server, each beside the others until the server stops.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::app::App;
use crate::clock::DatabaseClock;
use crate::telemetry::metrics::{self, Metrics};
use crate::telemetry::traces;
use crate::web::front::Front;
use crate::{keys, random};

mod secrets;

pub use secrets::Secrets;

/// What an operator must know of a database that was restored.
pub const RESTORED: &str = "the database is not the one that it was: it was restored or moved. Nobody is served until \
    `authservice after-restore` was run (docs/backup.md)";

/// Before a job that panicked begins anew: it may panic at once again.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// Starts every job. They end with the runtime.
pub fn start(app: &Arc<App>, clock: &Arc<DatabaseClock>, front: &Arc<Front>, headers: Option<traces::Exchange>) {
    run(app, "poll_keys", poll_keys);
    run(app, "keep_keys", keep_keys);
    let (clock, front) = (Arc::clone(clock), Arc::clone(front));
    run(app, "stamp", move |app| stamp(app, Arc::clone(&clock), Arc::clone(&front)));
    run(app, "sweep", sweep);
    // Begun anew, it must know what it has taken.
    let secrets = Arc::new(Mutex::new(Secrets::of(&app.config, headers)));
    run(app, "reread_secrets", move |app| reread_secrets(app, Arc::clone(&secrets)));
}

fn run<F>(app: &Arc<App>, name: &'static str, mut job: impl FnMut(Arc<App>) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let app = Arc::clone(app);
    tokio::spawn(async move { keep_up(&app.metrics, name, AFTER_PANIC, || job(Arc::clone(&app))).await });
}

/// Runs a job, and begins it anew when it panics: a server whose keys are no longer read, or whose clock is no longer stamped, would
/// go on for hours as if nothing had happened.
async fn keep_up<F: Future<Output = ()>>(metrics: &Metrics, name: &str, pause: Duration, mut job: impl FnMut() -> F) {
    while let Err(panic) = AssertUnwindSafe(job()).catch_unwind().await {
        let error = metrics.panicked(&*panic);
        tracing::error!(job = name, error, "a job panicked, and begins anew");
        tokio::time::sleep(pause).await;
    }
}

async fn poll_keys(app: Arc<App>) {
    let mut ticks = ticks(keys::POLL);
    loop {
        ticks.tick().await;
        app.keyring.poll(app.clock.now()).await;
    }
}

async fn reread_secrets(app: Arc<App>, secrets: Arc<Mutex<Secrets>>) {
    let mut ticks = ticks(secrets::POLL);
    loop {
        ticks.tick().await;
        secrets.lock().await.reread(&app).await;
    }
}

/// Says that the service is up; a database that does not hear it makes it an outage. The clock is set right before, and only here:
/// so no time is ever given to a client that the stamps do not know of.
async fn stamp(app: Arc<App>, clock: Arc<DatabaseClock>, front: Arc<Front>) {
    let mut ticks = ticks(app.sessions.stamp_interval());
    // Begun anew, it does not know what has happened meanwhile.
    let mut was_known = None;
    loop {
        ticks.tick().await;
        match app.db.is_known().await {
            Ok(is_known) => {
                // Keys were replaced: nobody may get a token of the old ones.
                let is_known = is_known && (was_known == Some(true) || app.keyring.poll(app.clock.now()).await);
                front.hold(!is_known);
                match (was_known, is_known) {
                    (None | Some(true), false) => tracing::error!("{RESTORED}"),
                    (Some(false), true) => tracing::info!("the restored database was accepted: serving again"),
                    _ => {}
                }
                was_known = Some(is_known);
            }
            Err(error) => tracing::warn!(error = %error, "nobody knows whether the database is the one it was"),
        }
        if was_known == Some(false) {
            // It is not this service that was up.
            continue;
        }
        if let Err(error) = app.db.measure_clock(&clock).await {
            tracing::warn!(error = %error, "the database's clock was not read");
        }
        if let Err(error) = app.sessions.stamp(app.clock.now()).await {
            tracing::warn!(error = %error, "the service clock was not stamped");
        }
    }
}

async fn keep_keys(app: Arc<App>) {
    let interval = app.keyring.upkeep_interval();
    let mut ticks = ticks(interval);
    loop {
        ticks.tick().await;
        // Replicas that started together need not make a key each, of which one counts.
        let jitter = random::bytes::<1>().map_or(0, |[byte]| u32::from(byte));
        tokio::time::sleep(interval / 4 * jitter / 256).await;
        if let Err(error) = app.keyring.upkeep(app.clock.now()).await {
            app.metrics.key_ring_failures.inc();
            tracing::error!(error = %error, "the key ring is not kept up");
        }
    }
}

async fn sweep(app: Arc<App>) {
    let mut ticks = ticks(Duration::from_secs(app.config.cleanup.interval_seconds));
    let mut cursor = Uuid::nil();
    loop {
        ticks.tick().await;
        cursor = clean_up(&app, cursor).await;
    }
}

/// Deletes rows whose time is over, sessions from `cursor` on. Returns where the next run begins.
pub async fn clean_up(app: &App, cursor: Uuid) -> Uuid {
    let now = app.clock.now();
    let swept = app.sessions.sweep(cursor, now).await;
    let next = swept.as_ref().map_or(cursor, |(_, next)| *next);
    let done = [
        cleaned(app, "sessions", "sessions that were over", swept.map(|(deleted, _)| deleted as u64)),
        cleaned(app, "audit_events", "audit events that were kept long enough", app.trail.sweep(now).await),
        cleaned(app, "rate_limits", "budgets that are full again", app.limits.sweep(now).await),
    ];
    if done == [true; 3] {
        app.metrics.last_cleanup.show(Some(metrics::timestamp(now)));
    }
    next
}

/// Tells what became of one table; true when it is clean.
fn cleaned<E: std::fmt::Display>(app: &App, what: &'static str, rows: &str, deleted: Result<u64, E>) -> bool {
    match deleted {
        Ok(deleted) => {
            app.metrics.cleanup_deleted.of(what).inc_by(deleted);
            if deleted > 0 {
                tracing::info!(deleted, "{rows} are deleted");
            }
            true
        }
        Err(error) => {
            app.metrics.cleanup_failures.count(what);
            tracing::warn!(error = %error, "{rows} are not deleted");
            false
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_job_that_panics_is_counted_and_begins_anew() {
        let (metrics, began) = (Metrics::new("sqlite"), AtomicU32::new(0));

        keep_up(&metrics, "unlucky", Duration::ZERO, || async {
            tokio::task::yield_now().await;
            assert!(began.fetch_add(1, Ordering::Relaxed) >= 2, "canary");
        })
        .await;

        assert_eq!((began.into_inner(), metrics.panics.get()), (3, 2));
    }
}
