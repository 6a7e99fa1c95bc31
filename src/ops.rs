//! What an orchestrator asks: is the process alive, may it get requests.

use std::time::Duration;

use poem::Response;
use poem::http::{StatusCode, header};
use serde_json::json;

use crate::app::App;
use crate::web;

/// A database that takes longer is not ready.
const PATIENCE: Duration = Duration::from_secs(1);

/// `/health/live`: the process answers. Never asks the database: a restart does not heal one.
pub(crate) fn live() -> Response {
    web::json(StatusCode::OK, &json!({"status": "ok"}))
}

/// `/health/ready`: the database answers, a key may sign, and the server is not stopping.
pub(crate) async fn ready(app: &App) -> Response {
    let database = tokio::time::timeout(PATIENCE, app.db.ping()).await.is_ok_and(|ping| ping.is_ok());
    let rows = [
        ("accepting", !app.is_stopping()),
        ("database", database),
        ("signing_key", app.keyring.signer(app.clock.now()).is_ok()),
    ];
    let is_ready = rows.iter().all(|(_, is_fine)| *is_fine);
    let checks: serde_json::Map<_, _> =
        rows.iter().map(|(name, is_fine)| ((*name).to_owned(), json!(is_fine))).collect();
    if is_ready {
        return web::json(StatusCode::OK, &json!({"status": "ok", "checks": checks}));
    }
    let mut response = web::json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "unavailable", "checks": checks}));
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}
