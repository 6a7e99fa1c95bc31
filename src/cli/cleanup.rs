//! `authservice cleanup`: one sweep by hand or by a timer, beside or instead of the server's own.

use chrono::TimeDelta;
use uuid::Uuid;

use super::{Error, clock_of, connect, progress, say};
use crate::audit::Trail;
use crate::clock::Clock as _;
use crate::config::Config;
use crate::limits::Limits;
use crate::sessions;

/// Walks through all sessions once and deletes those that were over for `cleanup.retention_days`, and then
/// audit events and budgets whose time is over.
pub(super) async fn run(config: &Config) -> Result<(), Error> {
    let db = connect(config).await?;
    migration::require_current(db.writer()).await?;
    let clock = clock_of(&db).await?;
    let retention = TimeDelta::days(config.cleanup.retention_days);
    let bar = progress::spinner();
    let (mut deleted, mut cursor) = (0, Uuid::nil());
    let is_done = loop {
        let swept = sessions::sweep(&db, retention, cursor, clock.now()).await?;
        deleted += swept.deleted;
        bar.set_message(format!("deleted {deleted} session(s)"));
        cursor = swept.next;
        if swept.is_taken || cursor.is_nil() {
            break !swept.is_taken;
        }
    };
    let (trail, limits) = (Trail::new(db.clone(), config), Limits::new(db.clone(), &config.limits));
    let (mut events, mut budgets) = (0, 0);
    // A sweep of the server's takes so many; here all go.
    loop {
        let swept = (trail.sweep(clock.now()).await?, limits.sweep(clock.now()).await?);
        if swept == (0, 0) {
            break;
        }
        (events, budgets) = (events + swept.0, budgets + swept.1);
        bar.set_message(format!("deleted {events} audit event(s), {budgets} budget(s)"));
    }
    bar.finish_and_clear();
    say(&format!(
        "deleted {deleted} session(s), {events} audit event(s), {budgets} budget(s){}",
        if is_done { "" } else { "; another process is sweeping and goes on" }
    ));
    db.close().await;
    Ok(())
}
