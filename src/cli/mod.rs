//! The command line. Commands call the same domains as the API.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::DatabaseClock;
use crate::config::{Config, Faults};
use crate::db::Db;
use crate::{accounts, app, limits, sessions};

mod adopt;
mod after_restore;
mod audit;
mod backup;
mod cleanup;
mod completions;
mod config;
mod doctor;
mod healthcheck;
mod keys;
mod man;
mod migrate;
mod progress;
mod restore;
mod serve;
mod text;
mod users;

/// A token server: sign in over REST, short-lived JWT access tokens, rotating refresh tokens, JWKS.
#[derive(Debug, Parser)]
#[command(name = "authservice", version, propagate_version = true)]
struct Cli {
    /// Configuration file (TOML); the environment wins over it
    #[arg(long, value_name = "FILE", env = "AUTHSERVICE_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Serve),
    /// Apply or list migrations of the database
    Migrate {
        #[command(subcommand)]
        command: migrate::Migrate,
    },
    /// Take over the database of the FastAPI service in place
    Adopt(adopt::Adopt),
    /// Check or show the configuration
    Config {
        #[command(subcommand)]
        command: config::Settings,
    },
    /// List and manage signing keys
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
    /// List and manage users
    Users {
        #[command(subcommand)]
        command: users::Users,
    },
    /// List what happened
    Audit {
        #[command(subcommand)]
        command: audit::Audit,
    },
    /// Delete what is over: sessions, audit events, budgets, as the server does by itself
    Cleanup,
    /// Write the whole database into one file, while servers run
    Backup(backup::Backup),
    /// Fill the database from a file that `backup` wrote
    Restore(restore::Restore),
    /// Let servers use a database that was restored: ends every session first
    AfterRestore(after_restore::AfterRestore),
    /// Ask a server how it is: exit 0 when it is well, 1 when it is not
    Healthcheck(healthcheck::Healthcheck),
    /// Examine the configuration, the database, the keys and this machine, and say what to do; changes nothing
    Doctor(doctor::Doctor),
    /// Print completions for a shell
    Completions(completions::Completions),
    /// Print or write manual pages
    Man(man::Man),
}

/// How long a command that a signal ends may take to let go of what it holds.
const GIVING_UP: Duration = Duration::from_millis(500);

/// Why a command ended without doing what was asked. Exit codes are those of sysexits(3), and 1 for what a check found.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// 1: the server that was asked is not well, or `doctor` found a fault.
    #[error("{0}")]
    Unhealthy(String),
    /// 128 and the number of the signal, as a shell says it of a process that a signal has ended.
    #[error("ended by {name}; a transaction that was open is undone")]
    Signal {
        /// Its name.
        name: &'static str,
        /// Its number.
        number: u8,
    },
    /// 78: an operator must change the configuration, the keys or the database.
    #[error("{0}")]
    Configuration(String),
    /// 69: something that is needed does not answer.
    #[error("{0}")]
    Unavailable(String),
    /// 65: what was typed is not acceptable.
    #[error("{0}")]
    Input(String),
    /// 78: the database was restored and nobody has accepted it. A server waits for that.
    #[error("{}", crate::jobs::RESTORED)]
    Restored,
    /// 70: anything else.
    #[error("{0}")]
    Internal(String),
}

impl Error {
    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Unhealthy(_) => 1,
            Self::Signal { number, .. } => 128 + number,
            Self::Input(_) => 65,
            Self::Unavailable(_) => 69,
            Self::Internal(_) => 70,
            Self::Configuration(_) | Self::Restored => 78,
        })
    }
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Self::Configuration(faults.to_string())
    }
}

impl From<migration::Error> for Error {
    fn from(error: migration::Error) -> Self {
        match error {
            migration::Error::Database(error) => error.into(),
            other => Self::Configuration(other.to_string()),
        }
    }
}

impl From<sea_orm::DbErr> for Error {
    fn from(error: sea_orm::DbErr) -> Self {
        Self::Unavailable(format!("the database: {error}"))
    }
}

impl From<app::Error> for Error {
    fn from(error: app::Error) -> Self {
        match error {
            app::Error::Keys(crate::keys::Error::Faults(_) | crate::keys::Error::Key(_)) => {
                Self::Configuration(error.to_string())
            }
            app::Error::Keys(crate::keys::Error::Refused(fault)) => Self::Input(fault),
            app::Error::Keys(crate::keys::Error::Storage(error)) => error.into(),
            app::Error::Keys(crate::keys::Error::NoSigner | crate::keys::Error::Unread) => {
                Self::Internal(error.to_string())
            }
            app::Error::Accounts(error) => error.into(),
        }
    }
}

impl From<crate::keys::Error> for Error {
    fn from(error: crate::keys::Error) -> Self {
        app::Error::from(error).into()
    }
}

impl From<crate::adopt::Error> for Error {
    fn from(error: crate::adopt::Error) -> Self {
        use crate::adopt::Error as Adopt;
        match error {
            Adopt::Migration(error) => error.into(),
            Adopt::Keys(error) => app::Error::from(error).into(),
            Adopt::NoKey(_) => Self::Configuration(error.to_string()),
            Adopt::Storage(error) => error.into(),
            Adopt::Conflicts(ref conflicts) => {
                let lines: Vec<String> = conflicts
                    .iter()
                    .map(|conflict| format!("\n  user {}: {}: {}", conflict.user_id, conflict.email, conflict.reason))
                    .collect();
                Self::Input(format!("{error}; choose in a file for --conflicts:{}", lines.concat()))
            }
            Adopt::Choices(_) => Self::Input(error.to_string()),
            Adopt::Password(_) | Adopt::Random(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<crate::backup::Error> for Error {
    fn from(error: crate::backup::Error) -> Self {
        use crate::backup::Error as Backup;
        match error {
            Backup::Damaged { .. } | Backup::NotEmpty { .. } => Self::Input(error.to_string()),
            Backup::NewerForm(_) => Self::Configuration(error.to_string()),
            Backup::Migration(error) => error.into(),
            Backup::Keys(error) => error.into(),
            Backup::Storage(error) => error.into(),
            Backup::File(_) => Self::Unavailable(error.to_string()),
            Backup::Random(_) => Self::Internal(error.to_string()),
        }
    }
}

impl From<crate::audit::Error> for Error {
    fn from(error: crate::audit::Error) -> Self {
        match error {
            crate::audit::Error::NoSuchEvent(_) => Self::Input(error.to_string()),
            crate::audit::Error::Storage(error) => error.into(),
        }
    }
}

impl From<limits::Error> for Error {
    fn from(error: limits::Error) -> Self {
        match error {
            limits::Error::Storage(error) => error.into(),
            limits::Error::RateLimited { .. } => Self::Unavailable(error.to_string()),
        }
    }
}

impl From<accounts::Error> for Error {
    fn from(error: accounts::Error) -> Self {
        match error {
            accounts::Error::NotFound | accounts::Error::PasswordRefused(_) => Self::Input(error.to_string()),
            accounts::Error::Password(accounts::HashError::Memory(fault)) => Self::Configuration(fault),
            accounts::Error::Storage(error) => error.into(),
            accounts::Error::Session(error) => error.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}

impl From<sessions::Error> for Error {
    fn from(error: sessions::Error) -> Self {
        match error {
            sessions::Error::Storage(error) => error.into(),
            other => Self::Internal(other.to_string()),
        }
    }
}

/// How long blocking work that nobody waits for may go on at the end.
const LAST_WORK: Duration = Duration::from_secs(1);

/// Parses the command line, runs the command and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "authservice: {error}");
            error.exit_code()
        }
    }
}

fn execute(cli: Cli) -> Result<(), Error> {
    // What only prints the command line needs no configuration.
    match &cli.command {
        Command::Completions(completions) => {
            completions.run();
            return Ok(());
        }
        Command::Man(man) => return man.run(),
        _ => {}
    }
    let config = load(cli.config.as_deref());
    let config = match (config, &cli.command) {
        (Ok(config), Command::Config { command }) => {
            command.run(&config);
            return Ok(());
        }
        (Err(faults), Command::Doctor(doctor)) => return doctor.report_faults(&faults),
        (config, _) => config?,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Unavailable(error.to_string()))?;
    if let Command::Serve(serve) = cli.command {
        let done = runtime.block_on(serve.run(config));
        // A name that is being looked up does not keep the process from ending.
        runtime.shutdown_timeout(LAST_WORK);
        return done;
    }
    let done = runtime.block_on(unless_signalled(act(cli.command, config)));
    // A thread that waits at a prompt, or for a database, ends with the process.
    runtime.shutdown_background();
    done
}

fn load(file: Option<&Path>) -> Result<Config, Faults> {
    let mut environment = BTreeMap::new();
    for (name, text) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match text.into_string() {
            Ok(text) => drop(environment.insert(name, text)),
            Err(_) if name.starts_with("AUTHSERVICE__") => {
                return Err(Faults(vec![format!("{name}: is not Unicode")]));
            }
            Err(_) => {}
        }
    }
    Config::load(file, &environment)
}

/// The commands that end by themselves.
async fn act(command: Command, config: Config) -> Result<(), Error> {
    match command {
        Command::Migrate { command } => command.run(&config).await,
        Command::Keys { command } => command.run(&config).await,
        Command::Users { command } => command.run(&config).await,
        Command::Audit { command } => command.run(&config).await,
        Command::Adopt(adopt) => adopt.run(config).await,
        Command::Cleanup => cleanup::run(&config).await,
        Command::Backup(backup) => backup.run(&config).await,
        Command::Restore(restore) => restore.run(&config).await,
        Command::AfterRestore(after_restore) => after_restore.run(&config).await,
        Command::Healthcheck(healthcheck) => healthcheck.run(&config).await,
        Command::Doctor(doctor) => doctor.run(&config).await,
        Command::Serve(_) | Command::Config { .. } | Command::Completions(_) | Command::Man(_) => Ok(()),
    }
}

/// Ends the work when SIGTERM or SIGINT comes. As process 1 of a container the default action of a signal is none, so that who only
/// waits for it would be killed later. The work is a task of its own: it may block its thread at a prompt.
async fn unless_signalled(work: impl Future<Output = Result<(), Error>> + Send + 'static) -> Result<(), Error> {
    let hear = |kind| signal(kind).map_err(|error| Error::Internal(error.to_string()));
    let (mut terminate, mut interrupt) = (hear(SignalKind::terminate())?, hear(SignalKind::interrupt())?);
    let mut work = tokio::spawn(work);
    let (name, number) = tokio::select! {
        done = &mut work => return done.map_err(|error| Error::Internal(error.to_string()))?,
        _ = terminate.recv() => ("SIGTERM", 15),
        _ = interrupt.recv() => ("SIGINT", 2),
    };
    work.abort();
    // What is open is closed in the orderly way as far as that is quick.
    let _ = tokio::time::timeout(GIVING_UP, work).await;
    Err(Error::Signal { name, number })
}

/// Writes a line to standard output; a closed pipe is nobody's fault.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a line for the person at the terminal, not for whoever reads the output.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Ever longer pauses before a database that did not answer is asked again, at random, so that replicas do not ask in step.
#[derive(Default)]
struct Pauses(u32);

impl Pauses {
    /// 0.1 to 5 seconds.
    async fn next(&mut self) {
        let longest = Duration::from_millis(200 << self.0.min(5)).min(Duration::from_secs(5));
        self.0 += 1;
        let random = crate::random::bytes::<1>().map_or(255, |[byte]| byte);
        tokio::time::sleep(longest / 2 + longest / 2 * u32::from(random) / 255).await;
    }
}

/// The configuration while somebody waits, with secrets that may come later or change meanwhile.
struct Rereading {
    now: Config,
    said: String,
}

impl Rereading {
    fn of(config: &Config) -> Self {
        Self { now: config.clone(), said: String::new() }
    }

    /// Reads the files of secrets again. Keeps what it had, and returns why, each reason once, when they have faults.
    fn reread(&mut self) -> Option<String> {
        match self.now.reread() {
            Ok(config) => {
                *self = Self::of(&config);
                None
            }
            Err(faults) => {
                let faults = faults.to_string();
                (std::mem::replace(&mut self.said, faults.clone()) != faults).then_some(faults)
            }
        }
    }
}

/// The database's clock. Unavailable when it takes so long to tell the time that it tells nothing.
async fn clock_of(db: &Db) -> Result<DatabaseClock, Error> {
    let clock = DatabaseClock::default();
    if db.measure_clock(&clock).await? {
        return Ok(clock);
    }
    Err(Error::Unavailable("the database takes too long to tell the time".to_owned()))
}

/// Connects, and waits for a database that is not up yet. Says for what, as commands keep no log and the wait may be long.
async fn connect(config: &Config) -> Result<Db, Error> {
    let patience = Duration::from_secs(config.database.connect_timeout_seconds);
    let (started, mut pauses) = (tokio::time::Instant::now(), Pauses::default());
    let (mut config, mut said) = (Rereading::of(config), String::new());
    loop {
        match Db::connect(&config.now.database).await {
            Ok(db) => return Ok(db),
            Err(error) if started.elapsed() >= patience => return Err(error.into()),
            Err(error) => {
                let why = error.to_string();
                if said != why {
                    note(&format!("waiting for the database: {why}"));
                    said = why;
                }
                pauses.next().await;
                if let Some(faults) = config.reread() {
                    note(&format!("secrets are not read anew: {faults}"));
                }
            }
        }
    }
}
