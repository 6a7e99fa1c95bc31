//! R37: a refresh hangs in the database until the server answers 503, and its statement goes on long after the client has moved on.

use std::time::{Duration, Instant};

use proofs::api::{Api, Pair};
use proofs::{Result, process};
use tokio::task::JoinSet;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::world::World;

pub(super) async fn run(world: &mut World) -> Result<()> {
    if world.size.is_short {
        world.leave_out("not in the short form: the server gives up after 12 s");
        return Ok(());
    }
    let server = world.start(&world.settings("server")?).await?;
    let mut api = Api::new(server.address());
    let email = format!("alice@{DOMAIN}");
    api.must_register(&email, PASSWORD).await?;
    let mut pair = api.must_login(&email, PASSWORD).await?;
    let backends = backends(world).await?;
    for backend in &backends {
        process::signal(*backend, "STOP")?;
    }
    // One client, which does as it is told: the same token again after 503 or no answer. The first tries take the connections that
    // hang; the server opens new ones for the others.
    let mut tries = JoinSet::new();
    for _ in 0..backends.len() {
        let (address, token) = (server.address(), pair.refresh.clone());
        tries.spawn(async move {
            let started = Instant::now();
            let answer = Api::new(address).refresh(&token).await;
            (answer.map_or(0, |answer| answer.status), started.elapsed())
        });
    }
    let mut given_up = Vec::new();
    while let Some(tried) = tries.join_next().await {
        given_up.push(tried?);
    }
    let mut statuses = Vec::new();
    for _ in 0..3 {
        let answer = api.refresh(&pair.refresh).await?;
        statuses.push(answer.status);
        pair = Pair::of(&answer).unwrap_or(pair);
    }
    for backend in &backends {
        process::signal(*backend, "CONT")?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let answer = api.refresh(&pair.refresh).await?;
    let first: Vec<u16> = given_up.iter().map(|(status, _)| *status).collect();
    let longest = given_up.iter().map(|(_, time)| *time).max().unwrap_or_default();
    let figure = format!(
        "{} connections hung: {first:?} after {longest:.1?}; then {statuses:?}; when they go on: {} {}",
        backends.len(),
        answer.status,
        answer.code()
    );
    world.promise("what was answered 503 does nothing later", figure, answer.status == 200);
    Ok(())
}

/// The processes of PostgreSQL that serve our server.
async fn backends(world: &World) -> Result<Vec<u32>> {
    let sql = world.sql().await?;
    let query = "SELECT CAST(pid AS TEXT) FROM pg_stat_activity \
                 WHERE datname = current_database() AND application_name = 'authservice'";
    let rows = sql.rows(query).await?;
    sql.close().await;
    rows.into_iter().flatten().map(|pid| Ok(pid.parse()?)).collect()
}
