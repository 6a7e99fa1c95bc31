//! A process that runs, what it prints, and a server as a client sees it.

use std::io::{BufRead as _, BufReader, Read};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::PATIENCE;
use crate::support::{API, Answer, PASSWORD, Pair};

/// Lines that a process prints, read as they come so that it is never blocked.
pub(crate) struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    pub(super) fn of(source: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let reader = std::thread::spawn({
            let lines = Arc::clone(&lines);
            move || {
                for line in BufReader::new(source).split(b'\n') {
                    let Ok(line) = line else { return };
                    lines.lock().unwrap().push(String::from_utf8_lossy(&line).into_owned());
                }
            }
        });
        Self { lines, reader: Some(reader) }
    }

    pub(crate) fn now(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Those after the first `read`.
    pub(crate) fn after(&self, read: usize) -> Vec<String> {
        self.lines.lock().unwrap().get(read..).unwrap_or_default().to_vec()
    }

    /// All lines of a process that has ended.
    pub(crate) fn last(&mut self) -> Vec<String> {
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        self.now()
    }
}

/// A process that runs; killed when dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    /// What a process that has ended printed on both streams.
    pub(super) fn output(&mut self) -> (String, String) {
        let text = |lines: Vec<String>| {
            let lines: Vec<String> = lines.into_iter().map(|line| line + "\n").collect();
            lines.concat()
        };
        (text(self.stdout.last()), text(self.stderr.last()))
    }

    /// Waits for a line of the log with this message; errors with the exit code of a process that ends instead.
    pub(crate) async fn logged(&mut self, message: &str) -> Result<Value, Option<i32>> {
        let started = Instant::now();
        loop {
            let has_ended = self.child.try_wait().unwrap();
            let lines = if has_ended.is_some() { self.stdout.last() } else { self.stdout.now() };
            let found = lines
                .iter()
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line["message"] == message);
            match (found, has_ended) {
                (Some(line), _) => return Ok(line),
                (None, Some(status)) => return Err(status.code()),
                (None, None) => assert!(started.elapsed() < PATIENCE, "no {message:?} in {lines:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for the line that says where the server listens, in whatever format.
    pub(super) async fn listening(&mut self) -> String {
        let started = Instant::now();
        loop {
            let lines = self.stdout.now();
            if let Some(line) = lines.iter().find(|line| line.contains("listening") && line.contains("issuer")) {
                let start = line.find("127.0.0.1:").unwrap();
                let length = line[start..].find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter));
                return line[start..start + length.unwrap()].to_owned();
            }
            assert!(started.elapsed() < PATIENCE, "{lines:#?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let command = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }

    /// Waits for the end and returns its exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the process does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A server in a process of its own.
pub(crate) struct Server {
    pub(crate) process: Process,
    /// `http://127.0.0.1:<port>`
    pub(crate) base: String,
    client: reqwest::Client,
}

impl Server {
    /// Waits until the process listens.
    pub(crate) async fn of(mut process: Process) -> Self {
        let listening = process.logged("listening").await;
        let line = listening.unwrap_or_else(|code| panic!("ended with {code:?}: {:?}", process.output()));
        Self {
            base: format!("http://{}", line["address"].as_str().unwrap()),
            process,
            client: reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap(),
        }
    }

    pub(super) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let path = if path.starts_with('/') { path.to_owned() } else { format!("{API}/{path}") };
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path)).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(body)).await
    }

    /// Registers a user.
    pub(super) async fn register(&self, email: &str, password: &str) {
        let answer = self.post("users/register", &json!({"email": email, "password": password})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }

    pub(super) async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("auth/login", &json!({"email": email, "password": password})).await
    }

    /// Registers `alice@example.com` with [`PASSWORD`] and signs her in.
    pub(super) async fn alice(&self) -> Pair {
        self.register("alice@example.com", PASSWORD).await;
        self.login("alice@example.com", PASSWORD).await.pair()
    }

    pub(super) async fn refresh(&self, token: &str) -> Answer {
        Answer::of(self.request(Method::POST, "auth/refresh").bearer_auth(token)).await
    }

    pub(super) async fn me(&self, token: &str) -> Answer {
        Answer::of(self.request(Method::GET, "users/me").bearer_auth(token)).await
    }

    /// Kids of the published keys, which are those that sign.
    pub(super) async fn kids(&self) -> Vec<String> {
        let keys = self.get("/.well-known/jwks.json").await.json();
        keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    /// Ends the server and returns everything that it has logged.
    pub(super) async fn stop(mut self) -> Vec<String> {
        self.process.signal("INT");
        assert_eq!(self.process.ended().await, Some(0), "{:?}", self.process.stderr.last());
        self.process.stdout.last()
    }
}
