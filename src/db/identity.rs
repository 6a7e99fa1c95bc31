//! Whether the database is the one that it was. A restored one lacks what happened since: sessions that ended are alive again, so
//! nobody may be served before an operator has run `authservice after-restore`.
//!
//! One row tells what the database was known by. On PostgreSQL that is the cluster, the database and the table that holds the row:
//! a dump that is loaded anywhere, also into the same database, makes at least one of them differ, and a standby that is promoted
//! keeps all. On SQLite it is a small file beside the database: it holds a counter that only goes up, a moment after the one in
//! the database, so an older database at the same path is behind it. Device and inode would tell less: `cp` keeps them, and a
//! mounted volume may change them.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, QueryResult, Statement, Value};

use super::Db;
use crate::random;

/// Of the whole process: a server that waits for `after-restore` has no application yet that could tell it.
static DETECTED: AtomicBool = AtomicBool::new(false);
/// What a database is known by that nobody has accepted after a restore.
const RESTORED: &str = "restored";

/// True when this process has found, when it last looked, that the database was restored and nobody has run `after-restore`.
pub fn restore_detected() -> bool {
    DETECTED.load(Ordering::Relaxed)
}

/// Makes a database that has just been filled from a backup of this epoch unknown, within the caller's transaction.
pub async fn forget_identity(tx: &impl ConnectionTrait, epoch: i64) -> Result<(), DbErr> {
    put(tx, epoch.saturating_add(1), RESTORED).await
}

impl Db {
    /// False when the database was restored and nobody has accepted it. Ask regularly: on SQLite that is what tells an older file from
    /// this one.
    pub async fn is_known(&self) -> Result<bool, DbErr> {
        let is_known = match &self.stamp {
            Some(stamp) => self.is_known_file(stamp).await?,
            None => self.is_known_server().await?,
        };
        DETECTED.store(!is_known, Ordering::Relaxed);
        Ok(is_known)
    }

    /// The same, at the start of a server, which makes a database known that none has used. Later nothing does: half of a dump that is
    /// being loaded looks like that.
    pub async fn is_known_or_new(&self) -> Result<bool, DbErr> {
        if read(self.reader()).await?.is_none() {
            let tx = self.begin().await?;
            if read(&tx).await?.is_none() {
                self.accept_identity(&tx).await?;
            }
            tx.commit().await?;
        }
        self.is_known().await
    }

    /// How often the database was restored, and what it is known by; `None` while no server has used it.
    pub async fn identity(&self, db: &impl ConnectionTrait) -> Result<Option<(i64, String)>, DbErr> {
        Ok(read(db).await?.map(|row| (row.epoch, row.identity)))
    }

    /// Makes the database known as it is now, within the caller's transaction, and returns its new epoch.
    pub async fn accept_identity(&self, tx: &impl ConnectionTrait) -> Result<i64, DbErr> {
        let epoch = read(tx).await?.map_or(0, |row| row.epoch).saturating_add(1);
        let identity = match &self.stamp {
            None => server(tx).await?,
            Some(stamp) => {
                let identity = random::uuid().map_err(|error| DbErr::Custom(error.to_string()))?.to_string();
                stamp.write(&identity, 0)?;
                identity
            }
        };
        put(tx, epoch, &identity).await?;
        Ok(epoch)
    }

    /// As [`Db::is_known`], and leaves no trace: for whoever examines a database. `None` while no server has used it.
    pub async fn looks_known(&self) -> Result<Option<bool>, DbErr> {
        let seen = self.stamp.as_ref().map(Stamp::read).transpose()?;
        let Some(row) = read(self.reader()).await? else { return Ok(None) };
        Ok(Some(match seen {
            Some(seen) => row.is_no_older(seen.as_ref()),
            None => is_same_server(&row.identity, &server(self.reader()).await?),
        }))
    }

    async fn is_known_server(&self) -> Result<bool, DbErr> {
        let current = server(self.reader()).await?;
        let row = read(self.reader()).await?;
        Ok(row.is_some_and(|row| is_same_server(&row.identity, &current)))
    }

    async fn is_known_file(&self, stamp: &Stamp) -> Result<bool, DbErr> {
        const SQL: &str =
            "UPDATE database_identity SET stamp = stamp + 1 WHERE id = 1 AND identity = $1 RETURNING stamp";
        // Before the row: whatever another process wrote there meanwhile is then in the row too.
        let seen = stamp.read()?;
        let Some(row) = read(self.reader()).await? else {
            return Ok(false);
        };
        if !row.is_no_older(seen.as_ref()) {
            return Ok(false);
        }
        let rows = self.write(statement(self.reader(), SQL, [row.identity.as_str().into()])).await?;
        if let Some(row_now) = rows.first() {
            stamp.write(&row.identity, row_now.try_get_by_index(0)?)?;
        }
        Ok(true)
    }
}

struct Row {
    epoch: i64,
    identity: String,
    stamp: i64,
}

impl Row {
    /// The file beside the database has not seen a later state of it, nor another database.
    fn is_no_older(&self, seen: Option<&(String, i64)>) -> bool {
        seen.is_some_and(|(identity, count)| *identity == self.identity && *count <= self.stamp)
    }
}

impl TryFrom<QueryResult> for Row {
    type Error = DbErr;

    fn try_from(row: QueryResult) -> Result<Self, DbErr> {
        Ok(Self {
            epoch: row.try_get_by_index(0)?,
            identity: row.try_get_by_index(1)?,
            stamp: row.try_get_by_index(2)?,
        })
    }
}

async fn read(db: &impl ConnectionTrait) -> Result<Option<Row>, DbErr> {
    let sql = "SELECT epoch, identity, stamp FROM database_identity WHERE id = 1";
    db.query_one_raw(statement(db, sql, [])).await?.map(Row::try_from).transpose()
}

async fn put(tx: &impl ConnectionTrait, epoch: i64, identity: &str) -> Result<(), DbErr> {
    const SQL: &str = "INSERT INTO database_identity (id, epoch, identity, stamp) VALUES (1, $1, $2, 0) \
        ON CONFLICT (id) DO UPDATE SET epoch = $1, identity = $2, stamp = 0";
    tx.execute_raw(statement(tx, SQL, [epoch.into(), identity.into()])).await.map(|_| ())
}

fn statement<const N: usize>(db: &impl ConnectionTrait, sql: &str, values: [Value; N]) -> Statement {
    Statement::from_sql_and_values(db.get_database_backend(), sql, values)
}

/// `cluster/database/table`. The first is empty where the role may not ask for it, as with some hosts.
async fn server(db: &impl ConnectionTrait) -> Result<String, DbErr> {
    const MAY: &str = "SELECT has_function_privilege('pg_catalog.pg_control_system()', 'execute')";
    const CLUSTER: &str = "SELECT system_identifier::text FROM pg_control_system()";
    const REST: &str = "SELECT (SELECT oid::text FROM pg_database WHERE datname = current_database()) \
        || '/' || 'database_identity'::regclass::oid::text";
    let ask = async |sql: &str| db.query_one_raw(Statement::from_string(DatabaseBackend::Postgres, sql)).await;
    let may = ask(MAY).await?.map_or(Ok(false), |row| row.try_get_by_index(0))?;
    let cluster = if may { ask(CLUSTER).await?.map(|row| row.try_get_by_index(0)).transpose()? } else { None };
    let rest: Option<String> = ask(REST).await?.map(|row| row.try_get_by_index(0)).transpose()?;
    Ok(format!("{}/{}", cluster.unwrap_or_else(String::new), rest.unwrap_or_default()))
}

/// A right that was taken away or given does not make it another database.
fn is_same_server(known: &str, current: &str) -> bool {
    let (Some((cluster, rest)), Some((other_cluster, other_rest))) = (known.split_once('/'), current.split_once('/'))
    else {
        return false;
    };
    rest == other_rest && (cluster == other_cluster || cluster.is_empty() || other_cluster.is_empty())
}

/// The file beside a database of SQLite: `<identity> <counter>`.
#[derive(Debug, Clone)]
pub(super) struct Stamp(PathBuf);

impl Stamp {
    /// `authservice.db-stamp` beside `authservice.db`, which must be there; beside what a link leads to, as SQLite's own files are.
    pub(super) fn beside(database: &Path) -> Self {
        let mut name = database.canonicalize().unwrap_or_else(|_| database.to_owned()).into_os_string();
        name.push("-stamp");
        Self(name.into())
    }

    /// `None` when it is missing or holds something else.
    fn read(&self) -> Result<Option<(String, i64)>, DbErr> {
        let mut text = String::new();
        match OpenOptions::new().read(true).open(&self.0).and_then(|mut file| file.read_to_string(&mut text)) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => return Ok(None),
            Err(error) => return Err(self.fault(&error)),
        }
        let parts = text.trim_end().split_once(' ');
        Ok(parts.and_then(|(identity, count)| Some((identity.to_owned(), count.parse().ok()?))))
    }

    /// Always as many bytes, over those that are there: a power cut leaves the old ones or the new.
    fn write(&self, identity: &str, count: i64) -> Result<(), DbErr> {
        let text = format!("{identity} {count:020}\n");
        let mut options = OpenOptions::new();
        let opened = options.write(true).create(true).truncate(false).mode(0o600).open(&self.0);
        let written = opened.and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            if count == 0 { file.sync_all() } else { Ok(()) }
        });
        written.map_err(|error| self.fault(&error))
    }

    fn fault(&self, error: &std::io::Error) -> DbErr {
        DbErr::Custom(format!("{}: {error}", self.0.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_known_by_all_that_may_be_asked() {
        let rows = [
            ("the same", "7/5/16400", "7/5/16400", true),
            ("another cluster", "7/5/16400", "8/5/16400", false),
            ("another database", "7/5/16400", "7/6/16400", false),
            ("loaded again", "7/5/16400", "7/5/17000", false),
            ("the right was taken away", "7/5/16400", "/5/16400", true),
            ("the right was given", "/5/16400", "7/5/16400", true),
            ("a backup of ours", RESTORED, "7/5/16400", false),
            ("a database of SQLite", "0f9b6d1e-0c86-4c87-9e33-0a5b1a3f6f27", "7/5/16400", false),
        ];
        for (name, known, current, expected) in rows {
            assert_eq!(is_same_server(known, current), expected, "{name}");
        }
    }
}
