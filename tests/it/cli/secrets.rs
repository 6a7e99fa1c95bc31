//! Secrets in files are read again: by a server that waits for its database, and by a command that waits.

use std::time::{Duration, Instant};

use super::{Operator, PATIENCE, Process, Server};
use crate::support::Engine;
use crate::support::database::Role;

const URL_FILE: &str = "DATABASE_URL_FILE";

impl Operator {
    /// On a migrated PostgreSQL whose URL is to lie in a file; returns the URL.
    async fn with_url_file(file: &str) -> (Self, String) {
        let mut operator = Self::on(Engine::Postgres).await;
        operator.run(&["migrate", "up"]).exits(0);
        let url = operator.environment.remove("DATABASE_URL").unwrap().into_string().unwrap();
        let path = operator.path(file);
        (operator.with(URL_FILE, path), url)
    }
}

fn said(process: &Process, text: &str) -> usize {
    process.stdout.now().iter().filter(|line| line.contains(text)).count()
}

/// The Secret may come after the server, and need not be right at first.
#[tokio::test]
async fn a_server_that_waits_for_its_database_reads_the_files_again() {
    let (operator, url) = Operator::with_url_file("url").await;
    let role = Role::create("NOLOGIN").await;
    operator.write("url", &role.url(&url, "CANARY"));
    let mut process = operator.spawn(&["serve"]);
    process.logged("listening, not ready yet").await.unwrap();

    operator.write("url", "");
    process.logged("the secrets in files are not read anew: those before are used").await.unwrap();
    let waits = said(&process, "waiting for the database");
    let started = Instant::now();
    while said(&process, "waiting for the database") == waits {
        assert!(started.elapsed() < PATIENCE, "it waits no more");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(said(&process, "are not read anew"), 1);
    operator.write("url", &url);

    let server = Server::of(process).await;
    server.alice().await;
    assert!(!server.stop().await.join("\n").contains("CANARY"));
}

/// As the init container of a pod does.
#[tokio::test]
async fn a_command_that_waits_for_its_database_reads_the_files_again() {
    let (operator, url) = Operator::with_url_file("url").await;
    let role = Role::create("NOLOGIN").await;
    operator.write("url", &role.url(&url, "CANARY"));
    let mut process = operator.spawn(&["migrate", "up"]);
    let started = Instant::now();
    while !process.stderr.now().iter().any(|line| line.starts_with("waiting for the database: ")) {
        assert!(started.elapsed() < PATIENCE, "{:?}", process.stderr.now());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    operator.write("url", &url);

    assert_eq!(process.ended().await, Some(0));
    let (stdout, stderr) = process.output();
    assert_eq!(stdout, "nothing to apply\n");
    assert!(!stderr.contains("CANARY"), "{stderr}");
}
