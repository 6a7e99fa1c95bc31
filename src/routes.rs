//! Every path on one screen.

use std::sync::Arc;

use poem::endpoint::make;
use poem::http::Method;
use poem::{EndpointExt as _, Request, Response, Route};

use crate::app::App;
use crate::oauth::{discovery, jwks};
use crate::ops;
use crate::rest::{self, Document};
use crate::web::front::Front;
use crate::web::paths::Paths;

/// Paths of the REST API, under its prefix.
const REST: [(&str, Method); 8] = [
    ("/users/register", Method::POST),
    ("/users/me", Method::GET),
    ("/auth/login", Method::POST),
    ("/auth/refresh", Method::POST),
    ("/auth/logout", Method::POST),
    ("/auth/logout-all", Method::POST),
    ("/auth/sessions", Method::GET),
    ("/auth/sessions/{session_id}", Method::DELETE),
];
/// All others; each answers GET.
const OTHERS: [&str; 10] = [
    "/",
    "/openapi.json",
    "/docs",
    "/docs/oauth2-redirect",
    "/redoc",
    "/.well-known/jwks.json",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/health/live",
    "/health/ready",
];

/// Builds what answers requests.
#[must_use]
pub fn front(app: &Arc<App>) -> Front {
    let server = &app.config.server;
    let (api, document) = rest::build(app);
    let document = Arc::new(document);
    let mut paths = Paths::default();
    for (path, method) in REST {
        paths.add(format!("{}{path}", server.api_prefix), &[method]);
    }
    let mut routes = Route::new().nest(server.api_prefix.clone(), api);
    for path in OTHERS {
        paths.add(path, &[Method::GET]);
        let (app, document) = (Arc::clone(app), Arc::clone(&document));
        routes = routes.at(path, make(move |request| plain(Arc::clone(&app), Arc::clone(&document), path, request)));
    }
    Front::new(routes.boxed(), paths, rest::from_framework, server)
}

/// The OpenAPI document, as `/openapi.json` serves it.
#[must_use]
pub fn openapi(app: &Arc<App>) -> String {
    let (_, document) = rest::build(app);
    String::from_utf8_lossy(document.text()).into_owned()
}

async fn plain(app: Arc<App>, document: Arc<Document>, path: &'static str, request: Request) -> poem::Result<Response> {
    Ok(match path {
        "/" => rest::start(),
        "/openapi.json" => document.openapi(),
        "/docs" => document.swagger(),
        "/docs/oauth2-redirect" => rest::oauth2_redirect(),
        "/redoc" => document.redoc(),
        "/.well-known/jwks.json" => jwks::jwks(&app, &request).await,
        "/.well-known/oauth-authorization-server" => discovery::authorization_server(&app, &request),
        "/.well-known/openid-configuration" => discovery::openid_configuration(&app, &request),
        "/health/live" => ops::live(),
        "/health/ready" => ops::ready(&app).await,
        _ => unreachable!("every path of OTHERS has an arm"),
    })
}
