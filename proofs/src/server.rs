//! A server in a process of its own. It builds nothing: it runs the binary that it is given.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::api::Api;
use crate::process::{self, Usage};
use crate::{Error, Result};

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(5);
/// Longer than any start takes on a busy machine.
const START: Duration = Duration::from_secs(40);

/// The `authservice` beside the running program: both come from the same build.
pub fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("authservice");
    if path.exists() { Ok(path) } else { Err(format!("there is no {}: build it first", path.display()).into()) }
}

/// How to run a server.
#[derive(Debug, Clone)]
pub struct Settings {
    binary: PathBuf,
    directory: PathBuf,
    name: String,
    /// Where it listens.
    pub port: u16,
    environment: BTreeMap<String, String>,
    wrapper: Vec<String>,
}

impl Settings {
    /// A server named `name` on a free port. Its keys and logs lie in `directory`; replicas share the directory and the database.
    pub fn new(binary: &Path, directory: &Path, name: &str, database_url: &str) -> Result<Self> {
        let port = process::free_port()?;
        let settings = Self {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            name: name.to_owned(),
            port,
            environment: BTreeMap::new(),
            wrapper: Vec::new(),
        };
        let keys = directory.join("keys").display().to_string();
        Ok(settings
            .with("DATABASE_URL", database_url)
            .with("AUTHSERVICE__SERVER__PORT", &port.to_string())
            .with("AUTHSERVICE__SERVER__ISSUER", "http://localhost")
            .with("AUTHSERVICE__ADMIN__PORT", "0")
            .with("AUTHSERVICE__KEYS__DIRECTORY", &keys))
    }

    /// With a variable of the environment, which holds nothing else but `PATH`.
    #[must_use]
    pub fn with(mut self, name: &str, text: &str) -> Self {
        self.environment.insert(name.to_owned(), text.to_owned());
        self
    }

    /// Without a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.remove(name);
        self
    }

    /// The same server as another build.
    #[must_use]
    pub fn of_build(mut self, binary: &Path) -> Self {
        binary.clone_into(&mut self.binary);
        self
    }

    /// Run by another program, for example `prlimit --nofile=256`.
    #[must_use]
    pub fn through(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|part| (*part).to_owned()).collect();
        self
    }

    /// The same server under another name, on another port.
    pub fn replica(&self, name: &str) -> Result<Self> {
        let port = process::free_port()?;
        let copy = Self { name: name.to_owned(), port, ..self.clone() };
        Ok(copy.with("AUTHSERVICE__SERVER__PORT", &port.to_string()))
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The database that it uses.
    #[must_use]
    pub fn database_url(&self) -> &str {
        self.environment.get("DATABASE_URL").map_or("", String::as_str)
    }

    /// A command of the binary with these settings, for what only an operator does.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut words = self.wrapper.iter().map(PathBuf::from).chain([self.binary.clone()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words).args(arguments);
        let path = std::env::var("PATH").unwrap_or_default();
        command.current_dir(&self.directory).env_clear().env("PATH", path).envs(&self.environment);
        command
    }

    fn log(&self, kind: &str) -> PathBuf {
        self.directory.join(format!("{}.{kind}", self.name))
    }
}

/// A server that runs; killed when dropped.
#[derive(Debug)]
pub struct Server {
    settings: Settings,
    child: Child,
}

impl Drop for Server {
    fn drop(&mut self) {
        // A stopped process takes SIGKILL too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Starts the process and waits for nothing. Logs are added to those of an earlier process of the same name.
    pub fn spawn(settings: &Settings) -> Result<Self> {
        let open =
            |kind| -> Result<File> { Ok(OpenOptions::new().create(true).append(true).open(settings.log(kind))?) };
        Self::spawn_into(settings, open("log")?.into())
    }

    /// As `spawn`, with somewhere else for standard output.
    pub fn spawn_into(settings: &Settings, stdout: Stdio) -> Result<Self> {
        let stderr = OpenOptions::new().create(true).append(true).open(settings.log("err"))?;
        let mut command = settings.command(&["serve"]);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn()?;
        Ok(Self { settings: settings.clone(), child })
    }

    /// Starts the process and waits until it is ready.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let mut server = Self::spawn(settings)?;
        server.ready_within(START).await?;
        Ok(server)
    }

    /// Waits until it is ready and returns how long that took; an exit is an error.
    pub async fn ready_within(&mut self, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        let mut api = Api::new(self.address());
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended with {status}: {}", self.settings.name, self.errors()).into());
            }
            if api.get("/health/ready").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(started.elapsed());
            }
            if started.elapsed() > patience {
                return Err(format!("{} is not ready after {patience:?}", self.settings.name).into());
            }
            sleep(LOOK).await;
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.settings.address()
    }

    /// How it was started.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal by its short name.
    pub fn signal(&self, name: &str) -> Result<()> {
        process::signal(self.pid(), name)
    }

    /// Waits for the end; `None` when it goes on.
    pub async fn ended_within(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if started.elapsed() > patience {
                return Ok(None);
            }
            sleep(LOOK).await;
        }
    }

    /// What it uses now.
    pub fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid())
    }

    /// Everything that it has logged.
    pub fn logs(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&std::fs::read(self.settings.log("log"))?).into_owned())
    }

    /// Everything that it wrote to standard error.
    #[must_use]
    pub fn errors(&self) -> String {
        std::fs::read(self.settings.log("err"))
            .map_or_else(|error| error.to_string(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Runs a command of the binary to its end. Returns its exit code and what it printed.
pub async fn run(settings: &Settings, arguments: &[&str], input: &str) -> Result<(i32, String)> {
    use std::io::Write as _;

    let mut command = settings.command(arguments);
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || -> std::io::Result<std::process::Output> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // Who reads nothing closes the pipe.
            let _ = stdin.write_all(input.as_bytes());
        }
        child.wait_with_output()
    });
    let output = output.await.map_err(Error::from)??;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned()))
}
