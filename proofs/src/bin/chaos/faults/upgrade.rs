//! R39: under load from an older build to today's, and back on the newer schema.
//!
//! `docs/decisions/0016-rolling-back-a-release.md` says which older build may run on a newer schema, and which one must refuse it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::server::{self, Server, Settings};

use super::rotation;
use crate::crowd::{Crowd, Load, Plan};
use crate::fleet::{Fleet, REPLICAS};
use crate::ledger::Breach;
use crate::refusal::{CONFIGURATION, Start};
use crate::verdict;
use crate::world::World;

/// How long servers go on under load before and after a change.
pub(super) const MIXED: Duration = Duration::from_secs(3);
/// One server alone drains, ends and starts; nobody serves meanwhile.
const GAP: Duration = Duration::from_secs(20);

/// The build of an earlier release.
struct Older {
    binary: PathBuf,
    /// Variables that it does not know, and would refuse.
    unknown: Vec<String>,
}

impl Older {
    /// The program that `OLD_BIN` names.
    async fn find(settings: &Settings) -> Result<Option<Self>> {
        let Some(binary) = std::env::var_os("OLD_BIN").map(PathBuf::from) else { return Ok(None) };
        let mut older = Self { binary: std::path::absolute(&binary)?, unknown: Vec::new() };
        let (code, text) = server::run(&settings.clone().of_build(&older.binary), &["config", "check"], "").await?;
        let unknown = text.lines().filter_map(|line| line.trim().strip_suffix(": unknown setting"));
        older.unknown = unknown.map(str::to_owned).collect();
        if code != 0 {
            let (code, text) = server::run(&older.run(settings), &["config", "check"], "").await?;
            if code != 0 {
                return Err(format!("{}: {text}", binary.display()).into());
            }
        }
        Ok(Some(older))
    }

    /// The same server as this build.
    fn run(&self, settings: &Settings) -> Settings {
        let settings = settings.clone().of_build(&self.binary);
        self.unknown.iter().fold(settings, |settings, name| settings.without(name))
    }
}

/// What the older build knows of the schema, and today's build has added.
struct Schema {
    added: Vec<String>,
    /// Whether the older build may run on it.
    goes_back: bool,
    took: Duration,
}

impl Schema {
    /// Applies what is missing with today's build, while the older one serves.
    async fn migrate(world: &World, today: &Settings) -> Result<Self> {
        let known = migrations(world).await?;
        let started = Instant::now();
        let (code, text) = server::run(today, &["migrate", "up"], "").await?;
        let took = started.elapsed();
        if code != 0 {
            return Err(format!("migrate up: exit {code}: {text}").into());
        }
        let added: Vec<String> = migrations(world).await?.into_iter().filter(|name| !known.contains(name)).collect();
        let sql = world.sql().await?;
        let oldest = sql.rows("SELECT oldest FROM schema_compatibility").await?.concat().concat();
        sql.close().await;
        let goes_back = added.is_empty() || known.contains(&oldest);
        Ok(Self { added, goes_back, took })
    }

    fn figure(&self) -> String {
        let added = if self.added.is_empty() { "no migration".to_owned() } else { self.added.join(", ") };
        format!("{added} in {:.1?}", self.took)
    }
}

async fn migrations(world: &World) -> Result<Vec<String>> {
    let sql = world.sql().await?;
    let names = sql.rows("SELECT version FROM seaql_migrations ORDER BY version").await?.concat();
    sql.close().await;
    Ok(names)
}

/// A part of a run, and what clients did and lost in it.
pub(super) struct Leg {
    started: Instant,
    served: u64,
    failed: u64,
}

impl Leg {
    pub(super) fn begin(world: &World) -> Self {
        Self { started: Instant::now(), served: world.ledger.served(), failed: world.ledger.failed() }
    }

    /// Adds its row.
    pub(super) fn end(self, world: &mut World, promise: &str, what: &str) {
        let (served, failed) = (world.ledger.served() - self.served, world.ledger.failed() - self.failed);
        let figure = format!("{what}; {served} requests and churn in {:.0?}, {failed} failed", self.started.elapsed());
        if failed > 0 {
            world.tell(format!("the first answers that did not come: {}", world.ledger.first_lost()));
        }
        world.promise(promise, figure, failed == 0 && served > 0);
    }
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    let [one, ..] = Fleet::settings(world)?.map(rotation::quick);
    let Some(older) = Older::find(&one).await? else {
        world.leave_out("there is no older build (OLD_BIN names one, `./scripts/chaos.sh old REF` makes one)");
        return Ok(());
    };
    if !older.unknown.is_empty() {
        world.tell(format!("the older build does not know, and is not given, {}", older.unknown.join(", ")));
    }
    if world.is_sqlite() { alone(world, &older).await } else { rolling(world, &older).await }
}

/// Three replicas, replaced one by one.
async fn rolling(world: &mut World, older: &Older) -> Result<()> {
    let today = Fleet::settings(world)?.map(rotation::quick);
    let old = today.each_ref().map(|settings| older.run(settings));
    let mut fleet = Fleet::start(world, &old).await?;
    let (plan, load) = load(world, &fleet).await?;

    let leg = Leg::begin(world);
    tokio::time::sleep(MIXED).await;
    let schema = Schema::migrate(world, &today[0]).await?;
    tokio::time::sleep(MIXED).await;
    roll(world, &mut fleet, &today).await?;
    leg.end(world, "no request fails during the upgrade", &schema.figure());

    if schema.goes_back {
        for _ in 0..world.size.times(1, 3) {
            let leg = Leg::begin(world);
            roll(world, &mut fleet, &old).await?;
            leg.end(world, "no request fails during the rollback, on the newer schema", "3 replicas");
            let leg = Leg::begin(world);
            roll(world, &mut fleet, &today).await?;
            leg.end(world, "no request fails during the upgrade after a rollback", "3 replicas");
        }
    } else {
        let leg = Leg::begin(world);
        fleet.end(0).await?;
        refused(world, &old[0], &schema).await?;
        fleet.begin(world, 0, &today[0]).await?;
        leg.end(world, "no request fails while the rollback is refused", "1 replica");
    }
    finish(world, &fleet, load, &plan).await
}

/// Clients of a fleet.
pub(super) async fn load(world: &World, fleet: &Fleet) -> Result<(Plan, Load)> {
    let plan = Plan::on(&[fleet.address]).with_churn().verified();
    let crowd = Crowd::sign_in(world, fleet.address, world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    Ok((plan, load))
}

pub(super) async fn roll(world: &World, fleet: &mut Fleet, settings: &[Settings; REPLICAS]) -> Result<()> {
    for (number, settings) in settings.iter().enumerate() {
        fleet.replace(world, number, settings).await?;
    }
    Ok(())
}

pub(super) async fn finish(world: &mut World, fleet: &Fleet, load: Load, plan: &Plan) -> Result<()> {
    let crowd = load.stop().await?;
    let figure = format!("{} ended, {:.1?} after SIGTERM at most", fleet.exits.count(), fleet.exits.longest());
    world.promise("every replica ends with 0", figure, fleet.all_ended_well);
    verified(world).await?;
    verdict::check(world, crowd, plan).await
}

pub(super) async fn verified(world: &mut World) -> Result<()> {
    let sql = world.sql().await?;
    let keys = sql.number("SELECT COUNT(*) FROM signing_keys").await?;
    sql.close().await;
    let (verified, unverified) = (world.ledger.counted("verified"), world.ledger.breaches_of(Breach::Unverified));
    let figure = format!("{verified} verifications, {keys} keys, {unverified} failures");
    world.promise("every access token verifies with the published keys", figure, verified > 0 && unverified == 0);
    Ok(())
}

/// A build that may not run on the schema says which migration it lacks.
async fn refused(world: &mut World, old: &Settings, schema: &Schema) -> Result<()> {
    let start = Start::of(&old.replica("refused")?).await?;
    let is_named = schema.added.iter().any(|name| start.text.contains(name));
    let code = start.code.map_or_else(|| "it runs".to_owned(), |code| format!("exit {code}"));
    let figure = format!("{code}: {}", start.text.lines().last().unwrap_or_default());
    let is_kept = start.code == Some(CONFIGURATION) && is_named;
    world.promise("an older build that may not run says why", figure, is_kept);
    Ok(())
}

/// One server on SQLite: the old one ends, the new one starts.
async fn alone(world: &mut World, older: &Older) -> Result<()> {
    // Nobody takes over, so there is nothing to drain for.
    let today = rotation::quick(world.settings("one")?).with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "0");
    let old = older.run(&today);
    let mut server = world.start(&old).await?;
    let plan = Plan::on(&[server.address()]).with_churn().verified();
    let crowd = Crowd::sign_in(world, server.address(), world.size.clients(24, 48)).await?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(MIXED).await;

    let told = end(&mut server).await?;
    let schema = Schema::migrate(world, &today).await?;
    server = world.start(&today).await?;
    gap(world, "the upgrade", told, &schema.figure());
    tokio::time::sleep(MIXED).await;

    let told = end(&mut server).await?;
    if schema.goes_back {
        server = world.start(&old).await?;
        gap(world, "the rollback, on the newer schema", told, "older build");
        tokio::time::sleep(MIXED).await;
        let told = end(&mut server).await?;
        server = world.start(&today).await?;
        gap(world, "the upgrade after a rollback", told, "today's build");
    } else {
        refused(world, &old, &schema).await?;
        server = world.start(&today).await?;
        gap(world, "a rollback that is refused", told, "today's build again");
    }
    tokio::time::sleep(MIXED).await;
    let crowd = load.stop().await?;
    verified(world).await?;
    verdict::check(world, crowd, &plan).await?;
    drop(server);
    Ok(())
}

/// Tells a server to end, and returns when that was.
pub(super) async fn end(server: &mut Server) -> Result<Instant> {
    let told = Instant::now();
    server.signal("TERM")?;
    match server.ended_within(GAP).await?.and_then(|status| status.code()) {
        Some(0) => Ok(told),
        other => Err(format!("the server ended with {other:?} after SIGTERM").into()),
    }
}

pub(super) fn gap(world: &mut World, when: &str, told: Instant, what: &str) {
    let gap = told.elapsed();
    world.promise(&format!("{when}: serves again within 20 s"), format!("{what}; {gap:.1?} after SIGTERM"), gap < GAP);
}
