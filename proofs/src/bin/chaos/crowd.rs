//! Model clients: each keeps refreshing its session, and sends the same token again when an answer is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::client::{Answer, Trouble};
use proofs::dice::Dice;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ledger::{Breach, Ledger};
use crate::wallet::{Next, Rules, Wallet, trouble_answer};
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
            answer_within: Duration::from_secs(15),
        }
    }

    pub(crate) fn with_churn(self) -> Self {
        Self { has_churn: true, ..self }
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

struct Client {
    apis: Vec<Api>,
    twins: Vec<Api>,
    dice: Dice,
    plan: Plan,
    ledger: Arc<Ledger>,
    stopped: watch::Receiver<bool>,
}

impl Client {
    fn new(plan: &Plan, world: &World, number: usize, stopped: watch::Receiver<bool>) -> Self {
        let apis = || {
            let targets = plan.targets.iter();
            let patient = |address: &SocketAddr| {
                let mut api = Api::new(*address);
                api.client = api.client.answer_within(plan.answer_within);
                api
            };
            targets.map(patient).collect()
        };
        let dice = world.dice.part(number as u64 + 1);
        Self { apis: apis(), twins: apis(), dice, plan: plan.clone(), ledger: Arc::clone(&world.ledger), stopped }
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    fn api(&mut self) -> &mut Api {
        let index = self.dice.roll(self.apis.len());
        &mut self.apis[index]
    }

    async fn pause(&mut self) {
        let (least, most) = self.plan.pause;
        tokio::time::sleep(self.dice.between(least, most)).await;
    }

    async fn back_off(&mut self, most: Duration) {
        // At least a little, so that a server that is down is not asked in a loop.
        tokio::time::sleep(self.dice.between(Duration::from_millis(20), most)).await;
    }

    async fn keep_refreshing(mut self, mut wallet: Wallet) -> Crowd {
        while !self.is_stopped() && !wallet.is_lost {
            let next = match self.dice.roll(20) {
                0 | 1 => self.ask(&wallet).await,
                2 => self.refresh_twice_at_once(&mut wallet).await,
                _ => self.refresh_once(&mut wallet).await,
            };
            match next {
                Next::Go => self.pause().await,
                Next::Again(most) => self.back_off(most).await,
                Next::Over => break,
            }
        }
        Crowd { wallets: vec![wallet], ..Crowd::default() }
    }

    async fn refresh_once(&mut self, wallet: &mut Wallet) -> Next {
        let sent = wallet.pair.refresh.clone();
        let started = Instant::now();
        let result = self.api().refresh(&sent).await;
        if !matches!(result, Err(Trouble::Connect(_))) {
            self.ledger.answered(started.elapsed());
        }
        wallet.judge(&sent, &result, self.plan.rules, &self.ledger)
    }

    /// Two tabs.
    async fn refresh_twice_at_once(&mut self, wallet: &mut Wallet) -> Next {
        let sent = wallet.pair.refresh.clone();
        let (one, two) = (self.dice.roll(self.apis.len()), self.dice.roll(self.twins.len()));
        let (first, second) = tokio::join!(self.apis[one].refresh(&sent), self.twins[two].refresh(&sent));
        let nexts = [first, second].map(|result| wallet.judge(&sent, &result, self.plan.rules, &self.ledger));
        let is_fine = |next: &Next| *next == Next::Go;
        if wallet.is_lost { Next::Over } else { nexts.into_iter().find(is_fine).unwrap_or(nexts[0]) }
    }

    async fn ask(&mut self, wallet: &Wallet) -> Next {
        let result = self.api().me(&wallet.pair.access).await;
        match result {
            Ok(answer) if answer.status == 200 => {
                if answer.json()["email"] != wallet.email.as_str() {
                    self.ledger.breach(Breach::WrongShape, "`me` is somebody else");
                }
                self.ledger.count("me");
                Next::Go
            }
            Ok(answer) => self.answered_otherwise("me", &answer),
            Err(_) => self.unanswered(),
        }
    }

    /// What any operation may answer when it does not do what was asked.
    fn answered_otherwise(&self, what: &str, answer: &Answer) -> Next {
        match answer.status {
            503 => trouble_answer(answer, "answers 503", &self.ledger),
            429 if self.plan.rules.has_limits => trouble_answer(answer, "answers 429", &self.ledger),
            401 => {
                self.ledger.breach(Breach::LostSession, &format!("{what}: {}", answer.code()));
                Next::Go
            }
            status => {
                let text = String::from_utf8_lossy(&answer.body);
                self.ledger.breach(Breach::ForbiddenAnswer, &format!("{what}: {status} {text}"));
                Next::Go
            }
        }
    }

    fn unanswered(&self) -> Next {
        self.ledger.count("lost answers");
        Next::Again(Duration::from_millis(100))
    }

    /// Signs in, refreshes, signs out, and remembers that it did.
    async fn come_and_go(mut self, email: String) -> Crowd {
        let mut crowd = Crowd::default();
        if !self.register(&email, &mut crowd).await {
            return crowd;
        }
        while !self.is_stopped() {
            let mut wallets = Vec::new();
            for _ in 0..=self.dice.roll(2) {
                wallets.extend(self.sign_in(&email).await);
            }
            for wallet in &mut wallets {
                for _ in 0..self.dice.roll(4) {
                    if let Next::Again(most) = self.refresh_once(wallet).await {
                        self.back_off(most).await;
                    }
                }
            }
            match wallets.len() {
                0 => {}
                1 => {
                    if self.sign_out(&wallets[0]).await {
                        self.end(&mut wallets, &mut crowd);
                    }
                }
                _ => {
                    if self.sign_out_everywhere(&wallets[0]).await {
                        self.end(&mut wallets, &mut crowd);
                    }
                }
            }
            // Whatever was not ended lives on and is asked again at the end.
            crowd.wallets.append(&mut wallets);
            self.pause().await;
        }
        crowd
    }

    /// Their end was acknowledged.
    fn end(&self, wallets: &mut Vec<Wallet>, crowd: &mut Crowd) {
        for wallet in wallets.drain(..) {
            self.ledger.forget(&wallet.family);
            crowd.ended.push(wallet.pair);
        }
    }

    async fn sign_in(&mut self, email: &str) -> Option<Wallet> {
        while !self.is_stopped() {
            let next = match self.api().login(email, PASSWORD).await {
                Ok(answer) if answer.status == 200 => {
                    self.ledger.count("sign-ins");
                    let pair = Pair::of(&answer);
                    if pair.is_none() {
                        self.ledger.breach(Breach::WrongShape, "login");
                    }
                    return pair.and_then(|pair| Wallet::new(email, pair, &self.ledger));
                }
                Ok(answer) => self.answered_otherwise("login", &answer),
                Err(_) => self.unanswered(),
            };
            if let Next::Again(most) = next {
                self.back_off(most).await;
            }
        }
        None
    }

    /// True once it is acknowledged.
    async fn sign_out(&mut self, wallet: &Wallet) -> bool {
        while !self.is_stopped() {
            let next = match self.api().logout(&wallet.pair.refresh).await {
                Ok(answer) if answer.status == 204 => {
                    self.ledger.count("sign-outs");
                    return true;
                }
                Ok(answer) => self.answered_otherwise("logout", &answer),
                Err(_) => self.unanswered(),
            };
            if let Next::Again(most) = next {
                self.back_off(most).await;
            }
        }
        false
    }

    /// True once it is acknowledged. When an answer was lost, 401 tells that it was done.
    async fn sign_out_everywhere(&mut self, wallet: &Wallet) -> bool {
        let mut may_be_done = false;
        while !self.is_stopped() {
            let next = match self.api().logout_all(&wallet.pair.access).await {
                Ok(answer) if answer.status == 204 || (answer.status == 401 && may_be_done) => {
                    self.ledger.count("sign-outs everywhere");
                    return true;
                }
                Ok(answer) => self.answered_otherwise("logout-all", &answer),
                Err(_) => self.unanswered(),
            };
            may_be_done = true;
            if let Next::Again(most) = next {
                self.back_off(most).await;
            }
        }
        false
    }

    async fn register_users(mut self) -> Crowd {
        let mut crowd = Crowd::default();
        let mut number = 0;
        while !self.is_stopped() {
            number += 1;
            self.register(&format!("new{number}@{DOMAIN}"), &mut crowd).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        crowd
    }

    /// True once it is acknowledged. When an answer was lost, 409 tells that it was done.
    async fn register(&mut self, email: &str, crowd: &mut Crowd) -> bool {
        let mut may_be_done = false;
        while !self.is_stopped() {
            let next = match self.api().register(email, PASSWORD).await {
                Ok(answer) if answer.status == 201 || (answer.status == 409 && may_be_done) => {
                    self.ledger.count("registrations");
                    crowd.registered.push(email.to_owned());
                    return true;
                }
                Ok(answer) => self.answered_otherwise("register", &answer),
                Err(_) => self.unanswered(),
            };
            may_be_done = true;
            if let Next::Again(most) = next {
                self.back_off(most).await;
            }
        }
        false
    }
}
