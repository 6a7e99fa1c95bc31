//! Metrics: every name, its help and its labels. What happens is counted beside the code that does it; what is so is read when
//! somebody asks (`ops.rs`). docs/metrics.md tells what each means.
//!
//! A label's value is text of the program or the template of a route, never anything that a request holds: the number of series is
//! bounded whatever is sent.

use std::any::Any;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::core::Collector;
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::{process, usual_method};
use crate::clock;

/// Seconds. A refresh takes some 5 ms and a sign-in 20; nothing takes longer than 12 s.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Stands for what has no name of its own.
const OTHER: &str = "other";

/// The metrics of one application.
#[derive(Debug)]
#[expect(missing_docs, reason = "the help of each says what it is")]
pub struct Metrics {
    registry: Registry,
    started: DateTime<Utc>,
    requests: IntCounterVec,
    request_durations: HistogramVec,
    pub requests_in_flight: IntGauge,
    pub connections: IntGauge,
    pub connections_refused: Counts,
    pub sign_ins: Counts,
    pub registrations: Counts,
    pub refreshes: Counts,
    pub thefts: IntCounter,
    pub rate_limited: Counts,
    pub hash_durations: Histogram,
    pub hashes_refused: IntCounter,
    pub db_errors: Counts,
    pub outages: IntCounter,
    pub key_ring_failures: IntCounter,
    pub cleanup_deleted: Counts,
    pub cleanup_failures: Counts,
    pub audit_events: Counts,
    pub log_lines_dropped: IntCounter,
    pub panics: IntCounter,
    pub ready: IntGauge,
    pub restore_detected: IntGauge,
    pub secrets_refused: IntGauge,
    pub hashes_in_progress: Reading,
    pub hashes_waiting: Reading,
    pub hashes_max: Reading,
    pub hashes_waiting_max: Reading,
    pub db_connections: Readings,
    pub db_connections_max: Reading,
    pub db_clock_offset: Reading,
    pub signing_keys: Readings,
    pub signing_key_age: Reading,
    pub next_rotation: Reading,
    pub last_cleanup: Reading,
}

impl Metrics {
    /// Nothing has been counted yet. `engine` is the database's.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "a list")]
    pub fn new(engine: &'static str) -> Self {
        let registry = Registry::new();
        let new = Maker(&registry);
        let metrics = Self {
            started: clock::local(),
            requests: new.counters(
                "http_requests_total",
                &["method", "route", "status"],
                "Requests that were answered.",
            ),
            request_durations: new.made(HistogramVec::new(
                histogram("http_request_duration_seconds", "From a request's head to the head of its answer."),
                &["method", "route"],
            )),
            requests_in_flight: new.gauge("http_requests_in_flight", "Requests that are being answered."),
            connections: new.gauge("http_connections", "Open connections of clients."),
            connections_refused: new.counts(
                "http_connections_refused_total",
                ("reason", &["address", "all"]),
                "Connections that were closed at once because there were too many.",
            ),
            sign_ins: new.counts(
                "sign_ins_total",
                ("outcome", &["success", "invalid_credentials", "inactive", "rate_limited", "unavailable"]),
                "Attempts to sign in, by what became of them.",
            ),
            registrations: new.counts(
                "registrations_total",
                ("outcome", &["success", "taken", "invalid", "rate_limited", "unavailable"]),
                "Attempts to register, by what became of them.",
            ),
            refreshes: new.counts(
                "refreshes_total",
                (
                    "outcome",
                    &[
                        "rotated",
                        "retried",
                        "reused",
                        "future",
                        "ended",
                        "expired",
                        "inactive",
                        "invalid",
                        "missing",
                        "rate_limited",
                        "unavailable",
                    ],
                ),
                "Attempts to refresh, by what became of them.",
            ),
            thefts: new.counter(
                "thefts_total",
                "Sessions that ended because a refresh token was reused or newer than the database.",
            ),
            rate_limited: new.counts(
                "rate_limited_total",
                (
                    "budget",
                    &[
                        "guesses_without_delay",
                        "sign_in_failures_per_account_per_day",
                        "sign_in_failures_per_address_per_hour",
                        "registrations_per_address_per_hour",
                        "sign_ins_per_second",
                        "refreshes_per_minute",
                    ],
                ),
                "Attempts that were refused, by the budget that was spent.",
            ),
            hash_durations: new.made(Histogram::with_opts(histogram(
                "password_hash_duration_seconds",
                "How long a password hash was computed, without the wait for a place.",
            ))),
            hashes_refused: new.counter(
                "password_hashes_refused_total",
                "Password hashes that were not computed because too many were waiting, or for too long.",
            ),
            db_errors: new.counts(
                "db_errors_total",
                ("kind", &["acquire_timeout", "statement_timeout", "connection", "other"]),
                "Errors of the database.",
            ),
            outages: new.counter("outages_total", "Outages that this replica was the first to notice the end of."),
            key_ring_failures: new
                .counter("key_ring_failures_total", "Times that the key ring was not read or not kept up."),
            cleanup_deleted: new.counts(
                "cleanup_deleted_total",
                ("what", &["sessions", "audit_events", "rate_limits"]),
                "Rows that were deleted because their time was over.",
            ),
            cleanup_failures: new.counts(
                "cleanup_failures_total",
                ("what", &["sessions", "audit_events", "rate_limits"]),
                "Runs of the cleanup that failed.",
            ),
            audit_events: new.counts("audit_events_total", ("event", &[]), "Audit events that were committed."),
            log_lines_dropped: new.counter("log_lines_dropped_total", "Log lines that found the queue full."),
            panics: new.counter("panics_total", "Handlers and jobs that panicked."),
            ready: new.gauge("ready", "1 when /health/ready answers 200."),
            restore_detected: new.gauge(
                "restore_detected",
                "1 when the database was restored and nobody has run after-restore: nobody is served.",
            ),
            secrets_refused: new
                .gauge("secrets_refused", "1 when what lies in the files of secrets is not taken: the log says why."),
            hashes_in_progress: new.reading("password_hashes_in_progress", "Password hashes that are being computed."),
            hashes_waiting: new.reading("password_hashes_waiting", "Requests that wait for a place to compute a hash."),
            hashes_max: new.reading("password_hashes_max", "Most password hashes that are computed at once."),
            hashes_waiting_max: new.reading("password_hashes_waiting_max", "Most requests that may wait for a place."),
            db_connections: new.readings("db_connections", "state", "Connections to the database."),
            db_connections_max: new.reading("db_connections_max", "Most connections to the database."),
            db_clock_offset: new
                .reading("db_clock_offset_seconds", "The database's clock minus the host's, as last measured."),
            signing_keys: new.readings("signing_keys", "state", "Keys that sign access tokens, or did or will."),
            signing_key_age: new.reading("signing_key_age_seconds", "Time since the key that signs began to."),
            next_rotation: new.reading(
                "signing_key_next_rotation_timestamp_seconds",
                "When the next key begins to sign; absent when none is planned.",
            ),
            last_cleanup: new.reading(
                "cleanup_last_success_timestamp_seconds",
                "When everything was cleaned up last; absent until it was.",
            ),
            registry: registry.clone(),
        };
        let build = new.readings_of("build_info", &["version", "engine"], "1; which release on which engine this is.");
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), engine]).set(1.0);
        metrics
    }

    /// Counts an answer. `route` is a template of the routes; `None` for a path that is none.
    pub fn answered(&self, method: &str, route: Option<&str>, status: &str, took: Duration) {
        let method = usual_method(method).unwrap_or(OTHER);
        let route = route.unwrap_or(OTHER);
        self.requests.with_label_values(&[method, route, status]).inc();
        self.request_durations.with_label_values(&[method, route]).observe(took.as_secs_f64());
    }

    /// Counts a panic that was caught, and returns what it said.
    pub fn panicked<'a>(&self, panic: &'a (dyn Any + Send)) -> &'a str {
        self.panics.inc();
        let text = panic.downcast_ref::<&str>().copied();
        text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or_default()
    }

    /// Everything in Prometheus' text format, version 0.0.4. Errors when a metric cannot be written, which none of ours does.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        let mut text = TextEncoder::new().encode_to_string(&self.registry.gather())?;
        process::render(self.started, &mut text);
        Ok(text)
    }
}

/// What [`Metrics::render`] writes.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// A time as Prometheus has it: seconds since the epoch.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "microseconds since 1970 fit for another two centuries")]
pub fn timestamp(time: DateTime<Utc>) -> f64 {
    time.timestamp_micros() as f64 / 1e6
}

/// A count as Prometheus has it.
#[must_use]
pub fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// A counter for each value of a label.
#[derive(Debug)]
pub struct Counts(IntCounterVec);

impl Counts {
    /// Shows these from the start, with 0: what has never happened has a rate too.
    pub fn declare(&self, values: impl IntoIterator<Item = &'static str>) {
        for value in values {
            let _ = self.of(value);
        }
    }

    /// Counts one. Only text of the program can be counted.
    pub fn count(&self, value: &'static str) {
        self.of(value).inc();
    }

    /// The counter of one value.
    #[must_use]
    pub fn of(&self, value: &'static str) -> IntCounter {
        self.0.with_label_values(&[value])
    }
}

/// A number that is read from somewhere, and absent while nobody knows it.
#[derive(Debug)]
pub struct Reading(GaugeVec);

impl Reading {
    /// Shows it, or nothing.
    pub fn show(&self, value: Option<f64>) {
        match value {
            Some(value) => self.0.with_label_values::<&str>(&[]).set(value),
            None => self.0.reset(),
        }
    }
}

/// Numbers that are read from somewhere, one for each value of a label.
#[derive(Debug)]
pub struct Readings(GaugeVec);

impl Readings {
    /// Shows one of them.
    pub fn show(&self, label: &'static str, value: f64) {
        self.0.with_label_values(&[label]).set(value);
    }
}

/// One more as long as this lives.
#[derive(Debug)]
#[must_use = "what is dropped at once is not counted"]
pub struct Held(IntGauge);

impl Held {
    /// Counts one more.
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Makes metrics of a registry, which refuses a name that is not one or is taken: a fault of this file.
struct Maker<'a>(&'a Registry);

impl Maker<'_> {
    fn made<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a metric has a name, a help and labels");
        self.0.register(Box::new(metric.clone())).expect("a metric is registered once");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.made(IntCounter::with_opts(named(name, help)))
    }

    fn counters(&self, name: &str, labels: &[&str], help: &str) -> IntCounterVec {
        self.made(IntCounterVec::new(named(name, help), labels))
    }

    fn counts(&self, name: &str, (label, values): (&str, &[&'static str]), help: &str) -> Counts {
        let counts = Counts(self.counters(name, &[label], help));
        counts.declare(values.iter().copied());
        counts
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.made(IntGauge::with_opts(named(name, help)))
    }

    fn readings_of(&self, name: &str, labels: &[&str], help: &str) -> GaugeVec {
        self.made(GaugeVec::new(named(name, help), labels))
    }

    fn reading(&self, name: &str, help: &str) -> Reading {
        Reading(self.readings_of(name, &[], help))
    }

    fn readings(&self, name: &str, label: &str, help: &str) -> Readings {
        Readings(self.readings_of(name, &[label], help))
    }
}

fn named(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("authservice")
}

fn histogram(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::from(named(name, help)).buckets(BUCKETS.to_vec())
}
