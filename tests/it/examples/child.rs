//! Child processes: the tools that build the examples, and the examples while they run.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Enough for a Java that starts on a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(2);

pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The program of this name, on the PATH or where Debian puts servers.
pub(super) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// Runs a tool to its end and panics with its output when it fails.
pub(super) async fn run(mut command: Command) {
    let started = Instant::now();
    let name = command.get_program().to_owned();
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output()).await.unwrap();
    let output = output.unwrap_or_else(|error| panic!("{} does not start: {error}", name.display()));
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} failed:\n{text}", name.display());
    eprintln!("{} took {:?}", name.display(), started.elapsed());
}

/// A running example, ended when it is dropped.
pub(super) struct Running {
    child: Child,
    pub(super) url: String,
    /// Has its output, and whatever was written for it.
    directory: TempDir,
}

impl Running {
    /// Starts an example on a free port and waits until it answers at all. `command` gets the port and a folder for its files.
    pub(super) async fn start(command: impl Fn(u16, &Path) -> Command) -> Self {
        // Between asking for a free port and taking it, another test may take it.
        for _ in 0..3 {
            let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
            let directory = TempDir::new().unwrap();
            let log = std::fs::File::create(directory.path().join("log")).unwrap();
            let mut command = command(port, directory.path());
            command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
            // The servers are on this machine, whatever proxy the environment names.
            command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
            let child = command.spawn().unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
            let mut running = Self { child, url: format!("http://127.0.0.1:{port}"), directory };
            if running.is_ready().await {
                return running;
            }
            eprintln!("ended at once:\n{}", running.log());
        }
        panic!("the example does not run");
    }

    /// False when the process has ended.
    async fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
        while self.child.try_wait().unwrap().is_none() {
            if client.get(&self.url).send().await.is_ok() {
                return true;
            }
            assert!(Instant::now() < deadline, "no answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("what the example said:\n{}", self.log());
        }
    }
}
