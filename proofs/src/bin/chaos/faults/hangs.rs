//! R03: PostgreSQL hangs: connections stay open and nothing is answered, for longer than the retry window.

use std::time::Duration;

use proofs::Result;
use proofs::proxy::{Mode, Proxy};

use crate::crowd::{Crowd, Plan};
use crate::probe::{JWKS, Probe, READY, wait_for};
use crate::verdict;
use crate::world::World;

/// Every request is answered within this time.
const ANSWERED: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(world: &mut World) -> Result<()> {
    let cluster = world.cluster()?;
    let hang = world.size.seconds(22, 60);
    let settings = world.settings("server")?.with("AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS", "8");
    let server = world.start(&settings).await?;
    let network = Proxy::start(&[server.address()]).await?;
    let plan = Plan::on(&[network.address]);
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(24, 100)).await?;
    let keys = Probe::start(server.address(), JWKS, Duration::from_millis(20));
    let load = crowd.go(world, &plan);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let healthy = keys.stop().await?;
    let before = server.usage()?;

    network.set(Mode::LoseAnswers);
    tokio::time::sleep(Duration::from_millis(600)).await;
    cluster.hang()?;
    network.set(Mode::Pass);
    world.tell(format!("every process of PostgreSQL is stopped for {hang:?}, the retry window is 8 s"));
    let keys = Probe::start(server.address(), JWKS, Duration::from_millis(20));
    let _ = world.ledger.take_times();
    tokio::time::sleep(hang).await;
    let after = server.usage()?;
    let times = world.ledger.take_times();
    let hanging = keys.stop().await?;
    cluster.go_on()?;
    let healed = wait_for(server.address(), READY, 200, PATIENCE).await?;
    let crowd = load.stop().await?;

    let (median, longest) = (times.percentile(50), times.longest());
    let figure = format!("{} answers, median {median:.1?}, longest {longest:.1?}", times.count());
    world.promise("503 within 3 s while the database hangs", figure, longest <= ANSWERED && times.count() > 0);
    let figure =
        format!("p99 {:.1?} before, {:.1?} meanwhile", healthy.times.percentile(99), hanging.times.percentile(99));
    let bound = healthy.times.percentile(99).max(Duration::from_millis(100));
    let is_kept = hanging.is_all_fine() && hanging.times.percentile(99) <= bound;
    world.promise("the JWK Set is served as before", figure, is_kept);
    let grown = after.rss.saturating_sub(before.rss) / 1_048_576;
    world.promise("memory stays flat", format!("{grown} MiB more after {hang:?}"), grown <= 16);
    world.promise("ready within 5 s after the hang", format!("{healed:.1?}"), healed <= Duration::from_secs(5));
    verdict::check(world, crowd, &plan).await
}
