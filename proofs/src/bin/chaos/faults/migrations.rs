//! R17 and R18: many processes migrate at once and some are killed; the schema is newer than the binary.

use std::process::Stdio;
use std::time::Duration;

use proofs::Result;
use proofs::server::{self, Settings};
use proofs::sql::Sql;

use crate::world::World;

/// R17.
pub(super) async fn at_once(world: &mut World) -> Result<()> {
    const PROCESSES: usize = 8;
    let rounds = world.size.times(2, 20);
    let (mut killed, mut failed) = (0, Vec::new());
    for round in 0..rounds {
        let (settings, url) = empty(world, round).await?;
        let mut children = Vec::new();
        for _ in 0..PROCESSES {
            let mut command = settings.command(&["migrate", "up"]);
            children.push(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        tokio::time::sleep(world.dice.between(Duration::from_millis(10), Duration::from_millis(150))).await;
        for child in children.iter_mut().take(3) {
            child.kill()?;
            killed += 1;
        }
        for (number, child) in children.iter_mut().enumerate() {
            let status = tokio::task::block_in_place(|| child.wait())?;
            if number >= 3 && !status.success() {
                failed.push(format!("round {round}: {status}"));
            }
        }
        let (code, text) = server::run(&settings, &["migrate", "status"], "").await?;
        let is_complete = code == 0 && !text.contains("missing");
        let sql = Sql::connect(&url).await?;
        let twice = sql.number("SELECT COUNT(*) - COUNT(DISTINCT version) FROM seaql_migrations").await?;
        sql.close().await;
        if !is_complete || twice != 0 {
            failed.push(format!("round {round}: exit {code}, {text}, {twice} applied twice"));
        }
        drop(world.start(&settings).await?);
    }
    let figure =
        format!("{rounds} rounds of {PROCESSES}, {killed} killed: {} faults {}", failed.len(), failed.join("; "));
    world.promise("one migrates, the others wait, a killed one is replaced", figure, failed.is_empty());
    Ok(())
}

/// R18.
pub(super) async fn newer(world: &mut World) -> Result<()> {
    let settings = world.settings("server")?;
    drop(world.start(&settings).await?);
    let sql = world.sql().await?;
    sql.run("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_future', 1)").await?;
    let is_ready = world.start(&settings).await.is_ok();
    world.promise("a newer schema that is marked compatible is run on", format!("ready: {is_ready}"), is_ready);
    sql.run("UPDATE schema_compatibility SET oldest = 'm29991231_000001_future'").await?;
    sql.close().await;
    let (code, text) = server::run(&settings, &["serve"], "").await?;
    let is_kept = code == 78 && text.contains("m29991231_000001_future");
    world.promise(
        "a newer schema is refused in clear words",
        format!("exit {code}: {}", text.lines().last().unwrap_or_default()),
        is_kept,
    );
    Ok(())
}

/// An empty database and a folder for each round.
async fn empty(world: &World, round: usize) -> Result<(Settings, String)> {
    let url = if world.is_sqlite() {
        format!("sqlite://{}/round{round}.db?mode=rwc", world.directory().display())
    } else {
        world.cluster()?.database().await?
    };
    Ok((world.settings(&format!("round{round}"))?.with("DATABASE_URL", &url), url))
}
