//! Load on one server: workers that each keep a connection and a session, as fast as answers come or at a fixed rate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proofs::api::{Api, Pair};
use proofs::client::{Answer, Trouble};
use proofs::times::Times;
use proofs::{Error, Result};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep_until};

use crate::stage::{PASSWORD, Stage, email};

/// What a worker does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    /// `GET` of a path without a token.
    Get(&'static str),
    Me,
    Login,
    Refresh,
}

/// Workers that do the same.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    pub(crate) op: Op,
    pub(crate) workers: usize,
    /// Requests a second of the whole group, on a timetable: latency counts from it, so a server that stalls cannot hide its
    /// queue. `None`: the next one after each answer.
    pub(crate) rate: Option<u32>,
}

/// What came of a group's requests.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Of answers with 200.
    latencies: Times,
    /// Whatever was not 200 with what was expected.
    pub(crate) others: BTreeMap<String, u64>,
    elapsed: Duration,
}

impl Outcome {
    pub(crate) fn count(&self) -> usize {
        self.latencies.count()
    }

    pub(crate) fn per_second(&self) -> f64 {
        precise(self.count()) / self.elapsed.as_secs_f64()
    }

    /// Milliseconds that so many of a hundred do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        self.latencies.percentile(percent).as_secs_f64() * 1000.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
pub(crate) fn precise(number: usize) -> f64 {
    number as f64
}

struct Worker {
    api: Api,
    user: usize,
    pair: Option<Pair>,
}

impl Worker {
    async fn new(stage: &Stage, address: SocketAddr, user: usize, op: Op) -> Result<Self> {
        let needs_session = matches!(op, Op::Me | Op::Refresh);
        let pair = if needs_session { Some(stage.sign_in(user).await?) } else { None };
        Ok(Self { api: Api::new(address), user, pair })
    }

    /// One request; an error says what was not as it should be.
    async fn step(&mut self, op: Op) -> Result<(), String> {
        let answer = self.send(op).await.map_err(|trouble| trouble.to_string())?;
        if answer.status != 200 {
            let retry_after = if answer.header("retry-after").is_empty() { "" } else { " with Retry-After" };
            return Err(format!("{}{retry_after}", answer.status));
        }
        if matches!(op, Op::Login | Op::Refresh) {
            let pair = Pair::of(&answer).ok_or("200 without tokens")?;
            if self.pair.as_ref().is_some_and(|old| old.refresh == pair.refresh) {
                return Err("the refresh token did not change".to_owned());
            }
            self.pair = Some(pair);
        }
        Ok(())
    }

    async fn send(&mut self, op: Op) -> Result<Answer, Trouble> {
        let pair = self.pair.as_ref();
        match op {
            Op::Get(path) => self.api.get(path).await,
            Op::Me => self.api.me(pair.map_or("", |pair| &pair.access)).await,
            Op::Refresh => self.api.refresh(pair.map_or("", |pair| &pair.refresh)).await,
            Op::Login => self.api.login(&email(self.user), PASSWORD).await,
        }
    }
}

/// Runs groups beside each other for a time, after their sessions are open. `begin` and `end` are called around the time that
/// counts.
pub(crate) async fn run(
    stage: &Stage,
    address: SocketAddr,
    groups: &[Group],
    time: Duration,
    mut meter: impl FnMut() -> Result<()>,
) -> Result<Vec<Outcome>> {
    let everybody = groups.iter().map(|group| group.workers).sum::<usize>();
    let ready = Arc::new(Barrier::new(everybody + 1));
    let mut tasks = Vec::new();
    for (number, group) in groups.iter().enumerate() {
        for place in 0..group.workers {
            let mut worker = Worker::new(stage, address, place, group.op).await?;
            let (group, ready) = (*group, Arc::clone(&ready));
            tasks.push((
                number,
                tokio::spawn(async move {
                    // The connection is open, and what is prepared once is prepared.
                    let _ = worker.step(group.op).await;
                    ready.wait().await;
                    ready.wait().await;
                    work(worker, group, place, time).await
                }),
            ));
        }
    }
    ready.wait().await;
    meter()?;
    ready.wait().await;
    let mut outcomes: Vec<Outcome> = groups.iter().map(|_| Outcome { elapsed: time, ..Outcome::default() }).collect();
    for (number, task) in tasks {
        let (latencies, others) = task.await.map_err(Error::from)?;
        outcomes[number].latencies.append(latencies);
        for (what, count) in others {
            *outcomes[number].others.entry(what).or_default() += count;
        }
    }
    meter()?;
    Ok(outcomes)
}

async fn work(mut worker: Worker, group: Group, place: usize, time: Duration) -> (Times, BTreeMap<String, u64>) {
    let (mut latencies, mut others) = (Times::default(), BTreeMap::<String, u64>::new());
    let start = Instant::now();
    for turn in 0.. {
        let mut from = Instant::now();
        if let Some(rate) = group.rate {
            let after = precise(turn * group.workers + place) / f64::from(rate);
            from = start + Duration::from_secs_f64(after);
            sleep_until(from.min(start + time)).await;
        }
        if start.elapsed() >= time {
            break;
        }
        match worker.step(group.op).await {
            Ok(()) => latencies.add(from.elapsed()),
            Err(what) => *others.entry(what).or_default() += 1,
        }
    }
    (latencies, others)
}
