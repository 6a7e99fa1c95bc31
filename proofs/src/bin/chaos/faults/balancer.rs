//! R38: three replicas behind a real `HAProxy`, with the configuration that `examples/` ships, are restarted in turn: no client, none of
//! which would try again, sees it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proofs::server::Server;
use proofs::times::Times;
use proofs::{Result, process};

use crate::crowd::{Crowd, Plan};
use crate::probe::{READY, wait_for};
use crate::verdict;
use crate::world::World;

const CONFIGURATION: &str = include_str!("../../../../../examples/haproxy/haproxy.cfg");
const NAMES: [&str; 3] = ["one", "two", "three"];

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

pub(super) async fn run(world: &mut World) -> Result<()> {
    let restarts = world.size.times(3, 30);
    let first = world.settings(NAMES[0])?.with("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1");
    // What is proved is that restarts fail nothing, not that a machine with other work opens connections within a second.
    let first = first
        .with("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "10")
        .with("AUTHSERVICE__DATABASE__STATEMENT_TIMEOUT_SECONDS", "10");
    let mut replicas = vec![world.start(&first).await?];
    for name in &NAMES[1..] {
        replicas.push(world.start(&first.replica(name)?).await?);
    }
    let addresses: Vec<SocketAddr> = replicas.iter().map(Server::address).collect();
    let (_balancer, address) = Balancer::start(world, &addresses)?;
    wait_for(address, "/.well-known/jwks.json", 200, Duration::from_secs(10)).await?;
    let plan = Plan::on(&[address]).with_churn();
    let crowd = Crowd::sign_in(world, address, world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    let (mut exits, mut codes, started) = (Times::default(), Vec::new(), Instant::now());
    for restart in 0..restarts {
        let server = &mut replicas[restart % 3];
        let (settings, told) = (server.settings().clone(), Instant::now());
        server.signal("TERM")?;
        let ended = server.ended_within(Duration::from_secs(30)).await?;
        exits.add(told.elapsed());
        codes.push(ended.and_then(|status| status.code()));
        *server = world.start(&settings).await?;
        wait_for(server.address(), READY, 200, Duration::from_secs(10)).await?;
        // What an orchestrator waits for: the balancer must have seen it before the next one goes.
        tokio::time::sleep(Duration::from_millis(1_500)).await;
    }
    let crowd = load.stop().await?;
    let count = |names: &[&str]| names.iter().map(|name| world.ledger.counted(name)).sum::<u64>();
    let failed = count(&["answers 503", "lost answers", "refused connections"]);
    let served = count(&["rotations", "recovered", "same successors", "me"]);
    let figure = format!(
        "{restarts} restarts in {:.0?}, each ended {:.1?} after SIGTERM at most: {served} requests and churn, {failed} failed",
        started.elapsed(),
        exits.longest()
    );
    world.promise("no request fails", figure, failed == 0 && served > 0 && codes.iter().all(|code| *code == Some(0)));
    verdict::check(world, crowd, &plan).await
}
