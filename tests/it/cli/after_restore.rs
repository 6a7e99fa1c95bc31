//! What a restored database does to servers, and `after-restore`, which lets them go on.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use reqwest::Method;

use super::backup::ENGINES;
use super::process::Process;
use super::{Operator, PATIENCE, Server};
use crate::support::{API, Answer, Engine, PASSWORD, Pair, jwt_header};

const WAITING: &str = "listening, not ready yet";

async fn operator(engine: Engine) -> Operator {
    // It looks more often the shorter the window is.
    Operator::on(engine)
        .await
        .with("AUTHSERVICE__KEYS__ALGORITHM", "EdDSA")
        .with("AUTHSERVICE__REFRESH__RETRY_WINDOW_SECONDS", "6")
}

async fn get(base: &str, path: &str) -> Answer {
    Answer::of(reqwest::Client::new().get(format!("{base}{path}"))).await
}

/// It lives, is not ready, and answers nothing else.
async fn assert_waits(base: &str) {
    assert_eq!(get(base, "/health/live").await.status, 200);
    for path in ["/health/ready", "/.well-known/jwks.json", &format!("{API}/users/me")] {
        let answer = get(base, path).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "temporarily_unavailable"), "{path}");
    }
}

/// Starts a server that finds a restored database, and looks at it.
async fn starts_and_waits(operator: &Operator) -> Process {
    let mut process = operator.spawn(&["serve"]);
    let line = process.logged(WAITING).await.unwrap();
    assert_waits(&format!("http://{}", line["address"].as_str().unwrap())).await;
    let log = process.stdout.now().join("\n");
    assert_eq!(log.matches("`authservice after-restore`").count(), 1, "told once: {log}");
    process
}

/// Starts a server, which finds the database that it knows.
async fn starts(operator: &Operator) -> Server {
    let mut process = operator.spawn(&["serve"]);
    process.logged("listening").await.unwrap_or_else(|code| panic!("{code:?}"));
    let log = process.stdout.now().join("\n");
    assert!(!log.contains("after-restore"), "a false alarm: {log}");
    Server::of(process).await
}

async fn becomes(server: &Server, status: u16) {
    let started = Instant::now();
    while server.get("/health/ready").await.status != status {
        assert!(started.elapsed() < PATIENCE, "it does not become {status}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn logout(server: &Server, pair: &Pair) {
    let answer = Answer::of(server.request(Method::POST, "auth/logout").bearer_auth(&pair.refresh)).await;
    assert_eq!(answer.status, 204);
}

/// security.md R31: a backup under load, a logout, a restore. Without the command nobody is served; with it every old token is refused.
#[tokio::test]
async fn nobody_goes_on_with_what_was_alive_when_the_backup_was_made() {
    for engine in ENGINES {
        let operator = operator(engine).await.with("AUTHSERVICE__LIMITS__ENABLED", "false");
        let server = operator.serve().await;
        let before = server.alice().await;
        let out = server.login("alice@example.com", PASSWORD).await.pair();
        let mac = operator.texts("SELECT kid FROM signing_keys WHERE purpose = 'refresh'").await;
        let load = async {
            let mut pair = server.login("alice@example.com", PASSWORD).await.pair();
            for number in 0..20 {
                server.register(&format!("user{number}@example.com"), PASSWORD).await;
                pair = server.refresh(&pair.refresh).await.pair();
            }
            pair
        };
        let mut backup = operator.spawn(&["backup", "file"]);
        let (during, code) = tokio::join!(load, backup.ended());
        assert_eq!(code, Some(0), "{engine:?}: {:?}", backup.output());
        logout(&server, &out).await;
        let since = server.login("alice@example.com", PASSWORD).await.pair();

        operator.run(&["restore", "file", "--replace"]).exits(0);

        becomes(&server, 503).await;
        assert_waits(&server.base).await;
        let second = starts_and_waits(&operator).await;
        let done = operator.run(&["after-restore"]).exits(0).stdout;
        assert!(done.contains("ended ") && done.contains("revoked 1 refresh key(s)"), "{engine:?}: {done}");
        becomes(&server, 200).await;
        let second = Server::of(second).await;
        for server in [&server, &second] {
            for (name, pair) in [("before", &before), ("out", &out), ("during", &during), ("since", &since)] {
                assert_eq!(server.refresh(&pair.refresh).await.status, 401, "{engine:?} {name}");
                assert_eq!(server.me(&pair.access).await.status, 401, "{engine:?} {name}");
            }
            let pair = server.login("alice@example.com", PASSWORD).await.pair();
            server.refresh(&pair.refresh).await.pair();
            assert_eq!(server.me(&pair.access).await.status, 200, "{engine:?}");
        }
        let now = operator.texts("SELECT kid FROM signing_keys WHERE purpose = 'refresh' AND revoked_at IS NULL").await;
        assert!(now.len() == 1 && now != mac, "{engine:?}: {now:?}");
        let again = operator.run(&["after-restore"]).exits(0).stdout;
        assert!(again.contains("nothing to do"), "{engine:?}: {again}");
        assert_eq!(server.refresh(&server.login("alice@example.com", PASSWORD).await.pair().refresh).await.status, 200);
        let told = operator
            .texts("SELECT event FROM audit_events WHERE event IN ('database_restored', 'after_restore') ORDER BY id")
            .await;
        assert_eq!(told, ["database_restored", "after_restore"], "{engine:?}");
        let open = "SELECT CAST(count(*) AS text) FROM refresh_tokens r JOIN auth_sessions s ON s.id = r.session_id \
            WHERE (r.revoked_at IS NULL) <> (s.revoked_at IS NULL)";
        assert_eq!(operator.texts(open).await, ["0"], "{engine:?}");
    }
}

/// A signing key that was revoked since the backup is alive again after it.
#[tokio::test]
async fn keys_that_were_revoked_since_are_ended_when_asked_for() {
    for engine in ENGINES {
        let operator = operator(engine).await;
        let server = operator.serve().await;
        let stolen = server.alice().await;
        let kid = jwt_header(&stolen.access)["kid"].as_str().unwrap().to_owned();
        operator.run(&["backup", "file"]).exits(0);
        operator.run(&["keys", "revoke", &kid, "--yes"]).exits(0);
        server.stop().await;
        operator.run(&["restore", "file", "--replace"]).exits(0);

        let done = operator.run(&["after-restore", "--revoke-keys"]).exits(0).stdout;

        assert!(done.contains("revoked 1 signing key(s)"), "{engine:?}: {done}");
        let server = starts(&operator).await;
        let pair = server.login("alice@example.com", PASSWORD).await.pair();
        assert_ne!(jwt_header(&pair.access)["kid"], kid.as_str(), "{engine:?}");
        assert!(!server.kids().await.contains(&kid), "{engine:?}");
        server.me(&stolen.access).await.refused(401, "invalid_token");
    }
}

#[tokio::test]
async fn a_recovery_that_nobody_notices_is_told_by_the_operator() {
    for engine in ENGINES {
        let operator = operator(engine).await;
        let server = operator.serve().await;
        let pair = server.alice().await;

        assert!(operator.run(&["after-restore"]).exits(0).stdout.contains("--force"), "{engine:?}");
        assert_eq!(server.me(&pair.access).await.status, 200, "{engine:?}: nothing was changed");
        operator.run(&["after-restore", "--force"]).exits(0);

        assert_eq!(server.refresh(&pair.refresh).await.status, 401, "{engine:?}");
        assert_eq!(server.me(&pair.access).await.status, 401, "{engine:?}");
        becomes(&server, 200).await;
        operator.run(&["after-restore", "--keep-sessions", "--revoke-keys"]).exits(2);
    }
}

/// Runs a script with the database's URL as `$0`.
fn sh(operator: &Operator, script: &str) {
    let url = operator.environment["DATABASE_URL"].to_str().unwrap();
    let output = Command::new("sh").args(["-ec", script, url]).current_dir(operator.path("")).output().unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
}

/// `pg_dump` by hand, loaded into the same database and into another.
#[tokio::test]
async fn a_dump_that_was_loaded_by_hand_is_noticed() {
    let operator = operator(Engine::Postgres).await;
    let server = starts(&operator).await;
    let out = server.alice().await;
    sh(&operator, "pg_dump --clean --if-exists \"$0\" > dump.sql");
    logout(&server, &out).await;

    sh(&operator, "psql -q -v ON_ERROR_STOP=1 -f dump.sql \"$0\"");

    becomes(&server, 503).await;
    assert_waits(&server.base).await;
    server.stop().await;
    let second = starts_and_waits(&operator).await;
    operator.run(&["after-restore"]).exits(0);
    let second = Server::of(second).await;
    assert_eq!(second.refresh(&out.refresh).await.status, 401);
    second.stop().await;

    let other = self::operator(Engine::Postgres).await;
    std::fs::copy(operator.path("dump.sql"), other.path("dump.sql")).unwrap();
    std::fs::create_dir(other.path("keys")).unwrap();
    crate::support::copy_private(&operator.path("keys/encryption.key"), &other.path("keys/encryption.key"));
    sh(&other, "psql -q -v ON_ERROR_STOP=1 -f dump.sql \"$0\"");
    starts_and_waits(&other).await;
    // A restart, a vacuum and a rewritten table are no restore.
    sh(
        &operator,
        "psql -q -c 'VACUUM FULL' -c 'CLUSTER users USING users_pkey' -c 'REINDEX TABLE database_identity' \"$0\"",
    );
    starts(&operator).await;
}

fn copy(operator: &Operator, from: &str, to: &str) {
    std::fs::copy(operator.path(from), operator.path(to)).unwrap();
}

/// Files of SQLite that were copied by hand.
#[tokio::test]
async fn an_older_file_in_the_place_of_the_database_is_noticed() {
    let operator = operator(Engine::Sqlite).await;
    let server = starts(&operator).await;
    let out = server.alice().await;
    server.stop().await;
    operator
        .sql("VACUUM INTO 'saved.db'".replace("saved.db", operator.path("saved.db").to_str().unwrap()).as_str())
        .await;
    // Nothing has happened since: the copy is as good as the original.
    copy(&operator, "saved.db", "authservice.db");
    let server = starts(&operator).await;
    logout(&server, &out).await;
    server.stop().await;

    copy(&operator, "saved.db", "authservice.db");
    let waiting = starts_and_waits(&operator).await;
    drop(waiting);
    std::fs::rename(operator.path("saved.db"), operator.path("authservice.db")).unwrap();
    let waiting = starts_and_waits(&operator).await;
    operator.run(&["after-restore"]).exits(0);
    let server = Server::of(waiting).await;
    assert_eq!(server.refresh(&out.refresh).await.status, 401);
    server.stop().await;

    // On another machine, where nobody has seen it.
    let other = self::operator(Engine::Sqlite).await;
    move_all(&operator, &other, &["authservice.db", "keys/encryption.key"]);
    starts_and_waits(&other).await;
    move_all(&operator, &other, &["authservice.db-stamp"]);
    starts(&other).await.stop().await;
}

fn move_all(from: &Operator, to: &Operator, files: &[&str]) {
    for file in files {
        std::fs::create_dir_all(to.path(file).parent().unwrap()).unwrap();
        crate::support::copy_private(&from.path(file), &to.path(file));
    }
}

/// What changes the file and not what is in it.
#[tokio::test]
async fn care_of_the_file_is_no_restore() {
    let operator = operator(Engine::Sqlite).await;
    let steps = "VACUUM; PRAGMA wal_checkpoint(TRUNCATE); REINDEX; ANALYZE";
    for number in 0..3 {
        let mut server = starts(&operator).await;
        server.register(&format!("user{number}@example.com"), PASSWORD).await;
        // Killed: what the two say need not be the same.
        if number == 1 {
            server.process.signal("KILL");
            server.process.ended().await;
        } else {
            server.stop().await;
        }
        operator.sql(steps).await;
        // As a volume that is mounted anew: other inodes, other owners' bits, other times.
        for file in ["authservice.db", "authservice.db-stamp"] {
            crate::support::copy_private(&operator.path(file), &operator.path("copy"));
            std::fs::rename(operator.path("copy"), operator.path(file)).unwrap();
        }
    }
    assert!(Path::new(&operator.path("authservice.db-stamp")).exists());
    operator.run(&["after-restore"]).exits(0);
}
