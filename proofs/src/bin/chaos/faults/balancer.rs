//! R38: three replicas behind a real `HAProxy` are restarted in turn: no client, none of which would try again, sees it.

use std::time::Instant;

use proofs::Result;

use crate::crowd::{Crowd, Plan};
use crate::fleet::{Fleet, REPLICAS};
use crate::verdict;
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let restarts = world.size.times(3, 30);
    let settings = Fleet::settings(world)?;
    let mut fleet = Fleet::start(world, &settings).await?;
    let plan = Plan::on(&[fleet.address]).with_churn();
    let crowd = Crowd::sign_in(world, fleet.address, world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    let started = Instant::now();
    for restart in 0..restarts {
        let number = restart % REPLICAS;
        fleet.replace(world, number, &settings[number]).await?;
    }
    let crowd = load.stop().await?;
    let (served, failed) = (world.ledger.served(), world.ledger.failed());
    let figure = format!(
        "{restarts} restarts in {:.0?}, each ended {:.1?} after SIGTERM at most: {served} requests and churn, {failed} failed",
        started.elapsed(),
        fleet.exits.longest()
    );
    world.promise("no request fails", figure, failed == 0 && served > 0 && fleet.all_ended_well);
    verdict::check(world, crowd, &plan).await
}
