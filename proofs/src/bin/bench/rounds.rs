//! Interleaved rounds: every round measures each part and each operation once, and the figures are medians over the rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use proofs::Result;
use proofs::api::Api;
use proofs::postgres::Cluster;
use proofs::process::{Usage, free_port};
use tokio::time::{Instant, sleep};

use crate::load::{self, Group, Op, precise};
use crate::stage::Stage;
use crate::{Bench, limits};

/// An operation on a stage, in one round.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// CPU milliseconds of the server for a request.
    pub(crate) server: f64,
    /// CPU milliseconds of its database.
    pub(crate) database: f64,
    pub(crate) per_second: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Processors that the load itself took.
    pub(crate) load: f64,
}

/// All figures of a run, each once a round.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) limits: BTreeMap<&'static str, Vec<f64>>,
    pub(crate) costs: BTreeMap<(&'static str, &'static str), Vec<Cost>>,
    /// Answers that were not as they should be.
    pub(crate) others: BTreeMap<String, u64>,
}

/// The middle one.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

const OPERATIONS: [(&str, Group); 4] = [
    ("jwks", Group { op: Op::Get("/.well-known/jwks.json"), workers: 4, rate: None }),
    ("me", Group { op: Op::Me, workers: 4, rate: None }),
    ("refresh", Group { op: Op::Refresh, workers: 16, rate: None }),
    ("login", Group { op: Op::Login, workers: 4, rate: None }),
];

pub(crate) async fn run(bench: &Bench, directory: &Path, cluster: &Cluster, stages: &[Stage]) -> Result<Figures> {
    let time = Duration::from_secs(bench.seconds);
    let floor = Floor::start().await?;
    let database = cluster.database().await?;
    let mut figures = Figures::default();
    for round in 1..=bench.rounds {
        println!("round {round} of {}", bench.rounds);
        let second = Duration::from_secs(1);
        let limits = [
            ("RSA-2048 signature", limits::signature()?),
            ("argon2id hash", limits::password_hash()?),
            ("bare HTTP answer", floor.cost(&stages[0], time).await?),
            ("SQLite commits/s, 1 client", limits::commits(&limits::sqlite_url(directory), 1, second).await?),
            ("PostgreSQL commits/s, 1 client", limits::commits(&database, 1, second).await?),
            ("PostgreSQL commits/s, 16 clients", limits::commits(&database, 16, second).await?),
        ];
        for (name, figure) in limits {
            figures.limits.entry(name).or_default().push(figure);
        }
        for stage in stages {
            for (name, group) in OPERATIONS {
                let is_wanted = format!("{} {name}", stage.name).contains(&bench.only);
                // Only refreshing differs by the form of the token.
                if is_wanted && (stage.is_default_form() || group.op == Op::Refresh) {
                    let (cost, others) = operation(stage, group, time).await?;
                    figures.costs.entry((stage.name, name)).or_default().push(cost);
                    for (what, count) in others {
                        *figures.others.entry(format!("{} {name}: {what}", stage.name)).or_default() += count;
                    }
                }
            }
        }
    }
    Ok(figures)
}

async fn operation(stage: &Stage, group: Group, time: Duration) -> Result<(Cost, BTreeMap<String, u64>)> {
    let mut readings = Vec::new();
    let meter = || {
        readings.push((stage.cpu_seconds()?, Usage::of(std::process::id())?.cpu_seconds));
        Ok(())
    };
    let mut outcomes = load::run(stage, stage.address(), &[group], time, meter).await?;
    let outcome = outcomes.remove(0);
    let [((server, database), own), ((server_after, database_after), own_after)] = readings[..] else {
        return Err("the meter was not read twice".into());
    };
    let each = 1000.0 / precise(outcome.count());
    let cost = Cost {
        server: (server_after - server) * each,
        database: (database_after - database) * each,
        per_second: outcome.per_second(),
        p50: outcome.percentile(50),
        p99: outcome.percentile(99),
        load: (own_after - own) / time.as_secs_f64(),
    };
    Ok((cost, outcome.others))
}

/// A server that does nothing, in a process of its own.
struct Floor {
    child: Child,
    port: u16,
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Floor {
    async fn start() -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.args(["floor", &port.to_string()]).stdin(Stdio::null()).spawn()?;
        let floor = Self { child, port };
        let started = Instant::now();
        while Api::new(([127, 0, 0, 1], port).into()).get("/").await.is_err() {
            if started.elapsed() > Duration::from_secs(5) {
                return Err("the bare HTTP server does not start".into());
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(floor)
    }

    async fn cost(&self, stage: &Stage, time: Duration) -> Result<f64> {
        let mut readings = Vec::new();
        let meter = || {
            readings.push(Usage::of(self.child.id())?.cpu_seconds);
            Ok(())
        };
        let group = Group { op: Op::Get("/"), workers: 4, rate: None };
        let address = ([127, 0, 0, 1], self.port).into();
        let outcomes = load::run(stage, address, &[group], time, meter).await?;
        Ok((readings[1] - readings[0]) * 1000.0 / precise(outcomes[0].count()))
    }
}
