//! Work in the background of a running server, each beside the others until the server stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::app::App;
use crate::clock::DatabaseClock;
use crate::telemetry::metrics;
use crate::web::front::Front;
use crate::{keys, random};

/// What an operator must know of a database that was restored.
pub const RESTORED: &str = "the database is not the one that it was: it was restored or moved. Nobody is served until \
    `authservice after-restore` was run (docs/backup.md)";

/// Starts every job. They end with the runtime.
pub fn start(app: &Arc<App>, clock: &Arc<DatabaseClock>, front: &Arc<Front>) {
    tokio::spawn({
        let app = Arc::clone(app);
        async move {
            let mut ticks = ticks(keys::POLL);
            loop {
                ticks.tick().await;
                app.keyring.poll(app.clock.now()).await;
            }
        }
    });
    tokio::spawn(keep_keys(Arc::clone(app)));
    tokio::spawn(stamp(Arc::clone(app), Arc::clone(clock), Arc::clone(front)));
    tokio::spawn(sweep(Arc::clone(app)));
}

/// Says that the service is up; a database that does not hear it makes it an outage. The clock is set right before, and only here:
/// so no time is ever given to a client that the stamps do not know of.
async fn stamp(app: Arc<App>, clock: Arc<DatabaseClock>, front: Arc<Front>) {
    let mut ticks = ticks(app.sessions.stamp_interval());
    let mut was_known = true;
    loop {
        ticks.tick().await;
        match app.db.is_known().await {
            Ok(is_known) => {
                // Keys were replaced: nobody may get a token of the old ones.
                let is_known = is_known && (was_known || app.keyring.poll(app.clock.now()).await);
                front.hold(!is_known);
                match (was_known, is_known) {
                    (true, false) => tracing::error!("{RESTORED}"),
                    (false, true) => tracing::info!("the restored database was accepted: serving again"),
                    _ => {}
                }
                was_known = is_known;
            }
            Err(error) => tracing::warn!(error = %error, "nobody knows whether the database is the one it was"),
        }
        if !was_known {
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
