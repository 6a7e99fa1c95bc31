//! What is stored: bytes of a user, a session, an audit event, on both engines, and what a refresh writes on PostgreSQL.
//!
//! A real server makes one of each; the others are copies of those rows with identities of their own, made by SQL.

use std::path::Path;
use std::time::Instant;

use proofs::Result;
use proofs::api::{Api, Pair};
use proofs::postgres::Cluster;
use proofs::server::{Server, Settings, binary};
use proofs::sql::Sql;

use crate::stage::{PASSWORD, email};

/// Refreshes over HTTP whose writes are measured.
const REFRESHES: i64 = 500;
/// Sessions of each user.
const SESSIONS: i64 = 2;

pub(crate) async fn run(sessions: i64, directory: &Path, cluster: &Cluster) -> Result<()> {
    let file = directory.join("sizes.db");
    let lite = fill(&format!("sqlite://{}?mode=rwc", file.display()), sessions, directory).await?;
    lite.sql.run("VACUUM").await?;
    lite.sql.run("PRAGMA wal_checkpoint(TRUNCATE)").await?;
    let whole = i64::try_from(std::fs::metadata(&file)?.len())?;
    lite.sql.close().await;
    println!("\nSQLite: {} bytes for each of {sessions} sessions, with its share of the rest", whole / sessions);

    let url = cluster.database().await?;
    let filled = fill(&url, sessions, directory).await?;
    // As after a while: what has been changed has been cleaned up.
    filled.sql.run("VACUUM ANALYZE").await?;
    tables(&filled.sql).await?;
    writes(filled, sessions).await?;
    hot_row(&url).await
}

/// A database with so many sessions, and the server and the session that they were copied from.
struct Filled {
    sql: Sql,
    _server: Server,
    api: Api,
    pair: Pair,
}

async fn fill(url: &str, sessions: i64, directory: &Path) -> Result<Filled> {
    let settings = Settings::new(&binary()?, directory, "sizes", url)?
        .with("AUTHSERVICE__LIMITS__REFRESHES_PER_MINUTE", "100000")
        .with("AUTHSERVICE__CLEANUP__INTERVAL_SECONDS", "86400");
    let server = Server::start(&settings).await?;
    let mut api = Api::new(server.address());
    api.must_register(&email(0), PASSWORD).await?;
    let pair = api.must_login(&email(0), PASSWORD).await?;
    let sql = Sql::connect(url).await?;
    let copies = Copies { sql: &sql, numbers: numbers(sql.is_sqlite(), sessions / SESSIONS) };
    let uuid = if sql.is_sqlite() { "randomblob(16)" } else { "gen_random_uuid()" };
    let address = "'user' || n.n || '@example.com'";
    let user = [("id", "1000 + n.n"), ("subject", uuid), ("email", address), ("email_canonical", address)];
    copies.insert("users", &user, "numbers n").await?;
    let of_each = format!("(SELECT id FROM users WHERE id > 1000) u, numbers n WHERE n.n <= {SESSIONS}");
    copies.insert("auth_sessions", &[("id", uuid), ("user_id", "u.id")], &of_each).await?;
    let others = "(SELECT id, user_id FROM auth_sessions WHERE user_id > 1000) s";
    let family = [("family_id", uuid), ("session_id", "s.id"), ("user_id", "s.user_id")];
    copies.insert("refresh_tokens", &family, others).await?;
    let event = [("id", ""), ("session_id", "s.id"), ("user_id", "s.user_id")];
    copies.insert("audit_events", &event, &format!("{others} WHERE t.session_id IS NOT NULL")).await?;
    let known = [("key", uuid), ("user_id", "u.id")];
    let users = "(SELECT id FROM users WHERE id > 1000) u WHERE t.known_until IS NOT NULL";
    copies.insert("rate_limits", &known, users).await?;
    Ok(Filled { sql, _server: server, api, pair })
}

/// A table of the numbers 1, 2, ... for statements that both engines read.
fn numbers(is_sqlite: bool, most: i64) -> String {
    if is_sqlite {
        return format!("RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {most})");
    }
    format!("numbers (n) AS (SELECT generate_series(1, {most}))")
}

struct Copies<'a> {
    sql: &'a Sql,
    numbers: String,
}

impl Copies<'_> {
    /// Copies the rows that a table has, called `t`, once for each row of `from`; an empty expression leaves a column out.
    async fn insert(&self, table: &str, columns: &[(&str, &str)], from: &str) -> Result<()> {
        let list = if self.sql.is_sqlite() {
            format!("SELECT name FROM pragma_table_info('{table}')")
        } else {
            format!(
                "SELECT CAST(column_name AS TEXT) FROM information_schema.columns \
                 WHERE table_name = '{table}' ORDER BY ordinal_position"
            )
        };
        let (mut names, mut expressions) = (Vec::new(), Vec::new());
        for name in self.sql.rows(&list).await?.into_iter().flatten() {
            let own =
                columns.iter().find(|(column, _)| *column == name).map(|(_, expression)| (*expression).to_owned());
            let expression = own.unwrap_or_else(|| format!("t.{name}"));
            if !expression.is_empty() {
                names.push(name);
                expressions.push(expression);
            }
        }
        let (names, expressions, numbers) = (names.join(", "), expressions.join(", "), &self.numbers);
        self.sql
            .run(&format!(
                "WITH {numbers} INSERT INTO {table} ({names}) SELECT {expressions} FROM (SELECT * FROM {table}) t, {from}"
            ))
            .await
    }
}

async fn tables(sql: &Sql) -> Result<()> {
    println!("\n| table | rows | bytes a row | of that indexes | |");
    println!("|---|---|---|---|---|");
    for table in ["users", "auth_sessions", "refresh_tokens", "audit_events", "rate_limits"] {
        let rows = sql.number(&format!("SELECT COUNT(*) FROM {table}")).await?.max(1);
        let all = sql.number(&format!("SELECT pg_total_relation_size('{table}')")).await?;
        let indexes = sql.number(&format!("SELECT pg_indexes_size('{table}')")).await?;
        let each = format!(
            "SELECT indexrelid::regclass || ' ' || pg_relation_size(indexrelid) / {rows} \
             FROM pg_index WHERE indrelid = '{table}'::regclass ORDER BY 1"
        );
        let each: Vec<String> = sql.rows(&each).await?.into_iter().flatten().collect();
        println!("| {table} | {rows} | {} | {} | {} |", all / rows, indexes / rows, each.join(", "));
    }
    Ok(())
}

/// What is written: bytes of the write-ahead log, and whether rows are updated in place.
async fn writes(mut filled: Filled, sessions: i64) -> Result<()> {
    const LOG: &str = "SELECT CAST(pg_current_wal_lsn() - '0/0' AS BIGINT)";
    let sql = filled.sql;
    println!("\n| what | bytes of WAL each | updated in place |");
    println!("|---|---|---|");
    let before = (sql.number(LOG).await?, updates(&sql).await?);
    for _ in 0..REFRESHES {
        let answer = filled.api.refresh(&filled.pair.refresh).await?;
        filled.pair = Pair::of(&answer).ok_or("a refresh was refused")?;
    }
    row("refresh of one session over HTTP, again and again", REFRESHES, before, &sql).await?;

    // As a rotation does, to sessions all over the table.
    let rotation = "UPDATE refresh_tokens SET generation = generation + 1, rotated_at = now(), idle_end = now() + interval '14 days' \
                    WHERE family_id IN (SELECT family_id FROM refresh_tokens ORDER BY random() LIMIT ";
    let tenth = sessions / 10;
    for (name, setting) in [("on", "off"), ("compressed", "on")] {
        sql.run(&format!("SET wal_compression = {setting}")).await?;
        sql.run("CHECKPOINT").await?;
        let before = (sql.number(LOG).await?, updates(&sql).await?);
        let scattered = sessions / 100;
        sql.run(&format!("{rotation}{scattered})")).await?;
        row(&format!("one session of each 100, after a checkpoint, full pages {name}"), scattered, before, &sql)
            .await?;
    }
    for round in 1..=10 {
        let before = (sql.number(LOG).await?, updates(&sql).await?);
        sql.run(&format!("{rotation}{tenth})")).await?;
        if round == 5 {
            sql.run("VACUUM refresh_tokens").await?;
        }
        if [1, 2, 5, 10].contains(&round) {
            row(&format!("one session of each 10, time {round}"), tenth, before, &sql).await?;
        }
    }
    let size = sql.number("SELECT pg_total_relation_size('refresh_tokens')").await?;
    println!("\nrefresh_tokens afterwards: {} bytes a row", size / sessions);
    Ok(())
}

/// Updates of refresh families so far, and those of them that touched no index.
async fn updates(sql: &Sql) -> Result<(i64, i64)> {
    // Statistics are told between transactions, and read from a copy.
    sql.run("SELECT pg_stat_clear_snapshot()").await?;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    let number = |column: &str| format!("SELECT {column} FROM pg_stat_user_tables WHERE relname = 'refresh_tokens'");
    Ok((sql.number(&number("n_tup_upd")).await?, sql.number(&number("n_tup_hot_upd")).await?))
}

async fn row(what: &str, count: i64, before: (i64, (i64, i64)), sql: &Sql) -> Result<()> {
    let log = sql.number("SELECT CAST(pg_current_wal_lsn() - '0/0' AS BIGINT)").await? - before.0;
    let now = updates(sql).await?;
    let (all, in_place) = (now.0 - before.1.0, now.1 - before.1.1);
    println!("| {what} | {} | {} % |", log / count, in_place * 100 / all.max(1));
    Ok(())
}

/// One row that everybody writes, as the budget of all sign-ins: how often a second.
async fn hot_row(url: &str) -> Result<()> {
    const EACH: u32 = 400;
    const CLIENTS: u32 = 8;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Sql::connect(url).await?);
    }
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for sql in clients {
        tasks.spawn(async move {
            let statement = "UPDATE rate_limits SET touched_at = now() \
                             WHERE key = (SELECT key FROM rate_limits WHERE user_id IS NULL ORDER BY key LIMIT 1)";
            for _ in 0..EACH {
                sql.run(statement).await?;
            }
            Ok::<_, proofs::Error>(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let rate = f64::from(EACH * CLIENTS) / started.elapsed().as_secs_f64();
    println!("\none row written by {CLIENTS} connections: {rate:.0} durable commits a second");
    Ok(())
}
