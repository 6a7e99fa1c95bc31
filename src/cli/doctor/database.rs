//! Checks of the database: is it there, may we use it, will it keep what it has said.

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use secrecy::ExposeSecret as _;
use url::Url;

use super::{Checked, Patient, Verdict, fail, ok, skip, warn};
use crate::clock::{self, Clock as _, DatabaseClock};
use crate::config;
use crate::config::each_host;
use crate::db::{Db, wal_of};
use crate::sessions;

/// Versions that get corrections in November 2026 begin here; what is older than the second lacks what we use.
const SUPPORTED: i32 = 14;
const LEAST: i32 = 12;
/// A request makes a few round trips.
const SLOW: Duration = Duration::from_millis(10);
/// A write-ahead log that is longer was not copied back for long.
const LONG_WAL: u64 = 256 << 20;

pub(super) async fn connect(patient: &mut Patient<'_>) -> Checked {
    let config = &patient.config.database;
    reach(config).await?;
    let connected = match Db::connect_to_examine(config).await {
        Ok(Some(db)) => db.facts().await.map(|facts| (db, facts)),
        Ok(None) => {
            let file = config.sqlite_file().unwrap_or_default();
            return Ok(warn(format!("{}: there is no such file yet", file.display()), "the first start makes it"));
        }
        Err(error) => Err(error),
    };
    let (db, facts) = connected.map_err(|error| unreachable_database(&error.to_string()))?;
    let message = if facts.is_some() { "PostgreSQL answers" } else { "SQLite: the file can be read" };
    (patient.db, patient.facts) = (Some(db), facts);
    Ok(ok(message))
}

/// The pool goes on trying for a while and then says that it did; here it is told why.
async fn reach(config: &config::Database) -> Result<(), Verdict> {
    if config.is_sqlite() {
        return Ok(());
    }
    let mut faults = Vec::new();
    for url in each_host(config.url.expose_secret()) {
        let Ok(url) = Url::parse(&url) else { return Ok(()) };
        // A socket's folder, written as a host, is none to look up.
        let Some(host) = url.host_str().filter(|host| !host.starts_with("%2F")) else { return Ok(()) };
        let address = format!("{host}:{}", url.port().unwrap_or(5432));
        match tokio::net::TcpStream::connect(&address).await {
            Ok(_) => return Ok(()),
            Err(error) => faults.push(format!("{address}: {error}")),
        }
    }
    Err(unreachable_database(&faults.join("; ")))
}

fn unreachable_database(error: &str) -> Verdict {
    let remedy = if error.contains("unsupported startup parameter") {
        "a pooler stands before PostgreSQL: set database.transaction_pooling"
    } else if error.contains("prepared statement") {
        "a pooler mixes prepared statements up: PgBouncer 1.21 or newer with max_prepared_statements"
    } else if error.contains("password authentication") || error.contains("no pg_hba.conf entry") {
        "correct user and password in the URL, or pg_hba.conf of the server"
    } else if error.contains("malformed") || error.contains("not a database") {
        "the file is damaged: stop the server and restore a backup"
    } else if error.contains("too many") || error.contains("remaining connection slots") {
        "every connection is taken: see the check connections"
    } else if error.contains("timed out") || error.contains("no answer") || error.contains("timeout") {
        "nothing answers there: look at host, port and firewall"
    } else {
        "start the database, and compare the URL with where it listens (authservice config show)"
    };
    fail(error, remedy)
}

pub(super) fn version(patient: &Patient<'_>) -> Checked {
    let (_, facts) = patient.postgres()?;
    let message = format!("PostgreSQL {}", facts.version);
    if facts.major < LEAST {
        return Ok(fail(
            format!("{message} is older than {LEAST}"),
            format!("upgrade PostgreSQL to {SUPPORTED} or newer"),
        ));
    }
    if facts.major < SUPPORTED {
        return Ok(warn(format!("{message} gets no corrections any more"), "upgrade PostgreSQL"));
    }
    Ok(ok(message))
}

pub(super) async fn latency(patient: &Patient<'_>) -> Checked {
    let took = patient.db()?.latency().await?;
    let message = format!("a round trip takes {:.1} ms", took.as_secs_f64() * 1000.0);
    if took > SLOW {
        return Ok(warn(message, "put server and database near each other: a request makes several round trips"));
    }
    Ok(ok(message))
}

pub(super) fn tls(patient: &Patient<'_>) -> Checked {
    let (_, facts) = patient.postgres()?;
    match &facts.tls {
        Some(version) => Ok(ok(format!("the connection is encrypted ({version})"))),
        None if facts.is_local => Ok(ok("the connection does not leave this machine")),
        None => Ok(warn(
            "the connection is not encrypted: password hashes and sealed keys can be read on the way",
            "turn ssl on in PostgreSQL, and add sslmode=verify-full (and sslrootcert) to the URL",
        )),
    }
}

pub(super) async fn role(patient: &Patient<'_>) -> Checked {
    let (db, facts) = patient.postgres()?;
    let denied = db.denied_tables().await?;
    if !denied.is_empty() {
        return Ok(fail(
            format!("the role may not read and write: {}", denied.join(", ")),
            "GRANT SELECT, INSERT, UPDATE, DELETE ON the tables to it, or let it own them",
        ));
    }
    if facts.is_superuser {
        return Ok(warn("the role is a superuser", "give the server a role that owns its database and nothing else"));
    }
    if !facts.may_create {
        return Ok(warn(
            "the role may not make tables, which migrations need",
            "run `authservice migrate up` as the owner and `authservice serve --no-migrate`, or GRANT CREATE ON SCHEMA",
        ));
    }
    Ok(ok("the role may do what it must and is no superuser"))
}

pub(super) fn writable(patient: &Patient<'_>) -> Checked {
    use rustix::fs::{Access, access};

    let Some(file) = patient.config.database.sqlite_file() else {
        let (_, facts) = patient.postgres()?;
        if facts.is_read_only {
            return Ok(fail(
                "only reading is possible: this is a standby, or default_transaction_read_only is on",
                "connect to the primary: the URL must name an address that always leads to it",
            ));
        }
        return Ok(ok("the server is a primary and takes writes"));
    };
    patient.db()?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    for path in [file.as_path(), folder.unwrap_or(std::path::Path::new("."))] {
        if let Err(error) = access(path, Access::WRITE_OK) {
            return Ok(fail(
                format!("{}: {error}", path.display()),
                "give file and folder to the user of the server (or run doctor as that user)",
            ));
        }
    }
    Ok(ok("file and folder may be written"))
}

pub(super) async fn schema(patient: &mut Patient<'_>) -> Checked {
    let steps = migration::status(patient.db()?.writer()).await.map_err(|error| {
        let remedy = match error {
            migration::Error::Newer(_) => "run the newer release, or restore a backup from before",
            migration::Error::Seed(_) => "docs/migrating-from-the-seed.md",
            _ => "see the database's own log",
        };
        fail(error.to_string(), remedy)
    })?;
    let count = |state| steps.iter().filter(|step| step.state == state).count();
    let (missing, newer) = (count(migration::State::Missing), count(migration::State::Newer));
    patient.is_current = missing == 0;
    if newer > 0 {
        return Ok(warn(
            format!("{newer} migration(s) of a newer release, which this one may run without"),
            "run the newer release again as soon as you can",
        ));
    }
    if patient.is_current {
        return Ok(ok(format!("current: {} migration(s)", steps.len())));
    }
    Ok(warn(
        format!("{missing} of {} migration(s) are missing", steps.len()),
        "`authservice serve` applies them at its start; with --no-migrate: `authservice migrate up`",
    ))
}

pub(super) async fn restored(patient: &Patient<'_>) -> Checked {
    Ok(match patient.current()?.looks_known().await? {
        None => skip("no server has used the database yet"),
        Some(true) => ok("the database is the one that the servers know"),
        Some(false) => {
            fail("the database was restored, and no server serves it", "docs/backup.md: `authservice after-restore`")
        }
    })
}

pub(super) async fn durability(patient: &Patient<'_>) -> Checked {
    let db = patient.db()?;
    let off = db.unsafe_settings().await?;
    if off.is_empty() {
        return Ok(ok("what was acknowledged survives a crash"));
    }
    let message = format!("the database may lose what it has acknowledged: {} is off", off.join(", "));
    if patient.config.database.allow_data_loss {
        return Ok(warn(message, "for tests only: turn it on, and database.allow_data_loss off"));
    }
    Ok(fail(message, "turn it on in PostgreSQL: the server does not start like this"))
}

pub(super) async fn time_limits(patient: &Patient<'_>) -> Checked {
    let (db, _) = patient.postgres()?;
    let missing = db.missing_timeouts().await?;
    if missing.is_empty() {
        return Ok(ok("a lost statement or transaction ends by itself"));
    }
    let settings: Vec<String> = missing.iter().map(|name| format!("ALTER ROLE ... SET {name} = '10s'")).collect();
    Ok(warn(
        format!("not limited: {}; a lost statement may hold its locks for ever", missing.join(", ")),
        settings.join("; "),
    ))
}

pub(super) fn connections(patient: &Patient<'_>) -> Checked {
    let (_, facts) = patient.postgres()?;
    let config = &patient.config.database;
    let need = i64::from(config.max_connections) * i64::from(patient.replicas);
    let of = format!("{} server(s) may open {need} connection(s)", patient.replicas);
    if config.transaction_pooling {
        return Ok(ok(format!("{of} to the pooler; compare that with its max_client_conn")));
    }
    let limit = if facts.role_limit < 0 { facts.places } else { facts.places.min(i64::from(facts.role_limit)) };
    let free = limit - facts.others;
    let message = format!("{of}; the database allows {limit}, of which others have {}", facts.others);
    if need > free {
        return Ok(warn(
            message,
            "raise max_connections of PostgreSQL, lower database.max_connections, or use a pooler",
        ));
    }
    Ok(ok(message))
}

pub(super) async fn clock(patient: &mut Patient<'_>) -> Checked {
    let database = DatabaseClock::default();
    let db = patient.db()?.clone();
    let before = Instant::now();
    if !db.measure_clock(&database).await? {
        return Ok(warn("the database takes too long to tell the time", "see the check database-latency"));
    }
    let (theirs, ours) = (database.now(), clock::local());
    let error = TimeDelta::from_std(before.elapsed()).unwrap_or_default();
    patient.now = theirs;
    if patient.is_current
        && let Some(uptime) = sessions::uptime(patient.current()?).await?
        && uptime.seen_at > theirs + TimeDelta::minutes(1)
    {
        return Ok(warn(
            format!("a server was up at {}, which the clock says is yet to come: it was set back", uptime.seen_at),
            "let a time service keep the clock; tokens of the future are refused until then",
        ));
    }
    if db.is_sqlite() {
        return Ok(ok("the host's clock counts"));
    }
    let skew = theirs - ours;
    let message = format!("the host's clock is {} ms from the database's, which counts", skew.num_milliseconds());
    if skew.abs() > TimeDelta::seconds(10) + error {
        return Ok(warn(message, "let a time service keep both clocks: verifiers on this host judge exp by theirs"));
    }
    Ok(ok(message))
}

pub(super) fn wal(patient: &Patient<'_>) -> Checked {
    let Some(file) = patient.config.database.sqlite_file() else {
        return Ok(skip("on SQLite only"));
    };
    patient.db()?;
    let bytes = std::fs::metadata(wal_of(&file)).map_or(0, |wal| wal.len());
    let message = format!("the write-ahead log has {} KiB", bytes >> 10);
    if bytes > LONG_WAL {
        return Ok(warn(message, "a reader that never ends keeps it from being copied back: restart the server"));
    }
    Ok(ok(message))
}

pub(super) async fn integrity(patient: &Patient<'_>) -> Checked {
    if !patient.config.database.is_sqlite() {
        return Ok(skip("on SQLite only; PostgreSQL has pg_amcheck"));
    }
    let damage = match tokio::time::timeout(super::PATIENCE / 5 * 4, patient.db()?.damage()).await {
        Ok(damage) => damage?,
        Err(_) => {
            return Ok(warn(
                "the file is too big to be read through here",
                "when little is to do: sqlite3 FILE 'PRAGMA quick_check'",
            ));
        }
    };
    if damage.is_empty() {
        return Ok(ok("the file is whole"));
    }
    Ok(fail(format!("the file is damaged: {}", damage.join("; ")), "stop the server and restore a backup"))
}

pub(super) async fn outage(patient: &Patient<'_>) -> Checked {
    let Some(uptime) = sessions::uptime(patient.current()?).await? else {
        return Ok(ok("no server has run on this database yet"));
    };
    let window = TimeDelta::seconds(patient.config.refresh.retry_window_seconds);
    if let Some((from, to)) = uptime.outage
        && patient.now - to < window
    {
        return Ok(warn(
            format!("an outage from {from} to {to}: late retries are still explained by it"),
            "nothing: wait until the retry window is over",
        ));
    }
    let ago = (patient.now - uptime.seen_at).num_seconds().max(0);
    Ok(ok(if ago > 15 { format!("no server has been up for {ago} s") } else { "a server is up".to_owned() }))
}

pub(super) async fn old_service(patient: &Patient<'_>) -> Checked {
    let tables = patient.db()?.tables_with(migration::PREFIX).await?;
    if tables.is_empty() {
        return Ok(ok("nothing is left of an old service"));
    }
    Ok(warn(
        format!("{} table(s) of the FastAPI service are kept: {}", tables.len(), tables.join(", ")),
        "they hold its password hashes: drop them once nobody will go back (docs/migrating-from-the-seed.md)",
    ))
}
