//! The real binary as an operator runs it: a process of its own, a directory of its own, an environment with nothing but `PATH`.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, DatabaseConnection, Statement};
use tempfile::TempDir;

use crate::support::Engine;
use crate::support::database::Database;

mod after_restore;
mod audit;
mod backup;
mod cleanup;
mod completions;
mod config;
mod connections;
mod doctor;
mod healthcheck;
mod keys;
mod migrate;
mod process;
mod restore;
mod secrets;
mod serve;
mod signals;
mod sources;
mod stop;
mod systemd;
mod traces;
mod users;

pub(crate) use process::Server;
use process::{Lines, Process};

/// Names and texts of variables.
type Environment = [(&'static str, &'static str)];

/// A key-encryption key.
const KEY: &str = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
const BINARY: &str = env!("CARGO_BIN_EXE_authservice");
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Somebody with a directory, an environment and the binary.
pub(crate) struct Operator {
    directory: TempDir,
    environment: BTreeMap<String, OsString>,
    database: Option<Database>,
}

impl Operator {
    /// In an empty directory; the database is the default one, `authservice.db`.
    pub(crate) fn new() -> Self {
        Self { directory: TempDir::new().unwrap(), environment: BTreeMap::new(), database: None }
    }

    /// With an empty database on this engine, without any table, and a port that the system chooses.
    pub(crate) async fn on(engine: Engine) -> Self {
        let mut operator =
            Self::new().with("AUTHSERVICE__SERVER__PORT", "0").with("AUTHSERVICE__SERVER__ISSUER", "http://localhost");
        if engine == Engine::Postgres {
            let database = Database::create_bare().await;
            operator = operator.with("DATABASE_URL", &database.url);
            operator.database = Some(database);
        }
        operator
    }

    pub(crate) fn with(mut self, name: &str, text: impl Into<OsString>) -> Self {
        self.environment.insert(name.to_owned(), text.into());
        self
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the directory.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Names of what lies in the directory, at any depth.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(directory: &Path, into: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, into);
                } else {
                    into.push(path);
                }
            }
        }
        let mut paths = Vec::new();
        walk(self.directory.path(), &mut paths);
        let mut names: Vec<String> =
            paths.iter().map(|path| path.strip_prefix(self.directory.path()).unwrap().display().to_string()).collect();
        names.sort();
        names
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome {
        self.run_with_input(arguments, "")
    }

    /// Runs a command to its end with `input` on its standard input.
    fn run_with_input(&self, arguments: &[&str], input: &str) -> Outcome {
        let started = Instant::now();
        let mut process = self.spawn(arguments);
        let mut stdin = process.child.stdin.take().unwrap();
        // A command that does not read has closed the pipe.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let code = loop {
            if let Some(status) = process.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(started.elapsed() < PATIENCE, "{arguments:?} does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        let took = started.elapsed();
        let (stdout, stderr) = process.output();
        Outcome { code, stdout, stderr, took }
    }

    /// Starts a process and goes on.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Process {
        self.spawn_program(BINARY, arguments)
    }

    fn spawn_program(&self, program: &str, arguments: &[&str]) -> Process {
        let mut child = Command::new(program)
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            // Servers run beside each other, and operators of other tests are none of theirs.
            .envs(
                arguments
                    .iter()
                    .any(|argument| argument.contains("serve"))
                    .then_some(("AUTHSERVICE__ADMIN__PORT", "0")),
            )
            .envs(&self.environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Lines::of(child.stdout.take().unwrap());
        let stderr = Lines::of(child.stderr.take().unwrap());
        Process { child, stdout, stderr }
    }

    /// Starts a server and waits until it listens.
    pub(crate) async fn serve(&self) -> Server {
        Server::of(self.spawn(&["serve"])).await
    }

    /// A connection to the database, which must exist.
    async fn database(&self) -> DatabaseConnection {
        let url = match &self.database {
            Some(database) => database.url.clone(),
            None => format!("sqlite://{}?mode=rwc", self.path("authservice.db").display()),
        };
        sea_orm::Database::connect(url).await.unwrap()
    }

    /// Runs SQL by hand.
    pub(crate) async fn sql(&self, sql: &str) {
        let db = self.database().await;
        db.execute_unprepared(sql).await.unwrap();
        db.close().await.unwrap();
    }

    /// The first column of every row as text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let db = self.database().await;
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        let texts = rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect();
        db.close().await.unwrap();
        texts
    }

    /// Names of the tables, sorted.
    async fn tables(&self) -> Vec<String> {
        let sql = match self.database {
            Some(_) => "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1",
            None => "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY 1",
        };
        self.texts(sql).await
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Outcome {
    /// Asserts the exit code and says what was printed otherwise.
    #[track_caller]
    fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Everything that was printed.
    pub(crate) fn printed(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A port that was free a moment ago.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn every_command_explains_itself_whatever_the_environment() {
    let operator = Operator::new().with("AUTHSERVICE__SERVER__PORT", "wrong");
    let commands: [&[&str]; 31] = [
        &[],
        &["serve"],
        &["adopt"],
        &["migrate"],
        &["migrate", "up"],
        &["migrate", "status"],
        &["config"],
        &["config", "check"],
        &["config", "show"],
        &["keys"],
        &["keys", "list"],
        &["keys", "rotate"],
        &["keys", "revoke"],
        &["keys", "import"],
        &["keys", "export-public"],
        &["keys", "reseal"],
        &["users"],
        &["users", "list"],
        &["users", "deactivate"],
        &["users", "activate"],
        &["users", "set-password"],
        &["audit"],
        &["audit", "list"],
        &["cleanup"],
        &["backup"],
        &["restore"],
        &["after-restore"],
        &["healthcheck"],
        &["doctor"],
        &["completions"],
        &["man"],
    ];
    for command in commands {
        let help = operator.run(&[command, &["--help"]].concat()).exits(0);
        assert!(help.stdout.contains("Usage: authservice"), "{command:?}: {help:?}");
        assert_eq!(help.stderr, "", "{command:?}");

        let version = operator.run(&[command, &["--version"]].concat()).exits(0);
        assert!(version.stdout.contains(env!("CARGO_PKG_VERSION")), "{command:?}: {version:?}");
    }
    assert_eq!(operator.files(), Vec::<String>::new());
}

#[test]
fn a_command_line_that_makes_no_sense_is_explained_and_does_nothing() {
    let operator = Operator::new();
    let commands: [&[&str]; 9] = [
        &[],
        &["nothing"],
        &["serve", "--port", "1"],
        &["keys", "revoke"],
        &["keys", "import"],
        &["keys", "rotate", "--purpose", "all"],
        &["users", "deactivate"],
        &["users", "list", "--limit", "0"],
        &["users", "set-password", "alice@example.com", "Str0ng!Passw0rd"],
    ];
    for command in commands {
        let refused = operator.run(command).exits(2);
        assert!(refused.stderr.contains("help"), "{command:?}: {refused:?}");
        assert_eq!(refused.stdout, "", "{command:?}");
    }
    assert_eq!(operator.files(), Vec::<String>::new());
}
