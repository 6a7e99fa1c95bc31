//! Traces: a span for each request and for what it waits for, sent to an OpenTelemetry collector. Off unless `traces.endpoint` is set.
//!
//! A span has a name that stands in our code, times, and whether what it is about failed. Never a token, password, address, path or
//! SQL. Only what a request waits for has spans: work in the background, which begins none, has none.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::context::FutureExt as _;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState, Tracer as _,
    TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{ResourceDetector as _, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::UNUSUAL_METHOD;
use super::export::{self, Queue};
use crate::config::{self, Traces};
use crate::random;

/// How long the last spans may take to be sent when the server stops.
const FLUSH: Duration = Duration::from_secs(1);

/// `None` for ever in a process that traces nothing.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// What sends spans while the server runs.
#[derive(Debug)]
pub struct Sending {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    headers: Exchange,
}

/// Exchanges the headers that spans are sent with.
#[derive(Clone)]
pub struct Exchange(watch::Sender<export::Headers>);

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    /// Sends the next spans with the headers of these settings; false when they are in use already.
    #[must_use]
    pub fn exchange(&self, settings: &Traces) -> bool {
        let Some(headers) = export::headers(settings) else { return false };
        self.0.send_if_modified(|used| {
            let is_new = *used != headers;
            *used = headers;
            is_new
        })
    }
}

/// Starts tracing in this process, if the settings say so. Needs a runtime, and is called once.
#[must_use]
pub fn start(settings: &Traces) -> Option<Sending> {
    if settings.endpoint.is_empty() {
        return None;
    }
    let resource = resource(settings);
    let (stop, stopped) = watch::channel(false);
    let (headers, used) = watch::channel(export::headers(settings)?);
    let (queue, sender) = export::new(settings, &resource, used)?;
    let provider = provider(queue, settings.sample_ratio, resource);
    if TRACER.set(provider.tracer("authservice")).is_err() {
        return None;
    }
    tracing::info!(endpoint = settings.endpoint, sample_ratio = settings.sample_ratio, "requests are traced");
    Some(Sending { stop, task: tokio::spawn(sender.run(stopped)), headers: Exchange(headers) })
}

impl Sending {
    /// What exchanges the headers.
    #[must_use]
    pub fn headers(&self) -> Exchange {
        self.headers.clone()
    }

    /// Sends what waits, for a bounded time.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let abort = self.task.abort_handle();
        if tokio::time::timeout(FLUSH, self.task).await.is_err() {
            abort.abort();
            tracing::warn!("the last spans were not sent: the collector takes too long");
        }
    }
}

fn provider(queue: Queue, ratio: f64, resource: Resource) -> SdkTracerProvider {
    SdkTracerProvider::builder()
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .with_span_processor(queue)
        .build()
}

/// Who we are. Nothing is taken from the environment behind the configuration's back.
fn resource(settings: &Traces) -> Resource {
    let attributes = settings.resource_attributes.iter().filter_map(|text| config::pair(text));
    Resource::builder_empty()
        .with_attributes(
            TelemetryResourceDetector.detect().iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())),
        )
        .with_attributes(random::uuid().map(|id| KeyValue::new("service.instance.id", id.to_string())))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(attributes.map(|(name, value)| KeyValue::new(name, value)))
        .with_service_name(settings.service_name.clone())
        .build()
}

/// What is known of a request before its route is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head<'a> {
    /// As it was sent: any token of RFC 9110.
    pub(crate) method: &'a str,
    /// How clients reach us.
    pub(crate) scheme: &'static str,
    /// Where clients reach us.
    pub(crate) host: &'a str,
    /// The id that log lines have too.
    pub(crate) id: &'a str,
    /// The header of a caller who is believed.
    pub(crate) traceparent: Option<&'a str>,
}

/// The span of a request: of kind SERVER, by the semantic conventions for HTTP.
#[derive(Debug)]
pub(crate) struct RequestSpan(Context);

impl RequestSpan {
    /// A span that is not there.
    pub(crate) fn none() -> Self {
        Self(Context::new())
    }

    /// Begins it, as a part of the caller's trace or of one of its own.
    pub(crate) fn start(head: Head<'_>) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self::none();
        };
        Self::of(tracer, head)
    }

    fn of(tracer: &SdkTracer, head: Head<'_>) -> Self {
        let parent = match head.traceparent.and_then(parent) {
            Some(parent) => Context::new().with_remote_span_context(parent),
            None => Context::new(),
        };
        let method = crate::telemetry::method(head.method);
        let attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.scheme", head.scheme),
            KeyValue::new("server.address", head.host.to_owned()),
            KeyValue::new("request.id", head.id.to_owned()),
        ];
        let builder = tracer.span_builder(verb(method)).with_kind(SpanKind::Server).with_attributes(attributes);
        Self(parent.with_span(builder.start_with_context(tracer, &parent)))
    }

    /// The ids of the trace and of this span, in hexadecimal, for log lines.
    pub(crate) fn ids(&self) -> Option<(String, String)> {
        let span = self.0.span();
        let ids = span.span_context();
        ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
    }

    /// What `work` begins belongs to this span, in whatever task it goes on.
    pub(crate) fn around<F: Future>(&self, work: F) -> impl Future<Output = F::Output> + use<F> {
        work.with_context(self.0.clone())
    }

    /// Ends it. A 4xx is the client's fault and no error of ours.
    pub(crate) fn end(self, method: &str, route: Option<&str>, status: u16) {
        let span = self.0.span();
        if let Some(route) = route {
            span.update_name(format!("{} {route}", verb(crate::telemetry::method(method))));
            span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            span.set_attribute(KeyValue::new("error.type", status.to_string()));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

/// A span within that of a request; dropping it ends it.
#[derive(Debug)]
#[must_use = "the span ends when this is dropped"]
pub(crate) struct Child(Option<Context>);

impl Child {
    fn start(name: &'static str, kind: SpanKind, attributes: Vec<KeyValue>) -> Self {
        let Some(tracer) = TRACER.get() else {
            return Self(None);
        };
        let parent = Context::current();
        if !parent.span().span_context().is_sampled() {
            return Self(None);
        }
        let builder = tracer.span_builder(name).with_kind(kind).with_attributes(attributes);
        Self(Some(parent.with_span(builder.start_with_context(tracer, &parent))))
    }

    /// Notes when what it is about failed.
    pub(crate) fn judge<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if let (Some(context), true) = (&self.0, result.is_err()) {
            context.span().set_status(Status::error(""));
        }
        result
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

/// A span of our own work.
pub(crate) fn span(name: &'static str) -> Child {
    Child::start(name, SpanKind::Internal, Vec::new())
}

/// A span of what the database does.
pub(crate) fn database(name: &'static str, system: &'static str) -> Child {
    Child::start(name, SpanKind::Client, vec![KeyValue::new("db.system.name", system)])
}

/// How a span's name says the method.
fn verb(method: &'static str) -> &'static str {
    if method == UNUSUAL_METHOD { "HTTP" } else { method }
}

/// The caller's span (W3C Trace Context, 3.2); `None` for what is not valid.
fn parent(traceparent: &str) -> Option<SpanContext> {
    // What a later version adds begins with another dash.
    let (fields, more) = traceparent.split_at_checked(55)?;
    let [version, trace_id, span_id, flags] = fields.split('-').collect::<Vec<_>>().try_into().ok()?;
    let is_hex = |field: &str, length| {
        field.len() == length && field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_valid = is_hex(version, 2) && is_hex(trace_id, 32) && is_hex(span_id, 16) && is_hex(flags, 2);
    let is_whole = more.is_empty() || (version != "00" && more.starts_with('-'));
    if !is_valid || !is_whole || version == "ff" {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let context = SpanContext::new(trace_id, span_id, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use opentelemetry::propagation::TextMapPropagator as _;
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use proptest::prelude::*;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    /// W3C Trace Context 3.2.2.
    #[test]
    fn a_traceparent_is_read_as_the_specification_says() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let rows = [
            (PARENT.to_owned(), Some(true)),
            (format!("00-{ids}-00"), Some(false)),
            (format!("00-{ids}-03"), Some(true)),
            (format!("00-{ids}-fe"), Some(false)),
            (format!("cc-{ids}-01"), Some(true)),
            (format!("cc-{ids}-01-what-the-future-says"), Some(true)),
            (format!("cc-{ids}-01.what"), None),
            (format!("00-{ids}-01-more"), None),
            (format!("00-{ids}-01-"), None),
            (format!("ff-{ids}-01"), None),
            (format!("0-{ids}-01"), None),
            (format!("00-{ids}-1"), None),
            (format!("+0-{ids}-01"), None),
            (format!(" 00-{ids}-01"), None),
            (PARENT.to_uppercase(), None),
            (format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None),
            (format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16)), None),
            (PARENT.replace('4', "é"), None),
            (PARENT.replace("-01", ""), None),
            (String::new(), None),
        ];
        for (text, expected) in rows {
            assert_eq!(parent(&text).map(|parent| parent.is_sampled()), expected, "{text}");
        }
    }

    proptest! {
        /// Whatever is written, nothing panics, and what we accept OpenTelemetry's own reader accepts as the same.
        #[test]
        fn any_traceparent_is_read_or_refused(text in prop_oneof![
            any::<String>(),
            "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-[a-z]{0,4})?",
            "[0-9a-fA-F-]{50,60}",
        ]) {
            if let Some(parent) = parent(&text) {
                let headers = HashMap::from([("traceparent".to_owned(), text)]);
                let theirs = TraceContextPropagator::new().extract(&headers);
                let theirs = theirs.span();
                prop_assert_eq!(&parent, theirs.span_context());
            }
        }
    }

    #[test]
    fn strangers_choose_no_names() {
        let rows = [("GET", "GET"), ("get", "HTTP"), ("CANARY", "HTTP")];
        for (method, expected) in rows {
            assert_eq!(verb(crate::telemetry::method(method)), expected);
        }
    }
}
