//! Breaks a running server in every way we know, under clients that remember what they were promised.
//!
//! `chaos list` names the faults; `chaos run R10 R02 --engine both` tries some, `chaos run all --short` all of them in minutes. The
//! schedule of faults and what clients choose follow from the seed, which is printed first; the timing of the machine does not.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use proofs::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::faults::FAULTS;
use crate::report::say;
use crate::world::Engine;

mod client;
mod crowd;
mod disk;
mod faults;
mod fleet;
mod guest;
mod ledger;
mod probe;
mod refusal;
mod report;
mod run;
mod verdict;
mod wallet;
mod world;

/// Break a running server and count what its clients lose
#[derive(Debug, Parser)]
#[command(name = "chaos")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Name every fault
    List,
    /// Try faults
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// Faults by id, or `all`
    #[arg(required = true)]
    faults: Vec<String>,
    /// Leave these out
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    except: Vec<String>,
    /// Databases to try them on
    #[arg(long, value_enum, default_value = "both")]
    engine: Engines,
    /// Repeats the choices of an earlier run
    #[arg(long)]
    seed: Option<u64>,
    /// How long a load lasts, where a fault asks
    #[arg(long)]
    seconds: Option<u64>,
    /// How many kills, restarts or rounds, where a fault asks
    #[arg(long)]
    kills: Option<usize>,
    /// How many sessions, where a fault asks
    #[arg(long)]
    clients: Option<usize>,
    /// Minutes for all, instead of hours
    #[arg(long)]
    short: bool,
    /// Set a variable of the servers, NAME=TEXT: takes a protection away, to see that its loss is noticed
    #[arg(long = "set", value_name = "NAME=TEXT", value_parser = parse_override)]
    overrides: Vec<(String, String)>,
    /// Run a statement on each database once it is migrated: takes a protection away there
    #[arg(long, value_name = "SQL")]
    sabotage: Vec<String>,
    /// Append the result to this file, as one line of JSON
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engines {
    Sqlite,
    Postgres,
    Both,
}

impl Engines {
    fn has(self, engine: Engine) -> bool {
        match engine {
            Engine::Sqlite => self != Self::Postgres,
            Engine::Postgres => self != Self::Sqlite,
        }
    }
}

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("chaos: {error}"));
            return ExitCode::from(2);
        }
    };
    match runtime.block_on(execute(Cli::parse().command)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("chaos: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Returns how many promises were broken.
async fn execute(command: Command) -> Result<usize> {
    match command {
        Command::List => {
            for fault in FAULTS {
                let engines: Vec<&str> = fault.engines.iter().map(|engine| engine.label()).collect();
                say(&format!("{}  {} [{}]", fault.id, fault.what, engines.join(", ")));
            }
            Ok(0)
        }
        Command::Run(run) => {
            // Servers and clusters end when they are dropped, so a signal must not end us before that.
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                result = run::try_faults(run) => result,
                _ = tokio::signal::ctrl_c() => Err("interrupted".into()),
                _ = terminate.recv() => Err("terminated".into()),
            }
        }
    }
}

fn parse_override(text: &str) -> Result<(String, String), String> {
    let (name, text) = text.split_once('=').ok_or("NAME=TEXT")?;
    Ok((name.to_owned(), text.to_owned()))
}
