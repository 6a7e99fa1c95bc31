//! One model client: it keeps refreshing its session, and sends the same token again when an answer is lost.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proofs::api::Api;
use proofs::client::{Answer, Trouble};
use proofs::dice::Dice;
use proofs::verifier::Verifier;
use tokio::sync::watch;

use crate::crowd::{Crowd, Plan};
use crate::ledger::{Breach, Ledger};
use crate::wallet::{Next, Wallet, trouble_answer};
use crate::world::World;

/// Less than an access token lives when nothing else is set.
const LIVES: Duration = Duration::from_secs(800);

/// An access token that is not the newest.
struct Kept {
    token: String,
    since: Instant,
}

/// One client.
pub(crate) struct Client {
    apis: Vec<Api>,
    twins: Vec<Api>,
    pub(crate) dice: Dice,
    plan: Plan,
    pub(crate) ledger: Arc<Ledger>,
    stopped: watch::Receiver<bool>,
    verifier: Option<Verifier>,
}

impl Client {
    pub(crate) fn new(plan: &Plan, world: &World, number: usize, stopped: watch::Receiver<bool>) -> Self {
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
        let verifier = plan.targets.first().filter(|_| plan.is_verified).map(|address| Verifier::new(*address));
        let ledger = Arc::clone(&world.ledger);
        Self { apis: apis(), twins: apis(), dice, plan: plan.clone(), ledger, stopped, verifier }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    pub(crate) fn api(&mut self) -> &mut Api {
        let index = self.dice.roll(self.apis.len());
        &mut self.apis[index]
    }

    pub(crate) async fn pause(&mut self) {
        let (least, most) = self.plan.pause;
        tokio::time::sleep(self.dice.between(least, most)).await;
    }

    pub(crate) async fn back_off(&mut self, most: Duration) {
        // At least a little, so that a server that is down is not asked in a loop.
        tokio::time::sleep(self.dice.between(Duration::from_millis(20), most)).await;
    }

    pub(crate) async fn keep_refreshing(mut self, mut wallet: Wallet) -> Crowd {
        let mut kept = Kept { token: wallet.pair.access.clone(), since: Instant::now() };
        while !self.is_stopped() && !wallet.is_lost {
            let next = match self.dice.roll(20) {
                0 | 1 => self.ask(&wallet).await,
                2 => self.refresh_twice_at_once(&mut wallet).await,
                _ => self.refresh_once(&mut wallet).await,
            };
            match next {
                Next::Go => {
                    self.verify(&wallet.pair.access, &mut kept).await;
                    self.pause().await;
                }
                Next::Again(most) => self.back_off(most).await,
                Next::Over => break,
            }
        }
        Crowd { wallets: vec![wallet], ..Crowd::default() }
    }

    pub(crate) async fn refresh_once(&mut self, wallet: &mut Wallet) -> Next {
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

    /// As a resource server would: the newest access token, and one from before whatever happened meanwhile.
    async fn verify(&mut self, newest: &str, kept: &mut Kept) {
        let Some(verifier) = &mut self.verifier else { return };
        if kept.since.elapsed() > LIVES {
            *kept = Kept { token: newest.to_owned(), since: Instant::now() };
        }
        for token in [newest, &kept.token] {
            match verifier.verify(token).await {
                Ok(()) => self.ledger.count("verified"),
                Err(error) if error.is::<Trouble>() => self.ledger.lost(&error),
                Err(error) => self.ledger.breach(Breach::Unverified, &error.to_string()),
            }
        }
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
            Err(trouble) => self.unanswered(&trouble),
        }
    }

    /// What any operation may answer when it does not do what was asked.
    pub(crate) fn answered_otherwise(&self, what: &str, answer: &Answer) -> Next {
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

    pub(crate) fn unanswered(&self, trouble: &Trouble) -> Next {
        self.ledger.lost(trouble);
        Next::Again(Duration::from_millis(100))
    }
}
