//! Metadata documents: RFC 8414 and OpenID Connect Discovery. They list what works today and nothing else.

use poem::{Request, Response};
use serde_json::{Value, json};

use super::public;
use crate::app::App;
use crate::config::Profile;

/// How long clients may keep a document, in seconds. Only a restart changes it.
const MAX_AGE: u64 = 300;

/// `/.well-known/oauth-authorization-server` (RFC 8414 2). There is no authorization endpoint yet, so no response type.
pub(crate) fn authorization_server(app: &App, request: &Request) -> Response {
    answer(request, &metadata(app))
}

/// `/.well-known/openid-configuration` (OpenID Connect Discovery 3): its required members as far as they are true today. The algorithm
/// is that of every JWT signed here; ID tokens come with the authorization endpoint.
pub(crate) fn openid_configuration(app: &App, request: &Request) -> Response {
    let mut claims = vec![app.config.tokens.type_claim.as_str(), "user_id", "sid", "iat", "exp"];
    if app.config.tokens.profile == Profile::Standard {
        claims.extend(["iss", "sub", "aud", "jti", "client_id", "scope", "auth_time"]);
    }
    let mut document = metadata(app);
    document["subject_types_supported"] = json!(["public"]);
    document["id_token_signing_alg_values_supported"] = json!([app.config.keys.algorithm.name()]);
    document["claims_supported"] = json!(claims);
    answer(request, &document)
}

/// Lists that are empty today are shown empty: left out they would mean defaults that are not true (RFC 8414 2).
fn metadata(app: &App) -> Value {
    let issuer = app.config.server.issuer();
    json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "response_types_supported": [],
        "grant_types_supported": [],
        "scopes_supported": app.config.tokens.scope.split(' ').collect::<Vec<_>>(),
        "token_endpoint_auth_methods_supported": [],
        "service_documentation": format!("{issuer}/docs"),
    })
}

fn answer(request: &Request, document: &Value) -> Response {
    public(request, "application/json", document.to_string().into(), MAX_AGE)
}
