//! Kinds of metrics: counters by a label, numbers that are read, and what makes them.

use prometheus::core::Collector;
use prometheus::{GaugeVec, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Seconds. A refresh takes some 5 ms and a sign-in 20; nothing takes longer than 12 s.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

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
pub(super) struct Maker<'a>(pub(super) &'a Registry);

impl Maker<'_> {
    pub(super) fn made<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a metric has a name, a help and labels");
        self.0.register(Box::new(metric.clone())).expect("a metric is registered once");
        metric
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.made(IntCounter::with_opts(named(name, help)))
    }

    pub(super) fn counters(&self, name: &str, labels: &[&str], help: &str) -> IntCounterVec {
        self.made(IntCounterVec::new(named(name, help), labels))
    }

    pub(super) fn counts(&self, name: &str, (label, values): (&str, &[&'static str]), help: &str) -> Counts {
        let counts = Counts(self.counters(name, &[label], help));
        counts.declare(values.iter().copied());
        counts
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.made(IntGauge::with_opts(named(name, help)))
    }

    pub(super) fn readings_of(&self, name: &str, labels: &[&str], help: &str) -> GaugeVec {
        self.made(GaugeVec::new(named(name, help), labels))
    }

    pub(super) fn reading(&self, name: &str, help: &str) -> Reading {
        Reading(self.readings_of(name, &[], help))
    }

    pub(super) fn readings(&self, name: &str, label: &str, help: &str) -> Readings {
        Readings(self.readings_of(name, &[label], help))
    }
}

fn named(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("authservice")
}

pub(super) fn histogram(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::from(named(name, help)).buckets(BUCKETS.to_vec())
}
