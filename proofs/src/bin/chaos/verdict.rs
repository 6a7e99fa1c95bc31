//! What is checked after a fault, when everything runs again: sessions go on, ended ones stay ended, rows, logs.

use std::collections::HashMap;

use proofs::Result;
use proofs::api::Api;
use proofs::sql::Sql;

use crate::crowd::{Crowd, DOMAIN, Plan};
use crate::ledger::{Breach, Ledger};
use crate::world::World;

/// Rows that may not be, whatever happened: each query counts them.
const NEVER: [(&str, &str); 8] = [
    (
        "N1: a session with other than one family",
        "SELECT COUNT(*) FROM auth_sessions s WHERE (SELECT COUNT(*) FROM refresh_tokens r WHERE r.session_id = s.id) <> 1",
    ),
    ("N1: a generation below 0", "SELECT COUNT(*) FROM refresh_tokens WHERE generation < 0"),
    ("N3: an idle end past the absolute end", "SELECT COUNT(*) FROM refresh_tokens WHERE idle_end > absolute_end"),
    (
        "N4: a live session of an inactive user",
        "SELECT COUNT(*) FROM refresh_tokens r JOIN users u ON u.id = r.user_id WHERE r.revoked_at IS NULL AND NOT u.is_active",
    ),
    (
        "N4: a family of no session or user",
        "SELECT COUNT(*) FROM refresh_tokens r LEFT JOIN auth_sessions s ON s.id = r.session_id AND s.user_id = r.user_id LEFT JOIN users u ON u.id = r.user_id WHERE s.id IS NULL OR u.id IS NULL",
    ),
    (
        "N4: a session of no user",
        "SELECT COUNT(*) FROM auth_sessions s LEFT JOIN users u ON u.id = s.user_id WHERE u.id IS NULL",
    ),
    (
        "N5: half-ended: session and family differ",
        "SELECT COUNT(*) FROM refresh_tokens r JOIN auth_sessions s ON s.id = r.session_id WHERE (s.revoked_at IS NULL) <> (r.revoked_at IS NULL)",
    ),
    ("two users with one address", "SELECT COUNT(*) - COUNT(DISTINCT email_canonical) FROM users"),
];

/// What the database says of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Family {
    generation: i64,
    revoked_at: String,
    absolute_end: String,
}

/// All families at one moment.
#[derive(Debug, Default)]
pub(crate) struct Snapshot(HashMap<String, Family>);

impl Snapshot {
    pub(crate) async fn take(sql: &Sql) -> Result<Self> {
        let id = if sql.is_sqlite() { "lower(hex(family_id))" } else { "replace(CAST(family_id AS TEXT), '-', '')" };
        let columns = "CAST(generation AS TEXT), CAST(revoked_at AS TEXT), CAST(absolute_end AS TEXT)";
        let rows = sql.rows(&format!("SELECT {id}, {columns} FROM refresh_tokens")).await?;
        let mut families = HashMap::new();
        for row in rows {
            let [id, generation, revoked_at, absolute_end] =
                <[String; 4]>::try_from(row).map_err(|_| "four columns")?;
            families.insert(id, Family { generation: generation.parse()?, revoked_at, absolute_end });
        }
        Ok(Self(families))
    }

    /// N2 and N3: nothing acknowledged is gone, and nothing goes back.
    pub(crate) fn follows(&self, before: &Self, ledger: &Ledger) {
        for (id, old) in &before.0 {
            let Some(new) = self.0.get(id) else {
                ledger.breach(Breach::LostWrite, &format!("family {id} is gone"));
                continue;
            };
            let has_gone_back = new.generation < old.generation
                || new.absolute_end != old.absolute_end
                || (!old.revoked_at.is_empty() && new.revoked_at != old.revoked_at);
            if has_gone_back {
                ledger.breach(Breach::Invariant, &format!("N3: family {id} was {old:?} and is {new:?}"));
            }
        }
    }
}

/// Checks the rows that may not be, and that what was acknowledged before the fault is there.
pub(crate) async fn check_rows(world: &World, before: &mut Snapshot) -> Result<()> {
    let acknowledged = world.ledger.acknowledged();
    let sql = world.sql().await?;
    for (name, query) in NEVER {
        let rows = sql.number(query).await?;
        if rows != 0 {
            world.ledger.breach(Breach::Invariant, &format!("{name}: {rows} rows"));
        }
    }
    if world.is_sqlite() {
        let answer = sql.rows("PRAGMA integrity_check").await?;
        if answer != [["ok"]] {
            world.ledger.breach(Breach::Invariant, &format!("integrity_check: {answer:?}"));
        }
    }
    let now = Snapshot::take(&sql).await?;
    sql.close().await;
    for (family, generation) in acknowledged {
        if now.0.get(&family).is_none_or(|row| row.generation < generation) {
            let text = format!("N2: generation {generation} of family {family} was answered and is not stored");
            world.ledger.breach(Breach::LostWrite, &text);
        }
    }
    now.follows(before, &world.ledger);
    *before = now;
    Ok(())
}

/// Everything, when all servers run again. Adds the row about the clients to the report.
pub(crate) async fn check(world: &mut World, mut crowd: Crowd, plan: &Plan) -> Result<()> {
    crowd.settle(world, plan).await;
    check_rows(world, &mut Snapshot::default()).await?;
    let sql = world.sql().await?;
    let rows = Snapshot::take(&sql).await?;
    for wallet in crowd.wallets.iter().filter(|wallet| !wallet.is_lost) {
        let stored = rows.0.get(&wallet.family).map(|family| family.generation);
        if stored != Some(wallet.tokens() - 1) {
            let text = format!("{}: {} tokens, and the row says {stored:?}", wallet.email, wallet.tokens());
            world.ledger.breach(Breach::Fork, &text);
        }
    }
    for email in &crowd.registered {
        let query = format!("SELECT COUNT(*) FROM users WHERE email_canonical = '{email}'");
        if sql.number(&query).await? != 1 {
            world.ledger.breach(Breach::LostWrite, &format!("registration of {email}"));
        }
    }
    sql.close().await;
    ended_stay_ended(world, &crowd, plan).await?;
    old_tokens_are_theft(world, &crowd, plan).await?;
    scan_logs(world)?;
    let figure = format!("{} sessions: {}", crowd.wallets.len(), world.ledger.summary());
    world.promise(
        "no session lost, no false theft, no fork, nothing acknowledged lost",
        figure,
        world.ledger.breaches() == 0,
    );
    Ok(())
}

/// N5, on every replica. Of many the newest.
async fn ended_stay_ended(world: &World, crowd: &Crowd, plan: &Plan) -> Result<()> {
    for address in &plan.targets {
        let mut api = Api::new(*address);
        for pair in crowd.ended.iter().rev().take(40) {
            for answer in [api.refresh(&pair.refresh).await?, api.me(&pair.access).await?] {
                if answer.status != 401 {
                    world
                        .ledger
                        .breach(Breach::LostWrite, &format!("N5: an ended session is answered {}", answer.status));
                }
            }
        }
    }
    Ok(())
}

/// A token that is older than any retry ends its session. A few are enough, and those are over then.
async fn old_tokens_are_theft(world: &World, crowd: &Crowd, plan: &Plan) -> Result<()> {
    let Some(address) = plan.targets.first() else { return Ok(()) };
    let mut api = Api::new(*address);
    let old =
        crowd.wallets.iter().filter(|wallet| !wallet.is_lost && wallet.generation > 3 && !wallet.older.is_empty());
    for wallet in old.take(3) {
        for token in [&wallet.older[0], &wallet.pair.refresh] {
            let answer = api.refresh(token).await?;
            if (answer.status, answer.code().as_str()) != (401, "refresh_reuse_detected") {
                world.ledger.breach(Breach::MissedTheft, &format!("{}: answered {}", wallet.email, answer.status));
            }
        }
        world.ledger.count("thefts seen");
    }
    Ok(())
}

/// N7.
pub(crate) fn scan_logs(world: &World) -> Result<()> {
    for entry in std::fs::read_dir(world.directory())? {
        let path = entry?.path();
        if !path.extension().is_some_and(|kind| kind == "log" || kind == "err") {
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        for line in text.lines() {
            if line.contains("panicked") {
                world.ledger.breach(Breach::Panic, line);
            }
            // A header of a JWT, an opaque refresh token, the password, an address.
            let secrets = ["eyJhbGci", "eyJ0eXAi", "rt1.", "Canary!", DOMAIN];
            if let Some(secret) = secrets.iter().find(|secret| line.contains(**secret)) {
                world.ledger.breach(Breach::Secret, &format!("`{secret}` in {}", path.display()));
            }
        }
    }
    Ok(())
}
