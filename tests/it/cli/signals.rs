//! Commands that end by themselves end at a signal too, as process 1 of a container as well, and undo what was open.

use std::process::Command;
use std::time::{Duration, Instant};

use sea_orm::ConnectionTrait as _;

use super::process::Process;
use super::{BINARY, Operator, PATIENCE};
use crate::support::Engine;

/// The lock under which migrations are applied: the bytes of "authmigr".
const LOCK: i64 = 0x6175_7468_6d69_6772;

/// True once the process has a handler for SIGTERM: before, it is the kernel that ends it, and says so in another way.
fn hears(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & (1 << 14) != 0)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !is_so().await {
        assert!(started.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The only child of a process.
fn child_of(pid: u32) -> Option<u32> {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?.split_whitespace().next()?.parse().ok()
}

fn kill(name: &str, pid: u32) {
    let command = format!("kill -{name} {pid}");
    assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
}

/// Starts the command as process 1 of a namespace where this machine gives one, else as any process.
fn start_as_first(operator: &Operator, arguments: &[&str]) -> (Process, bool) {
    let unshare = ["--pid", "--fork", "--kill-child"];
    let is_given = Command::new("unshare").args(unshare).arg("true").output().is_ok_and(|done| done.status.success());
    if is_given {
        (operator.spawn_program("unshare", &[&unshare[..], &[BINARY], arguments].concat()), true)
    } else {
        eprintln!("no namespace here: the command is not process 1");
        (operator.spawn(arguments), false)
    }
}

#[tokio::test]
async fn sigterm_ends_a_migration_that_waits_and_nothing_is_left_of_it() {
    let operator = Operator::on(Engine::Postgres).await;
    let db = operator.database().await;
    db.execute_unprepared(&format!("SELECT pg_advisory_lock({LOCK})")).await.unwrap();
    let (mut process, is_first) = start_as_first(&operator, &["migrate", "up"]);
    let waiting = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name = 'authservice' AND wait_event_type = 'Lock'";
    until("nobody waits for the lock", async || operator.texts(waiting).await == ["1"]).await;
    let pid = if is_first { child_of(process.child.id()).unwrap() } else { process.child.id() };

    let started = Instant::now();
    kill("TERM", pid);

    assert_eq!(process.ended().await, Some(143), "{:?}", process.output());
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    let (stdout, stderr) = process.output();
    assert_eq!(stdout, "");
    assert_eq!(stderr, "authservice: ended by SIGTERM; a transaction that was open is undone\n");
    db.close().await.unwrap();
    let others = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'authservice'";
    until("its connections stay", async || operator.texts(others).await == ["0"]).await;
    assert_eq!(operator.tables().await, Vec::<String>::new());
    // The lock is free again.
    operator.run(&["migrate", "up"]).exits(0);
}

#[tokio::test]
async fn a_signal_ends_a_command_that_waits_for_its_database() {
    let operator = Operator::new().with("DATABASE_URL", "postgres://user@127.0.0.1:1/name");
    for arguments in
        [&["keys", "list"][..], &["users", "list"], &["cleanup"], &["adopt", "--dry-run"], &["audit", "list"]]
    {
        let (mut process, is_first) = start_as_first(&operator, arguments);
        let pid = process.child.id();
        let pid = move || if is_first { child_of(pid) } else { Some(pid) };
        until("no handler", async || pid().is_some_and(hears)).await;

        kill("TERM", pid().unwrap());

        assert_eq!(process.ended().await, Some(143), "{arguments:?}: {:?}", process.output());
    }
}

#[tokio::test]
async fn a_signal_ends_a_command_that_waits_for_somebody_to_type() {
    let operator = Operator::on(Engine::Sqlite).await;
    operator.serve().await.stop().await;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        // Standard input stays open and says nothing.
        let mut process = operator.spawn(&["users", "set-password", "alice@example.com"]);
        let pid = process.child.id();
        until("no handler", async || hears(pid)).await;

        kill(signal, pid);

        assert_eq!(process.ended().await, Some(code), "{signal}: {:?}", process.output());
    }
}
