//! Work in the background of a running server, each beside the others until the server stops.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use crate::app::App;
use crate::clock::DatabaseClock;

/// How often the key ring is read anew: what an operator or another replica planned is known everywhere soon after.
const KEYS: Duration = Duration::from_secs(5);
/// How often the clock is compared with the database's.
const CLOCK: Duration = Duration::from_secs(30);

/// Starts every job. They end with the runtime.
pub fn start(app: &Arc<App>, clock: &Arc<DatabaseClock>) {
    tokio::spawn({
        let app = Arc::clone(app);
        async move {
            let mut ticks = ticks(KEYS);
            loop {
                ticks.tick().await;
                app.keyring.reload(app.clock.now()).await;
            }
        }
    });
    tokio::spawn({
        let (app, clock) = (Arc::clone(app), Arc::clone(clock));
        async move {
            let mut ticks = ticks(CLOCK);
            loop {
                ticks.tick().await;
                if let Err(error) = app.db.measure_clock(&clock).await {
                    tracing::warn!(error = %error, "the database's clock was not read");
                }
            }
        }
    });
    tokio::spawn(stamp(Arc::clone(app)));
    tokio::spawn(sweep(Arc::clone(app)));
}

/// Says that the service is up; a database that does not hear it makes it an outage.
async fn stamp(app: Arc<App>) {
    let mut ticks = ticks(app.sessions.stamp_interval());
    loop {
        ticks.tick().await;
        if let Err(error) = app.sessions.stamp(app.clock.now()).await {
            tracing::warn!(error = %error, "the service clock was not stamped");
        }
    }
}

async fn sweep(app: Arc<App>) {
    let mut ticks = ticks(Duration::from_secs(app.config.cleanup.interval_seconds));
    let mut cursor = Uuid::nil();
    loop {
        ticks.tick().await;
        match app.sessions.sweep(cursor, app.clock.now()).await {
            Ok((deleted, next)) => {
                cursor = next;
                if deleted > 0 {
                    tracing::info!(deleted, "sessions that were over are deleted");
                }
            }
            Err(error) => tracing::warn!(error = %error, "sessions that were over are not deleted"),
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
