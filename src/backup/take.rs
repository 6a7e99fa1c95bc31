//! Making a backup while servers run: one snapshot, read in pages, so that memory is bounded however much there is.

use std::io::Write;

use chrono::{DateTime, Utc};
use migration::State;

use super::file::{Header, Writer};
use super::{Error, Progress, store};
use crate::db::Db;

/// Rows read at once.
const PAGE: u64 = 1000;

/// What was written.
#[derive(Debug)]
pub struct Taken {
    /// The first line.
    pub header: Header,
    /// Tables of the database that are not ours and not in the backup.
    pub left_out: Vec<String>,
}

/// Writes one consistent state of the database. An error leaves the sink with a part that no restore takes.
pub async fn take(db: &Db, sink: impl Write, now: DateTime<Utc>, progress: Progress<'_>) -> Result<Taken, Error> {
    migration::require_current(db.writer()).await?;
    // What a newer release has added would be left out.
    if let Some(newer) = migration::status(db.writer()).await?.into_iter().find(|step| step.state == State::Newer) {
        return Err(migration::Error::Newer(newer.name).into());
    }
    let tx = db.snapshot().await?;
    let migrations = migration::applied(&tx).await?;
    let engine = if db.is_sqlite() { "sqlite" } else { "postgres" };
    let mut header = Header::new(migrations, engine, db.identity(&tx).await?, now);
    let tables = store::tables(&tx).await?;
    let mut sections = Vec::new();
    for table in &tables {
        sections.push(table.section(&tx).await?);
    }
    header.rows = sections.iter().map(|section| section.rows).sum();
    let mut writer = Writer::new(sink);
    writer.line(&header)?;
    let mut done = 0;
    for (table, section) in tables.iter().zip(sections) {
        writer.line(&section)?;
        let mut after = None;
        loop {
            let (rows, last) = table.rows(&tx, after, PAGE).await?;
            for row in &rows {
                writer.line(row)?;
            }
            done += rows.len() as u64;
            progress(table.name, done, header.rows);
            if (rows.len() as u64) < PAGE {
                break;
            }
            after = last;
        }
    }
    writer.finish()?;
    let left_out = store::other_tables(&tx).await?;
    tx.rollback().await?;
    Ok(Taken { header, left_out })
}
