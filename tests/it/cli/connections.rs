//! Connections of a real server to PostgreSQL: opened before they are needed, as many as there is room for, none forgotten.

use std::time::{Duration, Instant};

use super::{Operator, PATIENCE};
use crate::support::Engine;
use crate::support::database::Role;

const MAX_CONNECTIONS: &str = "AUTHSERVICE__DATABASE__MAX_CONNECTIONS";
const OURS: &str = "SELECT count(*)::text FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name = 'authservice'";

/// How many connections servers have open now.
async fn open(operator: &Operator) -> u64 {
    operator.texts(OURS).await[0].parse().unwrap()
}

/// Servers and commands of the operator connect as this role.
fn as_role(operator: Operator, role: &Role) -> Operator {
    let url = role.url(&operator.database.as_ref().unwrap().url, "any");
    operator.with("DATABASE_URL", url)
}

#[tokio::test]
async fn a_server_that_is_ready_has_opened_half_of_its_connections() {
    // What is in the background opens some of its own.
    for (max, least) in [("20", 10), ("14", 7), ("1", 1)] {
        let operator = Operator::on(Engine::Postgres).await.with(MAX_CONNECTIONS, max);
        let server = operator.serve().await;

        let open = open(&operator).await;

        assert!((least..=max.parse().unwrap()).contains(&open), "{open} of {max}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_serves_with_the_connections_that_there_is_room_for() {
    let operator = Operator::on(Engine::Postgres).await;
    let role = Role::create("LOGIN CONNECTION LIMIT 6").await;
    let name = &role.name;
    let operator = as_role(operator, &role);
    let give = format!("DO $$BEGIN EXECUTE format('ALTER DATABASE %I OWNER TO {name}', current_database()); END$$");
    operator.sql(&give).await;

    let server = operator.serve().await;

    server.alice().await;
    assert!(open(&operator).await <= 6);
    let log = server.stop().await.join("\n");
    assert!(log.contains("fewer connections") && log.contains("\"wanted\":10"), "{log}");
    operator.sql(&format!("REASSIGN OWNED BY {name} TO CURRENT_USER; DROP OWNED BY {name}")).await;
}

#[tokio::test]
async fn a_start_that_is_tried_again_leaves_no_connection_behind() {
    let operator = Operator::on(Engine::Postgres).await;
    // May connect, and make no table.
    let role = Role::create("LOGIN").await;
    let operator = as_role(operator, &role);
    let mut process = operator.spawn(&["serve"]);
    let attempts = || process.stdout.now().iter().filter(|line| line.contains("waiting for the database")).count();

    let started = Instant::now();
    // Between two attempts there is none; those that an attempt leaves would be there for as long as the server lives.
    while attempts() < 3 || open(&operator).await > 0 {
        assert!(started.elapsed() < PATIENCE, "{:?}", process.stdout.now());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
}
