//! Metrics: every name, its help and its labels. What happens is counted beside the code that does it; what is so is read when
//! somebody asks (`ops.rs`). docs/metrics.md tells what each means.
//!
//! A label's value is text of the program or the template of a route, never anything that a request holds: the number of series is
//! bounded whatever is sent.

use std::any::Any;
use std::time::Duration;

use chrono::{DateTime, Utc};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry, TextEncoder};

use super::kinds::{Maker, histogram};
use super::{process, usual_method};
use crate::clock;

pub use super::kinds::{Counts, Held, Reading, Readings};

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
