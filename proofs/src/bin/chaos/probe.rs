//! A client that asks one thing again and again beside the load, and notes how long that took.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::Api;
use proofs::times::Times;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The published keys: what resource servers need, whatever the database does.
pub(crate) const JWKS: &str = "/.well-known/jwks.json";
/// Whether a load balancer may send requests.
pub(crate) const READY: &str = "/health/ready";

/// What was answered.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) times: Times,
    /// Answers by status; 0 stands for none.
    pub(crate) statuses: BTreeMap<u16, u64>,
}

impl Seen {
    /// True when there were answers, and all of them 200.
    pub(crate) fn is_all_fine(&self) -> bool {
        self.statuses.keys().eq([&200])
    }
}

/// A probe that runs until it is stopped.
pub(crate) struct Probe {
    stop: watch::Sender<bool>,
    task: JoinHandle<Seen>,
}

impl Probe {
    /// Asks for a path every so often.
    pub(crate) fn start(address: SocketAddr, path: &'static str, every: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let (mut api, mut seen) = (Api::new(address), Seen::default());
            while !*stopped.borrow() {
                let started = Instant::now();
                let status = api.get(path).await.map_or(0, |answer| answer.status);
                seen.times.add(started.elapsed());
                *seen.statuses.entry(status).or_default() += 1;
                tokio::time::sleep(every).await;
            }
            seen
        });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<Seen> {
        let _ = self.stop.send(true);
        Ok(self.task.await?)
    }
}

/// Waits until a path is answered with this status and returns how long that took.
pub(crate) async fn wait_for(address: SocketAddr, path: &str, status: u16, patience: Duration) -> Result<Duration> {
    let started = Instant::now();
    let mut api = Api::new(address);
    loop {
        if api.get(path).await.is_ok_and(|answer| answer.status == status) {
            return Ok(started.elapsed());
        }
        if started.elapsed() > patience {
            return Err(format!("{path} is not answered {status} within {patience:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
