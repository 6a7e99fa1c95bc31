//! An OpenTelemetry collector: takes spans by OTLP over HTTP, or TLS, and keeps them.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_native_tls::TlsAcceptor;
use tokio_native_tls::native_tls::{self, Identity};

/// What the collector says to a message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Verdict {
    Taken,
    /// One span of it is not taken.
    AllButOne,
    Status(u16),
}

/// A message as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// A span with its attributes as text.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) trace_id: String,
    pub(crate) id: String,
    /// Empty for the first of a trace.
    pub(crate) parent_id: String,
    pub(crate) times: (u64, u64),
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) is_error: bool,
}

/// A collector that runs.
pub(crate) struct Collector {
    /// `http://127.0.0.1:<port>`, or https.
    pub(crate) base: String,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Collector {
    /// Answers each message with the next verdict, and all that follow with the last.
    pub(crate) async fn start(verdicts: &[Verdict]) -> Self {
        Self::on(verdicts, None).await
    }

    /// Speaks TLS with this certificate and its key, in PEM.
    pub(crate) async fn start_with_tls(certificate: &[u8], key: &[u8]) -> Self {
        let identity = Identity::from_pkcs8(certificate, key).unwrap();
        let acceptor = TlsAcceptor::from(native_tls::TlsAcceptor::new(identity).unwrap());
        Self::on(&[Verdict::Taken], Some(acceptor)).await
    }

    async fn on(verdicts: &[Verdict], tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let base = format!("{scheme}://{}", listener.local_addr().unwrap());
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (kept, verdicts) = (Arc::clone(&received), verdicts.to_vec());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, verdicts, tls) = (Arc::clone(&kept), verdicts.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, kept, verdicts).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, kept, verdicts).await;
                            }
                        }
                    }
                });
            }
        });
        Self { base, received }
    }

    /// Every message so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Every span so far.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let messages = self.received().into_iter().flat_map(|received| received.message().resource_spans);
        messages.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).map(Span::of).collect()
    }
}

impl Received {
    pub(crate) fn message(&self) -> ExportTraceServiceRequest {
        ExportTraceServiceRequest::decode(self.body.clone()).unwrap()
    }

    /// Attributes of the one resource.
    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let message = self.message();
        assert_eq!(message.resource_spans.len(), 1);
        texts(&message.resource_spans[0].resource.as_ref().unwrap().attributes)
    }
}

impl Span {
    fn of(span: v1::Span) -> Self {
        let hex = |bytes: &[u8]| -> String {
            bytes
                .iter()
                .flat_map(|byte| [byte >> 4, byte & 15])
                .filter_map(|half| char::from_digit(half.into(), 16))
                .collect()
        };
        assert!(span.events.is_empty() && span.links.is_empty() && span.trace_state.is_empty(), "{span:?}");
        Self {
            kind: span.kind,
            trace_id: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent_id: hex(&span.parent_span_id),
            times: (span.start_time_unix_nano, span.end_time_unix_nano),
            attributes: texts(&span.attributes),
            is_error: span.status.is_some_and(|status| status.code == v1::status::StatusCode::Error as i32),
            name: span.name,
        }
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin, kept: Arc<Mutex<Vec<Received>>>, verdicts: Vec<Verdict>) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let (kept, verdicts) = (&kept, &verdicts);
        async move {
            let (path, headers) = (request.uri().path().to_owned(), request.headers().clone());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let mut kept = kept.lock().unwrap();
            let verdict = verdicts[kept.len().min(verdicts.len() - 1)];
            kept.push(Received { path, headers, body });
            Ok::<_, Infallible>(answer(verdict))
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn answer(verdict: Verdict) -> Response<Full<Bytes>> {
    let (status, rejected_spans) = match verdict {
        Verdict::Taken => (200, 0),
        Verdict::AllButOne => (200, 1),
        Verdict::Status(status) => (status, 0),
    };
    let partial_success = (rejected_spans > 0)
        .then(|| ExportTracePartialSuccess { rejected_spans, error_message: "one is too many".to_owned() });
    let body = ExportTraceServiceResponse { partial_success }.encode_to_vec();
    Response::builder().status(status).body(Full::from(body)).unwrap()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    attributes.iter().map(|attribute| (attribute.key.clone(), text(attribute))).collect()
}
