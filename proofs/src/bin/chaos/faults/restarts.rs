//! R09: two replicas behind a load balancer are restarted in turn with SIGTERM, under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::Api;
use proofs::proxy::Proxy;
use proofs::times::Times;

use crate::crowd::{Crowd, Plan};
use crate::probe::READY;
use crate::verdict;
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let restarts = world.size.times(4, 100);
    // Long enough for this balancer, which looks ten times a second.
    let first = world.settings("one")?.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "1");
    let mut replicas = [world.start(&first).await?, world.start(&first.replica("two")?).await?];
    let addresses = [replicas[0].address(), replicas[1].address()];
    let network = Arc::new(Proxy::start(&addresses).await?);
    let balancer = tokio::spawn(balance(Arc::clone(&network), addresses));
    let plan = Plan::on(&[network.address]).with_churn();
    let crowd = Crowd::sign_in(world, addresses[0], world.size.clients(24, 100)).await?;
    let load = crowd.go(world, &plan);
    let (mut exits, mut refused, mut codes) = (Times::default(), Times::default(), Vec::new());
    for restart in 0..restarts {
        tokio::time::sleep(world.dice.between(Duration::from_millis(100), Duration::from_millis(600))).await;
        let server = &mut replicas[restart % 2];
        let settings = server.settings().clone();
        let told = Instant::now();
        server.signal("TERM")?;
        refused.add(unready(server.address()).await?);
        let ended = server.ended_within(Duration::from_secs(20)).await?;
        exits.add(told.elapsed());
        codes.push(ended.and_then(|status| status.code()));
        *server = world.start(&settings).await?;
    }
    let crowd = load.stop().await?;
    balancer.abort();
    let figure = format!("{restarts} restarts; last answered ready {:.0?} after SIGTERM", refused.longest());
    world.promise("not ready at once after SIGTERM", figure, refused.longest() < Duration::from_millis(500));
    let figure = format!("ended after {:.1?} at the median, {:.1?} at most", exits.percentile(50), exits.longest());
    let is_kept = codes.iter().all(|code| *code == Some(0)) && exits.longest() < Duration::from_secs(12);
    world.promise("exit 0 after draining", figure, is_kept);
    let plan = Plan { targets: addresses.to_vec(), ..plan };
    verdict::check(world, crowd, &plan).await
}

/// Returns how long after the signal a request could still be sent that was answered with ready.
async fn unready(address: SocketAddr) -> Result<Duration> {
    let (told, mut last, mut api) = (Instant::now(), Duration::ZERO, Api::new(address));
    loop {
        let sent = told.elapsed();
        if !api.get(READY).await.is_ok_and(|answer| answer.status == 200) {
            return Ok(last);
        }
        last = sent;
        if sent > Duration::from_secs(10) {
            return Err("still ready 10 s after SIGTERM".into());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Sends new connections to who is ready.
async fn balance(network: Arc<Proxy>, addresses: [SocketAddr; 2]) {
    let mut apis = addresses.map(Api::new);
    loop {
        let mut ready = Vec::new();
        for (api, address) in apis.iter_mut().zip(addresses) {
            if api.get(READY).await.is_ok_and(|answer| answer.status == 200) {
                ready.push(address);
            }
        }
        network.send_to(&ready);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
