//! R06 and R07: the disk of the database is full for a while, under load.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::Api;
use proofs::postgres::Cluster;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::disk::Disk;
use crate::verdict;
use crate::world::World;

const FULL: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// R06.
pub(super) async fn sqlite(world: &mut World) -> Result<()> {
    let path = world.directory().join("disk");
    let Some(disk) = Disk::mount(&path, 12)? else {
        world.leave_out("mounting a disk needs root");
        return Ok(());
    };
    world.url = format!("sqlite://{}/authservice.db?mode=rwc", path.display());
    under_load(world, &disk, None).await
}

/// R07.
pub(super) async fn postgres(world: &mut World) -> Result<()> {
    let path = world.directory().join("disk");
    let Some(disk) = Disk::mount(&path, 160)? else {
        world.leave_out("mounting a disk needs root");
        return Ok(());
    };
    let cluster = Arc::new(Cluster::start(&path.join("postgres"), "max_wal_size = 32MB\nmin_wal_size = 32MB")?);
    world.url = cluster.database().await?;
    under_load(world, &disk, Some(cluster)).await
}

async fn under_load(world: &mut World, disk: &Disk, cluster: Option<Arc<Cluster>>) -> Result<()> {
    let server = world.start(&world.settings("server")?).await?;
    let plan = Plan::on(&[server.address()]);
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(16, 48)).await?;
    let mut reader = Api::new(server.address());
    let reads = reader.must_login(&format!("user0@{DOMAIN}"), PASSWORD).await?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(Duration::from_millis(300)).await;
    disk.fill()?;
    if cluster.is_some() {
        // A new segment of the log at once, not after 16 MiB of it.
        let sql = world.sql().await?;
        let _ = sql.run("SELECT pg_switch_wal()").await;
    }
    let (filled, before) = (Instant::now(), world.ledger.counted("answers 503"));
    let mut statuses = Vec::new();
    while filled.elapsed() < FULL {
        statuses.push(reader.me(&reads.access).await.map_or(0, |answer| answer.status));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = world.ledger.counted("answers 503") - before;
    disk.free()?;
    if let Some(cluster) = &cluster {
        // PostgreSQL gives up when it cannot write its log.
        if cluster.answers_within(Duration::from_secs(3)).await.is_err() {
            world.tell("PostgreSQL has given up and is started again");
            cluster.start_again()?;
        }
    }
    let freed = Instant::now();
    while !reader
        .register(&format!("late@{DOMAIN}"), PASSWORD)
        .await
        .is_ok_and(|answer| [201, 409].contains(&answer.status))
    {
        if freed.elapsed() > PATIENCE {
            return Err("writes fail although there is room".into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let healed = freed.elapsed();
    let crowd = load.stop().await?;
    world.promise("writes are answered 503 while the disk is full", format!("{refused} in {FULL:?}"), refused > 0);
    let fine = statuses.iter().filter(|status| **status == 200).count();
    let figure = format!("{fine} of {} reads", statuses.len());
    let is_kept =
        fine == statuses.len() || (cluster.is_some() && statuses.iter().all(|status| [200, 503].contains(status)));
    let promise = if cluster.is_some() { "reads go on, or are 503 when PostgreSQL gives up" } else { "reads go on" };
    world.promise(promise, figure, is_kept);
    world.promise(
        "writes go on without a restart of the server",
        format!("{healed:.1?} after there was room"),
        healed < Duration::from_secs(5),
    );
    verdict::check(world, crowd, &plan).await?;
    drop(server);
    drop(cluster);
    Ok(())
}
