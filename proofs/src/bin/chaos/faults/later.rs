//! R40: a release that is still to come migrates under today's servers, in the way that the migrator does it, and is rolled back: they
//! start anew on a schema that they do not know.

use std::time::Instant;

use proofs::Result;
use proofs::times::Times;
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DatabaseTransaction, DbErr};

use super::upgrade::{Leg, MIXED, end, finish, gap, load, roll, verified};
use crate::crowd::{Crowd, Plan};
use crate::fleet::{Fleet, REPLICAS};
use crate::verdict;
use crate::world::World;

/// What requests write: a migration may add columns to each and be called compatible.
const TABLES: [&str; 6] = ["users", "auth_sessions", "refresh_tokens", "signing_keys", "audit_events", "rate_limits"];

pub(super) async fn run(world: &mut World) -> Result<()> {
    if world.is_sqlite() { alone(world).await } else { rolling(world).await }
}

/// Three replicas, restarted one by one on the newer schema.
async fn rolling(world: &mut World) -> Result<()> {
    let settings = Fleet::settings(world)?;
    let mut fleet = Fleet::start(world, &settings).await?;
    let (plan, load) = load(world, &fleet).await?;
    let leg = Leg::begin(world);
    tokio::time::sleep(MIXED).await;
    let figure = migrate(world).await?;
    leg.end(world, "no request fails while a later release migrates", &figure);
    let leg = Leg::begin(world);
    roll(world, &mut fleet, &settings).await?;
    let figure = format!("{REPLICAS} replicas");
    leg.end(world, "no request fails during the rollback, on the newer schema", &figure);
    finish(world, &fleet, load, &plan).await
}

/// One server on SQLite.
async fn alone(world: &mut World) -> Result<()> {
    let settings = world.settings("one")?.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "0");
    let mut server = world.start(&settings).await?;
    let plan = Plan::on(&[server.address()]).with_churn().verified();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    let leg = Leg::begin(world);
    tokio::time::sleep(MIXED).await;
    let figure = migrate(world).await?;
    leg.end(world, "no request fails while a later release migrates", &figure);
    let told = end(&mut server).await?;
    server = world.start(&settings).await?;
    gap(world, "the rollback, on the newer schema", told, "today's build");
    tokio::time::sleep(MIXED).await;
    let crowd = load.stop().await?;
    verified(world).await?;
    verdict::check(world, crowd, &plan).await?;
    drop(server);
    Ok(())
}

/// Migrates so often, each time as one release would. Returns how long that took.
async fn migrate(world: &World) -> Result<String> {
    let mut options = ConnectOptions::new(&world.url);
    options.max_connections(1).sqlx_logging(false);
    let db = Database::connect(options).await?;
    let mut times = Times::default();
    for number in 1..=world.size.times(1, 20) {
        let started = Instant::now();
        change(&db, number).await?;
        times.add(started.elapsed());
        tokio::time::sleep(MIXED).await;
    }
    db.close().await?;
    let figure =
        format!("{} tables altered, {} times, in {:.1?} at most", TABLES.len(), times.count(), times.longest());
    Ok(figure)
}

/// What a later release may do to the schema without asking today's, done as `migration::up` does it.
async fn change(db: &DatabaseConnection, number: usize) -> Result<()> {
    let attempts = migration::Attempts::default();
    loop {
        let tx = attempts.begin(db).await?;
        match add(&tx, number).await {
            Ok(()) => return Ok(tx.commit().await?),
            Err(error) => attempts.give_way(tx, error.into()).await?,
        }
    }
}

async fn add(tx: &DatabaseTransaction, number: usize) -> Result<(), DbErr> {
    tx.execute_unprepared(&format!("CREATE TABLE later{number} (id integer PRIMARY KEY)")).await?;
    for table in TABLES {
        let column = format!("later{number} varchar(9) NOT NULL DEFAULT 'later'");
        tx.execute_unprepared(&format!("ALTER TABLE {table} ADD COLUMN {column}")).await?;
    }
    let name = format!("m29991231_{number:06}_later");
    tx.execute_unprepared(&format!("INSERT INTO seaql_migrations (version, applied_at) VALUES ('{name}', 0)")).await?;
    Ok(())
}
