//! Secrets in files are read again: by a server that runs, by one that waits for its database, and by a command that waits.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::{Operator, PATIENCE, Process, Server};
use crate::support::Engine;
use crate::support::collector::{Collector, Verdict};
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

    /// Puts a file into a volume as the kubelet does: a new directory, to which a link is swung.
    fn mount(&self, volume: &str, name: &str, content: &str) {
        let volume = self.path(volume);
        let version = PathBuf::from(format!("..{}", uuid()));
        std::fs::create_dir_all(volume.join(&version)).unwrap();
        std::fs::write(volume.join(&version).join(name), content).unwrap();
        symlink(&version, volume.join("..data_tmp")).unwrap();
        std::fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        if !volume.join(name).exists() {
            symlink(PathBuf::from("..data").join(name), volume.join(name)).unwrap();
        }
    }
}

fn uuid() -> String {
    authservice::random::uuid().unwrap().to_string()
}

fn said(process: &Process, text: &str) -> usize {
    process.stdout.now().iter().filter(|line| line.contains(text)).count()
}

/// No request fails while one role takes the place of another, whose time is over.
#[tokio::test]
async fn a_running_server_takes_new_credentials() {
    let (operator, url) = Operator::with_url_file("database/url").await;
    let (old, new, nobody) =
        (Role::create("LOGIN SUPERUSER").await, Role::create("LOGIN SUPERUSER").await, Role::create("NOLOGIN").await);
    operator.mount("database", "url", &old.url(&url, "CANARY-1"));
    let mut server = operator.serve().await;
    let mut token = server.alice().await.refresh;

    operator.mount("database", "url", &nobody.url(&url, "CANARY-2"));
    server.process.logged("the database's new credentials do not work: those before are used").await.unwrap();
    operator.mount("database", "url", &new.url(&url, "CANARY-3"));
    server.process.logged("the database's credentials were read anew").await.unwrap();
    old.alter("NOLOGIN").await;
    for _ in 0..5 {
        token = server.refresh(&token).await.pair().refresh;
    }

    let roles = operator
        .texts("SELECT DISTINCT usename::text FROM pg_stat_activity WHERE application_name = 'authservice'")
        .await;
    assert!(roles.contains(&new.name), "{roles:?}");
    let log = server.stop().await.join("\n");
    assert!(!log.contains("CANARY"), "{log}");
    assert_eq!(log.matches("do not work").count(), 1, "{log}");
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

/// A token for the collector is exchanged like any other secret.
#[tokio::test]
async fn the_headers_of_traces_are_read_again() {
    let collector = Collector::start(&[Verdict::Taken]).await;
    let operator = Operator::on(Engine::Sqlite).await.with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base);
    let file = operator.path("headers");
    let operator = operator.with("AUTHSERVICE__TRACES__HEADERS_FILE", file);
    operator.write("headers", "authorization=CANARY-1");
    let mut server = operator.serve().await;

    operator.write("headers", "authorization=CANARY-2");
    server.process.logged("the headers of traces were read anew").await.unwrap();
    server.alice().await;

    let log = server.stop().await.join("\n");
    assert_eq!(collector.received().last().unwrap().headers["authorization"], "CANARY-2");
    assert!(!log.contains("CANARY"), "{log}");
}

/// What is used began with the process, what is compared with it must not begin later.
#[tokio::test]
async fn headers_that_change_while_the_server_waits_for_its_database_are_used() {
    let collector = Collector::start(&[Verdict::Taken]).await;
    let (operator, url) = Operator::with_url_file("url").await;
    let headers = operator.path("headers");
    let operator = operator
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.base)
        .with("AUTHSERVICE__TRACES__HEADERS_FILE", headers);
    let role = Role::create("NOLOGIN").await;
    operator.write("url", &role.url(&url, "CANARY"));
    operator.write("headers", "authorization=CANARY-1");
    let mut process = operator.spawn(&["serve"]);
    process.logged("listening, not ready yet").await.unwrap();

    operator.write("headers", "authorization=CANARY-2");
    operator.write("url", &url);

    let server = Server::of(process).await;
    server.alice().await;
    server.stop().await;
    assert_eq!(collector.received().last().unwrap().headers["authorization"], "CANARY-2");
}
