//! Clients that do the rest: they register, sign in, and sign out, and remember what was acknowledged.

use std::time::Duration;

use proofs::api::Pair;

use crate::client::Client;
use crate::crowd::{Crowd, DOMAIN, PASSWORD};
use crate::ledger::Breach;
use crate::wallet::{Next, Wallet};

impl Client {
    /// Signs in, refreshes, signs out, and remembers that it did.
    pub(crate) async fn come_and_go(mut self, email: String) -> Crowd {
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
            let is_ended = match wallets.len() {
                0 => continue,
                1 => self.sign_out(&wallets[0]).await,
                _ => self.sign_out_everywhere(&wallets[0]).await,
            };
            for wallet in wallets {
                self.ledger.forget(&wallet.family);
                // When the load stopped before an answer came, nobody knows whether it was ended: nothing is promised of it.
                if is_ended {
                    crowd.ended.push(wallet.pair);
                }
            }
            self.pause().await;
        }
        crowd
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
                Err(trouble) => self.unanswered(&trouble),
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
                Err(trouble) => self.unanswered(&trouble),
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
                Err(trouble) => self.unanswered(&trouble),
            };
            may_be_done = true;
            if let Next::Again(most) = next {
                self.back_off(most).await;
            }
        }
        false
    }

    pub(crate) async fn register_users(mut self) -> Crowd {
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
                Err(trouble) => self.unanswered(&trouble),
            };
            may_be_done = true;
            if let Next::Again(most) = next {
                self.back_off(most).await;
            }
        }
        false
    }
}
