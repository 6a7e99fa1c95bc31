//! R27: the database ends connections, finds deadlocks and cannot serialize.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::Api;
use proofs::server::Server;
use proofs::sql::Sql;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::verdict;
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let name = world.url.rsplit('/').next().unwrap_or_default().to_owned();
    let admin = Sql::connect(&world.cluster()?.url("postgres")).await?;
    // Every statement of the server may now fail with 40001, and it is the first to see a deadlock.
    for setting in ["default_transaction_isolation TO serializable", "deadlock_timeout TO '300ms'"] {
        admin.run(&format!("ALTER DATABASE {name} SET {setting}")).await?;
    }
    let server = world.start(&world.settings("server")?).await?;
    deadlock(world, &server).await?;
    let plan = Plan::on(&[server.address()]).with_churn();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(24, 100)).await?;
    let load = crowd.go(world, &plan);
    let (started, time) = (Instant::now(), world.size.seconds(4, 60));
    let mut terminated = 0;
    while started.elapsed() < time {
        let query = format!(
            "SELECT COUNT(*) FROM (SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' \
             AND application_name = 'authservice' AND state <> 'idle' LIMIT 1) AS ended"
        );
        terminated += admin.number(&query).await?;
        tokio::time::sleep(world.dice.between(Duration::from_millis(20), Duration::from_millis(200))).await;
    }
    admin.close().await;
    let crowd = load.stop().await?;
    let unserialized = server.logs()?.lines().filter(|line| line.contains("could not serialize")).count();
    let figure = format!("{terminated} connections ended at work, {unserialized} statements could not be serialized");
    world.promise("the fault was there", figure, terminated > 0 && unserialized > 0);
    verdict::check(world, crowd, &plan).await
}

/// We take locks in the order that the server never takes, families before users, while it ends all sessions of a user.
async fn deadlock(world: &mut World, server: &Server) -> Result<()> {
    let (mut api, email) = (Api::new(server.address()), format!("deadlock@{DOMAIN}"));
    api.must_register(&email, PASSWORD).await?;
    let access = api.must_login(&email, PASSWORD).await?.access;
    let sql = world.sql().await?;
    sql.run("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL deadlock_timeout = '20s'").await?;
    sql.run("SELECT 1 FROM refresh_tokens FOR UPDATE").await?;
    let asked = tokio::spawn(async move { (api.logout_all(&access).await, api, access) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    sql.run("SELECT 1 FROM users FOR UPDATE").await?;
    let (first, mut api, access) = asked.await?;
    sql.run("COMMIT").await?;
    sql.close().await;
    let (first, again) = (first?.status, api.logout_all(&access).await?.status);
    let seen = server.logs()?.contains("deadlock detected");
    let figure = format!("answered {first}, again {again}; the log names the deadlock: {seen}");
    world.promise(
        "a deadlock is 503, and the same request then works",
        figure,
        (first, again, seen) == (503, 204, true),
    );
    Ok(())
}
