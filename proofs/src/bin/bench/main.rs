//! What a request costs: processor time per request of the release build, beside what its parts cost in the same run.
//!
//! Absolute times of a shared machine mean little, so the unit is CPU milliseconds per request (from `/proc`), rounds of all
//! operations are interleaved, and figures are medians. Durability stays on.

#![expect(clippy::print_stdout, reason = "a program that reports")]

use clap::{Parser, Subcommand};
use proofs::Result;
use proofs::postgres::Cluster;

mod limits;
mod load;
mod rounds;
mod sizes;
mod stage;
mod storm;
mod table;

/// Measure what requests cost, beside the cost of their parts
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
struct Bench {
    #[command(subcommand)]
    mode: Option<Mode>,
    /// Interleaved rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds that each operation is measured in a round
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only operations whose name holds this text
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds of the login storm; 0 leaves it out
    #[arg(long, default_value_t = 20)]
    storm_seconds: u64,
}

#[derive(Debug, Subcommand)]
enum Mode {
    /// Serve a constant answer with the bare HTTP library: the floor of every request
    #[command(hide = true)]
    Floor { port: u16 },
    /// Measure what is stored instead: bytes of each table, and what a refresh writes
    Sizes {
        /// How many sessions
        #[arg(long, default_value_t = 100_000)]
        sessions: i64,
    },
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<()> {
    let bench = Bench::parse();
    if let Some(Mode::Floor { port }) = bench.mode {
        return limits::serve_floor(port).await;
    }
    let directory = std::env::temp_dir().join(format!("bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    // The user `postgres` passes through here to its own folder.
    std::fs::set_permissions(&directory, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    let outcome = match bench.mode {
        Some(Mode::Sizes { sessions }) => {
            let cluster = Cluster::start(&directory.join("postgres"), "shared_buffers = 128MB\nmax_wal_size = 4GB")?;
            sizes::run(sessions, &directory, &cluster).await
        }
        _ => measure(&bench, &directory).await,
    };
    std::fs::remove_dir_all(&directory)?;
    outcome
}

async fn measure(bench: &Bench, directory: &std::path::Path) -> Result<()> {
    let cluster = Cluster::start(&directory.join("postgres"), "shared_buffers = 128MB")?;
    let stages = stage::all(directory, &cluster).await?;
    table::starts(&stages);
    let figures = rounds::run(bench, directory, &cluster, &stages).await?;
    table::costs(&figures);
    table::throughput(&figures);
    table::memory(&stages)?;
    if bench.storm_seconds > 0 {
        for stage in stages.iter().filter(|stage| stage.is_default_form()) {
            table::storm(stage.name, &storm::run(stage, bench.storm_seconds).await?);
        }
        table::memory(&stages)?;
    }
    Ok(())
}
