//! R30: a long run with short lives: memory, descriptors and tables come to rest.

use std::time::{Duration, Instant};

use proofs::Result;

use crate::crowd::{Crowd, Plan};
use crate::verdict;
use crate::world::World;

const MIB: u64 = 1_048_576;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let settings = world
        .settings("server")?
        .with("AUTHSERVICE__CLEANUP__INTERVAL_SECONDS", "1")
        .with("AUTHSERVICE__CLEANUP__RETENTION_DAYS", "0");
    let server = world.start(&settings).await?;
    let plan = Plan::on(&[server.address()]).with_churn();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(16, 32)).await?;
    let load = crowd.go(world, &plan);
    let time = world.size.seconds(6, 1_200);
    // The first quarter is for warming up.
    tokio::time::sleep(time / 4).await;
    let (started, warm) = (Instant::now(), server.usage()?);
    let mut most = 0;
    while started.elapsed() < time * 3 / 4 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        most = most.max(server.usage()?.descriptors);
    }
    let end = server.usage()?;
    let crowd = load.stop().await?;
    // A sweep may be under way.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let sql = world.sql().await?;
    let over = sql.number("SELECT COUNT(*) FROM auth_sessions WHERE revoked_at IS NOT NULL").await?;
    let live = sql.number("SELECT COUNT(*) FROM auth_sessions WHERE revoked_at IS NULL").await?;
    let audit = sql.number("SELECT COUNT(*) FROM audit_events").await?;
    sql.close().await;
    world.tell(format!("{} ended and acknowledged; {live} live sessions, {audit} audit events", crowd.ended.len()));
    world.promise("ended sessions are deleted", format!("{over} left of {}", crowd.ended.len()), over <= 5);
    let grown = i64::try_from(end.rss / MIB)? - i64::try_from(warm.rss / MIB)?;
    let figure = format!("{} MiB, {grown} MiB more than when warm, in {time:?}", end.rss / MIB);
    world.promise("memory comes to rest", figure, grown <= 16);
    let figure = format!("{} when warm, {most} at most", warm.descriptors);
    world.promise("descriptors come to rest", figure, most <= warm.descriptors + 20);
    verdict::check(world, crowd, &plan).await
}
