//! R29: the network to the database is gone for a while, and then every client comes at once.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::Api;
use proofs::proxy::{Mode, Proxy};
use tokio::task::JoinSet;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::verdict;
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let port = world.cluster()?.port;
    let network = Proxy::start(&[([127, 0, 0, 1], port).into()]).await?;
    let url = world.url.replace(&format!(":{port}/"), &format!(":{}/", network.address.port()));
    let server = world.start(&world.settings("server")?.with("DATABASE_URL", &url)).await?;
    let plan = Plan::on(&[server.address()]).pausing(500, 3_000);
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(48, 1_500)).await?;
    let sessions = u64::try_from(crowd.wallets.len())?;
    let mut api = Api::new(server.address());
    let access = api.must_login(&format!("user0@{DOMAIN}"), PASSWORD).await?.access;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(Duration::from_secs(3)).await;
    network.set(Mode::Blackhole);
    let gone = world.size.seconds(5, 60);
    let started = Instant::now();
    let mut askers = JoinSet::new();
    for _ in 0..8 {
        let (mut api, access) = (Api::new(server.address()), access.clone());
        askers.spawn(async move {
            let mut waits = BTreeSet::new();
            while started.elapsed() < gone {
                if let Ok(answer) = api.me(&access).await
                    && answer.status == 503
                {
                    waits.insert(answer.header("retry-after").to_owned());
                }
            }
            waits
        });
    }
    let waits: BTreeSet<String> = askers.join_all().await.into_iter().flatten().collect();
    network.set(Mode::Pass);
    let (opened, before) = (Instant::now(), served(world));
    // Every client has been served when so many answers have come; none asks again within half a second.
    while served(world) < before + sessions && opened.elapsed() < Duration::from_secs(90) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let recovered = opened.elapsed();
    let crowd = load.stop().await?;
    world.tell(format!("Retry-After during the outage: {waits:?}"));
    let figure = format!("{sessions} answers {recovered:.1?} after {gone:?} without a network");
    world.promise("every client is served within 30 s after an outage", figure, recovered <= Duration::from_secs(30));
    let figure = format!("{waits:?}");
    world.promise("Retry-After is not the same for all", figure, waits.len() > 1);
    verdict::check(world, crowd, &plan).await
}

fn served(world: &World) -> u64 {
    world.ledger.counted("rotations") + world.ledger.counted("recovered")
}
