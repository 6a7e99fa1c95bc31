//! The front: what happens to every request before and after its handler.
//!
//! Gives it an id, a span and a client; refuses what no handler shall see; answers what has no route; catches panics; adds headers;
//! writes one log line, which holds no word of the request: no address, no query, no body, no header, no method that is not a usual one.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use ipnet::IpNet;
use poem::endpoint::BoxEndpoint;
use poem::http::{HeaderValue, Method, StatusCode, header};
use poem::{Endpoint, Error, Request, Response};
use tracing::Instrument as _;
use tracing::field::Empty;
use url::Url;

use super::paths::{Match, Paths};
use super::{coded, detail, guard, headers, origin, try_again_after};
use crate::config;
use crate::random;
use crate::telemetry;
use crate::telemetry::metrics::{Held, Metrics};
use crate::telemetry::traces::{Head, RequestSpan};

const REQUEST_ID: &str = "x-request-id";
const TRACEPARENT: &str = "traceparent";
/// Answers of these routes are logged at level debug, unless they are refusals.
const QUIET: [&str; 3] = ["/health/", "/metrics", "/.well-known/"];
/// Probes have no span: they come every few seconds and are about nobody.
const UNTRACED: [&str; 2] = ["/health/", "/metrics"];
/// How long a handler may take: longer than waiting for others of an account, a hash, a connection and a statement together.
const HANDLER_TIME: Duration = Duration::from_secs(12);

/// Wraps the routes. Until it has them, it says that the process lives and that everything else must wait.
pub struct Front {
    opened: OnceLock<Opened>,
    /// Answers while there are no routes; `None` for what must wait.
    waiting: fn(&str) -> Option<Response>,
    /// Shapes errors that handlers and extractors did not shape themselves.
    shape: fn(&Error) -> Response,
    issuer: String,
    /// The issuer's.
    host: String,
    is_https: bool,
    proxies: Vec<IpNet>,
    is_draining: AtomicBool,
    /// The routes must not answer for now.
    is_held: AtomicBool,
    metrics: Arc<Metrics>,
}

/// What there is once the application is built.
struct Opened {
    routes: Arc<BoxEndpoint<'static>>,
    paths: Paths,
}

impl Front {
    /// `shape` makes an answer of an error that is not one yet.
    pub(crate) fn new(
        waiting: fn(&str) -> Option<Response>,
        shape: fn(&Error) -> Response,
        server: &config::Server,
        metrics: Arc<Metrics>,
    ) -> Self {
        let host = Url::parse(&server.issuer()).ok().and_then(|issuer| issuer.host_str().map(str::to_owned));
        Self {
            opened: OnceLock::new(),
            waiting,
            shape,
            issuer: server.issuer(),
            host: host.unwrap_or_default(),
            is_https: server.is_https(),
            proxies: server.trusted_proxies.clone(),
            is_draining: AtomicBool::new(false),
            is_held: AtomicBool::new(false),
            metrics,
        }
    }

    /// Where requests and their connections are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// From now on every answer is the last on its connection (RFC 9112 9.6): who is still asking goes elsewhere before connections
    /// are closed, which a request could cross.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// While it is held, it answers as if it had no routes yet.
    pub(crate) fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// From now on the routes answer.
    pub(crate) fn open(&self, routes: BoxEndpoint<'static>, paths: Paths) {
        let is_first = self.opened.set(Opened { routes: Arc::new(routes), paths }).is_ok();
        debug_assert!(is_first, "a front is opened once");
    }

    /// Answers a request, whatever it is.
    pub async fn answer(&self, request: Request) -> Response {
        let started = Instant::now();
        let _in_flight = Held::new(&self.metrics.requests_in_flight);
        let peer = request.remote_addr().as_socket_addr().map(std::net::SocketAddr::ip);
        let id = self.request_id(&request, peer);
        let method = telemetry::method(request.method().as_str());
        // At the level of errors, so that a log of errors only has the id too.
        let span = tracing::error_span!(
            "request",
            request.id = id.to_str().unwrap_or_default(),
            trace_id = Empty,
            span_id = Empty
        );
        let trace = self.trace(&request, peer, id.to_str().unwrap_or_default());
        if let Some((trace_id, span_id)) = trace.ids() {
            span.record("trace_id", trace_id);
            span.record("span_id", span_id);
        }
        // RFC 9112 6.1: what hyper took for chunked may have had a length too, so nothing may follow it. Nor may anything follow
        // a body that was not read: what is left of it would be taken for a request.
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let has_length = request.headers().get(header::CONTENT_LENGTH).is_some_and(|length| length != "0");
        let mut is_read = false;
        let (route, mut response) = self.routed(request, peer, &mut is_read, &trace).instrument(span.clone()).await;
        if is_chunked || (has_length && !is_read) || self.is_draining.load(Ordering::Relaxed) {
            response = guard::closing(response);
        }
        headers::add(response.headers_mut(), self.is_https);
        response.headers_mut().insert(REQUEST_ID, id);
        let took = started.elapsed();
        self.metrics.answered(method, route, response.status().as_str(), took);
        let status = response.status().as_u16();
        trace.end(method, route, status);
        let route = route.unwrap_or("none");
        let duration_ms = took.as_secs_f64() * 1000.0;
        span.in_scope(|| {
            // Probes and verifiers ask so often that they would drown everything else.
            if status < 400 && QUIET.iter().any(|prefix| route.starts_with(prefix)) {
                tracing::debug!(method, route, status, duration_ms, "answered");
            } else {
                tracing::info!(method, route, status, duration_ms, "answered");
            }
        });
        response
    }

    /// Finds the route, if it is one, and calls its handler; `is_read` tells whether the body was taken.
    async fn routed(
        &self,
        mut request: Request,
        peer: Option<std::net::IpAddr>,
        is_read: &mut bool,
        trace: &RequestSpan,
    ) -> (Option<&str>, Response) {
        if let Some(refusal) = guard::refuse(&request) {
            return (None, refusal);
        }
        let path = request.original_uri().path().to_owned();
        let Some(opened) = self.opened.get().filter(|_| !self.is_held.load(Ordering::Relaxed)) else {
            return (None, (self.waiting)(&path).unwrap_or_else(try_again));
        };
        let route = match opened.paths.find(request.method(), &path) {
            Match::Route(route) => route,
            Match::OtherMethods(allow) => return (None, method_not_allowed(&allow)),
            Match::TrailingSlash => return (None, self.without_slash(&request)),
            Match::Nothing => return (None, detail(StatusCode::NOT_FOUND, "Not Found")),
        };
        if let Err(refusal) = guard::take_body(&mut request).await {
            return (Some(route), refusal);
        }
        *is_read = true;
        if let Some(peer) = peer {
            let origin = origin::of(request.headers(), peer, &self.proxies);
            request.set_data(origin);
        }
        if request.method() == Method::HEAD {
            // hyper leaves the body away and keeps its length.
            request.set_method(Method::GET);
        }
        (Some(route), self.handled(&opened.routes, request, trace).await)
    }

    /// Runs the handler. What does not answer at once goes on in a task of its own: a client that hangs up does not undo a logout
    /// half-way, and a database that does not answer costs the client a bounded time. A panic is an answer.
    async fn handled(&self, routes: &Arc<BoxEndpoint<'static>>, request: Request, trace: &RequestSpan) -> Response {
        let routes = Arc::clone(routes);
        let handler = trace.around(async move { routes.call(request).await });
        let mut handler = Box::pin(AssertUnwindSafe(handler).catch_unwind());
        let first = poll_fn(|context| Poll::Ready(handler.as_mut().poll(context))).await;
        let outcome = match first {
            Poll::Ready(outcome) => Ok(outcome),
            Poll::Pending => {
                let task = tokio::spawn(handler.in_current_span());
                tokio::time::timeout(HANDLER_TIME, task)
                    .await
                    .map(|joined| joined.unwrap_or_else(|died| Err(Box::new(died))))
            }
        };
        match outcome {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(error))) if error.is_from_response() => error.into_response(),
            Ok(Ok(Err(error))) => (self.shape)(&error),
            Ok(Err(panic)) => {
                let error = self.metrics.panicked(&*panic);
                tracing::error!(error, "a handler panicked");
                coded(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "Internal server error")
            }
            Err(_) => {
                tracing::error!("a handler took too long");
                try_again()
            }
        }
    }

    /// The id of a trusted proxy, if it is harmless, else a new one.
    fn request_id(&self, request: &Request, peer: Option<std::net::IpAddr>) -> HeaderValue {
        let is_harmless = |id: &&HeaderValue| {
            let id = id.as_bytes();
            (1..=64).contains(&id.len()) && id.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
        };
        let given = request.headers().get(REQUEST_ID).filter(is_harmless);
        if let Some(id) = given.filter(|_| self.believes(peer)) {
            return id.clone();
        }
        let id = random::uuid().map(|id| id.to_string()).unwrap_or_default();
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static(""))
    }

    /// Begins the span of a request. The trace of a caller who is believed goes on; from a stranger it would decide what we trace.
    fn trace(&self, request: &Request, peer: Option<std::net::IpAddr>, id: &str) -> RequestSpan {
        let path = request.original_uri().path();
        if UNTRACED.iter().any(|prefix| path.starts_with(prefix)) {
            return RequestSpan::none();
        }
        let mut given = request.headers().get_all(TRACEPARENT).iter();
        let given = given.next().filter(|_| given.next().is_none() && self.believes(peer));
        RequestSpan::start(Head {
            method: request.method().as_str(),
            scheme: if self.is_https { "https" } else { "http" },
            host: &self.host,
            id,
            traceparent: given.and_then(|given| given.to_str().ok()),
        })
    }

    /// True when the peer's word about others counts.
    fn believes(&self, peer: Option<std::net::IpAddr>) -> bool {
        peer.is_some_and(|peer| origin::is_trusted(&self.proxies, peer.to_canonical()))
    }

    /// Links come from the issuer, never from a Host header.
    fn without_slash(&self, request: &Request) -> Response {
        let uri = request.original_uri();
        let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let location = format!("{}{}{query}", self.issuer, uri.path().trim_end_matches('/'));
        let response = Response::builder().status(StatusCode::TEMPORARY_REDIRECT);
        match HeaderValue::try_from(location) {
            Ok(location) => response.header(header::LOCATION, location).finish(),
            Err(_) => detail(StatusCode::NOT_FOUND, "Not Found"),
        }
    }
}

fn try_again() -> Response {
    let text = "Temporarily unavailable, try again";
    let mut response = coded(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(try_again_after()));
    response
}

fn method_not_allowed(allow: &str) -> Response {
    let mut response = detail(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use poem::endpoint::make;
    use poem::http::uri::Scheme;
    use poem::web::{LocalAddr, RemoteAddr};
    use poem::{Body, EndpointExt as _, Route};

    use super::*;

    /// A front with two handlers that panic: at once, and in the task that waits for them; and one that does not.
    fn front() -> Front {
        let config = config::Config::load(None, &BTreeMap::new()).expect("the defaults");
        let metrics = Arc::new(Metrics::new("sqlite"));
        let front = Front::new(|_| None, |_| Response::default(), &config.server, metrics);
        let mut paths = Paths::default();
        let mut routes = Route::new();
        for path in ["/at-once", "/later", "/fine"] {
            paths.add(path, &[Method::GET]);
            routes = routes.at(
                path,
                make(move |_| async move {
                    if path == "/later" {
                        tokio::task::yield_now().await;
                    }
                    assert_eq!(path, "/fine", "canary");
                    Ok::<_, Error>("fine")
                }),
            );
        }
        front.open(routes.boxed(), paths);
        front
    }

    async fn ask(front: &Front, path: &'static str) -> (StatusCode, bool, String) {
        let request = poem::http::Request::get(path).header(header::HOST, "localhost").body(()).expect("a request");
        let parts = (request.into_parts().0, LocalAddr::default(), RemoteAddr::default(), Scheme::HTTP);
        let response = front.answer(Request::from_parts(parts.into(), Body::empty())).await;
        let has_id = response.headers().contains_key(REQUEST_ID);
        (response.status(), has_id, response.into_body().into_string().await.expect("text"))
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_answered_500_and_harms_no_other_request() {
        let front = front();
        for path in ["/at-once", "/later"] {
            let (status, has_id, body) = ask(&front, path).await;

            assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path}");
            assert!(has_id, "{path}");
            assert_eq!(body, r#"{"error":{"code":"internal_error","message":"Internal server error"}}"#, "{path}");
            assert_eq!(ask(&front, "/fine").await, (StatusCode::OK, true, "fine".to_owned()));
        }
        assert_eq!((front.metrics.panics.get(), front.metrics.requests_in_flight.get()), (2, 0));
    }
}
