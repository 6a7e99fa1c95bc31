//! A PostgreSQL that takes no writes any more is let go, and of several hosts the one that does is found.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::Url;
use sea_orm::{ConnectOptions, ConnectionTrait as _, DatabaseConnection};
use secrecy::ExposeSecret as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::support::{Engine, TestApp};

const PATIENCE: (&str, &str) = ("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "1");
const ONE: (&str, &str) = ("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "1");

#[tokio::test]
async fn a_connection_whose_server_has_become_a_standby_is_given_up() {
    let app = TestApp::start(Engine::Postgres, &[ONE]).await;
    let pair = app.alice().await;

    app.sql("SET default_transaction_read_only = on").await;
    app.refresh(&pair.refresh).await.refused(503, "temporarily_unavailable");
    let pair = app.refresh(&pair.refresh).await.pair();

    // Without a statement that writes, the look at readiness finds out.
    app.sql("SET default_transaction_read_only = on").await;
    assert_eq!(app.get("/health/ready").await.status, 503);
    assert_eq!(app.get("/health/ready").await.status, 200);
    assert_eq!(app.refresh(&pair.refresh).await.status, 200);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_not_connected_to() {
    let app = TestApp::start(Engine::Postgres, &[PATIENCE]).await;
    let pair = app.alice().await;
    let admin = connect(&url(&app)).await;
    let every = |set: &str| format!("DO $$BEGIN EXECUTE format('ALTER DATABASE %I {set}', current_database()); END$$");
    admin.execute_unprepared(&every("SET default_transaction_read_only = on")).await.unwrap();
    let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    admin.execute_unprepared(others).await.unwrap();

    for _ in 0..3 {
        let answer = app.refresh(&pair.refresh).await;
        answer.refused(503, "temporarily_unavailable");
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{answer:?}");
    }
    assert_eq!(app.me(&pair.access).await.status, 503);
    assert_eq!(app.get("/health/ready").await.status, 503);

    admin.execute_unprepared(&every("RESET default_transaction_read_only")).await.unwrap();
    assert_eq!(app.refresh(&pair.refresh).await.status, 200);
    assert_eq!(app.get("/health/ready").await.status, 200);
    admin.close().await.unwrap();
}

#[tokio::test]
async fn of_several_hosts_the_one_that_takes_writes_is_used_also_after_a_failover() {
    let app = TestApp::start(Engine::Postgres, &[]).await;
    let pair = app.alice().await;
    let direct = url(&app);
    let server = server_of(&app);
    let (nobody, first) = (closed_port().await, Gateway::start(&server).await);
    let hosts = format!("{nobody},{},{server}", first.address);
    let several = direct.as_str().replace(&server, &hosts) + "?target_session_attrs=read-write";
    let replica = app.another_replica_with(&[("DATABASE_URL", &several), PATIENCE]).await;
    let pair = replica.refresh(&pair.refresh).await.pair();
    assert!(first.connections() > 0, "the first host that answers is used");

    drop(first);

    let mut statuses = Vec::new();
    while statuses.last() != Some(&200) && statuses.len() < 20 {
        statuses.push(replica.refresh(&pair.refresh).await.status);
    }
    assert_eq!(statuses.last(), Some(&200), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
}

/// The driver would try for itself, ever more seldom, and keep the place in the pool meanwhile.
#[tokio::test]
async fn after_an_outage_the_first_request_gets_a_connection() {
    let app = TestApp::start(Engine::Postgres, &[]).await;
    let pair = app.alice().await;
    let direct = url(&app);
    let server = server_of(&app);
    let gateway = Gateway::start(&server).await;
    let address = gateway.address;
    let through = direct.as_str().replace(&server, &address.to_string());
    let replica = app.another_replica_with(&[("DATABASE_URL", &through), PATIENCE, ONE]).await;
    assert_eq!(replica.me(&pair.access).await.status, 200);

    drop(gateway);
    // Each waits for a second.
    for _ in 0..4 {
        replica.me(&pair.access).await.refused(503, "temporarily_unavailable");
    }
    let _gateway = Gateway::at(address, &server).await;

    assert_eq!(replica.me(&pair.access).await.status, 200);
}

/// Both are a wait that was too long, and want different things of an operator.
#[tokio::test]
async fn a_server_that_is_away_is_told_from_a_pool_that_is_in_use() {
    let app = TestApp::start(Engine::Postgres, &[]).await;
    let pair = app.alice().await;
    let direct = url(&app);
    let server = server_of(&app);
    let gateway = Gateway::start(&server).await;
    let through = direct.as_str().replace(&server, &gateway.address.to_string());
    let few = ("AUTHSERVICE__DATABASE__MAX_CONNECTIONS", "4");
    let replica = app.another_replica_with(&[("DATABASE_URL", &through), PATIENCE, few]).await;
    let errors = |kind: &'static str| replica.app.metrics.db_errors.of(kind).get();

    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(replica.app.db.begin().await.unwrap());
    }
    replica.me(&pair.access).await.refused(503, "temporarily_unavailable");
    assert_eq!((errors("acquire_timeout"), errors("connection")), (1, 0));
    drop(held);

    drop(gateway);
    // The connections that broke, and then those that nobody lets in.
    for _ in 0..6 {
        replica.me(&pair.access).await.refused(503, "temporarily_unavailable");
    }
    assert_eq!((errors("acquire_timeout"), errors("connection")), (1, 6));
}

pub(super) fn url(app: &TestApp) -> Url {
    app.app.config.database.url.expose_secret().parse().unwrap()
}

/// Host and port of its PostgreSQL.
pub(super) fn server_of(app: &TestApp) -> String {
    let url = url(app);
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5432))
}

async fn connect(url: &Url) -> DatabaseConnection {
    let mut options = ConnectOptions::new(url.as_str());
    options.max_connections(1).sqlx_logging(false);
    sea_orm::Database::connect(options).await.unwrap()
}

async fn closed_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Another address of a server, until it is dropped.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    opened: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Gateway {
    pub(super) async fn start(server: &str) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), server).await
    }

    async fn at(address: SocketAddr, server: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, server) = (listener.local_addr().unwrap(), server.to_owned());
        let opened = Arc::<AtomicUsize>::default();
        let task = tokio::spawn({
            let opened = opened.clone();
            async move {
                // Aborted together with the task.
                let mut connections = JoinSet::new();
                loop {
                    let (mut client, _) = listener.accept().await.unwrap();
                    opened.fetch_add(1, Ordering::SeqCst);
                    let server = server.clone();
                    connections.spawn(async move {
                        let mut server = TcpStream::connect(server).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    });
                }
            }
        });
        Self { address, opened, task }
    }

    fn connections(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}
