//! Three replicas behind a real `HAProxy`, with the configuration that `examples/` ships: what rolling changes are tried on.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proofs::server::{Server, Settings};
use proofs::times::Times;
use proofs::{Result, process};

use crate::probe::{JWKS, READY, wait_for};
use crate::world::World;

const CONFIGURATION: &str = include_str!("../../../../examples/haproxy/haproxy.cfg");
const NAMES: [&str; REPLICAS] = ["one", "two", "three"];
/// As many as the example has.
pub(crate) const REPLICAS: usize = 3;

/// A running `HAProxy`.
struct Balancer(Child);

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Balancer {
    /// Starts it in front of the replicas. Returns where it listens.
    fn start(world: &World, replicas: &[SocketAddr]) -> Result<(Self, SocketAddr)> {
        let program = std::env::var("HAPROXY").unwrap_or_else(|_| "/usr/sbin/haproxy".to_owned());
        let address: SocketAddr = ([127, 0, 0, 1], process::free_port()?).into();
        let mut text = CONFIGURATION.replace("bind :80\n", &format!("bind {address}\n"));
        // Each connection takes two descriptors, of which there may be fewer here.
        text = text.replace("maxconn 10000", "maxconn 500");
        for (number, replica) in replicas.iter().enumerate() {
            text = text.replace(&format!("10.0.0.1{}:9998", number + 1), &replica.to_string());
        }
        if text.contains("10.0.0.") {
            return Err("the example has other servers than this proof".into());
        }
        let path = world.directory().join("haproxy.cfg");
        std::fs::write(&path, text)?;
        let log = std::fs::File::create(world.directory().join("haproxy.txt"))?;
        let mut command = Command::new(&program);
        // -db: in the foreground, with no workers to leave behind.
        command.args(["-db", "-f"]).arg(&path).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().map_err(|error| format!("{program}: {error} (HAPROXY names another)"))?;
        Ok((Self(child), address))
    }
}

/// Replicas that run, and who stands before them.
pub(crate) struct Fleet {
    /// Where clients send their requests.
    pub(crate) address: SocketAddr,
    /// How long each replica took from SIGTERM to its end.
    pub(crate) exits: Times,
    /// True while every replica that was told to end did so with 0.
    pub(crate) all_ended_well: bool,
    replicas: Vec<Server>,
    _balancer: Balancer,
}

impl Fleet {
    /// How each replica is run.
    pub(crate) fn settings(world: &World) -> Result<[Settings; REPLICAS]> {
        let first = world.settings(NAMES[0])?.with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1");
        // What is proved is that restarts fail nothing, not that a machine with other work opens connections within a second.
        let first = first
            .with("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "10")
            .with("AUTHSERVICE__DATABASE__STATEMENT_TIMEOUT_SECONDS", "10");
        let (second, third) = (first.replica(NAMES[1])?, first.replica(NAMES[2])?);
        Ok([first, second, third])
    }

    /// Starts every replica, and the balancer, and waits until it serves.
    pub(crate) async fn start(world: &World, settings: &[Settings; REPLICAS]) -> Result<Self> {
        let mut replicas = Vec::new();
        for settings in settings {
            replicas.push(world.start(settings).await?);
        }
        let addresses: Vec<SocketAddr> = replicas.iter().map(Server::address).collect();
        let (balancer, address) = Balancer::start(world, &addresses)?;
        wait_for(address, JWKS, 200, Duration::from_secs(10)).await?;
        Ok(Self { address, exits: Times::default(), all_ended_well: true, replicas, _balancer: balancer })
    }

    /// Ends a replica and starts it anew with these settings, as an orchestrator does.
    pub(crate) async fn replace(&mut self, world: &World, number: usize, settings: &Settings) -> Result<()> {
        self.end(number).await?;
        self.begin(world, number, settings).await
    }

    /// Tells a replica to end, and waits for that.
    pub(crate) async fn end(&mut self, number: usize) -> Result<()> {
        let (server, told) = (&mut self.replicas[number], Instant::now());
        server.signal("TERM")?;
        let ended = server.ended_within(Duration::from_secs(30)).await?;
        self.exits.add(told.elapsed());
        self.all_ended_well &= ended.and_then(|status| status.code()) == Some(0);
        Ok(())
    }

    /// Starts a replica in the place of one that has ended.
    pub(crate) async fn begin(&mut self, world: &World, number: usize, settings: &Settings) -> Result<()> {
        let server = world.start(settings).await?;
        wait_for(server.address(), READY, 200, Duration::from_secs(10)).await?;
        self.replicas[number] = server;
        // What an orchestrator waits for: the balancer must have seen it before the next one goes.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        Ok(())
    }
}
