//! The seed's recorded requests, played in their order: we answer as the seed did, to the letter, but where a row says why not.
//!
//! Left out: the measured times of failed sign-ins. Tokens that were signed by hand have our form, because the seed's is
//! accepted from keys of its own only.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use serde_json::Value;
use tokio::task::JoinSet;

use self::row::{Before, Expected, Row, Seen};
use self::token::{Bearer, Signature};
use crate::support::{Answer, Engine, PASSWORD, Pair, TestApp, claims};

mod login;
mod me;
mod register;
mod row;
mod sessions;
mod token;

/// The transcripts were taken behind no proxy, but show what a proxy's header does.
const SETTINGS: [(&str, &str); 1] = [("AUTHSERVICE__SERVER__TRUSTED_PROXIES", "127.0.0.1,10.0.0.1")];
const CURL: &str = "curl/7.88.1";

#[tokio::test]
async fn every_request_of_the_transcripts_is_answered_on_sqlite() {
    play(Engine::Sqlite).await;
}

#[tokio::test]
async fn every_request_of_the_transcripts_is_answered_on_postgresql() {
    play(Engine::Postgres).await;
}

async fn play(engine: Engine) {
    let mut stage = Stage::new(TestApp::start_with_known_key(engine, &SETTINGS).await).await;

    let mut differences = Vec::new();
    for row in [register::rows(), login::rows(), me::rows(), sessions::rows()].iter().flatten() {
        differences.extend(stage.play(row).await);
    }

    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// A server and the tokens that rows have saved, newest last.
struct Stage {
    app: TestApp,
    signature: Signature,
    tokens: BTreeMap<&'static str, Vec<Pair>>,
}

impl Stage {
    async fn new(app: TestApp) -> Self {
        let keys = app.get("/.well-known/jwks.json").await.json();
        let kid = keys["keys"][0]["kid"].as_str().unwrap().to_owned();
        Self { app, signature: Signature::new(kid), tokens: BTreeMap::new() }
    }

    /// Plays one row and tells what differs.
    async fn play(&mut self, row: &Row) -> Vec<String> {
        self.app.advance(TimeDelta::seconds(1));
        for step in &row.before {
            self.prepare(step).await;
        }
        let expected = row.ours.as_ref().map_or(&row.seed, |(_, ours)| ours);
        let mut differences = Vec::new();
        if let Some((why, ours)) = &row.ours
            && ours.is_the_same(&row.seed)
        {
            differences.push(format!("is marked as changed, but is not: {}", why.0));
        }
        let answers = match expected {
            Expected::Answer(expected) => {
                let answer = Answer::of(self.request(row, &self.app)).await;
                let seen = Seen::of(&answer, expected, &self.app.base);
                if seen != *expected {
                    differences.push(format!("expected {expected:#?}\ngot {seen:#?}"));
                }
                differences.extend(unsafe_headers(&answer));
                vec![answer]
            }
            Expected::Statuses(expected) => {
                let answers = self.at_once(row, expected.len()).await;
                let mut statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
                statuses.sort_unstable();
                if statuses != *expected {
                    differences.push(format!("expected {expected:?}, got {statuses:?}"));
                }
                answers
            }
        };
        if let Some(name) = row.saves {
            differences.extend(self.save(name, &answers));
        }
        if row.are_claims_shown && answers[0].status == 200 {
            differences.extend(unlike_the_seeds(&answers[0].pair()));
        }
        for fact in &row.facts {
            let number = self.app.count(fact.1).await;
            if number != fact.2 {
                differences.push(format!("{}: expected {}, found {number}", fact.0, fact.2));
            }
        }
        let why = row.ours.as_ref().map_or("as the seed", |(why, _)| why.0);
        differences.into_iter().map(|difference| format!("{} ({why}): {difference}", row.heading)).collect()
    }

    async fn prepare(&mut self, step: &Before) {
        match step {
            Before::Sql(sql) => self.app.sql(sql).await,
            Before::SignIn(name, email, user_agent) => {
                let body = serde_json::json!({"email": email, "password": PASSWORD});
                let request = self.app.request(reqwest::Method::POST, "auth/login").json(&body);
                let pair = Answer::of(request.header("user-agent", *user_agent)).await.pair();
                self.tokens.insert(name, vec![pair]);
            }
            Before::Refresh(name) => {
                let pair = self.app.refresh(&self.newest(name).refresh).await.pair();
                self.tokens.entry(name).or_default().push(pair);
            }
            Before::Wait(seconds) => self.app.advance(TimeDelta::seconds(*seconds)),
        }
    }

    fn newest(&self, name: &str) -> &Pair {
        self.tokens[name].last().unwrap()
    }

    fn request(&self, row: &Row, app: &TestApp) -> RequestBuilder {
        let mut request = app.request(row.request.method.clone(), &row.request.path);
        if !row.request.headers.iter().any(|(name, _)| *name == "user-agent") {
            request = request.header("user-agent", CURL);
        }
        for (name, value) in row.request.headers.iter().filter(|(_, value)| !value.is_empty()) {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        if let Some(bearer) = &row.request.bearer {
            let scheme = if row.request.is_lower_case { "bearer" } else { "Bearer" };
            request = request.header("authorization", format!("{scheme} {}", self.token(bearer)));
        }
        if !row.request.body.is_empty() {
            request = request.body(row.request.body.clone());
        }
        request
    }

    fn token(&self, bearer: &Bearer) -> String {
        let now = self.app.now().timestamp();
        match bearer {
            Bearer::Access(name) => self.newest(name).access.clone(),
            Bearer::Refresh(name) => self.newest(name).refresh.clone(),
            Bearer::OldRefresh(name) => {
                let pairs = &self.tokens[name];
                pairs[pairs.len() - 2].refresh.clone()
            }
            Bearer::Broken(name) => {
                let token = &self.newest(name).access;
                let (input, signature) = token.rsplit_once('.').unwrap();
                let other = if signature.starts_with('A') { 'B' } else { 'A' };
                format!("{input}.{other}{}", &signature[1..])
            }
            Bearer::SignedAccess(name, mutation) => {
                let claims = claims(&self.newest(name).access);
                self.signature.token(("RS256", "at+jwt"), claims, mutation, now)
            }
            Bearer::SignedRefresh(name, mutation) => {
                let claims = claims(&self.newest(name).refresh);
                self.signature.token(("RS256", "refresh+jwt"), claims, mutation, now)
            }
            Bearer::Forged(algorithm, name) => {
                let claims = claims(&self.newest(name).access);
                self.signature.token((algorithm, "at+jwt"), claims, &[], now)
            }
        }
    }

    /// Sends the same request several times at once.
    async fn at_once(&self, row: &Row, times: usize) -> Vec<Answer> {
        let mut others = Vec::new();
        for _ in 1..row.request.replicas {
            others.push(self.app.another_replica().await);
        }
        let servers: Vec<&TestApp> = std::iter::once(&self.app).chain(&others).collect();
        let mut requests = JoinSet::new();
        for server in servers.iter().cycle().take(times) {
            requests.spawn(Answer::of(self.request(row, server)));
        }
        requests.join_all().await
    }

    /// Keeps the tokens of the answers, which are one refresh token however many there are.
    fn save(&mut self, name: &'static str, answers: &[Answer]) -> Option<String> {
        let mut pairs = answers.iter().filter(|answer| answer.status == 200).map(Answer::pair);
        let first = pairs.next()?;
        let are_one = pairs.all(|pair| pair.refresh == first.refresh);
        self.tokens.entry(name).or_default().push(first);
        (!are_one).then(|| "there are several successors".to_owned())
    }
}

/// What security.md 0.2 wants of every answer.
fn unsafe_headers(answer: &Answer) -> Option<String> {
    let is_page = answer.header("content-type").starts_with("text/html");
    let is_safe = answer.header("x-content-type-options") == "nosniff"
        && !answer.header("x-request-id").is_empty()
        && (is_page || answer.header("cache-control") == "no-store")
        && ["server", "set-cookie"].iter().all(|name| answer.header(name).is_empty())
        && (answer.status != 204 || answer.header("content-length").is_empty());
    (!is_safe).then(|| format!("the headers are not safe: {:?}", answer.headers))
}

/// Our tokens begin with the seed's claims in the seed's order, and live as long.
fn unlike_the_seeds(pair: &Pair) -> Option<String> {
    let access = ["user_id", "type", "iat", "exp", "sid"];
    let refresh = ["user_id", "type", "iat", "exp", "sid", "fam", "jti"];
    let begins = |claims: &Value, seeds: &[&str]| {
        let names = claims.as_object().unwrap().keys().take(seeds.len());
        names.eq(seeds.iter().copied())
    };
    let life = |claims: &Value| claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    let (of_access, of_refresh) = (claims(&pair.access), claims(&pair.refresh));
    let is_alike = begins(&of_access, &access)
        && begins(&of_refresh, &refresh)
        && (life(&of_access), life(&of_refresh)) == (15 * 60, 14 * 24 * 60 * 60)
        && (&of_access["type"], &of_refresh["type"]) == (&"access".into(), &"refresh".into())
        && of_access["sid"] == of_refresh["sid"];
    (!is_alike).then(|| format!("the claims are not the seed's: {of_access} {of_refresh}"))
}
