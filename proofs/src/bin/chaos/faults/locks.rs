//! R08: another process holds the write lock of SQLite; and two servers share one file.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::server::Server;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::ledger::Breach;
use crate::verdict;
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let first = world.settings("one")?;
    let one = world.start(&first).await?;
    held(world, &one, Duration::from_secs(2)).await?;
    let long = if world.size.is_short { 8 } else { 30 };
    held(world, &one, Duration::from_secs(long)).await?;

    let two = world.start(&first.replica("two")?).await?;
    let plan = Plan::on(&[one.address(), two.address()]).with_churn();
    let crowd = Crowd::sign_in(world, one.address(), world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(world.size.seconds(4, 60)).await;
    let crowd = load.stop().await?;
    verdict::check(world, crowd, &plan).await
}

/// One refresh while the lock is held: it waits for up to 5 s, and is 503 after that.
async fn held(world: &mut World, server: &Server, time: Duration) -> Result<()> {
    let mut api = Api::new(server.address());
    let email = format!("held{}@{DOMAIN}", time.as_secs());
    api.must_register(&email, PASSWORD).await?;
    let pair = api.must_login(&email, PASSWORD).await?;
    let sql = world.sql().await?;
    sql.run("BEGIN EXCLUSIVE").await?;
    let holder = tokio::spawn(async move {
        tokio::time::sleep(time).await;
        sql.run("COMMIT").await
    });
    let started = Instant::now();
    let answer = api.refresh(&pair.refresh).await?;
    let (status, waited) = (answer.status, started.elapsed());
    let readable = api.me(&pair.access).await?.status;
    holder.await??;
    let after = api.refresh(&pair.refresh).await?;
    let figure = format!("answered {status} after {waited:.1?}, reads {readable}, afterwards {}", after.status);
    if time < Duration::from_secs(5) {
        world.promise("a lock of 2 s is waited for", figure, status == 200 && readable == 200);
    } else {
        let is_kept = status == 503 && waited < Duration::from_secs(7) && readable == 200 && after.status == 200;
        world.promise(&format!("a lock of {} s is 503 after 5 s, never 500", time.as_secs()), figure, is_kept);
    }
    // The retry gets what the first try may have made.
    if Pair::of(&after).is_none() {
        world.ledger.breach(Breach::LostSession, &format!("after a lock: {} {}", after.status, after.code()));
    }
    Ok(())
}
