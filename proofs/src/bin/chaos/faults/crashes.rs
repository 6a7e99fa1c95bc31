//! R02: PostgreSQL crashes under load and comes back, soon or after longer than the retry window.

use std::time::Duration;

use proofs::Result;
use proofs::proxy::{Mode, Proxy};
use proofs::times::Times;

use crate::crowd::{Crowd, Plan};
use crate::probe::{READY, wait_for};
use crate::verdict::{self, Snapshot};
use crate::world::World;

/// The pool heals within this time after the database is back.
const HEALED: Duration = Duration::from_secs(5);
/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) async fn run(world: &mut World) -> Result<()> {
    restarts(world).await?;
    if world.size.is_short {
        // R03 shows the same in half a minute.
        return Ok(());
    }
    world.new_ledger();
    outage(world).await
}

async fn restarts(world: &mut World) -> Result<()> {
    let crashes = world.size.times(2, 50);
    let cluster = world.cluster()?;
    let server = world.start(&world.settings("server")?).await?;
    let plan = Plan::on(&[server.address()]).with_churn();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    let (mut before, mut healed) = (Snapshot::default(), Times::default());
    for crash in 1..=crashes {
        tokio::time::sleep(world.dice.between(Duration::from_millis(300), Duration::from_millis(1500))).await;
        cluster.crash()?;
        tokio::time::sleep(world.dice.between(Duration::ZERO, Duration::from_millis(800))).await;
        cluster.start_again()?;
        cluster.answers_within(PATIENCE).await?;
        healed.add(wait_for(server.address(), READY, 200, PATIENCE).await?);
        if crash % 5 == 0 {
            verdict::check_rows(world, &mut before).await?;
            world.tell(format!("{crash} crashes: {}", world.ledger.summary()));
        }
    }
    let crowd = load.stop().await?;
    let longest = healed.longest();
    let figure = format!("{crashes} crashes; ready {longest:.1?} after the database at most");
    world.promise("the pool heals within 5 s", figure, longest <= HEALED);
    verdict::check(world, crowd, &plan).await
}

/// Every client holds a token whose answer was lost when the database goes away for longer than the window.
async fn outage(world: &mut World) -> Result<()> {
    const WINDOW: &str = "8";
    // The server notices an outage from 15 s on, and stamps every 5 s.
    let down = Duration::from_secs(22);
    let cluster = world.cluster()?;
    let settings = world.settings("outage")?.with("AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS", WINDOW);
    let server = world.start(&settings).await?;
    let network = Proxy::start(&[server.address()]).await?;
    let plan = Plan::on(&[network.address]);
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(16, 48)).await?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(Duration::from_secs(2)).await;
    network.set(Mode::LoseAnswers);
    tokio::time::sleep(Duration::from_millis(600)).await;
    cluster.crash()?;
    network.set(Mode::Pass);
    world.tell(format!("the database is down for {down:?}, the retry window is {WINDOW} s"));
    tokio::time::sleep(down).await;
    cluster.start_again()?;
    wait_for(server.address(), READY, 200, PATIENCE).await?;
    let crowd = load.stop().await?;
    verdict::check(world, crowd, &plan).await
}
