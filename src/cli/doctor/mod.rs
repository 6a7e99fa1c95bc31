//! `authservice doctor`: every check with its verdict and what to do. Reads only; works beside a server and without one.
//!
//! What is true of a database, of keys, of memory is asked where it is known (`db/examine.rs`, `keys/management.rs`,
//! `accounts/memory.rs`, ...); here it is judged. docs/doctor.md lists the checks, which a test compares.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use sea_orm::DbErr;
use serde_json::json;

use super::{Error, say, text};
use crate::config::{Config, Faults};
use crate::db::{Db, Facts};
use crate::keys::{Listed, Management};

mod database;
mod host;
mod issuer;
mod keys;

/// What takes longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Examine the configuration, the database, the keys and this machine, and say what to do; changes nothing
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 when nothing FAILs, 1 otherwise. Run it as the user and with the settings of the server. \
    docs/doctor.md explains every check."
)]
pub(super) struct Doctor {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    /// How many servers share the database
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    replicas: u32,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// As it should be.
    Ok,
    /// Works, and somebody should look at it.
    Warn,
    /// Does not work, or is not safe.
    Fail,
    /// Was not checked: there is nothing to check here, or something that it needs failed.
    Skip,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
            Self::Skip => "skip",
        }
    }
}

/// What a check found.
#[derive(Debug)]
struct Verdict {
    level: Level,
    message: String,
    remedy: String,
}

/// Both are verdicts: the error ends a check early.
type Checked = Result<Verdict, Verdict>;

fn ok(message: impl Into<String>) -> Verdict {
    Verdict { level: Level::Ok, message: message.into(), remedy: String::new() }
}

fn skip(message: impl Into<String>) -> Verdict {
    Verdict { level: Level::Skip, message: message.into(), remedy: String::new() }
}

fn warn(message: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { level: Level::Warn, message: message.into(), remedy: remedy.into() }
}

fn fail(message: impl Into<String>, remedy: impl Into<String>) -> Verdict {
    Verdict { level: Level::Fail, message: message.into(), remedy: remedy.into() }
}

impl From<DbErr> for Verdict {
    fn from(error: DbErr) -> Self {
        fail(error.to_string(), "see the database's own log")
    }
}

/// What the checks are about. Parts that could not be had are missing, and the checks that need them say so.
struct Patient<'a> {
    config: &'a Config,
    replicas: u32,
    db: Option<Db>,
    facts: Option<Facts>,
    /// The schema is this binary's.
    is_current: bool,
    now: DateTime<Utc>,
    keys: Option<(Management, Vec<Listed>)>,
}

impl Patient<'_> {
    fn db(&self) -> Result<&Db, Verdict> {
        self.db.as_ref().ok_or_else(|| skip("there is no database to ask"))
    }

    fn postgres(&self) -> Result<(&Db, &Facts), Verdict> {
        if self.config.database.is_sqlite() {
            return Err(skip("on PostgreSQL only"));
        }
        let db = self.db()?;
        self.facts.as_ref().map(|facts| (db, facts)).ok_or_else(|| skip("the database did not say what it is"))
    }

    /// The database, with the tables that this binary knows.
    fn current(&self) -> Result<&Db, Verdict> {
        let db = self.db()?;
        if self.is_current { Ok(db) } else { Err(skip("the schema is not this binary's")) }
    }

    fn keys(&self) -> Result<(&Management, &[Listed]), Verdict> {
        self.current()?;
        let (management, listed) = self.keys.as_ref().ok_or_else(|| skip("the keys could not be read"))?;
        Ok((management, listed))
    }
}

/// Verdicts by the name of their check.
#[derive(Default)]
struct Report(Vec<(&'static str, Verdict)>);

impl Report {
    fn add(&mut self, check: &'static str, checked: Checked) {
        self.0.push((check, checked.unwrap_or_else(|verdict| verdict)));
    }

    /// A check that asks somebody, who may not answer.
    async fn ask(&mut self, check: &'static str, checked: impl Future<Output = Checked>) {
        let late = |_| Err(fail(format!("no answer within {} s", PATIENCE.as_secs()), "find out why it is so slow"));
        self.add(check, tokio::time::timeout(PATIENCE, checked).await.unwrap_or_else(late));
    }

    /// Prints it, and errors when something failed.
    fn tell(self, is_json: bool) -> Result<(), Error> {
        for (check, Verdict { level, message, remedy }) in &self.0 {
            if is_json {
                let line = json!({"check": check, "level": level.name(), "message": message, "remedy": remedy});
                say(&text::json(&line));
                continue;
            }
            say(&format!("{:4}  {check:20}  {}", level.name().to_uppercase(), text::escaped(message)));
            if !remedy.is_empty() {
                say(&format!("{:28}-> {}", "", text::escaped(remedy)));
            }
        }
        let count = |level| self.0.iter().filter(|(_, verdict)| verdict.level == level).count();
        match count(Level::Fail) {
            0 => Ok(()),
            failed => Err(Error::Unhealthy(format!("{failed} check(s) failed, {} warned", count(Level::Warn)))),
        }
    }
}

impl Doctor {
    /// For a configuration that has faults: nothing else can be examined with it.
    pub(super) fn report_faults(&self, faults: &Faults) -> Result<(), Error> {
        let mut report = Report::default();
        for fault in &faults.0 {
            report.add("configuration", Ok(fail(fault, "correct the setting; docs/configuration.md has its range")));
        }
        report.tell(self.json)
    }

    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let mut report = Report::default();
        report.add("configuration", Ok(ok("every setting is known and in its range")));
        report.add("secret-files", Ok(host::secret_files(config)));
        report.add("proxies", Ok(host::proxies(&config.server)));
        report.add("memory", host::memory(&config.passwords));
        report.add("descriptors", Ok(host::descriptors(config)));
        report.add("disk", host::disk(config));

        let mut patient = Patient {
            config,
            replicas: self.replicas,
            db: None,
            facts: None,
            is_current: false,
            now: crate::clock::local(),
            keys: None,
        };
        report.ask("database", database::connect(&mut patient)).await;
        report.ask("database-version", async { database::version(&patient) }).await;
        report.ask("database-latency", database::latency(&patient)).await;
        report.add("database-tls", database::tls(&patient));
        report.ask("database-role", database::role(&patient)).await;
        report.add("database-writable", database::writable(&patient));
        report.ask("schema", database::schema(&mut patient)).await;
        report.ask("restored", database::restored(&patient)).await;
        report.ask("durability", database::durability(&patient)).await;
        report.ask("time-limits", database::time_limits(&patient)).await;
        report.add("connections", database::connections(&patient));
        report.ask("clock", database::clock(&mut patient)).await;
        report.ask("wal", async { database::wal(&patient) }).await;
        report.ask("integrity", database::integrity(&patient)).await;
        report.ask("encryption-key", keys::encryption_key(&mut patient)).await;
        report.ask("key-files", keys::files(&patient)).await;
        for (check, purpose) in [("signing-key", "signing"), ("refresh-key", "refresh")] {
            report.add(check, keys::maker(&patient, purpose));
        }
        report.add("previous-key", keys::previous(&patient));
        report.ask("outage", database::outage(&patient)).await;
        report.ask("old-service", database::old_service(&patient)).await;
        // A restored database is told here, by whoever knows how to see that it is one.
        report.ask("issuer", issuer::issuer(&patient)).await;
        if let Some(db) = patient.db.take() {
            // Its long check may still run; nothing is lost with it.
            let _ = tokio::time::timeout(Duration::from_millis(200), db.close()).await;
        }
        report.tell(self.json)
    }
}
