//! R11 and R12: refreshes that race each other, and everything that ends a session, on two replicas.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

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
    let rounds = world.size.times(8, 100);
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
    let races = world.size.times(4, 200);
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
    let addresses = [replicas[0].address(), replicas[1].address()];
    let mut owner = Api::new(addresses[0]);
    owner.must_register(email, PASSWORD).await?;
    let sessions = if matches!(ender, Ender::Logout) { 1 } else { 3 };
    let mut pairs = Vec::new();
    for _ in 0..sessions {
        pairs.push(owner.must_login(email, PASSWORD).await?);
    }
    let (acknowledged, told) = watch::channel(false);
    let mut chains = JoinSet::new();
    for pair in &pairs {
        chains.spawn(chain(addresses, pair.clone(), told.clone()));
    }
    tokio::time::sleep(world.dice.between(Duration::ZERO, Duration::from_millis(40))).await;
    end(replicas[1].settings(), ender, email, &pairs[0]).await?;
    let _ = acknowledged.send(true);
    let mut refreshes = 0;
    for chain in chains.join_all().await {
        let chain = chain?;
        refreshes += chain.refreshes;
        pairs.extend([chain.newest]);
        for fault in chain.faults {
            world.ledger.breach(Breach::LostWrite, &format!("N5, {ender:?}: {fault}"));
        }
    }
    // Of the first and the newest tokens, on both replicas. Whoever is deactivated is told so.
    let is_refusal = |status| status == 401 || (status == 403 && matches!(ender, Ender::Deactivation));
    for address in addresses {
        let mut api = Api::new(address);
        for pair in pairs.iter().rev() {
            for answer in [api.refresh(&pair.refresh).await?, api.me(&pair.access).await?] {
                if !is_refusal(answer.status) {
                    world.ledger.breach(Breach::LostWrite, &format!("N5, {ender:?}: answered {}", answer.status));
                }
            }
        }
    }
    Ok(refreshes)
}

#[derive(Debug)]
struct Chain {
    newest: Pair,
    refreshes: usize,
    faults: Vec<String>,
}

/// Refreshes one session again and again, each token twice at once, until a while after its end was acknowledged.
async fn chain(addresses: [SocketAddr; 2], first: Pair, told: watch::Receiver<bool>) -> Result<Chain> {
    let [mut one, mut two] = addresses.map(Api::new);
    let mut chain = Chain { newest: first, refreshes: 0, faults: Vec::new() };
    let mut left = 3;
    while left > 0 {
        let is_late = *told.borrow();
        let token = chain.newest.refresh.clone();
        let (first, second) = tokio::join!(one.refresh(&token), two.refresh(&token));
        for answer in [first?, second?] {
            match answer.status {
                200 if is_late => {
                    chain.faults.push("a refresh sent after the acknowledgement is answered 200".to_owned());
                }
                200 => {
                    chain.newest = Pair::of(&answer).ok_or("a 200 without tokens")?;
                    chain.refreshes += 1;
                }
                401 | 503 => {}
                status => chain.faults.push(format!("answered {status}")),
            }
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
    Ok([world.start(&first).await?, world.start(&first.replica("two")?).await?])
}
