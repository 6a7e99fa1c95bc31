//! R26: the database is slow and the pool small; and sign-ins hash for long beside a pool of one connection.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::proxy::{Mode, Proxy};
use proofs::times::Times;
use tokio::task::JoinSet;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::verdict;
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    hashing(world).await?;
    let network = Proxy::start(&[([127, 0, 0, 1], world.cluster()?.port).into()]).await?;
    let url = world.url.replace(&format!(":{}/", world.cluster()?.port), &format!(":{}/", network.address.port()));
    let settings =
        world.settings("slow")?.with("DATABASE_URL", &url).with("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "4");
    let server = world.start(&settings).await?;
    let plan = Plan::on(&[server.address()]).pausing(0, 10);
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(48, 200)).await?;
    network.set(Mode::Delay(Duration::from_millis(200)));
    let before = server.usage()?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(world.size.seconds(4, 60)).await;
    let after = server.usage()?;
    network.set(Mode::Pass);
    let times = world.ledger.take_times();
    let refused = world.ledger.counted("answers 503");
    let refreshed = world.ledger.counted("rotations") + world.ledger.counted("recovered");
    let crowd = load.stop().await?;
    let figure = format!(
        "{} refreshes, {refreshed} of them 200, {refused} answers 503, median {:.1?}, longest {:.1?}",
        times.count(),
        times.percentile(50),
        times.longest()
    );
    let is_kept = times.longest() < Duration::from_secs(5) && times.count() > 0;
    world.promise("a full pool is 200 or 503 within 5 s", figure, is_kept);
    let grown = after.rss.saturating_sub(before.rss) / 1_048_576;
    world.promise("the queue is bounded", format!("{grown} MiB more"), grown <= 32);
    verdict::check(world, crowd, &plan).await
}

/// Nobody holds a connection while hashing: with a single one, refreshes go on beside slow sign-ins.
async fn hashing(world: &mut World) -> Result<()> {
    let settings = world
        .settings("hashing")?
        .with("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "1")
        .with("AUTHSERVICE__PASSWORDS__MAX_CONCURRENT", "1")
        .with("AUTHSERVICE__PASSWORDS__ITERATIONS", "16")
        .with("AUTHSERVICE__PASSWORDS__MEMORY_KIB", "65536");
    let server = world.start(&settings).await?;
    let mut api = Api::new(server.address());
    let email = format!("hash@{DOMAIN}");
    api.must_register(&email, PASSWORD).await?;
    let started = Instant::now();
    let mut pair = api.must_login(&email, PASSWORD).await?;
    let one = started.elapsed();
    let mut logins = JoinSet::new();
    for _ in 0..4 {
        let (address, email) = (server.address(), email.clone());
        logins.spawn(async move { Api::new(address).login(&email, PASSWORD).await });
    }
    let mut times = Times::default();
    while !logins.is_empty() {
        let started = Instant::now();
        let answer = api.refresh(&pair.refresh).await?;
        times.add(started.elapsed());
        pair = Pair::of(&answer).ok_or_else(|| format!("refresh beside sign-ins: {}", answer.status))?;
        while logins.try_join_next().is_some() {}
    }
    let figure = format!("{} refreshes beside 4 sign-ins of {one:.1?}: longest {:.1?}", times.count(), times.longest());
    world.promise("no connection is held while hashing", figure, times.longest() < one.max(Duration::from_millis(300)));
    Ok(())
}
