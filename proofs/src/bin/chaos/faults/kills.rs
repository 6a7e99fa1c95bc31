//! R10: the server is killed with SIGKILL at random moments, under clients that do everything.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::times::Times;

use crate::crowd::{Crowd, Plan};
use crate::verdict::{self, Snapshot};
use crate::world::World;

/// Rows are read past the server after so many kills.
const LOOK_EVERY: usize = 10;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let kills = world.size.times(15, 200);
    let settings = world.settings("server")?;
    let mut server = world.start(&settings).await?;
    let plan = Plan::on(&[server.address()]).with_churn();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    let (mut before, mut starts) = (Snapshot::default(), Times::default());
    for kill in 1..=kills {
        tokio::time::sleep(world.dice.between(Duration::from_millis(20), Duration::from_millis(700))).await;
        server.kill()?;
        if kill % LOOK_EVERY == 0 {
            verdict::check_rows(world, &mut before).await?;
            world.tell(format!("{kill} kills: {}", world.ledger.summary()));
        }
        let started = Instant::now();
        server = world.start(&settings).await?;
        starts.add(started.elapsed());
    }
    let crowd = load.stop().await?;
    let figure = format!(
        "{kills} kills; ready again in {:.0?} at the median, {:.0?} at most",
        starts.percentile(50),
        starts.longest()
    );
    world.promise("the server starts again after every kill, without a hand", figure, true);
    verdict::check(world, crowd, &plan).await
}
