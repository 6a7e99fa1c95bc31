//! R23: a flood of sign-ins, each of which costs a hash.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::times::Times;
use tokio::task::JoinSet;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::probe::{JWKS, Probe};
use crate::verdict;
use crate::world::World;

/// Memory of one hash.
const HASH: u64 = 19_456 * 1024;
const MIB: u64 = 1_048_576;

pub(super) async fn run(world: &mut World) -> Result<()> {
    let clients = world.size.clients(100, 2_000);
    let settings = world.settings("server")?.with("AUTHSERVICE__PASSWORDS__MAX_CONCURRENT", "1");
    let server = world.start(&settings).await?;
    let mut api = Api::new(server.address());
    let email = format!("alice@{DOMAIN}");
    api.must_register(&email, PASSWORD).await?;
    let mut pair = api.must_login(&email, PASSWORD).await?;
    let base = server.usage()?;
    let until = Instant::now() + world.size.seconds(5, 60);
    let mut flood = JoinSet::new();
    for number in 0..clients {
        let (address, email) = (server.address(), format!("nobody{number}@{DOMAIN}"));
        flood.spawn(async move {
            let (mut api, mut seen) = (Api::new(address), Vec::new());
            while Instant::now() < until {
                let started = Instant::now();
                let answer = api.login(&email, PASSWORD).await;
                seen.push((answer.map_or(0, |answer| answer.status), started.elapsed()));
            }
            seen
        });
    }
    let keys = Probe::start(server.address(), JWKS, Duration::from_millis(20));
    let mut refreshes = Times::default();
    while Instant::now() < until {
        let started = Instant::now();
        let answer = api.refresh(&pair.refresh).await?;
        refreshes.add(started.elapsed());
        pair = Pair::of(&answer).ok_or_else(|| format!("refresh in the flood: {}", answer.status))?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let usage = server.usage()?;
    let keys = keys.stop().await?;
    let answers: Vec<(u16, Duration)> = flood.join_all().await.into_iter().flatten().collect();

    let count = |status| answers.iter().filter(|(found, _)| *found == status).count();
    let longest = answers.iter().map(|(_, time)| *time).max().unwrap_or_default();
    let (refused, busy) = (count(401), count(503));
    let figure = format!("{} sign-ins: {refused} hashed, {busy} answers 503, longest {longest:.1?}", answers.len());
    let is_kept = refused + busy == answers.len() && busy > 0 && longest < Duration::from_secs(15);
    world.promise("a flood of sign-ins is hashed or 503", figure, is_kept);
    let grown = usage.peak_rss.saturating_sub(base.rss) / MIB;
    let figure = format!("{grown} MiB more than before, of which one hash is {}", HASH / MIB);
    world.promise("memory: one hash a place and 64 MiB at most", figure, grown <= HASH / MIB + 64);
    // A debug server has its hashes optimised and nothing else: of its speed nothing is promised.
    let bound = Duration::from_millis(if cfg!(debug_assertions) { 5_000 } else { 100 });
    for (what, times) in [("refreshes", &refreshes), ("the JWK Set", &keys.times)] {
        let p99 = times.percentile(99);
        let figure = format!("p99 {p99:.0?} of {}, median {:.1?}", times.count(), times.percentile(50));
        world.promise(&format!("{what} within {bound:?} meanwhile"), figure, p99 <= bound);
    }
    verdict::scan_logs(world)
}
