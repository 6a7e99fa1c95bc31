//! `/.well-known/jwks.json`: the public keys (RFC 7517).

use poem::{Request, Response};

use super::public;
use crate::app::App;

/// Answers with the JWK Set, or 304 when the client has it.
pub(crate) async fn jwks(app: &App, request: &Request) -> Response {
    let body = app.keyring.jwk_set(app.clock.now()).await;
    // RFC 7517 8.5.1.
    public(request, "application/jwk-set+json", body, app.config.keys.jwks_max_age_seconds)
}
