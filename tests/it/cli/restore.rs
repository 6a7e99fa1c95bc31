//! `restore`: all of a backup, on either engine, or nothing.

use authservice::entity::{audit_event, auth_session, rate_limit, refresh_token, signing_key, user};
use sea_orm::{ConnectionTrait as _, EntityTrait as _};

use super::backup::{ENGINES, take};
use super::{KEY, Operator};
use crate::support::{Engine, PASSWORD};

const CURRENT: &str = "AUTHSERVICE__KEYS__ENCRYPTION_KEY";

async fn operator(engine: Engine) -> Operator {
    Operator::on(engine).await.with(CURRENT, KEY).with("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA")
}

/// Every row that an entity reads, in an order of their own.
async fn rows(operator: &Operator) -> Vec<String> {
    let db = operator.database().await;
    let mut rows: Vec<String> = Vec::new();
    rows.extend(user::Entity::find().all(&db).await.unwrap().iter().map(|row| format!("{row:?}")));
    rows.extend(auth_session::Entity::find().all(&db).await.unwrap().iter().map(|row| format!("{row:?}")));
    rows.extend(refresh_token::Entity::find().all(&db).await.unwrap().iter().map(|row| format!("{row:?}")));
    rows.extend(signing_key::Entity::find().all(&db).await.unwrap().iter().map(|row| format!("{row:?}")));
    rows.extend(rate_limit::Entity::find().all(&db).await.unwrap().iter().map(|row| format!("{row:?}")));
    let events = audit_event::Entity::find().all(&db).await.unwrap();
    rows.extend(events.iter().filter(|row| row.event != "database_restored").map(|row| format!("{row:?}")));
    db.close().await.unwrap();
    rows.sort();
    rows
}

/// The file with the sum that belongs to its lines: altered by somebody who knows how.
fn summed(lines: &[String]) -> String {
    let text: String = lines.iter().flat_map(|line| [line.as_ref(), "\n"]).collect();
    let sum = openssl::sha::sha256(text.as_bytes()).map(|byte| format!("{byte:02x}")).concat();
    format!("{text}{{\"sha256\":\"{sum}\"}}\n")
}

/// All lines but the sum.
fn lines(backup: &str) -> Vec<String> {
    let mut lines: Vec<String> = backup.lines().map(str::to_owned).collect();
    lines.pop();
    lines
}

/// A server has used the source: users, sessions that live and that ended, failed sign-ins, keys, a rotation.
async fn lived_in(engine: Engine) -> (Operator, String) {
    let operator = operator(engine).await;
    let server = operator.serve().await;
    let ended = server.alice().await;
    let logout = server.request(reqwest::Method::POST, "auth/logout").bearer_auth(&ended.refresh);
    assert_eq!(logout.send().await.unwrap().status(), 204);
    server.register("gone@example.com", PASSWORD).await;
    server.register("bob@example.com", PASSWORD).await;
    server.login("bob@example.com", "Wr0ng!Passw0rd").await.refused(401, "invalid_credentials");
    let pair = server.login("bob@example.com", PASSWORD).await.pair();
    let refresh = server.refresh(&pair.refresh).await.pair().refresh;
    server.stop().await;
    (operator, refresh)
}

#[tokio::test]
async fn a_backup_of_either_engine_is_restored_on_either() {
    for from in ENGINES {
        let (source, refresh) = lived_in(from).await;
        let backup = take(&source);
        let expected = rows(&source).await;
        for to in ENGINES {
            let target = operator(to).await;

            let restored = target.run_with_input(&["restore", "-"], &backup).exits(0);

            assert!(restored.stderr.contains("`authservice after-restore`"), "{from:?} {to:?}: {restored:?}");
            assert_eq!(rows(&target).await, expected, "{from:?} {to:?}");
            target.run(&["after-restore", "--keep-sessions"]).exits(0);
            let server = target.serve().await;
            server.login("alice@example.com", PASSWORD).await.pair();
            server.refresh(&refresh).await.pair();
            server.register("carol@example.com", PASSWORD).await;
            let ids = target.texts("SELECT CAST(id AS text) FROM users ORDER BY id").await;
            assert_eq!(ids, ["1", "2", "3", "4"], "{from:?} {to:?}");
        }
    }
}

/// An audit row of a user who was deleted must not come to speak of somebody else.
#[tokio::test]
async fn numbers_of_rows_that_are_gone_do_not_come_again() {
    for from in ENGINES {
        let (source, _) = lived_in(from).await;
        source.sql("DELETE FROM users WHERE id = 3").await;
        let backup = take(&source);
        for to in ENGINES {
            let target = operator(to).await;
            target.run_with_input(&["restore", "-"], &backup).exits(0);
            target.run(&["after-restore"]).exits(0);
            target.serve().await.register("carol@example.com", PASSWORD).await;
            let ids = target.texts("SELECT CAST(id AS text) FROM users ORDER BY id").await;
            assert_eq!(ids, ["1", "2", "4"], "{from:?} {to:?}");
        }
    }
}

#[tokio::test]
async fn what_is_damaged_cut_altered_foreign_or_newer_changes_nothing() {
    let (source, _) = lived_in(Engine::Sqlite).await;
    let whole = take(&source);
    let all = lines(&whole);
    let edited = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        summed(&all.iter().map(|line| line.replacen(from, to, 1)).collect::<Vec<_>>())
    };
    let without = |at: usize| summed(&[&all[..at], &all[at + 1..]].concat());
    let user = all.iter().position(|line| line.contains("\"alice@example.com\"")).unwrap();
    let cases = [
        ("empty", String::new(), 65, "cut off"),
        ("foreign", "CREATE TABLE users (id integer);\n".to_owned(), 65, "not a backup of authservice"),
        ("JSON", "{\"users\": []}\n".to_owned(), 65, "not a backup of authservice"),
        ("cut within a line", whole[..whole.len() / 2].to_owned(), 65, "cut off"),
        ("cut before the sum", whole.lines().take(all.len()).flat_map(|line| [line, "\n"]).collect(), 65, "cut off"),
        ("cut within the sum", whole[..whole.len() - 9].to_owned(), 65, "cut off"),
        ("one letter altered", whole.replacen("alice@example.com", "malice@example.co", 1), 65, "damaged"),
        ("a row less", without(user), 65, "what belongs here"),
        ("something follows", format!("{whole}\n"), 65, "follows"),
        ("no user", edited("[1,", "[\"1\","), 65, "row of users"),
        ("no such column", edited("\"hashed_password\"", "\"password\""), 65, "columns of the table users"),
        ("newer form", edited("\"authservice_backup\":1", "\"authservice_backup\":2"), 78, "newer release"),
        (
            "newer schema",
            edited("\"migrations\":[", "\"migrations\":[\"m29991231_000001_later\","),
            78,
            "m29991231_000001_later",
        ),
        ("no schema", edited("_000001_baseline\",\"", "_000001_baseline_\",\""), 78, "newer"),
    ];
    for engine in ENGINES {
        let empty = Operator::on(engine).await;
        let (full, _) = lived_in(engine).await;
        let before = rows(&full).await;
        for (name, file, code, word) in &cases {
            for (target, arguments) in [(&empty, &["restore", "-"][..]), (&full, &["restore", "-", "--replace"])] {
                let refused = target.run_with_input(arguments, file).exits(*code);
                assert!(refused.stderr.contains(word), "{engine:?} {name}: {refused:?}");
                assert!(!refused.printed().contains("$argon2"), "{engine:?} {name}: {refused:?}");
            }
            assert_eq!(empty.tables().await, Vec::<String>::new(), "{engine:?} {name}");
            assert_eq!(rows(&full).await, before, "{engine:?} {name}");
        }
        // It is the one that it was.
        full.serve().await.login("alice@example.com", PASSWORD).await.pair();
        assert!(empty.run(&["restore", "nowhere"]).exits(65).stderr.contains("nowhere"), "{engine:?}");
    }
}

#[tokio::test]
async fn data_is_replaced_only_when_asked_for() {
    for engine in ENGINES {
        let (operator, _) = lived_in(engine).await;
        operator.run(&["backup", "file"]).exits(0);
        let saved = rows(&operator).await;
        let server = operator.serve().await;
        server.register("later@example.com", PASSWORD).await;
        server.stop().await;
        let later = rows(&operator).await;

        let refused = operator.run(&["restore", "file"]).exits(65);

        assert!(refused.stderr.contains("--replace") && refused.stderr.contains("users"), "{engine:?}: {refused:?}");
        assert_eq!(rows(&operator).await, later, "{engine:?}");
        let replaced = operator.run(&["restore", "file", "--replace"]).exits(0);
        assert!(replaced.stdout.contains("is gone"), "{engine:?}: {replaced:?}");
        assert_eq!(rows(&operator).await, saved, "{engine:?}");
        let told = operator.texts("SELECT details FROM audit_events WHERE event = 'database_restored'").await;
        assert!(told.len() == 1 && told[0].contains("taken_at") && told[0].contains("operator"), "{told:?}");
    }
}

/// A backup of an older release has an older schema: it is made, filled and brought up to date.
#[tokio::test]
async fn an_older_backup_is_brought_up_to_date() {
    let (source, _) = lived_in(Engine::Sqlite).await;
    let mut all = lines(&take(&source));
    // The fifth migration made the table of budgets.
    let budgets = all.iter().position(|line| line.contains("\"rate_limits\"")).unwrap();
    let end = all.iter().skip(budgets + 1).position(|line| line.starts_with('{')).unwrap() + budgets + 1;
    let dropped = end - budgets - 1;
    all.drain(budgets..end);
    let mut header: serde_json::Value = serde_json::from_str(&all[0]).unwrap();
    header["migrations"].as_array_mut().unwrap().truncate(4);
    header["rows"] = (header["rows"].as_u64().unwrap() - dropped as u64).into();
    all[0] = header.to_string();
    for engine in ENGINES {
        let target = operator(engine).await;

        target.run_with_input(&["restore", "-"], &summed(&all)).exits(0);

        target.run(&["after-restore"]).exits(0);
        target.serve().await.login("alice@example.com", PASSWORD).await.pair();
        let applied = target.texts("SELECT version FROM seaql_migrations").await;
        assert!(applied.len() > 4, "{engine:?}: {applied:?}");
    }
}

/// A schema that a newer release has changed is not taken back by an older one.
#[tokio::test]
async fn a_database_of_a_newer_release_is_left_alone() {
    let (source, _) = lived_in(Engine::Sqlite).await;
    let backup = take(&source);
    for engine in ENGINES {
        let target = operator(engine).await;
        target.run(&["migrate", "up"]).exits(0);
        let db = target.database().await;
        let newer = "INSERT INTO seaql_migrations (version, applied_at) VALUES ('m29991231_000001_later', 0)";
        db.execute_unprepared(newer).await.unwrap();
        db.close().await.unwrap();

        let refused = target.run_with_input(&["restore", "-", "--replace"], &backup).exits(78);

        assert!(refused.stderr.contains("m29991231_000001_later"), "{engine:?}: {refused:?}");
    }
}
