//! R01, R05, R19: the server starts without its database, on one that may lose commits, with a configuration full of faults.

use std::time::Duration;

use proofs::Result;
use proofs::api::Api;
use proofs::postgres::Cluster;
use proofs::server::Server;

use crate::crowd::{Crowd, Plan};
use crate::probe::{JWKS, READY, wait_for};
use crate::refusal::{CONFIGURATION, SOON, Start};
use crate::verdict;
use crate::world::World;

/// R01.
pub(super) async fn without_database(world: &mut World) -> Result<()> {
    let cluster = world.cluster()?;
    let down = world.size.seconds(3, 40);
    // Once before, so that there are keys.
    let settings = world.settings("server")?;
    drop(world.start(&settings).await?);
    cluster.crash()?;
    let mut server = Server::spawn(&settings)?;
    let ended = server.ended_within(down).await?;
    let mut api = Api::new(server.address());
    let mut statuses = Vec::new();
    for path in ["/health/live", READY, JWKS] {
        statuses.push(api.get(path).await.map_or(0, |answer| answer.status));
    }
    cluster.start_again()?;
    cluster.answers_within(Duration::from_secs(30)).await?;
    let is_up = ended.is_none();
    let figure =
        ended.map_or_else(|| format!("{down:?} long"), |status| format!("ended within {down:?} with {status}"));
    world.promise("the process stays up while the database is down", figure, is_up);
    let figure = format!("live {}, ready {}, keys {}", statuses[0], statuses[1], statuses[2]);
    world.promise("live 200, ready 503 meanwhile (keys 200 when they are known)", figure, statuses[..2] == [200, 503]);
    if is_up {
        let time = wait_for(server.address(), READY, 200, Duration::from_secs(30)).await?;
        world.promise(
            "ready within 5 s after the database is back",
            format!("{time:.1?}"),
            time <= Duration::from_secs(5),
        );
    }
    Ok(())
}

/// R05.
pub(super) async fn unsafe_database(world: &mut World) -> Result<()> {
    // What the server asks for wins over what the database defaults to: a crash then loses nothing.
    let settings = "synchronous_commit = off\nwal_writer_delay = 10s\nwal_writer_flush_after = 1GB";
    let cluster = Cluster::start(&world.directory().join("lazy"), settings)?;
    world.url = cluster.database().await?;
    let server = world.start(&world.settings("lazy")?).await?;
    let plan = Plan::on(&[server.address()]).with_churn();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(16, 48)).await?;
    let load = crowd.go(world, &plan);
    for _ in 0..world.size.times(1, 20) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        cluster.crash()?;
        cluster.start_again()?;
    }
    let crowd = load.stop().await?;
    verdict::check(world, crowd, &plan).await?;
    drop(server);
    drop(cluster);

    let cluster = Cluster::start(&world.directory().join("unsafe"), "fsync = off\nfull_page_writes = off")?;
    let settings = world.settings("unsafe")?.with("DATABASE_URL", &cluster.database().await?);
    let start = Start::of(&settings).await?;
    let logs = std::fs::read_to_string(world.directory().join("unsafe.log"))?;
    let is_told = start.code == Some(CONFIGURATION) || logs.contains("fsync");
    let figure = format!("exit {:?}, the log names fsync: {}", start.code, logs.contains("fsync"));
    world.promise("fsync=off is refused or warned of", figure, is_told);
    Ok(())
}

/// R19.
pub(super) async fn bad_configuration(world: &mut World) -> Result<()> {
    const FAULTS: [(&str, &str, &str); 6] = [
        ("AUTHSERVICE__SERVER__PORT", "70000", "AUTHSERVICE__SERVER__PORT"),
        ("AUTHSERVICE__SERVER__ISSUER", "ftp://x", "AUTHSERVICE__SERVER__ISSUER"),
        ("AUTHSERVICE__LOG__FORMAT", "xml", "AUTHSERVICE__LOG__FORMAT"),
        ("AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS", "soon", "AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS"),
        ("AUTHSERVICE__KEYS__ENCRYPTION_KEY", "Canary!short", "AUTHSERVICE__KEYS__ENCRYPTION_KEY"),
        ("DATABASE_URL", "mysql://user:Canary!@host/name", "DATABASE_URL"),
    ];
    let settings = FAULTS.iter().fold(world.settings("server")?, |settings, (name, text, _)| settings.with(name, text));
    let settings = settings.with("AUTHSERVICE__NO__SUCH", "1");
    let start = Start::of(&settings).await?;
    let named = FAULTS.iter().filter(|(_, _, name)| start.text.contains(name)).count();
    let is_unknown_named = start.text.to_lowercase().contains("no") && start.text.contains("AUTHSERVICE__NO__SUCH");
    let figure = format!(
        "exit {:?} after {:.2?}, {named} of {} faults and the unknown name ({is_unknown_named}) in one go",
        start.code,
        start.time,
        FAULTS.len()
    );
    let is_kept = start.code == Some(CONFIGURATION) && start.time <= SOON && named == FAULTS.len() && is_unknown_named;
    world.promise("every fault at once, exit 78 within 2 s", figure, is_kept);
    let is_secret = !start.text.contains("Canary!");
    world.promise("no secret is printed", if is_secret { "none" } else { "a value is printed" }, is_secret);
    Ok(())
}
