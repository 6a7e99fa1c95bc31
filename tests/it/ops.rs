//! What operators are told: metrics, and the listener that tells them.
#![expect(clippy::float_cmp, clippy::cast_precision_loss, reason = "counts are whole numbers, and small")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use authservice::routes;
use authservice::web::listener::{self, Caps};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::support::{Answer, TestApp};

mod admin;
mod labels;
mod outcomes;
mod readings;

/// One answer of `/metrics`, read more strictly than Prometheus does.
struct Scrape {
    text: String,
    families: BTreeMap<String, Family>,
    /// By name and labels, as written.
    samples: BTreeMap<String, f64>,
}

#[derive(Debug, Default)]
struct Family {
    kind: String,
    labels: BTreeSet<String>,
}

impl Scrape {
    /// Asks the listener of operators of this application.
    async fn of(app: &TestApp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let started = Arc::new(OnceLock::from(Arc::clone(&app.app)));
        let front = Arc::new(routes::admin(&app.app.config.server, &app.app.metrics, &started));
        let caps = Caps::new(&app.app.config.limits, &app.app.config.server);
        // Ends with the sender.
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(listener::serve(listener, front, caps, stopped, Duration::ZERO));
        Self::from(&base).await
    }

    async fn from(base: &str) -> Self {
        let answer = Answer::of(reqwest::Client::new().get(format!("{base}/metrics"))).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "text/plain; version=0.0.4"), "{answer:?}");
        Self::read(answer.body)
    }

    fn read(text: String) -> Self {
        let (mut families, mut samples) = (BTreeMap::<String, Family>::new(), BTreeMap::new());
        let (mut helped, mut current) = (String::new(), String::new());
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(help.len() > 10 && help.ends_with('.'), "{line}");
                name.clone_into(&mut helped);
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                assert_eq!(name, helped, "a help comes before");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                let family = Family { kind: kind.to_owned(), ..Family::default() };
                assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
                name.clone_into(&mut current);
            } else {
                let (series, value) = line.rsplit_once(' ').expect(line);
                let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
                let family = families.get_mut(&current).expect(line);
                let suffix = name.strip_prefix(current.as_str()).expect(line);
                let is_histogram = family.kind == "histogram";
                assert!(
                    suffix.is_empty() != is_histogram
                        && (!is_histogram || ["_bucket", "_sum", "_count"].contains(&suffix)),
                    "{line}"
                );
                for label in labels.strip_suffix('}').expect(line).split("\",").filter(|label| !label.is_empty()) {
                    let (label, value) = label.trim_end_matches('"').split_once("=\"").expect(line);
                    assert!(!value.contains(['"', '\\']), "{line}");
                    if label != "le" {
                        family.labels.insert(label.to_owned());
                    }
                }
                let value: f64 = value.parse().expect(line);
                assert!(value.is_finite(), "{line}");
                assert!(samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
            }
        }
        for (series, count) in
            samples.iter().filter(|(series, _)| series.split('{').next().unwrap().ends_with("_seconds_count"))
        {
            let all = series.replacen("_count", "_bucket", 1);
            let all = match all.strip_suffix('}') {
                Some(labels) => format!("{labels},le=\"+Inf\"}}"),
                None => format!("{all}{{le=\"+Inf\"}}"),
            };
            assert_eq!(samples[&all], *count, "{series}");
        }
        Self { text, families, samples }
    }

    /// The value of a series of ours, named without the prefix; `None` when it is absent.
    fn find(&self, series: &str) -> Option<f64> {
        self.samples.get(&format!("authservice_{series}")).copied()
    }

    fn value(&self, series: &str) -> f64 {
        self.find(series).unwrap_or_else(|| panic!("no {series} in\n{}", self.text))
    }

    /// Every series of these counters that has moved since, and by how much.
    fn moved(&self, since: &Self, names: &[&str]) -> Vec<(String, f64)> {
        let ours =
            self.samples.iter().filter_map(|(series, value)| Some((series.strip_prefix("authservice_")?, *value)));
        let wanted = ours.filter(|(series, _)| names.contains(&series.split('{').next().unwrap()));
        let changes = wanted.map(|(series, value)| (series.to_owned(), value - since.find(series).unwrap_or(0.0)));
        changes.filter(|(_, change)| *change != 0.0).collect()
    }
}
