//! Model clients, many at once, and everything that they were promised.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::ledger::Breach;
use crate::wallet::{Next, Rules, Wallet};
use crate::world::World;

/// The password of every user; the logs are searched for its first word.
pub(crate) const PASSWORD: &str = "Canary!Passw0rd-7";
/// The domain of every address; the logs are searched for it.
pub(crate) const DOMAIN: &str = "chaos.example";
/// Sessions of one user.
const SESSIONS: usize = 8;

/// Everything that clients were promised.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) wallets: Vec<Wallet>,
    /// Tokens of sessions that were ended, and that was acknowledged.
    pub(crate) ended: Vec<Pair>,
    /// Users whose registration was acknowledged.
    pub(crate) registered: Vec<String>,
}

/// What clients do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Servers; each request goes to one of them.
    pub(crate) targets: Vec<SocketAddr>,
    pub(crate) rules: Rules,
    /// Between two requests of a client.
    pub(crate) pause: (Duration, Duration),
    /// Whether some clients also sign in, sign out and register.
    pub(crate) has_churn: bool,
    /// Whether each client verifies its access tokens with the published keys.
    pub(crate) is_verified: bool,
    /// How long a client waits for an answer.
    pub(crate) answer_within: Duration,
}

impl Plan {
    pub(crate) fn on(targets: &[SocketAddr]) -> Self {
        Self {
            targets: targets.to_vec(),
            rules: Rules::default(),
            pause: (Duration::from_millis(5), Duration::from_millis(60)),
            has_churn: false,
            is_verified: false,
            answer_within: Duration::from_secs(15),
        }
    }

    pub(crate) fn with_churn(self) -> Self {
        Self { has_churn: true, ..self }
    }

    pub(crate) fn verified(self) -> Self {
        Self { is_verified: true, ..self }
    }

    pub(crate) fn pausing(self, least: u64, most: u64) -> Self {
        Self { pause: (Duration::from_millis(least), Duration::from_millis(most)), ..self }
    }
}

impl Crowd {
    /// Registers users and signs so many sessions in.
    pub(crate) async fn sign_in(world: &World, address: SocketAddr, sessions: usize) -> Result<Self> {
        let mut api = Api::new(address);
        let mut crowd = Self::default();
        for number in 0..sessions {
            let email = format!("user{}@{DOMAIN}", number / SESSIONS);
            if number % SESSIONS == 0 {
                // An earlier part of the fault may have registered it.
                let answer = api.register(&email, PASSWORD).await?;
                if ![201, 409].contains(&answer.status) {
                    return Err(format!("register: {}", answer.status).into());
                }
                crowd.registered.push(email.clone());
            }
            let pair = api.must_login(&email, PASSWORD).await?;
            crowd.wallets.extend(Wallet::new(&email, pair, &world.ledger));
        }
        Ok(crowd)
    }

    /// Lets every client go its way until the load is stopped.
    pub(crate) fn go(self, world: &World, plan: &Plan) -> Load {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let client = |number: usize| Client::new(plan, world, number, stopped.clone());
        for (number, wallet) in self.wallets.into_iter().enumerate() {
            tasks.spawn(client(number).keep_refreshing(wallet));
        }
        if plan.has_churn {
            for number in 0..2 {
                tasks.spawn(client(1_000 + number).come_and_go(format!("guest{number}@{DOMAIN}")));
            }
            tasks.spawn(client(2_000).register_users());
        }
        let rest = Self { wallets: Vec::new(), ended: self.ended, registered: self.registered };
        Load { tasks, stop, rest }
    }

    /// Every live session goes on: its newest token is exchanged once more.
    pub(crate) async fn settle(&mut self, world: &World, plan: &Plan) {
        const PATIENCE: Duration = Duration::from_secs(30);
        let started = Instant::now();
        let (_keep, stopped) = watch::channel(false);
        let mut client = Client::new(plan, world, 3_000, stopped);
        for wallet in self.wallets.iter_mut().filter(|wallet| !wallet.is_lost) {
            loop {
                match client.refresh_once(wallet).await {
                    Next::Go | Next::Over => break,
                    Next::Again(_) if started.elapsed() > PATIENCE => {
                        wallet.is_lost = true;
                        world.ledger.breach(Breach::LostSession, "no answer for 30 s after the fault");
                        break;
                    }
                    Next::Again(pause) => tokio::time::sleep(pause).await,
                }
            }
        }
    }

    fn merge(&mut self, other: Self) {
        self.wallets.extend(other.wallets);
        self.ended.extend(other.ended);
        self.registered.extend(other.registered);
    }
}

/// Clients that are on their way.
pub(crate) struct Load {
    tasks: JoinSet<Crowd>,
    stop: watch::Sender<bool>,
    rest: Crowd,
}

impl Load {
    /// Lets every client finish what it is doing.
    pub(crate) async fn stop(mut self) -> Result<Crowd> {
        let _ = self.stop.send(true);
        while let Some(crowd) = self.tasks.join_next().await {
            self.rest.merge(crowd?);
        }
        Ok(self.rest)
    }
}
