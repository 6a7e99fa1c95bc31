//! `backup`: the whole database, in a file that is whole or not there.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait as _, TransactionTrait as _};
use serde_json::Value;

use super::{BINARY, Operator, PATIENCE};
use crate::support::Engine;

pub(super) const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];

/// Takes a backup through standard output.
pub(super) fn take(operator: &Operator) -> String {
    let taken = operator.run(&["backup", "-"]).exits(0);
    assert!(taken.stderr.contains("key-encryption key"), "{taken:?}");
    taken.stdout
}

/// The columns of each table that are in a backup.
fn columns(backup: &str) -> BTreeMap<String, BTreeSet<String>> {
    let lines = backup.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let name = |column: &Value| column["name"].as_str().unwrap().to_owned();
    let section = |line: Value| {
        let columns = line["columns"].as_array()?.iter().map(name).collect();
        Some((line["table"].as_str()?.to_owned(), columns))
    };
    lines.filter_map(section).collect()
}

/// A table or a column that a migration adds must not be forgotten here.
#[tokio::test]
async fn every_column_of_every_table_is_in_the_backup() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        operator.run(&["migrate", "up"]).exits(0);
        let mut expected = BTreeMap::new();
        for table in operator.tables().await {
            let sql = match engine {
                Engine::Sqlite => format!("SELECT name FROM pragma_table_info('{table}')"),
                Engine::Postgres => format!(
                    "SELECT column_name::text FROM information_schema.columns WHERE table_schema = 'public' AND table_name = '{table}'"
                ),
            };
            expected.insert(table, operator.texts(&sql).await.into_iter().collect::<BTreeSet<_>>());
        }
        // The first line lists the one; a restored database is known by nothing.
        for made_anew in ["seaql_migrations", "schema_compatibility", "database_identity"] {
            assert!(expected.remove(made_anew).is_some(), "{engine:?}");
        }

        let backup = take(&operator);

        assert_eq!(columns(&backup), expected, "{engine:?}");
        let header: Value = serde_json::from_str(backup.lines().next().unwrap()).unwrap();
        let applied = operator.texts("SELECT version FROM seaql_migrations ORDER BY version").await;
        assert_eq!(header["migrations"], serde_json::json!(applied), "{engine:?}");
        assert_eq!(header["authservice_backup"], 1, "{engine:?}");
    }
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_another_is_never_overwritten_by_chance() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        operator.run(&["migrate", "up"]).exits(0);
        operator.sql("CREATE TABLE notes (id integer)").await;

        let taken = operator.run(&["backup", "first"]).exits(0);

        assert_eq!(taken.stdout, "", "{engine:?}");
        assert!(taken.stderr.contains("the table notes"), "{engine:?}: {taken:?}");
        let mode = std::fs::metadata(operator.path("first")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{engine:?}");
        let first = std::fs::read_to_string(operator.path("first")).unwrap();
        assert!(first.ends_with("\"}\n") && first.lines().last().unwrap().contains("sha256"), "{engine:?}");

        operator.write("first", "precious");
        let refused = operator.run(&["backup", "first"]).exits(65);
        assert!(refused.stderr.contains("--force"), "{engine:?}: {refused:?}");
        assert_eq!(std::fs::read_to_string(operator.path("first")).unwrap(), "precious", "{engine:?}");
        operator.run(&["backup", "--force", "first"]).exits(0);
        assert!(std::fs::read_to_string(operator.path("first")).unwrap().contains("sha256"), "{engine:?}");
        operator.run(&["backup", "nowhere/first"]).exits(69);
        let drafts: Vec<String> = operator.files().into_iter().filter(|name| name.contains("tmp")).collect();
        assert_eq!(drafts, Vec::<String>::new(), "{engine:?}");
    }
}

/// Nobody may take for a backup what a full disk has cut off.
#[tokio::test]
async fn a_disk_that_is_full_is_told() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        operator.run(&["migrate", "up"]).exits(0);

        let mut process = operator.spawn_program("sh", &["-c", "exec \"$0\" backup - > /dev/full", BINARY]);

        assert_eq!(process.ended().await, Some(69), "{engine:?}");
        assert!(process.output().1.contains("No space left"), "{engine:?}");
    }
}

#[tokio::test]
async fn only_a_database_of_this_release_is_saved() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        let refused = operator.run(&["backup", "file"]).exits(78);
        assert!(refused.stderr.contains("`authservice migrate up`"), "{engine:?}: {refused:?}");
        assert!(!operator.path("file").exists(), "{engine:?}");
    }
}

/// A large table takes its time, and so does whoever holds it.
#[tokio::test]
async fn a_backup_may_take_longer_than_a_statement() {
    let operator = Operator::on(Engine::Postgres).await.with("AUTHSERVICE__DATABASE__STATEMENT_TIMEOUT_SECONDS", "1");
    operator.run(&["migrate", "up"]).exits(0);
    let db = operator.database().await;
    let tx = db.begin().await.unwrap();
    tx.execute_unprepared("LOCK TABLE audit_events IN ACCESS EXCLUSIVE MODE").await.unwrap();

    let mut process = operator.spawn(&["backup", "file"]);
    let waits = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'authservice' \
        AND datname = current_database() AND wait_event_type = 'Lock' AND clock_timestamp() - query_start > '1.5 s'";
    let started = Instant::now();
    while operator.texts(waits).await == ["0"] {
        assert!(process.child.try_wait().unwrap().is_none(), "it has given up: {:?}", process.output());
        assert!(started.elapsed() < PATIENCE, "it does not wait for the table");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tx.rollback().await.unwrap();

    assert_eq!(process.ended().await, Some(0), "{:?}", process.output());
    assert!(std::fs::read_to_string(operator.path("file")).unwrap().contains("sha256"));
}
