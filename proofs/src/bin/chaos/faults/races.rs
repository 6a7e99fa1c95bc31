//! R11 and R12: refreshes that race each other, and everything that ends a session, on two replicas.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair, generation};
use proofs::server::{self, Server, Settings};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::crowd::{DOMAIN, PASSWORD};
use crate::ledger::Breach;
use crate::verdict::{self, Snapshot};
use crate::world::World;

/// R11: however many use one token at once, it is exchanged once.
pub(super) async fn parallel(world: &mut World) -> Result<()> {
    const PARALLEL: usize = 64;
    let rounds = world.size.times(15, 100);
    let replicas = two(world).await?;
    let mut owner = Api::new(replicas[0].address());
    let email = format!("alice@{DOMAIN}");
    owner.must_register(&email, PASSWORD).await?;
    let mut newest = owner.must_login(&email, PASSWORD).await?.refresh;
    let mut apis: Vec<Api> = (0..PARALLEL).map(|index| Api::new(replicas[index % 2].address())).collect();
    let (mut same, mut again) = (0, 0);
    for round in 1..=rounds {
        let mut tasks = JoinSet::new();
        for mut api in apis.drain(..) {
            let token = newest.clone();
            tasks.spawn(async move {
                let answer = api.refresh(&token).await;
                (api, answer)
            });
        }
        let mut successors = HashSet::new();
        for (api, answer) in tasks.join_all().await {
            apis.push(api);
            match answer {
                Ok(answer) if answer.status == 200 => {
                    same += 1;
                    successors.extend(Pair::of(&answer).map(|pair| pair.refresh));
                }
                Ok(answer) if answer.status == 503 => again += 1,
                Ok(answer) => {
                    world.ledger.breach(Breach::ForbiddenAnswer, &format!("{} {}", answer.status, answer.code()));
                }
                Err(trouble) => world.ledger.breach(Breach::ForbiddenAnswer, &trouble.to_string()),
            }
        }
        if successors.len() != 1 {
            world.ledger.breach(Breach::Fork, &format!("round {round}: {} successors", successors.len()));
        }
        newest = successors.into_iter().next().ok_or("nobody got a successor")?;
        let (family, number) = generation(&newest).ok_or("a token without a generation")?;
        if usize::try_from(number)? != round {
            world.ledger.breach(Breach::Fork, &format!("family {family}: generation {number} after {round} rounds"));
        }
    }
    verdict::check_rows(world, &mut Snapshot::default()).await?;
    let figure = format!(
        "{rounds} rounds of {PARALLEL}: {same} answers with the one successor, {again} answers 503; {}",
        world.ledger.summary()
    );
    world.promise("one step a round, one successor for all", figure, world.ledger.breaches() == 0 && same > 0);
    Ok(())
}

/// What ends sessions.
#[derive(Debug, Clone, Copy)]
enum Ender {
    Logout,
    LogoutAll,
    Password,
    Deactivation,
}

/// R12: after the acknowledgement of an end no token of the session works.
pub(super) async fn ends(world: &mut World) -> Result<()> {
    let races = world.size.times(6, 200);
    let replicas = two(world).await?;
    for ender in [Ender::Logout, Ender::LogoutAll, Ender::Password, Ender::Deactivation] {
        let breaches = world.ledger.breaches();
        let mut refreshes = 0;
        for number in 0..races {
            let email = format!("{ender:?}{number}@{DOMAIN}").to_lowercase();
            refreshes += race(world, &replicas, ender, &email).await?;
        }
        let broken = world.ledger.breaches() - breaches;
        let figure = format!("{races} races against {refreshes} refreshes: {broken} violations");
        world.promise(&format!("nothing works after an acknowledged {ender:?}"), figure, broken == 0);
    }
    verdict::check_rows(world, &mut Snapshot::default()).await?;
    verdict::scan_logs(world)?;
    world.promise("rows and logs are in order", world.ledger.summary(), world.ledger.breaches() == 0);
    Ok(())
}

async fn race(world: &mut World, replicas: &[Server; 2], ender: Ender, email: &str) -> Result<usize> {
    const CHAINS: usize = 4;
    let addresses = [replicas[0].address(), replicas[1].address()];
    let mut owner = Api::new(addresses[0]);
    owner.must_register(email, PASSWORD).await?;
    let pair = owner.must_login(email, PASSWORD).await?;
    let (acknowledged, told) = watch::channel(None);
    let mut chains = JoinSet::new();
    for number in 0..CHAINS {
        chains.spawn(chain(addresses[number % 2], pair.clone(), told.clone()));
    }
    tokio::time::sleep(world.dice.between(Duration::ZERO, Duration::from_millis(40))).await;
    end(replicas[1].settings(), ender, email, &pair).await?;
    let _ = acknowledged.send(Some(Instant::now()));
    let (mut refreshes, mut pairs) = (0, vec![pair]);
    for chain in chains.join_all().await {
        let chain = chain?;
        refreshes += chain.pairs.len();
        pairs.extend(chain.pairs);
        for fault in chain.faults {
            world.ledger.breach(Breach::LostWrite, &format!("N5, {ender:?}: {fault}"));
        }
    }
    // Of every token that was ever given, on both replicas; the newest last, so that none is only theft.
    pairs.sort_by_key(|pair| std::cmp::Reverse(generation(&pair.refresh).map(|(_, generation)| generation)));
    let refused = if matches!(ender, Ender::Deactivation) { [401, 403] } else { [401, 401] };
    for address in addresses {
        let mut api = Api::new(address);
        for pair in pairs.iter().take(6) {
            for answer in [api.refresh(&pair.refresh).await?, api.me(&pair.access).await?] {
                if !refused.contains(&answer.status) {
                    world.ledger.breach(Breach::LostWrite, &format!("N5, {ender:?}: answered {}", answer.status));
                }
            }
        }
    }
    Ok(refreshes)
}

#[derive(Debug, Default)]
struct Chain {
    pairs: Vec<Pair>,
    faults: Vec<String>,
}

/// Refreshes again and again, with whatever token it got last, until it is refused.
async fn chain(address: SocketAddr, first: Pair, told: watch::Receiver<Option<Instant>>) -> Result<Chain> {
    let (mut api, mut chain, mut newest) = (Api::new(address), Chain::default(), first.refresh);
    let is_acknowledged = || told.borrow().is_some();
    // A few more after the end, in case one works.
    let mut left = 3;
    while left > 0 {
        let is_late = is_acknowledged();
        let answer = api.refresh(&newest).await?;
        match answer.status {
            200 if is_late => {
                chain.faults.push("a refresh that was sent after the acknowledgement is answered 200".to_owned());
            }
            200 => {
                let pair = Pair::of(&answer).ok_or("a 200 without tokens")?;
                newest.clone_from(&pair.refresh);
                chain.pairs.push(pair);
            }
            401 | 503 => tokio::time::sleep(Duration::from_millis(5)).await,
            status => chain.faults.push(format!("answered {status}")),
        }
        if is_late {
            left -= 1;
        }
    }
    Ok(chain)
}

/// Ends the sessions as their owner or an operator would; returns when that is acknowledged.
async fn end(settings: &Settings, ender: Ender, email: &str, pair: &Pair) -> Result<()> {
    let mut api = Api::new(settings.address());
    let status = match ender {
        Ender::Logout => api.logout(&pair.refresh).await?.status,
        Ender::LogoutAll => api.logout_all(&pair.access).await?.status,
        Ender::Password => return operate(settings, &["users", "set-password", email], "An0ther!Passw0rd\n").await,
        Ender::Deactivation => return operate(settings, &["users", "deactivate", email], "").await,
    };
    if status == 204 { Ok(()) } else { Err(format!("{ender:?}: answered {status}").into()) }
}

async fn operate(settings: &Settings, arguments: &[&str], input: &str) -> Result<()> {
    let (code, text) = server::run(settings, arguments, input).await?;
    if code == 0 { Ok(()) } else { Err(format!("{}: exit {code}: {text}", arguments.join(" ")).into()) }
}

async fn two(world: &World) -> Result<[Server; 2]> {
    let first = world.settings("one")?;
    Ok([Server::start(&first).await?, Server::start(&first.replica("two")?).await?])
}
