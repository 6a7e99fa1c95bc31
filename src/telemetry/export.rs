//! Sends spans: OTLP over HTTP with protobuf. A bounded queue, batches, one at a time. Nobody waits for the collector: spans that find
//! the queue full, and those that it does not take, are lost, counted and told of.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Context;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use prost::Message as _;
use secrecy::ExposeSecret as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use url::Url;

use crate::client;
use crate::config::{self, Traces};

/// Spans that may wait to be sent: some megabytes.
const QUEUE: usize = 8192;
/// Spans in one message, and how long the first of them waits for others: OpenTelemetry's defaults.
const BATCH: usize = 512;
const DELAY: Duration = Duration::from_secs(5);
/// Before a batch that the collector could not take is sent again.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// How often lost spans are reported.
const REPORT: Duration = Duration::from_secs(30);
/// Longest word of a collector that is logged, in characters.
const MESSAGE: usize = 200;

/// Takes spans that have ended. Never blocks.
#[derive(Debug)]
pub(super) struct Queue {
    spans: mpsc::Sender<SpanData>,
    lost: Arc<AtomicU64>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, _span: &mut Span, _context: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.spans.try_send(span).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _timeout: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Headers of every message.
pub(super) type Headers = Vec<(String, String)>;

/// Sends what the queue takes.
pub(super) struct Sender {
    spans: mpsc::Receiver<SpanData>,
    lost: Arc<AtomicU64>,
    endpoint: Url,
    /// A token in them may be exchanged at any time.
    headers: watch::Receiver<Headers>,
    timeout: Duration,
    resource: ResourceAttributesWithSchema,
    report: Report,
}

/// What was told of lost spans.
#[derive(Default)]
struct Report {
    lost: u64,
    at: Option<Instant>,
    /// Why the collector last did not take spans; `None` when it does.
    why: Option<String>,
    /// That was told.
    is_failing: bool,
}

/// Why a batch was not taken.
enum Refusal {
    /// It may be taken later.
    NotNow(String),
    Never(String),
}

/// The headers of the settings and our own.
pub(super) fn headers(settings: &Traces) -> Option<Headers> {
    let mut headers = config::headers(settings.headers.expose_secret())?;
    headers.push(("content-type".to_owned(), "application/x-protobuf".to_owned()));
    Some(headers)
}

/// A queue and what sends it. `None` for settings that the configuration does not let through.
pub(super) fn new(
    settings: &Traces,
    resource: &Resource,
    headers: watch::Receiver<Headers>,
) -> Option<(Queue, Sender)> {
    let (sender, spans) = mpsc::channel(QUEUE);
    let lost = Arc::<AtomicU64>::default();
    let queue = Queue { spans: sender, lost: Arc::clone(&lost) };
    let sender = Sender {
        spans,
        lost,
        endpoint: settings.endpoint.parse().ok()?,
        headers,
        timeout: Duration::from_secs(settings.timeout_seconds),
        resource: resource.into(),
        report: Report::default(),
    };
    Some((queue, sender))
}

impl Sender {
    /// Sends until `stopped` is true and the queue is empty.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let batch = self.batch(&mut stopped).await;
            if batch.is_empty() {
                return;
            }
            self.send(batch, &mut stopped).await;
            self.tell(*stopped.borrow());
        }
    }

    /// The next spans; none when it is time to end.
    async fn batch(&mut self, stopped: &mut watch::Receiver<bool>) -> Vec<SpanData> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut deadline = None;
        while batch.len() < BATCH {
            let room = BATCH - batch.len();
            // Far away while nothing waits.
            let end = deadline.unwrap_or_else(|| Instant::now() + Duration::from_hours(1));
            tokio::select! {
                biased;
                taken = self.spans.recv_many(&mut batch, room) => {
                    if taken == 0 {
                        break;
                    }
                    deadline.get_or_insert_with(|| Instant::now() + DELAY);
                }
                // What waits is taken first, then the closed queue ends the loop.
                _ = stopped.wait_for(|stopped| *stopped), if !self.spans.is_closed() => self.spans.close(),
                () = tokio::time::sleep_until(end) => if deadline.is_some() { break },
            }
        }
        batch
    }

    /// Sends a batch, more than once when the collector is away for a moment.
    async fn send(&mut self, batch: Vec<SpanData>, stopped: &mut watch::Receiver<bool>) {
        let count = batch.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(batch, &self.resource);
        let body = Bytes::from(ExportTraceServiceRequest { resource_spans }.encode_to_vec());
        let mut pauses = PAUSES.iter();
        let why = loop {
            match self.post(body.clone()).await {
                Ok(rejected) if rejected.count == 0 => {
                    self.report.why = None;
                    if std::mem::take(&mut self.report.is_failing) {
                        tracing::info!("the collector takes spans again");
                    }
                    return;
                }
                Ok(rejected) => {
                    self.lost.fetch_add(rejected.count, Ordering::Relaxed);
                    self.report.why = Some(rejected.why);
                    return;
                }
                Err(Refusal::Never(why)) => break why,
                Err(Refusal::NotNow(why)) => match pauses.next() {
                    Some(pause) if !*stopped.borrow() => {
                        let _ = tokio::time::timeout(*pause, stopped.wait_for(|stopped| *stopped)).await;
                    }
                    _ => break why,
                },
            }
        };
        self.lost.fetch_add(count, Ordering::Relaxed);
        self.report.why = Some(why);
    }

    async fn post(&self, body: Bytes) -> Result<Rejected, Refusal> {
        let headers = self.headers.borrow().clone();
        let answer = tokio::time::timeout(self.timeout, client::post(&self.endpoint, &headers, body)).await;
        let (status, body) = match answer {
            Ok(Ok(answer)) => (answer.status.as_u16(), answer.body),
            Ok(Err(error)) => return Err(Refusal::NotNow(error.to_string())),
            Err(_) => return Err(Refusal::NotNow(format!("no answer within {:?}", self.timeout))),
        };
        match status {
            200 => Ok(rejected(body)),
            // OTLP 1.x, "Retryable Response Codes".
            429 | 502 | 503 | 504 => Err(Refusal::NotNow(format!("status {status}"))),
            _ => Err(Refusal::Never(format!("status {status}"))),
        }
    }

    /// Says, not too often, how many spans were lost and why.
    fn tell(&mut self, is_last: bool) {
        let lost = self.lost.load(Ordering::Relaxed);
        let is_time = is_last || self.report.at.is_none_or(|at| at.elapsed() >= REPORT);
        if lost > self.report.lost && is_time {
            let error = self.report.why.as_deref().unwrap_or("there were more than the collector takes");
            tracing::warn!(spans = lost - self.report.lost, error, "spans were lost");
            self.report.lost = lost;
            self.report.is_failing = self.report.why.is_some();
            self.report.at = Some(Instant::now());
        }
    }
}

/// Spans that a collector did not take out of a batch that it took.
struct Rejected {
    count: u64,
    why: String,
}

/// An answer that cannot be read says nothing of the kind.
fn rejected(body: Bytes) -> Rejected {
    let partial = ExportTraceServiceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    let partial = partial.unwrap_or_default();
    Rejected {
        count: partial.rejected_spans.try_into().unwrap_or_default(),
        why: partial.error_message.chars().take(MESSAGE).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    #[test]
    fn spans_that_find_the_queue_full_are_counted() {
        let environment = BTreeMap::from([("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), "http://localhost:1".to_owned())]);
        let settings = config::Config::load(None, &environment).expect("the settings").traces;
        // Nothing takes spans out.
        let (_headers, used) = watch::channel(Headers::new());
        let (queue, sender) = new(&settings, &Resource::builder_empty().build(), used).expect("the settings");
        let provider = SdkTracerProvider::builder().with_span_processor(queue).build();
        let tracer = provider.tracer("test");

        for _ in 0..QUEUE + 3 {
            tracer.start("span").end();
        }

        assert_eq!((sender.spans.len(), sender.lost.load(Ordering::Relaxed)), (QUEUE, 3));
    }
}
