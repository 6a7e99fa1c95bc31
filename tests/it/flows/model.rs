//! The state machine of refresh tokens against a small model: random steps of many sessions, on two replicas.
//!
//! The short run in CI has a fixed seed. The whole of it, with a seed of its own that it prints:
//! `MODEL_STEPS=100000 ./scripts/test.sh --test it flows::model --release`

use authservice::accounts::Email;
use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Engine, TestApp, claims};

const WINDOW: TimeDelta = TimeDelta::seconds(30);
const IDLE: TimeDelta = TimeDelta::days(14);
const ABSOLUTE: TimeDelta = TimeDelta::days(60);
const CAP: usize = 4;
const SETTINGS: [(&str, &str); 2] =
    [("AUTHSERVICE__REFRESH__ABSOLUTE_TTL_SECONDS", "5184000"), ("AUTHSERVICE__REFRESH__MAX_SESSIONS_PER_USER", "4")];

/// splitmix64: small, seeded, good enough to choose steps.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }
}

/// A user as the model knows it.
struct User {
    email: String,
    password: String,
    is_active: bool,
}

/// A session as the model knows it: every refresh token that was ever issued for it, by generation.
struct Session {
    user: usize,
    tokens: Vec<String>,
    access: String,
    rotated_at: DateTime<Utc>,
    idle_end: DateTime<Utc>,
    absolute_end: DateTime<Utc>,
    has_ended: bool,
}

/// What the model expects of a refresh.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Next,
    Same,
    Refused(&'static str),
}

impl Session {
    fn expect(&self, generation: usize, is_active: bool, now: DateTime<Utc>) -> Expected {
        let newest = self.tokens.len() - 1;
        if self.has_ended || !is_active {
            return Expected::Refused("refresh_reuse_detected");
        }
        if now >= self.idle_end || now >= self.absolute_end {
            return Expected::Refused("token_expired");
        }
        if generation == newest {
            return Expected::Next;
        }
        if generation + 1 == newest && now - self.rotated_at < WINDOW {
            return Expected::Same;
        }
        Expected::Refused("refresh_reuse_detected")
    }

    fn is_live(&self, now: DateTime<Utc>) -> bool {
        !self.has_ended && now < self.idle_end && now < self.absolute_end
    }

    /// A key is kept as long as a session can live: after that its tokens are refused for want of it.
    fn assert_refused(&self, answer: &Answer, code: &str, now: DateTime<Utc>) {
        let is_forgotten = now >= self.absolute_end && answer.code() == "invalid_token";
        answer.refused(401, if is_forgotten { "invalid_token" } else { code });
    }

    fn step(&mut self, refresh: String, now: DateTime<Utc>) {
        self.tokens.push(refresh);
        self.rotated_at = now;
        self.idle_end = self.absolute_end.min(now + IDLE);
    }
}

struct Model {
    apps: [TestApp; 2],
    users: Vec<User>,
    sessions: Vec<Session>,
    dice: Dice,
    /// What was done, for the message of a failure.
    told: Vec<String>,
    has_other_algorithm: bool,
}

impl Model {
    async fn new(engine: Engine, seed: u64) -> Self {
        let first = TestApp::start(engine, &SETTINGS).await;
        let second = first.another_replica().await;
        let mut users = Vec::new();
        for number in 0..3 {
            let email = format!("user{number}@example.com");
            first.register(&email).await;
            let password = crate::support::PASSWORD.to_owned();
            users.push(User { email, password, is_active: true });
        }
        let apps = [first, second];
        Self { apps, users, sessions: Vec::new(), dice: Dice(seed), told: Vec::new(), has_other_algorithm: false }
    }

    fn now(&self) -> DateTime<Utc> {
        self.apps[0].now()
    }

    fn tell(&mut self, what: String) {
        self.told.push(what);
        if self.told.len() > 60 {
            self.told.remove(0);
        }
    }

    /// Either replica.
    fn app(&mut self) -> usize {
        self.dice.roll(2)
    }

    async fn step(&mut self) {
        // No two steps at the same time: the cap's order is then clear.
        self.apps[0].advance(TimeDelta::milliseconds(1));
        if self.sessions.is_empty() {
            return self.sign_in().await;
        }
        let session = self.choose();
        match self.dice.roll(100) {
            0..50 => self.refresh(session).await,
            50..60 => self.refresh_twice_at_once(session).await,
            60..72 => self.me(session).await,
            72..82 => self.wait(),
            82..90 => self.sign_in().await,
            90..94 => self.logout(session).await,
            94..96 => self.logout_all(session).await,
            96 => self.set_password().await,
            97 | 98 => self.set_active().await,
            _ => self.rotate_keys().await,
        }
    }

    /// Mostly a live session: dead ones tell little, and soon they would be all.
    fn choose(&mut self) -> usize {
        let now = self.now();
        let is_live = |session: &Session| session.is_live(now) && self.users[session.user].is_active;
        let live: Vec<usize> = (0..self.sessions.len()).filter(|index| is_live(&self.sessions[*index])).collect();
        if live.is_empty() || self.dice.roll(8) == 0 {
            let recent = self.sessions.len().min(8);
            return self.sessions.len() - 1 - self.dice.roll(recent);
        }
        live[self.dice.roll(live.len())]
    }

    /// Mostly around the retry window, now and then around the ends of a session.
    fn wait(&mut self) {
        const DAY: i64 = 86_400;
        let seconds = match self.dice.roll(20) {
            0 => DAY * 13,
            1 => DAY * 15,
            2 => DAY,
            3 => 600,
            _ => [1, 5, 10, 20, 29, 30, 31][self.dice.roll(7)],
        };
        self.apps[0].advance(TimeDelta::seconds(seconds));
        self.tell(format!("wait {seconds} s"));
    }

    async fn sign_in(&mut self) {
        let (app, number) = (self.app(), self.dice.roll(self.users.len()));
        let now = self.now();
        let user = &self.users[number];
        let body = json!({"email": user.email, "password": user.password});
        let answer = self.apps[app].post("auth/login", &body).await;
        if !user.is_active {
            return answer.refused(403, "user_inactive");
        }
        let pair = answer.pair();
        let mut live: Vec<usize> = (0..self.sessions.len())
            .filter(|index| self.sessions[*index].user == number && self.sessions[*index].is_live(now))
            .collect();
        live.sort_by_key(|index| std::cmp::Reverse(self.sessions[*index].rotated_at));
        for beyond in live.into_iter().skip(CAP - 1) {
            self.sessions[beyond].has_ended = true;
        }
        let absolute_end = now + ABSOLUTE;
        self.sessions.push(Session {
            user: number,
            tokens: vec![pair.refresh],
            access: pair.access,
            rotated_at: now,
            idle_end: now + IDLE,
            absolute_end,
            has_ended: false,
        });
        self.tell(format!("sign in user {number}: session {}", self.sessions.len() - 1));
    }

    async fn refresh(&mut self, number: usize) {
        let (app, now) = (self.app(), self.now());
        let newest = self.sessions[number].tokens.len() - 1;
        let generation = match self.dice.roll(40) {
            0..26 => newest,
            26..38 => newest.saturating_sub(1),
            _ => self.dice.roll(newest + 1),
        };
        let session = &self.sessions[number];
        let expected = session.expect(generation, self.users[session.user].is_active, now);
        let told = format!("refresh session {number} with generation {generation} of {newest}: {expected:?}");
        self.tell(told);
        let answer = self.apps[app].refresh(&self.sessions[number].tokens[generation]).await;
        let session = &mut self.sessions[number];
        match expected {
            Expected::Refused(code) => {
                session.assert_refused(&answer, code, now);
                // Ended before, or ended now by theft; an expired session is left alone.
                session.has_ended |= code == "refresh_reuse_detected";
            }
            Expected::Same => {
                let pair = answer.pair();
                assert_eq!(pair.refresh, session.tokens[newest], "a retry gets the same successor");
                session.access = pair.access;
            }
            Expected::Next => {
                let pair = answer.pair();
                assert!(!session.tokens.contains(&pair.refresh), "a successor is new");
                session.access = pair.access;
                session.step(pair.refresh, now);
            }
        }
    }

    /// One step, and both answers carry the same token.
    async fn refresh_twice_at_once(&mut self, number: usize) {
        let now = self.now();
        let session = &self.sessions[number];
        let expected = session.expect(session.tokens.len() - 1, self.users[session.user].is_active, now);
        self.tell(format!("refresh session {number} twice at once: {expected:?}"));
        let token = self.sessions[number].tokens.last().unwrap().clone();
        let (one, two) = tokio::join!(self.apps[0].refresh(&token), self.apps[1].refresh(&token));
        let session = &mut self.sessions[number];
        if let Expected::Refused(code) = expected {
            session.assert_refused(&one, code, now);
            session.assert_refused(&two, code, now);
            return;
        }
        let (one, two) = (one.pair(), two.pair());
        assert_eq!(one.refresh, two.refresh, "no fork");
        session.access = one.access;
        session.step(one.refresh, now);
    }

    async fn me(&mut self, number: usize) {
        let (app, now) = (self.app(), self.now());
        let session = &self.sessions[number];
        let answer = self.apps[app].me(&session.access).await;
        if claims(&session.access)["exp"].as_i64().unwrap() <= now.timestamp() {
            return session.assert_refused(&answer, "token_expired", now);
        }
        if !self.users[session.user].is_active {
            return answer.refused(403, "user_inactive");
        }
        if session.has_ended {
            return answer.refused(401, "invalid_token");
        }
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    async fn logout(&mut self, number: usize) {
        let app = self.app();
        let generation = self.dice.roll(self.sessions[number].tokens.len());
        self.tell(format!("log out session {number} with generation {generation}"));
        let answer = self.apps[app].logout(&self.sessions[number].tokens[generation]).await;
        let is_forgotten = self.now() >= self.sessions[number].absolute_end && answer.status == 401;
        assert!(answer.status == 204 || is_forgotten, "{answer:?}");
        self.sessions[number].has_ended |= !is_forgotten;
    }

    async fn logout_all(&mut self, number: usize) {
        let (app, now) = (self.app(), self.now());
        let session = &self.sessions[number];
        let is_accepted = claims(&session.access)["exp"].as_i64().unwrap() > now.timestamp()
            && self.users[session.user].is_active
            && !session.has_ended;
        let answer = self.apps[app].with_token(Method::POST, "auth/logout-all", &session.access).await;
        assert_eq!(answer.status == 204, is_accepted, "{answer:?}");
        if is_accepted {
            let user = session.user;
            self.tell(format!("log out user {user} everywhere"));
            self.end_all(user);
        }
    }

    async fn set_password(&mut self) {
        let number = self.dice.roll(self.users.len());
        let password = format!("Another!Passw0rd-{}", self.dice.roll(1000));
        let email = Email::parse(&self.users[number].email).unwrap();
        let accounts = self.apps[1].app.accounts.management();
        accounts.set_password(&email, password.clone().into(), self.now()).await.unwrap();
        self.users[number].password = password;
        self.tell(format!("set the password of user {number}"));
        self.end_all(number);
    }

    async fn set_active(&mut self) {
        // Nobody stays inactive for long.
        let inactive = self.users.iter().position(|user| !user.is_active);
        let number = inactive.unwrap_or_else(|| self.dice.roll(self.users.len()));
        let is_active = inactive.is_some();
        let email = Email::parse(&self.users[number].email).unwrap();
        self.apps[0].app.accounts.management().set_active(&email, is_active, self.now()).await.unwrap();
        self.users[number].is_active = is_active;
        self.tell(format!("user {number} is active: {is_active}"));
        if !is_active {
            self.end_all(number);
        }
    }

    /// A replica starts with another algorithm: its key is announced, and signs when its time has come.
    async fn rotate_keys(&mut self) {
        self.has_other_algorithm = !self.has_other_algorithm;
        let algorithm = if self.has_other_algorithm { "EdDSA" } else { "RS256" };
        self.apps[1] = self.apps[0].another_replica_with(&[("AUTHSERVICE__KEYS__ALGORITHM", algorithm)]).await;
        self.tell(format!("a key for {algorithm} is announced"));
        self.apps[1].advance(TimeDelta::seconds(2 * 300 + 60));
        self.apps[0] = self.apps[1].another_replica().await;
    }

    fn end_all(&mut self, user: usize) {
        self.sessions.iter_mut().filter(|session| session.user == user).for_each(|session| session.has_ended = true);
    }
}

async fn walk(engine: Engine) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let steps = number("MODEL_STEPS");
    // A long run explores; the short one is the same each time.
    let seed = number("MODEL_SEED").unwrap_or_else(|| match steps {
        Some(_) => authservice::random::uuid().unwrap().as_u64_pair().0,
        None => 20_261_124,
    });
    eprintln!("engine {engine:?}, MODEL_SEED={seed}");
    let mut model = Model::new(engine, seed).await;
    for step in 0..steps.unwrap_or(1200) {
        let told = model.told.clone();
        let done = std::panic::AssertUnwindSafe(model.step());
        if let Err(panic) = futures_util::FutureExt::catch_unwind(done).await {
            eprintln!("step {step} of MODEL_SEED={seed} on {engine:?}; before it:\n{}", told.join("\n"));
            std::panic::resume_unwind(panic);
        }
    }
}

#[tokio::test]
async fn random_steps_on_sqlite_give_what_the_model_expects() {
    walk(Engine::Sqlite).await;
}

#[tokio::test]
async fn random_steps_on_postgresql_give_what_the_model_expects() {
    walk(Engine::Postgres).await;
}
