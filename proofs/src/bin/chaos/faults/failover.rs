//! R04: the primary dies under load and its standby takes over: with and without synchronous replication, and for each way in which
//! the servers may find the new primary.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::postgres::Cluster;
use proofs::proxy::{Mode, Proxy};
use proofs::server::Server;
use proofs::sql::Sql;
use proofs::times::Times;

use crate::crowd::{Crowd, DOMAIN, PASSWORD, Plan};
use crate::probe::{READY, wait_for};
use crate::verdict;
use crate::world::World;

/// The service is back within this time after the promotion; in continuous integration, on a machine that does other things too,
/// within twice that.
const BACK: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(40);

/// How the servers find the primary, and how the old one goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The URL names both hosts; the old one refuses connections.
    Hosts,
    /// The URL names both hosts; the old one's network swallows packets, so that no connection ends.
    Silence,
    /// The URL names one address, which leads to the new primary after the promotion.
    Address,
    /// The same, and the old primary lives on as a standby that only reads: its connections stay.
    Demoted,
}

/// A primary, its standby, and networks before the primary: one for servers, one for the standby.
struct Couple {
    primary: Cluster,
    standby: Cluster,
    front: Proxy,
    wire: Proxy,
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    let ways: &[Way] =
        if world.size.is_short { &[Way::Hosts] } else { &[Way::Hosts, Way::Silence, Way::Address, Way::Demoted] };
    for way in ways {
        world.new_ledger();
        synchronous(world, *way).await?;
    }
    asynchronous(world).await
}

/// Starts both; `name` keeps rounds apart. The world's database is the one that is proved on from now on.
async fn start(world: &mut World, name: &str) -> Result<Couple> {
    let folder = world.directory().join(name);
    std::fs::create_dir_all(&folder)?;
    std::fs::set_permissions(world.directory(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let primary = Cluster::start(&folder.join("primary"), "")?;
    let at: SocketAddr = ([127, 0, 0, 1], primary.port).into();
    let (front, wire) = (Proxy::start(&[at]).await?, Proxy::start(&[at]).await?);
    let standby = primary.standby(&folder.join("standby"), wire.address.port())?;
    world.url = primary.database().await?;
    Ok(Couple { primary, standby, front, wire })
}

impl Couple {
    /// What the servers are given.
    fn url(&self, world: &World, way: Way) -> String {
        let own = format!("127.0.0.1:{}", self.primary.port);
        let (front, standby) = (self.front.address, format!("127.0.0.1:{}", self.standby.port));
        let hosts = match way {
            Way::Hosts => format!("{own},{standby}"),
            Way::Silence => format!("{front},{standby}"),
            Way::Address | Way::Demoted => front.to_string(),
        };
        world.url.replace(&own, &hosts)
    }

    /// Every commit waits for the standby from now on.
    async fn synchronize(&self, world: &World) -> Result<()> {
        let sql = world.sql().await?;
        sql.run("ALTER SYSTEM SET synchronous_standby_names = '*'").await?;
        sql.run("SELECT pg_reload_conf()").await?;
        let started = Instant::now();
        while sql.number("SELECT COUNT(*) FROM pg_stat_replication WHERE sync_state = 'sync'").await? == 0 {
            if started.elapsed() > PATIENCE {
                return Err("the standby does not become synchronous".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sql.close().await;
        Ok(())
    }

    /// The world's database is the standby's from now on.
    fn hand_over(&self, world: &mut World) {
        world.url = world.url.replace(&format!(":{}/", self.primary.port), &format!(":{}/", self.standby.port));
    }
}

/// With a synchronous standby nothing acknowledged is lost, and the service is back soon.
async fn synchronous(world: &mut World, way: Way) -> Result<()> {
    let pair = start(world, &format!("{way:?}").to_lowercase()).await?;
    let first = world.settings(&format!("{way:?}-one"))?.with("DATABASE_URL", &pair.url(world, way));
    let mut servers = vec![world.start(&first).await?];
    for name in ["two", "three"] {
        servers.push(world.start(&first.replica(&format!("{way:?}-{name}"))?).await?);
    }
    pair.synchronize(world).await?;
    let addresses: Vec<SocketAddr> = servers.iter().map(Server::address).collect();
    let plan = Plan::on(&addresses).with_churn();
    let crowd = Crowd::sign_in(world, addresses[0], world.size.clients(16, 48)).await?;
    let load = crowd.go(world, &plan);
    tokio::time::sleep(world.size.seconds(2, 10)).await;

    if way == Way::Silence {
        pair.front.set(Mode::Blackhole);
    }
    if way != Way::Demoted {
        pair.primary.crash()?;
    }
    let promoted = Instant::now();
    pair.standby.promote()?;
    let promotion = promoted.elapsed();
    if way == Way::Demoted {
        // It waits for a standby that is gone, and then reads only, as a manager of failovers would have it.
        let sql = world.sql().await?;
        sql.run("ALTER SYSTEM SET default_transaction_read_only = on").await?;
        sql.run("SELECT pg_reload_conf()").await?;
        sql.close().await;
    }
    pair.front.send_to(&[([127, 0, 0, 1], pair.standby.port).into()]);
    pair.hand_over(world);
    let mut back = Times::default();
    for address in &addresses {
        wait_for(*address, READY, 200, PATIENCE).await?;
        back.add(promoted.elapsed());
    }
    let before = served(world);
    while served(world) < before + 3 * 16 && promoted.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    back.add(promoted.elapsed());
    tokio::time::sleep(world.size.seconds(1, 5)).await;
    let crowd = load.stop().await?;
    let (back, refused) = (back.longest(), world.ledger.counted("answers 503"));
    let figure = format!(
        "{way:?}: promotion took {promotion:.1?}, three replicas serve {back:.1?} after its begin; {refused} answers 503"
    );
    let bound = if world.size.is_short { 2 * BACK } else { BACK };
    world.promise(&format!("the service is back within {bound:?} after the promotion"), figure, back <= bound);
    verdict::check(world, crowd, &plan).await
}

fn served(world: &World) -> u64 {
    world.ledger.counted("rotations") + world.ledger.counted("recovered")
}

/// Without one, what the standby has not received is lost: those sessions end and are noted, the others go on.
async fn asynchronous(world: &mut World) -> Result<()> {
    world.new_ledger();
    let pair = start(world, "asynchronous").await?;
    let settings = world.settings("asynchronous")?.with("DATABASE_URL", &pair.url(world, Way::Hosts));
    let server = world.start(&settings).await?;
    let (mut api, email) = (Api::new(server.address()), format!("late@{DOMAIN}"));
    api.must_register(&email, PASSWORD).await?;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        sessions.push(api.must_login(&email, PASSWORD).await?);
    }
    received(world).await?;
    pair.wire.set(Mode::Blackhole);
    for session in sessions.iter_mut().take(4) {
        *session = must_refresh(&mut api, session).await?;
    }
    let newest = api.must_login(&email, PASSWORD).await?;
    pair.primary.crash()?;
    pair.wire.cut();
    pair.standby.promote()?;
    pair.hand_over(world);
    wait_for(server.address(), READY, 200, PATIENCE).await?;

    let mut codes = Vec::new();
    for session in sessions.iter().chain([&newest]) {
        let answer = api.refresh(&session.refresh).await?;
        codes.push(if answer.status == 200 { "200".to_owned() } else { answer.code() });
    }
    let is_refused = |codes: &[String]| codes.iter().all(|code| code == "refresh_reuse_detected");
    let is_kept = is_refused(&codes[..4]) && codes[4..10].iter().all(|code| code == "200") && is_refused(&codes[10..]);
    let sql = world.sql().await?;
    let noted = sql.number("SELECT COUNT(*) FROM audit_events WHERE event = 'refresh_from_the_future'").await?;
    let ended = sql.number("SELECT COUNT(*) FROM refresh_tokens WHERE revoked_reason = 'FUTURE_TOKEN'").await?;
    sql.close().await;
    let lost = codes.iter().filter(|code| *code != "200").count();
    let figure = format!(
        "4 of 10 sessions refreshed and 1 opened while nothing reached the standby: {lost} of 11 lost, {noted} noted, {ended} ended"
    );
    let is_kept = is_kept && noted == 4 && ended == 4;
    world.promise("asynchronous: only what was acknowledged last is lost, and it is noticed", figure, is_kept);
    verdict::scan_logs(world)
}

/// Waits until the standby has everything.
async fn received(world: &World) -> Result<()> {
    let sql: Sql = world.sql().await?;
    let started = Instant::now();
    while sql.number("SELECT COUNT(*) FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_flush_lsn()").await?
        == 0
    {
        if started.elapsed() > PATIENCE {
            return Err("the standby does not follow".into());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sql.close().await;
    Ok(())
}

async fn must_refresh(api: &mut Api, pair: &Pair) -> Result<Pair> {
    let answer = api.refresh(&pair.refresh).await?;
    Pair::of(&answer).ok_or_else(|| format!("refresh: {}", answer.status).into())
}
