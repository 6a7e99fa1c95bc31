//! `authservice cleanup`: one sweep by hand or by a timer, beside or instead of the server's own.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Error, connect, say};
use crate::clock::{Clock as _, DatabaseClock};
use crate::config::Config;
use crate::sessions;

/// Walks through all sessions once and deletes those that were over for `cleanup.retention_days`.
pub(super) async fn run(config: &Config) -> Result<(), Error> {
    let db = connect(config).await?;
    migration::require_current(db.writer()).await?;
    let clock = DatabaseClock::default();
    db.measure_clock(&clock).await?;
    let retention = TimeDelta::days(config.cleanup.retention_days);
    let (mut deleted, mut cursor) = (0, Uuid::nil());
    let is_done = loop {
        let swept = sessions::sweep(&db, retention, cursor, clock.now()).await?;
        deleted += swept.deleted;
        cursor = swept.next;
        if swept.is_taken || cursor.is_nil() {
            break !swept.is_taken;
        }
    };
    say(&format!(
        "deleted {deleted} session(s){}",
        if is_done { "" } else { "; another process is sweeping and goes on" }
    ));
    db.close().await;
    Ok(())
}
