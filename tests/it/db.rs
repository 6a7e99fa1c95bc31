//! Grouped commits on SQLite: what was answered is durable, what failed is undone, and nobody pays for another's fault.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use authservice::config::Config;
use authservice::db::{Db, Transaction};
use futures_util::future::join_all;
use sea_orm::{ConnectionTrait as _, Database, DatabaseBackend, DatabaseConnection, DbErr, Statement};
use tempfile::TempDir;

mod credentials;
mod primary;

/// A database with one table. A row whose parent is missing is refused by the commit; row 13 rolls the whole transaction back.
struct Probe {
    db: Db,
    /// Another process, as it were.
    other: DatabaseConnection,
    file: PathBuf,
    _directory: TempDir,
}

impl Probe {
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("test.db");
        let url = format!("sqlite://{}?mode=rwc", file.display());
        let settings = [("DATABASE_URL", url.as_str()), ("AUTHSERVICE__DATABASE__ACQUIRE_TIMEOUT_SECONDS", "30")];
        let environment = settings.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let db = Db::connect(&Config::load(None, &environment).unwrap().database).await.unwrap();
        let other = Database::connect(url).await.unwrap();
        let schema = "CREATE TABLE probe (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES probe (id) DEFERRABLE INITIALLY DEFERRED); \
            CREATE TRIGGER unlucky BEFORE INSERT ON probe WHEN NEW.id = 13 BEGIN SELECT RAISE(ROLLBACK, 'unlucky'); END";
        other.execute_unprepared(schema).await.unwrap();
        other.execute_unprepared("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
        Self { db, other, file, _directory: directory }
    }

    /// A single statement.
    async fn write(&self, id: u32, parent: &str) -> Result<(), DbErr> {
        self.db.write(insert(id, parent)).await.map(|_| ())
    }

    /// A transaction.
    async fn commit(&self, id: u32, parent: &str) -> Result<(), DbErr> {
        self.begin(id, parent).await?.commit().await
    }

    /// A transaction that its owner gives up.
    async fn give_up(&self, id: u32) -> Result<(), DbErr> {
        self.begin(id, "NULL").await.map(drop)
    }

    async fn begin(&self, id: u32, parent: &str) -> Result<Transaction, DbErr> {
        let tx = self.db.begin().await?;
        tx.execute_raw(insert(id, parent)).await?;
        Ok(tx)
    }

    /// The rows that are committed.
    async fn rows(&self) -> BTreeSet<u32> {
        let all = Statement::from_string(DatabaseBackend::Sqlite, "SELECT id FROM probe");
        let rows = self.other.query_all_raw(all).await.unwrap();
        rows.iter().map(|row| row.try_get_by_index(0).unwrap()).collect()
    }

    /// Commits in the write-ahead log (SQLite's file format, 4.1: in the header of a commit's last frame, bytes 4 to 8 are not 0).
    fn commits(&self) -> usize {
        let log = std::fs::read(self.file.with_extension("db-wal")).unwrap();
        let page = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
        let salt = &log[16..24];
        log[32..].chunks_exact(24 + page).filter(|frame| &frame[8..16] == salt && frame[4..8] != [0; 4]).count()
    }
}

fn insert(id: u32, parent: &str) -> Statement {
    Statement::from_string(DatabaseBackend::Sqlite, format!("INSERT INTO probe VALUES ({id}, {parent})"))
}

#[tokio::test]
async fn writers_in_line_share_one_commit() {
    let probe = Probe::new().await;

    let written = tokio::join!(
        join_all((1..=8).map(|id| probe.write(id, "NULL"))),
        join_all((21..=28).map(|id| probe.commit(id, "NULL"))),
    );

    assert!(written.0.iter().chain(&written.1).all(Result::is_ok), "{written:?}");
    assert_eq!(probe.rows().await, (1..=8).chain(21..=28).collect());
    assert_eq!(probe.commits(), 1);
}

#[tokio::test]
async fn a_writer_alone_commits_at_once() {
    let probe = Probe::new().await;

    probe.write(1, "NULL").await.unwrap();
    assert_eq!(probe.commits(), 1);
    probe.commit(2, "NULL").await.unwrap();
    assert_eq!(probe.commits(), 2);
    probe.give_up(3).await.unwrap();
    probe.write(4, "NULL").await.unwrap();

    assert_eq!(probe.rows().await, [1, 2, 4].into());
}

#[tokio::test]
async fn who_gives_up_or_errs_undoes_only_his_own_work() {
    let probe = Probe::new().await;
    probe.write(1, "NULL").await.unwrap();

    let (kept, given_up, twice, after, single) = tokio::join!(
        probe.commit(2, "NULL"),
        probe.give_up(3),
        // The primary key is taken: the statement fails, the transaction lives.
        probe.commit(1, "NULL"),
        probe.commit(4, "NULL"),
        probe.write(5, "NULL"),
    );

    assert!(twice.is_err());
    for result in [kept, given_up, after, single] {
        result.unwrap();
    }
    assert_eq!(probe.rows().await, [1, 2, 4, 5].into());
}

/// What the commit refuses was promised to nobody.
#[tokio::test]
async fn when_the_commit_fails_every_member_fails_and_the_next_group_does_not() {
    let probe = Probe::new().await;

    let results = join_all((1..=6).map(|id| probe.commit(id, if id == 4 { "999" } else { "NULL" }))).await;

    assert!(results.iter().all(Result::is_err), "{results:?}");
    assert_eq!(probe.rows().await, BTreeSet::new());
    probe.write(7, "NULL").await.unwrap();
    probe.commit(8, "NULL").await.unwrap();
    assert_eq!(probe.rows().await, [7, 8].into());
}

/// SQLite rolls back a whole transaction by itself when the disk is full or fails.
#[tokio::test]
async fn when_sqlite_rolls_the_group_back_no_member_is_told_that_it_is_durable() {
    for unlucky_is_single in [true, false] {
        let probe = Probe::new().await;
        let unlucky =
            async { if unlucky_is_single { probe.write(13, "NULL").await } else { probe.commit(13, "NULL").await } };

        let (first, second, unlucky, third, fourth) = tokio::join!(
            probe.commit(1, "NULL"),
            probe.write(2, "NULL"),
            unlucky,
            probe.commit(3, "NULL"),
            probe.write(4, "NULL")
        );

        assert!(first.is_err() && second.is_err() && unlucky.is_err());
        let rows = probe.rows().await;
        for (id, result) in [(3, &third), (4, &fourth)] {
            assert!(result.is_err() || rows.contains(&id), "{id} was promised: {result:?}");
        }
        probe.commit(7, "NULL").await.unwrap();
        assert!(probe.rows().await.contains(&7));
    }
}

/// The fault comes to light when the group is committed, with nobody else in line.
#[tokio::test]
async fn a_writer_that_is_rolled_back_alone_leaves_a_usable_connection() {
    let probe = Probe::new().await;

    assert!(probe.commit(13, "NULL").await.is_err());
    // The commit takes its turn.
    tokio::task::yield_now().await;
    // Replaced at once: waiting for a connection that nobody gives back takes longer than a writer waits for its turn.
    for id in 1..=3 {
        probe.commit(id, "NULL").await.unwrap();
        assert_eq!(probe.rows().await, (1..=id).collect());
    }
}

/// A request that takes too long is dropped at whatever await it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_that_go_away_at_any_moment_harm_nobody() {
    let probe = std::sync::Arc::new(Probe::new().await);
    let mut dropped = 0;
    for round in 0..60 {
        let tasks: Vec<_> = (0..16)
            .map(|number| {
                let (probe, id) = (std::sync::Arc::clone(&probe), 1000 + round * 16 + number);
                let result = async move {
                    if number % 2 == 0 { probe.write(id, "NULL").await } else { probe.commit(id, "NULL").await }
                };
                // From before the first await to after the last one.
                let patience = Duration::from_micros(u64::from((id * 7919) % 4000));
                let is_leaving = number % 4 != 0;
                (
                    id,
                    tokio::spawn(async move {
                        if is_leaving { tokio::time::timeout(patience, result).await.ok() } else { Some(result.await) }
                    }),
                )
            })
            .collect();
        for (id, task) in tasks {
            match task.await.unwrap() {
                Some(Ok(())) => assert!(probe.rows().await.contains(&id), "{id} was promised"),
                // Those who stayed may be told that it failed, by a group that somebody left at a bad moment. Nothing is there then.
                Some(Err(error)) => assert!(!probe.rows().await.contains(&id), "{id}: {error}"),
                None => dropped += 1,
            }
        }
    }

    assert!(dropped > 100, "too few went away: {dropped}");
    probe.write(7, "NULL").await.unwrap();
    probe.commit(8, "NULL").await.unwrap();
}
