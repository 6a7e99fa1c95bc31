//! R15: the signing key changes under load, for verifiers that fetch the published keys only when they must.
//!
//! The change is one of algorithm, there and back: a replica that is started with another one announces its key.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::server::Server;
use proofs::verifier::Verifier;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::ledger::Breach;
use crate::verdict;
use crate::world::World;

/// How long verifiers may keep the keys, and how long access tokens live.
const MAX_AGE: u64 = 5;
const LIFE: Duration = Duration::from_secs(10);
/// An announced key signs after twice that and a minute.
const ANNOUNCED: Duration = Duration::from_secs(2 * MAX_AGE + 60);

/// What one verifier saw.
#[derive(Debug, Default)]
struct Seen {
    verified: usize,
    failures: Vec<String>,
    fetches: usize,
    /// Tokens by the key that signed them.
    keys: BTreeMap<String, usize>,
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    if world.size.is_short {
        world.tell("not tried in the short form: a key is announced for more than a minute");
        return Ok(());
    }
    let settings = world
        .settings("one")?
        .with("AUTHSERVICE__KEYS__JWKS_MAX_AGE_SECONDS", &MAX_AGE.to_string())
        .with("AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS", &LIFE.as_secs().to_string());
    let one = world.start(&settings).await?;
    let second = settings.replica("two")?;
    let two = world.start(&second).await?;
    let addresses = [one.address(), two.address()];
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for number in 0..3 {
        let email = format!("verifier{number}@{DOMAIN}");
        let mut api = Api::new(addresses[0]);
        api.must_register(&email, PASSWORD).await?;
        let pair = api.must_login(&email, PASSWORD).await?;
        tasks.spawn(verify(addresses, number, pair, stopped.clone()));
    }
    let mut two = Some(two);
    for algorithm in ["EdDSA", "RS256"] {
        tokio::time::sleep(Duration::from_secs(2)).await;
        // One after the other: clients wait for it as after any restart.
        drop(two.take());
        two = Some(world.start(&second.clone().with("AUTHSERVICE__KEYS__ALGORITHM", algorithm)).await?);
        tokio::time::sleep(ANNOUNCED + LIFE + Duration::from_secs(5)).await;
    }
    let _ = stop.send(true);
    let mut all = Seen::default();
    for seen in tasks.join_all().await {
        let seen = seen?;
        all.verified += seen.verified;
        all.fetches += seen.fetches;
        all.failures.extend(seen.failures);
        for (key, count) in seen.keys {
            *all.keys.entry(key).or_default() += count;
        }
    }
    for failure in all.failures.iter().take(5) {
        world.ledger.breach(Breach::Invariant, failure);
    }
    let figure = format!(
        "{} verifications of tokens by {} keys, {} fetches, {} failures",
        all.verified,
        all.keys.len(),
        all.fetches,
        all.failures.len()
    );
    let is_kept = all.failures.is_empty() && all.keys.len() >= 3;
    world.promise("no token is refused by who fetches keys when max-age is over", figure, is_kept);
    drop::<(Server, Option<Server>)>((one, two));
    verdict::scan_logs(world)
}

/// Refreshes at either replica and verifies each token again and again while it lives.
async fn verify(
    addresses: [SocketAddr; 2],
    number: usize,
    first: Pair,
    stopped: watch::Receiver<bool>,
) -> Result<Seen> {
    let mut apis = addresses.map(Api::new);
    // The keys come from the replica that is never restarted.
    let mut verifier = Verifier::new(addresses[0]);
    let (mut seen, mut newest, mut living) = (Seen::default(), first, VecDeque::<(Instant, String)>::new());
    let mut turn = number;
    while !*stopped.borrow() {
        turn += 1;
        let started = Instant::now();
        if let Ok(answer) = apis[turn % 2].refresh(&newest.refresh).await
            && let Some(pair) = Pair::of(&answer)
        {
            living.push_back((started, pair.access.clone()));
            *seen.keys.entry(kid(&pair.access)).or_default() += 1;
            newest = pair;
        }
        while living.front().is_some_and(|(issued, _)| issued.elapsed() >= LIFE) {
            living.pop_front();
        }
        // The newest, and the one that is about to end.
        for (_, token) in living.iter().rev().take(1).chain(living.iter().take(1)) {
            seen.verified += 1;
            if let Err(error) = verifier.verify(token).await {
                seen.failures.push(error.to_string());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    seen.fetches = verifier.fetches;
    Ok(seen)
}

/// The head of a JWT tells its key.
fn kid(token: &str) -> String {
    token.split('.').next().unwrap_or_default().to_owned()
}
