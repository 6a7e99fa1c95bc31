//! What the service manager is told: a unit of `Type=notify` is up when the server is ready, and not before.

use std::os::unix::net::UnixDatagram;

use super::{Operator, PATIENCE};
use crate::support::Engine;

fn manager(operator: &Operator) -> UnixDatagram {
    let socket = UnixDatagram::bind(operator.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn told(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 1024];
    let length = socket.recv(&mut bytes).unwrap();
    String::from_utf8(bytes[..length].to_vec()).unwrap()
}

#[tokio::test]
async fn it_is_told_that_the_server_is_ready_and_that_it_stops() {
    let operator = Operator::on(Engine::Sqlite).await.with("AUTHSERVICE__SERVER__DRAIN_SECONDS", "0");
    let operator = {
        let path = operator.path("notify");
        operator.with("NOTIFY_SOCKET", path)
    };
    let socket = manager(&operator);
    let mut server = operator.serve().await;

    assert_eq!(told(&socket), "READY=1\nSTATUS=ready\n");
    assert_eq!(server.get("/health/ready").await.status, 200);

    server.process.signal("TERM");
    assert_eq!(told(&socket), "STOPPING=1\nSTATUS=finishing requests in flight\n");
    assert_eq!(server.process.ended().await, Some(0));
}

#[tokio::test]
async fn a_server_that_waits_for_its_database_is_not_ready() {
    let operator = Operator::new()
        .with("AUTHSERVICE__SERVER__PORT", "0")
        .with("AUTHSERVICE__SERVER__ISSUER", "http://localhost")
        .with("DATABASE_URL", "postgres://user@127.0.0.1:1/name");
    let operator = {
        let path = operator.path("notify");
        operator.with("NOTIFY_SOCKET", path)
    };
    let socket = manager(&operator);
    let mut process = operator.spawn(&["serve"]);

    assert_eq!(told(&socket), "STATUS=waiting for the database\n");

    process.signal("TERM");
    assert!(told(&socket).starts_with("STOPPING=1\n"));
    assert_eq!(process.ended().await, Some(0));
}

/// Nobody listens there: that is no reason to stop.
#[tokio::test]
async fn a_manager_that_is_gone_is_not_missed() {
    let operator = Operator::on(Engine::Sqlite).await.with("NOTIFY_SOCKET", "/nowhere/notify");
    operator.serve().await.stop().await;
}
