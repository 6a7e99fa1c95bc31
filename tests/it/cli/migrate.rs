//! `migrate up` and `migrate status`, one at a time and many at once, and the databases that they leave alone.

use super::{Operator, Outcome, Server};
use crate::support::{Engine, PASSWORD};

const ENGINES: [Engine; 2] = [Engine::Sqlite, Engine::Postgres];
/// Files without those that SQLite keeps beside an open database.
fn files(operator: &Operator) -> Vec<String> {
    let mut files = operator.files();
    files.retain(|name| !name.ends_with("-wal") && !name.ends_with("-shm"));
    files
}

/// Every command that opens the database.
const COMMANDS: [&[&str]; 9] = [
    &["serve"],
    &["serve", "--no-migrate"],
    &["migrate", "up"],
    &["migrate", "status"],
    &["users", "list"],
    &["users", "deactivate", "alice@example.com"],
    &["cleanup"],
    &["backup", "-"],
    &["after-restore"],
];

#[tokio::test]
async fn migrations_are_listed_applied_once_and_then_known() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;

        let before = operator.run(&["migrate", "status"]).exits(0);
        let first = operator.run(&["migrate", "up"]).exits(0);
        let second = operator.run(&["migrate", "up"]).exits(0);
        let after = operator.run(&["migrate", "status"]).exits(0);

        let names: Vec<&str> = before.stdout.lines().map(|line| line.strip_prefix("missing ").unwrap()).collect();
        assert!(!names.is_empty(), "{engine:?}");
        let lines = |word: &str| {
            let lines: Vec<String> = names.iter().map(|name| format!("{word} {name}\n")).collect();
            lines.concat()
        };
        assert_eq!(first.stdout, lines("applied"), "{engine:?}");
        assert_eq!(second.stdout, "nothing to apply\n", "{engine:?}");
        assert_eq!(after.stdout, lines("applied"), "{engine:?}");
        let tables = operator.tables().await;
        for table in ["auth_sessions", "refresh_tokens", "signing_keys", "users"] {
            assert!(tables.iter().any(|name| name == table), "{engine:?}: {tables:?}");
        }
        // The keys are the server's business.
        assert!(!operator.path("keys").exists(), "{engine:?}");
    }
}

#[tokio::test]
async fn many_migrators_at_once_apply_each_migration_once() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;

        let outcomes: Vec<Outcome> = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..6).map(|_| scope.spawn(|| operator.run(&["migrate", "up"]))).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });

        let idle = outcomes
            .into_iter()
            .map(|outcome| outcome.exits(0))
            .filter(|outcome| outcome.stdout == "nothing to apply\n")
            .count();
        assert_eq!(idle, 5, "{engine:?}");
    }
}

#[tokio::test]
async fn a_database_of_the_seed_is_left_alone_and_adopt_is_named() {
    for engine in ENGINES {
        for seed in [&["alembic_version", "authsessions"][..], &["alembic_version"], &["authsessions"]] {
            let operator = Operator::on(engine).await;
            for table in seed {
                operator.sql(&format!("CREATE TABLE {table} (version_num varchar(32) NOT NULL)")).await;
                operator.sql(&format!("INSERT INTO {table} VALUES ('b791a564d5ca')")).await;
            }
            let before = files(&operator);

            for command in COMMANDS {
                let outcome = operator.run(command).exits(78);
                assert!(outcome.stderr.contains("`authservice adopt`"), "{engine:?} {command:?}: {outcome:?}");
            }

            assert_eq!(operator.tables().await, seed, "{engine:?}");
            for table in seed {
                assert_eq!(
                    operator.texts(&format!("SELECT version_num FROM {table}")).await,
                    ["b791a564d5ca"],
                    "{engine:?}"
                );
            }
            assert_eq!(files(&operator), before, "{engine:?}");
        }
    }
}

#[tokio::test]
async fn a_newer_schema_is_left_alone_and_its_migration_is_named() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        operator.run(&["migrate", "up"]).exits(0);
        operator.sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_later', 0)").await;
        operator.sql("UPDATE schema_compatibility SET oldest = 'm29991231_000001_later'").await;
        let before = (files(&operator), operator.tables().await);

        for command in COMMANDS {
            let outcome = operator.run(command).exits(78);
            assert!(
                outcome.stderr.contains("newer") && outcome.stderr.contains("m29991231_000001_later"),
                "{engine:?} {command:?}: {outcome:?}"
            );
        }

        assert_eq!((files(&operator), operator.tables().await), before, "{engine:?}");
        assert_eq!(operator.texts("SELECT kid FROM signing_keys").await, Vec::<String>::new());
    }
}

/// A release is rolled back while the database keeps what the newer one added: the older one runs when the newer one said so.
#[tokio::test]
async fn a_newer_schema_that_is_said_to_be_compatible_is_run_on() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        operator.run(&["migrate", "up"]).exits(0);
        add_columns(&operator).await;
        operator.sql("CREATE TABLE later (id integer PRIMARY KEY)").await;
        operator.sql("INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_later', 0)").await;

        let status = operator.run(&["migrate", "status"]).exits(0);
        assert_eq!(status.stdout.lines().last(), Some("newer   m29991231_000001_later"), "{engine:?}");
        assert_eq!(operator.run(&["migrate", "up"]).exits(0).stdout, "nothing to apply\n", "{engine:?}");
        for (email, options) in [("alice@example.com", &["serve", "--no-migrate"][..]), ("bob@example.com", &["serve"])]
        {
            let server = Server::of(operator.spawn(options)).await;
            server.register(email, PASSWORD).await;
            let pair = server.login(email, PASSWORD).await.pair();
            let next = server.refresh(&pair.refresh).await.pair();
            assert_eq!(server.me(&next.access).await.status, 200, "{engine:?}");
            let log = server.stop().await.concat();
            assert!(log.contains("m29991231_000001_later"), "{engine:?}: {log}");
        }
        operator.run(&["users", "deactivate", "alice@example.com"]).exits(0);
        operator.run(&["cleanup"]).exits(0);
        assert!(operator.texts("SELECT later FROM users").await.iter().all(|text| text == "later"), "{engine:?}");

        // The newer release may need what this one does not know.
        operator.sql("UPDATE schema_compatibility SET oldest = 'm29991231_000001_later'").await;
        for command in COMMANDS {
            let outcome = operator.run(command).exits(78);
            assert!(outcome.stderr.contains("m29991231_000001_later"), "{engine:?} {command:?}: {outcome:?}");
        }
    }
}

/// While the newer release migrates, replicas of the older one serve: no statement that they have prepared may depend on the columns
/// that a table has beside its own.
#[tokio::test]
async fn columns_that_a_newer_release_adds_break_no_server_that_runs() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;
        let server = Server::of(operator.spawn(&["serve"])).await;
        server.register("alice@example.com", PASSWORD).await;
        let mut pair = server.login("alice@example.com", PASSWORD).await.pair();
        for _ in 0..4 {
            pair = server.refresh(&pair.refresh).await.pair();
            assert_eq!(server.me(&pair.access).await.status, 200, "{engine:?}");
        }

        add_columns(&operator).await;

        for _ in 0..4 {
            pair = server.refresh(&pair.refresh).await.pair();
            assert_eq!(server.me(&pair.access).await.status, 200, "{engine:?}");
        }
        server.register("bob@example.com", PASSWORD).await;
        server.login("bob@example.com", PASSWORD).await.pair();
        let log = server.stop().await.concat();
        assert!(!log.contains("\"ERROR\""), "{engine:?}: {log}");
    }
}

/// What a migration may add that is called compatible.
async fn add_columns(operator: &Operator) {
    for table in ["users", "auth_sessions", "refresh_tokens", "signing_keys", "audit_events", "rate_limits"] {
        operator.sql(&format!("ALTER TABLE {table} ADD COLUMN later varchar(9) NOT NULL DEFAULT 'later'")).await;
    }
}

#[tokio::test]
async fn without_migrations_a_command_says_that_they_are_missing() {
    for engine in ENGINES {
        let operator = Operator::on(engine).await;

        for command in [&["serve", "--no-migrate"][..], &["users", "list"]] {
            let outcome = operator.run(command).exits(78);
            assert!(outcome.stderr.contains("`authservice migrate up`"), "{engine:?} {command:?}: {outcome:?}");
        }

        assert_eq!(operator.tables().await, Vec::<String>::new(), "{engine:?}");
        assert!(!operator.path("keys").exists(), "{engine:?}");
    }
}

#[test]
fn a_database_that_does_not_answer_is_unavailable_and_its_password_is_not_printed() {
    let operator = Operator::new()
        .with("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1/name")
        .with("AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS", "0");

    for command in COMMANDS {
        let outcome = operator.run(command).exits(69);
        assert!(outcome.stderr.contains("database"), "{command:?}: {outcome:?}");
        assert!(!outcome.printed().contains("CANARY"), "{command:?}: {outcome:?}");
    }
}

/// The wait may be minutes, as in an init container: somebody looks at it meanwhile. Serve says the same in its log.
#[test]
fn a_command_says_once_what_it_waits_for() {
    let operator = Operator::new()
        .with("DATABASE_URL", "postgres://user:CANARY@127.0.0.1:1/name")
        .with("AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS", "3");

    let outcome = operator.run(&["migrate", "up"]).exits(69);

    assert_eq!(outcome.stderr.matches("waiting for the database: ").count(), 1, "{outcome:?}");
    assert!(!outcome.printed().contains("CANARY"), "{outcome:?}");
}

#[test]
fn a_directory_that_is_not_there_is_unavailable() {
    let outcome = Operator::new()
        .with("DATABASE_URL", "sqlite://nowhere/authservice.db?mode=rwc")
        .with("AUTHSERVICE__DATABASE__CONNECT_TIMEOUT_SECONDS", "0")
        .run(&["migrate", "up"])
        .exits(69);

    assert!(outcome.stderr.contains("database"), "{outcome:?}");
}
