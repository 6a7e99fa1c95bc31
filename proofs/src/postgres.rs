//! A PostgreSQL cluster of our own, which can be crashed, stopped and started again. As root it runs as the user `postgres`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Result;
use crate::process::{self, children, signal};
use crate::sql::Sql;

/// Durability as in production: what is proved is that nothing acknowledged is lost.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 200
shared_buffers = 64MB
fsync = on
synchronous_commit = on
full_page_writes = on
restart_after_crash = on
";

/// A cluster that runs; stopped and removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    programs: PathBuf,
    directory: PathBuf,
    /// Where it listens.
    pub port: u16,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.go_on();
        let _ = self.control(&["stop", "-m", "immediate"]);
    }
}

impl Cluster {
    /// Makes a cluster in a new folder and starts it. `settings` are lines of `postgresql.conf`.
    pub fn start(directory: &Path, settings: &str) -> Result<Self> {
        let cluster = Self { programs: programs()?, directory: directory.to_owned(), port: process::free_port()? };
        cluster.own_directory()?;
        let settings = format!("{SETTINGS}port = {}\n{settings}\n", cluster.port);
        cluster.make(&settings)?;
        cluster.start_again()?;
        Ok(cluster)
    }

    /// A streaming standby of this cluster in a new folder, which reads from the primary at `port`: its own, or a network before it.
    pub fn standby(&self, directory: &Path, port: u16) -> Result<Self> {
        let standby =
            Self { programs: self.programs.clone(), directory: directory.to_owned(), port: process::free_port()? };
        standby.own_directory()?;
        let source = format!("host=127.0.0.1 port={port} user=postgres");
        let mut command = standby.program("pg_basebackup");
        command.args(["-c", "fast", "-X", "stream", "-R", "--no-sync", "-d", &source, "-D"]).arg(standby.data());
        let output = tokio::task::block_in_place(|| command.output())?;
        if !output.status.success() {
            return Err(format!("pg_basebackup: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        // The last of two settings counts.
        standby.configure(&format!("port = {}\n", standby.port))?;
        standby.start_again()?;
        Ok(standby)
    }

    /// Makes a standby the primary.
    pub fn promote(&self) -> Result<()> {
        self.control(&["promote", "-t", "60"])
    }

    fn make(&self, settings: &str) -> Result<()> {
        let data = self.data();
        let arguments = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync", "-D"];
        let mut command = self.program("initdb");
        let output = command.args(arguments).arg(&data).output()?;
        if !output.status.success() {
            return Err(format!("initdb: {}", String::from_utf8_lossy(&output.stderr)).into());
        }
        self.configure(settings)
    }

    fn configure(&self, settings: &str) -> Result<()> {
        let path = self.data().join("postgresql.conf");
        let text = std::fs::read_to_string(&path)? + settings;
        Ok(std::fs::write(path, text)?)
    }

    /// Makes the folder, in which the user `postgres` may write.
    fn own_directory(&self) -> Result<()> {
        std::fs::create_dir_all(&self.directory)?;
        if process::is_root() && !Command::new("chown").arg("postgres:").arg(&self.directory).status()?.success() {
            return Err("as root PostgreSQL needs the user `postgres`, which is missing".into());
        }
        Ok(())
    }

    /// `pg_ctl` with these words. Other tasks go on meanwhile.
    pub fn control(&self, words: &[&str]) -> Result<()> {
        let mut command = self.program("pg_ctl");
        command.args(words).args(["-w", "-s", "-D"]).arg(self.data()).arg("-l").arg(self.log());
        // Its server inherits the streams: a pipe would never end.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let status = tokio::task::block_in_place(|| command.status())?;
        if status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        Err(format!("pg_ctl {}: {status}: {}", words.join(" "), tail.join(" | ")).into())
    }

    /// Crashes it: no checkpoint, connections cut, recovery at the next start.
    pub fn crash(&self) -> Result<()> {
        self.control(&["stop", "-m", "immediate"])
    }

    /// Starts it again.
    pub fn start_again(&self) -> Result<()> {
        self.control(&["start", "-t", "60"])
    }

    /// Stops every process of it where it is: connections stay open and nothing answers.
    pub fn hang(&self) -> Result<()> {
        // The postmaster first, so that it starts no other.
        let postmaster = self.postmaster()?;
        signal(postmaster, "STOP")?;
        for child in children(postmaster) {
            let _ = signal(child, "STOP");
        }
        Ok(())
    }

    /// Lets a cluster that hangs go on.
    pub fn go_on(&self) -> Result<()> {
        let postmaster = self.postmaster()?;
        for child in children(postmaster) {
            let _ = signal(child, "CONT");
        }
        signal(postmaster, "CONT")
    }

    /// An empty database of its own; returns its URL.
    pub async fn database(&self) -> Result<String> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("proof_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let admin = Sql::connect(&self.url("postgres")).await?;
        admin.run(&format!("CREATE DATABASE {name}")).await?;
        admin.close().await;
        Ok(self.url(&name))
    }

    /// URL of a database.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// Waits until it takes connections and returns how long that took.
    pub async fn answers_within(&self, patience: Duration) -> Result<Duration> {
        let started = Instant::now();
        loop {
            let mut command = self.program("pg_isready");
            command.args(["-q", "-t", "1", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            if tokio::task::block_in_place(|| command.status())?.success() {
                return Ok(started.elapsed());
            }
            if started.elapsed() > patience {
                return Err("PostgreSQL does not come back".into());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Process id of the postmaster.
    pub fn postmaster(&self) -> Result<u32> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid"))?;
        Ok(text.lines().next().unwrap_or_default().trim().parse()?)
    }

    /// The folder with everything of it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// A program of PostgreSQL, which refuses to run as root.
    fn program(&self, name: &str) -> Command {
        let path = self.programs.join(name);
        let mut command = if process::is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir("/");
        command
    }
}

/// The folder of the newest PostgreSQL of the machine.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| "no PostgreSQL under /usr/lib/postgresql")?;
    let folders = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
    let mut folders: Vec<PathBuf> = folders.filter(|folder| folder.join("initdb").exists()).collect();
    folders.sort_by_key(|folder| {
        let version = folder.parent().and_then(|parent| parent.file_name()?.to_str()?.parse().ok());
        version.unwrap_or(0_u32)
    });
    folders.pop().ok_or_else(|| "no initdb under /usr/lib/postgresql".into())
}
