//! What those who run the service ask: is the process alive, may it get requests, how is it.

use std::time::Duration;

use poem::Response;
use poem::http::{StatusCode, header};
use serde_json::json;

use crate::app::App;
use crate::db;
use crate::telemetry::metrics::{self, Metrics};
use crate::web;

/// A database that takes longer is not ready.
const PATIENCE: Duration = Duration::from_secs(1);

/// `/health/live`: the process answers. Never asks the database: a restart does not heal one.
pub(crate) fn live() -> Response {
    web::json(StatusCode::OK, &json!({"status": "ok"}))
}

/// `/health/ready`: the database answers, a key may sign, and the server is not stopping. Without an application it has not started.
pub(crate) async fn ready(app: Option<&App>) -> Response {
    let checks = match app {
        Some(app) => checks(app).await.to_vec(),
        None => vec![("started", false)],
    };
    let is_ready = checks.iter().all(|(_, is_fine)| *is_fine);
    let checks: serde_json::Map<_, _> =
        checks.iter().map(|(name, is_fine)| ((*name).to_owned(), json!(is_fine))).collect();
    if is_ready {
        return web::json(StatusCode::OK, &json!({"status": "ok", "checks": checks}));
    }
    let mut response = web::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "unavailable", "checks": checks}));
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

async fn checks(app: &App) -> [(&'static str, bool); 3] {
    let database =
        tokio::time::timeout(PATIENCE, app.db.ping()).await.is_ok_and(|ping| ping.is_ok()) && !db::restore_detected();
    [
        ("accepting", !app.is_stopping()),
        ("database", database),
        ("signing_key", app.keyring.signer(app.clock.now()).is_ok()),
    ]
}

/// `/metrics`: what was counted, and what is so now.
pub(crate) async fn metrics(metrics: &Metrics, app: Option<&App>) -> Response {
    let is_ready = match app {
        Some(app) => {
            read(app);
            checks(app).await.iter().all(|(_, is_fine)| *is_fine)
        }
        None => false,
    };
    metrics.ready.set(is_ready.into());
    metrics.restore_detected.set(db::restore_detected().into());
    match metrics.render() {
        Ok(text) => Response::builder().content_type(metrics::CONTENT_TYPE).body(text),
        Err(error) => {
            tracing::error!(error = %error, "the metrics");
            web::detail(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
    }
}

/// Reads what nobody counts.
fn read(app: &App) {
    let (metrics, now) = (&app.metrics, app.clock.now());
    let hashes = app.accounts.hashes();
    metrics.hashes_in_progress.show(Some(metrics::number(hashes.in_progress)));
    metrics.hashes_waiting.show(Some(metrics::number(hashes.waiting)));
    metrics.hashes_max.show(Some(metrics::number(hashes.max)));
    metrics.hashes_waiting_max.show(Some(metrics::number(hashes.waiting_max)));
    let connections = app.db.connections();
    metrics.db_connections.show("used", connections.used.into());
    metrics.db_connections.show("idle", connections.idle.into());
    metrics.db_connections_max.show(Some(connections.max.into()));
    let keys = app.keyring.signing(now);
    for (state, count) in keys.counts {
        metrics.signing_keys.show(state.name(), metrics::number(count));
    }
    metrics.signing_key_age.show(keys.since.map(|since| (now - since).as_seconds_f64()));
    metrics.next_rotation.show(keys.next.map(metrics::timestamp));
}
