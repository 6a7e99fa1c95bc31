//! The servers that are measured: both engines, both forms of refresh tokens, each with users that are signed in.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::postgres::Cluster;
use proofs::process::{Usage, children};
use proofs::server::{Server, Settings, binary};

/// Every user's password.
pub(crate) const PASSWORD: &str = "Str0ng!Passw0rd";
/// Users and sessions of a stage: the most workers that a load has.
pub(crate) const WORKERS: usize = 32;

/// A running server with signed-in users.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    pub(crate) server: Server,
    /// From an existing database to ready.
    pub(crate) start: Duration,
    /// The first process of its database.
    database: Option<u32>,
}

/// Address of a user.
pub(crate) fn email(number: usize) -> String {
    format!("user{number}@example.com")
}

/// Starts every stage.
pub(crate) async fn all(directory: &Path, cluster: &Cluster) -> Result<Vec<Stage>> {
    let mut stages = Vec::new();
    for (name, is_sqlite, format) in [
        ("sqlite jwt", true, "jwt"),
        ("sqlite opaque", true, "opaque"),
        ("postgres jwt", false, "jwt"),
        ("postgres opaque", false, "opaque"),
    ] {
        let folder = directory.join(name.replace(' ', "-"));
        std::fs::create_dir_all(&folder)?;
        let sqlite = format!("sqlite://{}/bench.db?mode=rwc", folder.display());
        let url = if is_sqlite { sqlite } else { cluster.database().await? };
        let settings = ["LD_PRELOAD", "SLOW_DISK_MS"].iter().fold(
            Settings::new(&binary()?, &folder, "server", &url)?,
            // See proofs/slow-disk.c.
            |settings, name| {
                std::env::var(name).map_or_else(|_| settings.clone(), |text| settings.clone().with(name, &text))
            },
        );
        let settings = settings
            .with("AUTHSERVICE__REFRESH__FORMAT", format)
            .with("AUTHSERVICE__LIMITS__ENABLED", "false")
            .with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "0");
        let mut first = Server::start(&settings).await?;
        let mut api = Api::new(first.address());
        for number in 0..WORKERS {
            api.must_register(&email(number), PASSWORD).await?;
        }
        // What is measured is a server that was started on an existing database.
        first.signal("TERM")?;
        first.ended_within(Duration::from_secs(20)).await?;
        let mut server = Server::spawn(&settings)?;
        let start = server.ready_within(Duration::from_secs(20)).await?;
        let database = if is_sqlite { None } else { Some(cluster.postmaster()?) };
        stages.push(Stage { name, server, start, database });
    }
    Ok(stages)
}

impl Stage {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// True for the stages whose refresh tokens have the default form.
    pub(crate) fn is_default_form(&self) -> bool {
        self.name.ends_with("jwt")
    }

    /// Processor time of the server and of its database so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<(f64, f64)> {
        let of_database = |first: u32| -> f64 {
            let processes = [vec![first], children(first)].concat();
            processes.iter().filter_map(|pid| Some(Usage::of(*pid).ok()?.cpu_seconds)).sum()
        };
        Ok((self.server.usage()?.cpu_seconds, self.database.map_or(0.0, of_database)))
    }

    /// Signs a user in.
    pub(crate) async fn sign_in(&self, number: usize) -> Result<Pair> {
        Api::new(self.address()).must_login(&email(number), PASSWORD).await
    }
}
