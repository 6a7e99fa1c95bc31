//! Every path on one screen.

use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use poem::endpoint::make;
use poem::http::Method;
use poem::{EndpointExt as _, Request, Response, Route};

use crate::app::App;
use crate::config;
use crate::oauth::{discovery, jwks};
use crate::ops;
use crate::rest::{self, Document};
use crate::telemetry::metrics::Metrics;
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
const LIVE: &str = "/health/live";
const READY: &str = "/health/ready";
const METRICS: &str = "/metrics";
/// All others of the public listener; each answers GET.
const OTHERS: [(&str, Handler); 10] = [
    ("/", |_| Box::pin(async { rest::start() })),
    ("/openapi.json", |ask| Box::pin(async move { ask.document.openapi() })),
    ("/docs", |ask| Box::pin(async move { ask.document.swagger() })),
    ("/docs/oauth2-redirect", |_| Box::pin(async { rest::oauth2_redirect() })),
    ("/redoc", |ask| Box::pin(async move { ask.document.redoc() })),
    ("/.well-known/jwks.json", |ask| Box::pin(async move { jwks::jwks(&ask.app, &ask.request).await })),
    ("/.well-known/oauth-authorization-server", |ask| {
        Box::pin(async move { discovery::authorization_server(&ask.app, &ask.request) })
    }),
    ("/.well-known/openid-configuration", |ask| {
        Box::pin(async move { discovery::openid_configuration(&ask.app, &ask.request) })
    }),
    (LIVE, |_| Box::pin(async { ops::live() })),
    (READY, |ask| Box::pin(async move { ops::ready(Some(&ask.app)).await })),
];

/// What a handler that is not part of the REST API may need.
struct Ask {
    app: Arc<App>,
    document: Arc<Document>,
    request: Request,
}

type Handler = fn(Ask) -> Pin<Box<dyn Future<Output = Response> + Send>>;

/// Builds what answers requests while there is no application yet: the database does not answer.
#[must_use]
pub fn waiting(server: &config::Server, metrics: Arc<Metrics>) -> Front {
    Front::new(|path| (path == LIVE).then(ops::live), rest::from_framework, server, metrics)
}

/// Builds what answers operators, on a listener of its own. There may be no application yet.
#[must_use]
pub fn admin(server: &config::Server, metrics: &Arc<Metrics>, app: &Arc<OnceLock<Arc<App>>>) -> Front {
    // What is asked here is counted apart, and shown nowhere: it is no traffic of clients.
    let front = waiting(server, Arc::new(Metrics::new("none")));
    let mut paths = Paths::default();
    let mut routes = Route::new();
    for path in [METRICS, LIVE, READY] {
        paths.add(path, &[Method::GET]);
        let (metrics, app) = (Arc::clone(metrics), Arc::clone(app));
        routes = routes.at(
            path,
            make(move |_| {
                let (metrics, app) = (Arc::clone(&metrics), Arc::clone(&app));
                async move {
                    let app = app.get().map(Arc::as_ref);
                    Ok::<_, poem::Error>(match path {
                        METRICS => ops::metrics(&metrics, app).await,
                        READY => ops::ready(app).await,
                        _ => ops::live(),
                    })
                }
            }),
        );
    }
    front.open(routes.boxed(), paths);
    front
}

/// Builds what answers requests.
#[must_use]
pub fn front(app: &Arc<App>) -> Front {
    let front = waiting(&app.config.server, Arc::clone(&app.metrics));
    open(&front, app);
    front
}

/// From now on the application answers.
pub fn open(front: &Front, app: &Arc<App>) {
    let server = &app.config.server;
    let (api, document) = rest::build(app);
    let document = Arc::new(document);
    let mut paths = Paths::default();
    for (path, method) in REST {
        paths.add(format!("{}{path}", server.api_prefix), &[method]);
    }
    let mut routes = Route::new().nest(server.api_prefix.clone(), api);
    for (path, handler) in OTHERS {
        paths.add(path, &[Method::GET]);
        let (app, document) = (Arc::clone(app), Arc::clone(&document));
        routes = routes.at(
            path,
            make(move |request| {
                let answer = handler(Ask { app: Arc::clone(&app), document: Arc::clone(&document), request });
                async move { Ok::<_, poem::Error>(answer.await) }
            }),
        );
    }
    front.open(routes.boxed(), paths);
}

/// The OpenAPI document, as `/openapi.json` serves it.
#[must_use]
pub fn openapi(app: &Arc<App>) -> String {
    let (_, document) = rest::build(app);
    String::from_utf8_lossy(document.text()).into_owned()
}
