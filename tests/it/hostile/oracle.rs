//! The oracle: a real server on which cases are run, and what must hold after every one of them.
//!
//! 1. The answer is one that the case allows, in time; never 500 or 502, never a hang; the connection is in step or closed.
//! 2. The process lives, `/health/live` is 200, memory and descriptors are back where they were.
//! 3. Every line of the log is a JSON object without anything that the requests held; nothing panicked; no error was logged.
//! 4. Headers and bodies are the documented ones and leak nothing.
//! 5. At the end the process stops with 0 and the database is as it must be (docs/reliability.md, N1 to N7).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::wire::{Exchange, bare, bearer, exchange, posted, shown};
use super::{Case, LOGIN, ME, NEVER, REFRESH, REGISTER, answers};
use crate::cli::{Operator, Server};
use crate::support::{Answer, Engine, Pair, claims, copy_private};

/// The password of every account here. No log line and no answer may hold its beginning, or that of a token or an address.
pub(super) const PASSWORD: &str = "C4nary!Passw0rd";
const SECRETS: [&str; 6] = ["C4nary", "canary", "eyJ", "rt1.", "evil", "$argon2"];
/// What an answer may hold of these: addresses are shown to their owners, and tokens given to them.
const ANSWERED: [&str; 3] = ["C4nary", "evil", "$argon2"];
/// Words of our own insides.
const INSIDES: [&str; 9] = ["sqlx", "SQLITE", "sqlite", "SELECT ", "postgres", "panicked", "src/", ".rs:", "/keys"];
/// From the last byte of a request to the last one of its answers. Slower twice is too slow; once may be the machine.
const IN_TIME: Duration = Duration::from_secs(2);
/// How long memory and descriptors may take to be given back.
const SETTLED: Duration = Duration::from_secs(15);
const PUBLIC: [&str; 3] =
    ["/.well-known/jwks.json", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

/// A server in a process of its own, on an empty database, which signs with a key that the tests know.
pub(super) struct Stage {
    pub(super) engine: Engine,
    pub(super) operator: Operator,
    pub(super) address: SocketAddr,
    server: Server,
    base: Usage,
    /// Lines of the log that were judged already.
    read: usize,
    /// What logs an error on purpose.
    pub(super) may_log: Option<&'static str>,
    /// Every refresh token that was answered, by family.
    given: BTreeMap<String, BTreeSet<String>>,
    faults: Vec<String>,
    cases: usize,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
struct Usage {
    kibibytes: u64,
    descriptors: usize,
}

impl Stage {
    /// Starts a server, and does everything once so that what is held for ever is held.
    pub(super) async fn start(engine: Engine, settings: &[(&str, &str)]) -> Self {
        let mut operator = Operator::on(engine)
            .await
            .with("AUTHSERVICE__LOG__LEVEL", "debug")
            .with("AUTHSERVICE__LIMITS__ENABLED", "false")
            .with("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "4")
            // The machine that runs tests does other things too.
            .with("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "10")
            .with("AUTHSERVICE__DATABASE__STATEMENT_TIMEOUT_SECONDS", "10")
            .with("AUTHSERVICE__PASSWORDS__MAX_CONCURRENT", "1")
            .with("AUTHSERVICE__PASSWORDS__QUEUE_TIMEOUT_SECONDS", "5");
        for (name, text) in settings {
            operator = operator.with(name, *text);
        }
        let keys = operator.path("keys");
        std::fs::DirBuilder::new().mode(0o700).create(&keys).unwrap();
        copy_private(Path::new("tests/keys/private.pem"), &keys.join("private.pem"));
        let server = operator.serve().await;
        let address = server.base.trim_start_matches("http://").parse().unwrap();
        let base = Usage { kibibytes: 0, descriptors: 0 };
        let (given, faults) = (BTreeMap::new(), Vec::new());
        let mut stage =
            Self { engine, operator, address, server, base, read: 0, may_log: None, given, faults, cases: 0 };
        let pair = stage.account("canary.first@example.com");
        for path in PUBLIC.iter().chain(&["/", "/docs", "/redoc", "/openapi.json", "/health/ready"]) {
            stage.ask(&bare(&format!("GET {path}")), 200);
        }
        // As many connections to the database as there will be.
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| exchange(address, &bearer(&format!("GET {ME}"), &pair.access), 1));
            }
        });
        stage.ask(&bearer(&format!("POST {REFRESH}"), &pair.refresh), 200);
        stage.base = stage.usage();
        stage
    }

    /// Sends a request that must be answered so, as part of the set-up.
    pub(super) fn ask(&mut self, bytes: &[u8], status: u16) -> Answer {
        let mut done = exchange(self.address, bytes, 1);
        self.remember(&done.answers);
        assert!(done.faults.is_empty() && done.answers.len() == 1, "{}: {done:?}", shown(bytes));
        let answer = done.answers.remove(0);
        assert_eq!(answer.status, status, "{}: {answer:?}", shown(bytes));
        answer
    }

    /// Registers an account and signs it in.
    pub(super) fn account(&mut self, email: &str) -> Pair {
        let body = json!({"email": email, "password": PASSWORD}).to_string();
        self.ask(&posted(REGISTER, &body), 201);
        self.sign_in(email)
    }

    pub(super) fn sign_in(&mut self, email: &str) -> Pair {
        let body = json!({"email": email, "password": PASSWORD}).to_string();
        self.ask(&posted(LOGIN, &body), 200).pair()
    }

    /// Runs a case and the oracle after it.
    pub(super) fn run(&mut self, case: &Case) -> Vec<Answer> {
        let mut done = exchange(self.address, &case.bytes, case.expected.len());
        self.remember(&done.answers);
        let mut faults = std::mem::take(&mut done.faults);
        faults.extend(case.expected.iter().enumerate().filter_map(|(at, allowed)| outcome(&done, at, allowed)));
        // Many answers may take longer than one.
        let in_time = IN_TIME * u32::try_from(1 + case.expected.len() / 100).unwrap_or(1);
        if done.took > in_time {
            let again = exchange(self.address, &case.bytes, case.expected.len());
            self.remember(&again.answers);
            if again.took > in_time {
                faults.push(format!("took {:?}, and then {:?}", done.took, again.took));
            }
        }
        for answer in &done.answers {
            faults.extend(flaws(answer, &case.bytes));
        }
        faults.extend(self.health());
        let name = format!("{:?} {} {}", self.engine, case.id, case.name);
        self.faults.extend(faults.into_iter().map(|fault| format!("{name}: {fault}\n    {}", shown(&case.bytes))));
        self.cases += 1;
        done.answers
    }

    /// What is wrong with the process: points 2 and 3.
    pub(super) fn health(&mut self) -> Vec<String> {
        let mut faults = Vec::new();
        let live = exchange(self.address, &bare("GET /health/live"), 1);
        if !live.faults.is_empty() || live.answers.first().is_none_or(|answer| answer.status != 200) {
            faults.push(format!("not alive: {live:?}"));
        }
        let started = Instant::now();
        // Some sockets linger for two seconds after a refusal.
        let most = Usage {
            kibibytes: self.base.kibibytes * 105 / 100 + 24 * 1024,
            descriptors: self.base.descriptors * 105 / 100 + 8,
        };
        loop {
            let now = self.usage();
            if now.kibibytes <= most.kibibytes && now.descriptors <= most.descriptors {
                break;
            }
            if started.elapsed() > SETTLED {
                faults.push(format!("{now:?} where {:?} was enough before", self.base));
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let lines = self.server.process.stdout.after(self.read);
        self.read += lines.len();
        faults.extend(lines.iter().filter_map(|line| self.speaks(line)));
        faults
    }

    /// Adds a fault that a section has found by itself.
    pub(super) fn fault(&mut self, text: &str) {
        self.faults.push(format!("{:?} {text}", self.engine));
    }

    /// Notes the refresh tokens of answers: two different ones of one generation would be a fork.
    pub(super) fn remember(&mut self, answers: &[Answer]) {
        for answer in answers.iter().filter(|answer| answer.status == 200) {
            let Ok(body) = serde_json::from_str::<Value>(&answer.body) else { continue };
            if let Some(token) = body["refresh_token"].as_str() {
                let family = claims(token)["fam"].as_str().unwrap().replace('-', "");
                self.given.entry(family).or_default().insert(token.to_owned());
            }
        }
    }

    /// Stops the server, checks the logs as a whole and the database, and reports everything that was wrong.
    pub(super) async fn finish(mut self, never: &[(&str, &str)]) {
        let mut faults = std::mem::take(&mut self.faults);
        let base = self.base;
        eprintln!("{:?}: {} cases; {base:?} at first, {:?} at the end", self.engine, self.cases, self.usage());
        self.server.process.signal("INT");
        let code = self.server.process.ended().await;
        if code != Some(0) {
            faults.push(format!("{:?}: ended with {code:?}", self.engine));
        }
        let lines = self.server.process.stdout.last();
        faults.extend(lines.iter().skip(self.read).filter_map(|line| self.speaks(line)));
        faults.extend(self.server.process.stderr.last().into_iter().map(|line| format!("on standard error: {line}")));
        for (name, query) in NEVER.iter().chain(never) {
            let count = self.operator.texts(&format!("SELECT CAST(({query}) AS TEXT)")).await;
            if count != ["0"] {
                faults.push(format!("{:?}: {name}: {count:?} rows", self.engine));
            }
        }
        faults.extend(self.forks().await);
        assert!(faults.is_empty(), "{} fault(s):\n{}", faults.len(), faults.join("\n"));
    }

    /// N1: as many tokens were given as the row has generations. (Of an answer that nobody read there is one fewer.)
    async fn forks(&self) -> Vec<String> {
        let family = match self.engine {
            Engine::Sqlite => "lower(hex(family_id))",
            Engine::Postgres => "replace(CAST(family_id AS TEXT), '-', '')",
        };
        let sql = format!("SELECT {family} || ' ' || CAST(generation AS TEXT) FROM refresh_tokens");
        let mut faults = Vec::new();
        let mut rows = BTreeMap::new();
        for row in self.operator.texts(&sql).await {
            let (family, generation) = row.split_once(' ').unwrap();
            rows.insert(family.to_owned(), generation.parse::<usize>().unwrap());
        }
        for (family, tokens) in &self.given {
            // Rows that a section deleted by hand are gone.
            if rows.get(family).is_some_and(|generation| tokens.len() > generation + 1) {
                faults.push(format!("{:?}: a fork: {} tokens of {family}", self.engine, tokens.len()));
            }
        }
        faults
    }

    /// What is wrong with a line of the log.
    fn speaks(&self, line: &str) -> Option<String> {
        let Ok(object) = serde_json::from_str::<Value>(line) else {
            return Some(format!("a line that is not JSON: {line}"));
        };
        let message = object["message"].as_str().unwrap_or_default();
        if message.is_empty() || !object["level"].is_string() {
            return Some(format!("a line without a message: {line}"));
        }
        if let Some(secret) = SECRETS.iter().find(|secret| line.contains(**secret)) {
            return Some(format!("`{secret}` is logged: {line}"));
        }
        let is_allowed = self.may_log.is_some_and(|allowed| message == allowed);
        (object["level"] == "ERROR" && !is_allowed).then(|| format!("an error is logged: {line}"))
    }

    fn usage(&self) -> Usage {
        let process = format!("/proc/{}", self.server.process.child.id());
        let status = std::fs::read_to_string(format!("{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = resident.and_then(|line| line.trim().split(' ').next()?.parse().ok()).unwrap_or(u64::MAX);
        let descriptors = std::fs::read_dir(format!("{process}/fd")).map_or(usize::MAX, Iterator::count);
        Usage { kibibytes, descriptors }
    }
}

/// Point 1: what is wrong when the answer at this place is none that is allowed.
fn outcome(done: &Exchange, at: usize, allowed: &str) -> Option<String> {
    let (found, code) = match done.answers.get(at) {
        Some(answer) => (answer.status.to_string(), answer.code()),
        None if done.is_closed => ("closed".to_owned(), String::new()),
        None => return Some(format!("no answer {}", at + 1)),
    };
    let exactly = format!("{found} {code}");
    let is_right = answers(allowed).any(|one| one == found || one == exactly);
    let body = done.answers.get(at).map(|answer| answer.body.as_str()).unwrap_or_default();
    (!is_right).then(|| format!("answer {} is {exactly}, not {allowed}: {body:.300}", at + 1))
}

/// Point 4: what is wrong with an answer, whatever was asked.
pub(super) fn flaws(answer: &Answer, request: &[u8]) -> Vec<String> {
    let mut flaws = Vec::new();
    let mut expect = |is_right: bool, what: &str| {
        if !is_right {
            flaws.push(format!("{what}: {answer:?}"));
        }
    };
    let is = |name: &str, value: &str| answer.header(name) == value;
    let target = shown(request);
    let is_public = PUBLIC.iter().any(|path| target.contains(path)) && answer.status < 400;
    expect(is_public || is("cache-control", "no-store"), "may be stored");
    expect(is("x-content-type-options", "nosniff") && is("x-frame-options", "DENY"), "headers");
    expect(is("referrer-policy", "no-referrer") && !is("content-security-policy", ""), "headers");
    expect(answer.headers.get_all("x-request-id").iter().count() == 1, "ids");
    expect(uuid::Uuid::try_parse(answer.header("x-request-id")).is_ok(), "id");
    expect(["server", "x-powered-by", "set-cookie", "via"].iter().all(|name| is(name, "")), "headers");
    expect(is_public || is("access-control-allow-origin", ""), "foreign pages are let in");
    expect(is("www-authenticate", if answer.status == 401 { "Bearer" } else { "" }), "challenge");
    expect(is("allow", "") != (answer.status == 405), "methods");
    expect(is("retry-after", "") != [429, 503].contains(&answer.status), "when to come back");
    let headers = format!("{:?}", answer.headers);
    let held = |word: &&str| answer.body.contains(*word) || headers.contains(*word);
    expect(!ANSWERED.iter().any(held), "echoes");
    let is_page = answer.header("content-type").starts_with("text/html") || target.contains("/openapi.json");
    expect(is_page || !INSIDES.iter().any(|word| answer.body.contains(word)), "insides");
    if answer.status >= 400 && !request.starts_with(b"HEAD ") {
        expect(is("content-type", "application/json"), "media type");
        expect(has_error_shape(&answer.body), "shape");
    }
    flaws
}

/// One of the three documented shapes: a code, a detail, or a list of faulty fields.
fn has_error_shape(body: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(body) else { return false };
    let names = |value: &Value| value.as_object().map(|object| object.keys().cloned().collect::<Vec<_>>());
    if names(&body) == Some(vec!["error".to_owned()]) {
        let error = &body["error"];
        return names(error) == Some(vec!["code".to_owned(), "message".to_owned()])
            && error["code"].is_string()
            && error["message"].is_string();
    }
    let fault = |fault: &Value| fault["type"].is_string() && fault["loc"].is_array() && fault["msg"].is_string();
    let is_list = body["detail"].as_array().is_some_and(|faults| !faults.is_empty() && faults.iter().all(fault));
    names(&body) == Some(vec!["detail".to_owned()]) && (body["detail"].is_string() || is_list)
}
