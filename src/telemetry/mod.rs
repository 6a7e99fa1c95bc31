//! What operators see. Logs: one line an event, JSON or for people, on standard output. Nobody waits for whoever reads them: lines that find the queue
//! full are dropped and counted.

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

mod export;
mod kinds;
pub mod metrics;
pub(crate) mod process;
pub mod traces;

use metrics::Metrics;

/// Lines that may wait to be written: some megabytes.
const QUEUE: usize = 16_384;
/// RFC 9110 9 and RFC 5789. A client may invent others.
const METHODS: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
/// What OpenTelemetry calls a method that is not among them.
const UNUSUAL_METHOD: &str = "_OTHER";
/// How often dropped lines are reported.
const REPORT: Duration = Duration::from_secs(30);

/// The method of a request as lines and spans say it: what a client invents stands in none.
pub(crate) fn method(method: &str) -> &'static str {
    usual_method(method).unwrap_or(UNUSUAL_METHOD)
}

fn usual_method(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|usual| *usual == method)
}

/// The logs of this process; dropping it writes what waits, for a second at most.
#[derive(Debug)]
#[must_use = "logs end when this is dropped"]
pub struct Logs {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

/// Starts logging.
pub fn start(log: &Log) -> Logs {
    let filter = EnvFilter::try_new(&log.level).unwrap_or_else(|_| EnvFilter::new("info"));
    let (queue, writer) = NonBlockingBuilder::default().buffered_lines_limit(QUEUE).finish(std::io::stdout());
    let dropped = queue.error_counter();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(queue);
    let _ = match log.format {
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
        // Colours are for a terminal.
        LogFormat::Pretty if std::io::stdout().is_terminal() => builder.try_init(),
        LogFormat::Pretty => builder.with_ansi(false).try_init(),
    };
    Logs { _writer: writer, dropped }
}

impl Logs {
    /// Tells from time to time how many lines were dropped.
    pub(crate) fn report_drops(&self, metrics: Arc<Metrics>) -> impl Future<Output = ()> + Send + use<> {
        let counter = self.dropped.clone();
        async move {
            let (mut ticks, mut told) = (tokio::time::interval(REPORT), 0);
            loop {
                ticks.tick().await;
                let dropped = counter.dropped_lines();
                if dropped > told {
                    metrics.log_lines_dropped.inc_by((dropped - told) as u64);
                    tracing::warn!(dropped = dropped - told, "log lines were dropped: nobody read them fast enough");
                    told = dropped;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc;

    use super::*;

    /// Takes nothing until the other end of the channel is dropped.
    struct Stuck(mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn lines_that_find_the_queue_full_are_counted() {
        let (go_on, stuck) = mpsc::channel();
        let (mut queue, writer) = NonBlockingBuilder::default().buffered_lines_limit(1).finish(Stuck(stuck));
        let logs = Logs { _writer: writer, dropped: queue.error_counter() };
        let metrics = Arc::new(Metrics::new("sqlite"));

        for _ in 0..10 {
            queue.write_all(b"line\n").expect("never waits");
        }
        tokio::spawn(logs.report_drops(Arc::clone(&metrics)));
        let counted = async {
            while metrics.log_lines_dropped.get() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), counted).await.expect("nothing is counted");

        // One is stuck, if it was taken in time, and one waits.
        let dropped = metrics.log_lines_dropped.get();
        assert!((8..10).contains(&dropped), "{dropped}");
        drop(go_on);
    }
}
