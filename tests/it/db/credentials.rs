//! Credentials that are exchanged in their file are taken when they work, by requests and by a failover alike; another server or database is not.

use std::path::{Path, PathBuf};

use authservice::jobs::Secrets;

use super::primary::{Gateway, server_of, url};
use crate::support::database::Role;
use crate::support::{Engine, TestApp};

const FILE: &str = "AUTHSERVICE__DATABASE__URL_FILE";
const PATIENCE: (&str, &str) = ("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "1");

/// A server whose URL lies in a file, and what reads that again.
struct Rig {
    app: TestApp,
    file: PathBuf,
    secrets: Secrets,
}

impl Rig {
    /// On the database of another server.
    async fn beside(first: &TestApp, content: &str) -> Self {
        let file = first.directory().join("url");
        std::fs::write(&file, content).unwrap();
        let app = first.another_replica_with(&[(FILE, file.to_str().unwrap()), PATIENCE]).await;
        let secrets = Secrets::of(&app.app.config, None);
        Self { app, file, secrets }
    }

    /// Writes the file, and has it read again; 1 when what it holds is not taken.
    async fn exchange(&mut self, content: &str) -> i64 {
        std::fs::write(&self.file, content).unwrap();
        self.reread().await
    }

    async fn reread(&mut self) -> i64 {
        self.secrets.reread(&self.app.app).await;
        self.app.app.metrics.secrets_refused.get()
    }
}

/// How many connections of servers a role has to the database.
async fn connections(first: &TestApp, role: &Role) -> i64 {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND application_name = 'authservice'",
        role.name
    );
    first.count(&sql).await
}

async fn end_connections_of(first: &TestApp, role: &Role) {
    let sql = format!("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = '{}'", role.name);
    first.sql(&sql).await;
}

/// Asks for as long as connections that were ended are still met.
async fn refreshed(app: &TestApp, mut token: String) -> String {
    for _ in 0..20 {
        let answer = app.refresh(&token).await;
        if answer.status == 200 {
            token = answer.pair().refresh;
            return token;
        }
        assert_eq!(answer.status, 503, "{answer:?}");
    }
    panic!("no request is served");
}

/// One role takes the place of another, which may do nothing any more: as whoever gives out roles for a time does it.
#[tokio::test]
async fn another_role_is_taken_and_connections_of_the_one_before_are_given_up() {
    let first = TestApp::start(Engine::Postgres, &[]).await;
    let (old, new) = (Role::create("LOGIN SUPERUSER").await, Role::create("LOGIN SUPERUSER").await);
    let database = url(&first).to_string();
    let mut rig = Rig::beside(&first, &old.url(&database, "one")).await;
    let pair = rig.app.alice().await;
    assert!(connections(&first, &old).await > 0);

    assert_eq!(rig.exchange(&new.url(&database, "two")).await, 0);
    old.alter("NOLOGIN").await;
    // Each is closed when it would be used; nothing fails.
    let mut token = pair.refresh;
    for _ in 0..4 {
        token = rig.app.refresh(&token).await.pair().refresh;
    }

    assert_eq!(rig.app.get("/health/ready").await.status, 200);
    assert!(connections(&first, &new).await > 0);
    end_connections_of(&first, &new).await;
    refreshed(&rig.app, token).await;
    assert_eq!(connections(&first, &old).await, 0);
}

/// Who has connected has proved who he is: the connections live on, those that come later have the new password.
#[tokio::test]
async fn another_password_leaves_the_connections_that_there_are() {
    let first = TestApp::start(Engine::Postgres, &[]).await;
    let role = Role::asked("one").await;
    let database = url(&first).to_string();
    let mut rig = Rig::beside(&first, &role.url(&database, "one")).await;
    let pair = rig.app.alice().await;
    let started = format!(
        "SELECT sum(pid)::bigint FROM pg_stat_activity WHERE usename = '{}' AND application_name = 'authservice'",
        role.name
    );
    let before = first.count(&started).await;

    let is_asked = sea_orm::Database::connect(role.url(&database, "wrong")).await.is_err();
    assert!(is_asked || std::env::var_os("TEST_POSTGRES_ASKS").is_none(), "scripts/test.sh has started one that asks");
    assert_eq!(rig.exchange(&role.url(&database, "two")).await, i64::from(is_asked));
    role.alter("PASSWORD 'two'").await;
    assert_eq!(rig.reread().await, 0);

    let token = rig.app.refresh(&pair.refresh).await.pair().refresh;
    assert_eq!(first.count(&started).await, before, "the same processes");
    end_connections_of(&first, &role).await;
    refreshed(&rig.app, token).await;
}

#[tokio::test]
async fn what_does_not_work_is_not_taken_and_tried_again() {
    let first = TestApp::start(Engine::Postgres, &[]).await;
    let (used, other) = (Role::create("LOGIN SUPERUSER").await, Role::create("NOLOGIN").await);
    let database = url(&first).to_string();
    let (good, bad) = (used.url(&database, "one"), other.url(&database, "two"));
    let mut rig = Rig::beside(&first, &good).await;
    let token = rig.app.alice().await.refresh;

    assert_eq!(rig.exchange(&bad).await, 1, "may not connect");
    other.alter("LOGIN").await;
    assert_eq!(rig.reread().await, 1, "has no right to the tables");
    for text in ["", "\n", "postgres://", "nonsense"] {
        assert_eq!(rig.exchange(text).await, 1, "{text:?}");
    }
    std::fs::remove_file(&rig.file).unwrap();
    assert_eq!(rig.reread().await, 1, "no file");
    end_connections_of(&first, &used).await;
    let token = refreshed(&rig.app, token).await;

    assert_eq!(rig.exchange(&good).await, 0, "as it was");
    other.alter("SUPERUSER").await;
    assert_eq!(rig.exchange(&bad).await, 0, "works now");
    used.alter("NOLOGIN").await;
    end_connections_of(&first, &used).await;
    refreshed(&rig.app, token).await;
}

/// What lies in another database are other users and other keys.
#[tokio::test]
async fn another_database_or_server_is_not_switched_to() {
    let first = TestApp::start(Engine::Postgres, &[]).await;
    let another = TestApp::start(Engine::Postgres, &[]).await;
    let database = url(&first).to_string();
    let server = server_of(&first);
    let gateway = Gateway::start(&server).await;
    let mut rig = Rig::beside(&first, &database).await;
    rig.app.alice().await;

    let elsewhere = [
        url(&another).to_string(),
        database.replace(&server, &gateway.address.to_string()),
        database.replace(&server, &format!("{server},{}", gateway.address)),
        "sqlite://test.db?mode=rwc".to_owned(),
    ];
    for url in elsewhere {
        assert_eq!(rig.exchange(&url).await, 1, "{url}");
        rig.app.sign_in("alice@example.com").await;
    }
    assert_eq!(rig.exchange(&database).await, 0);
}

/// Without them the search after a failover would find a server that refuses it.
#[tokio::test]
async fn a_failover_uses_what_was_read_anew() {
    let first = TestApp::start(Engine::Postgres, &[]).await;
    let (old, new) = (Role::create("LOGIN SUPERUSER").await, Role::create("LOGIN SUPERUSER").await);
    let direct = url(&first).to_string();
    let server = server_of(&first);
    let gateway = Gateway::start(&server).await;
    let several =
        |role: &Role, password| role.url(&direct, password).replace(&server, &format!("{},{server}", gateway.address));
    let (before, after, last) = (several(&old, "one"), several(&new, "two"), several(&new, "three"));
    let mut rig = Rig::beside(&first, &before).await;
    let token = rig.app.alice().await.refresh;
    assert_eq!(rig.exchange(&after).await, 0);
    old.alter("NOLOGIN").await;

    drop(gateway);

    let token = refreshed(&rig.app, token).await;
    // With the host that was in use gone, another one shows that credentials work.
    assert_eq!(rig.exchange(&last).await, 0);
    end_connections_of(&first, &new).await;
    refreshed(&rig.app, token).await;
}

/// Credentials and host change at the same time: neither waits for the other.
#[tokio::test]
async fn credentials_are_taken_although_the_host_in_use_has_failed() {
    let first = TestApp::start(Engine::Postgres, &[]).await;
    let (old, new) = (Role::create("LOGIN SUPERUSER").await, Role::create("LOGIN SUPERUSER").await);
    let direct = url(&first).to_string();
    let server = server_of(&first);
    let gateway = Gateway::start(&server).await;
    let several = |role: &Role| role.url(&direct, "any").replace(&server, &format!("{},{server}", gateway.address));
    let (before, after) = (several(&old), several(&new));
    let mut rig = Rig::beside(&first, &before).await;
    let token = rig.app.alice().await.refresh;
    old.alter("NOLOGIN").await;
    drop(gateway);

    assert_eq!(rig.exchange(&after).await, 0);

    refreshed(&rig.app, token).await;
}

/// An SQLite file is no credential.
#[tokio::test]
async fn another_file_of_sqlite_is_not_switched_to() {
    let first = TestApp::start(Engine::Sqlite, &[]).await;
    let file = |name: &str| format!("sqlite://{}?mode=rwc", Path::new(first.directory()).join(name).display());
    let mut rig = Rig::beside(&first, &file("test.db")).await;
    rig.app.alice().await;

    assert_eq!(rig.exchange(&file("other.db")).await, 1);

    rig.app.sign_in("alice@example.com").await;
    assert!(!first.directory().join("other.db").exists());
}
