//! R15: signing keys rotate every 20 s under load, for verifiers that fetch the published keys only when they must, while a replica is
//! killed again and again.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::server::{Server, Settings};
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
/// How long a key signs, and how long it is announced before: twice what verifiers may keep.
const ROTATE_AFTER: u64 = 20;
const ANNOUNCE: u64 = 2 * MAX_AGE;
/// Between two kills of a replica.
const ALIVE: Duration = Duration::from_secs(7);

/// What one verifier saw.
#[derive(Debug, Default)]
struct Seen {
    tokens: usize,
    verified: usize,
    failures: Vec<String>,
    fetches: usize,
    /// Tokens by the key that signed them.
    keys: BTreeMap<String, usize>,
}

pub(super) async fn run(world: &mut World) -> Result<()> {
    let settings = quick(world.settings("one")?)
        .with("AUTHSERVICE__REFRESH__FORMAT", "opaque")
        .with("AUTHSERVICE__TOKENS__ACCESS_TTL_SECONDS", &LIFE.as_secs().to_string());
    let time = world.size.seconds(32, 600);
    // Three clients, 500 tokens a second in the long form.
    let pace = Duration::from_millis(if world.size.is_short { 50 } else { 6 });
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
        tasks.spawn(verify(addresses, number, pair, pace, stopped.clone()));
    }
    let (mut two, started, mut kills) = (two, Instant::now(), 0);
    while started.elapsed() + ALIVE < time {
        tokio::time::sleep(ALIVE).await;
        two.kill()?;
        kills += 1;
        two = world.start(&second).await?;
    }
    tokio::time::sleep(time.saturating_sub(started.elapsed())).await;
    let _ = stop.send(true);
    let elapsed = started.elapsed();
    let mut all = Seen::default();
    for seen in tasks.join_all().await {
        let seen = seen?;
        all.verified += seen.verified;
        all.fetches += seen.fetches;
        all.failures.extend(seen.failures);
        for (key, count) in seen.keys {
            *all.keys.entry(key).or_default() += count;
        }
        all.tokens += seen.tokens;
    }
    for failure in all.failures.iter().take(5) {
        world.ledger.breach(Breach::Unverified, failure);
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = all.tokens as f64 / elapsed.as_secs_f64();
    let figure = format!(
        "{} tokens ({rate:.0}/s) by {} keys, {} verifications, {} fetches, {kills} kills, {} failures",
        all.tokens,
        all.keys.len(),
        all.verified,
        all.fetches,
        all.failures.len()
    );
    let least = usize::try_from(time.as_secs() / (ROTATE_AFTER + 6))?;
    let is_kept = all.failures.is_empty() && all.keys.len() > least;
    world.promise("no token is refused by who fetches keys when max-age is over", figure, is_kept);
    drop::<(Server, Server)>((one, two));
    verdict::scan_logs(world)
}

/// With keys that are succeeded within a run.
pub(super) fn quick(settings: Settings) -> Settings {
    settings
        .with("AUTHSERVICE__KEYS__JWKS_MAX_AGE_SECONDS", &MAX_AGE.to_string())
        .with("AUTHSERVICE__KEYS__ROTATE_AFTER_SECONDS", &ROTATE_AFTER.to_string())
        .with("AUTHSERVICE__KEYS__ANNOUNCE_SECONDS", &ANNOUNCE.to_string())
}

/// Refreshes at either replica and verifies each token again and again while it lives.
async fn verify(
    addresses: [SocketAddr; 2],
    number: usize,
    first: Pair,
    pace: Duration,
    stopped: watch::Receiver<bool>,
) -> Result<Seen> {
    let mut apis = addresses.map(Api::new);
    // The keys come from the replica that is never killed.
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
            seen.tokens += 1;
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
        tokio::time::sleep(pace.saturating_sub(started.elapsed())).await;
    }
    seen.fetches = verifier.fetches;
    Ok(seen)
}

/// The head of a JWT tells its key.
fn kid(token: &str) -> String {
    token.split('.').next().unwrap_or_default().to_owned()
}
