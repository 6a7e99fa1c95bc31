//! Restoring a backup: one transaction under the lock of migrations, committed when the last line has proved the whole.

use std::io::BufRead;

use chrono::{DateTime, Utc};
use sea_orm::DatabaseTransaction;
use serde_json::{Value, json};

use super::file::{Header, Reader, Section};
use super::store::{self, Table};
use super::{Error, Progress};
use crate::audit::{self, Actor, Entry, Event};
use crate::db::{self, Db};

/// Rows written at once: fewer values than a statement may have on either engine.
const BATCH: usize = 500;

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The first line of the backup.
    pub header: Header,
    /// True when there was data before, which is gone.
    pub has_replaced: bool,
}

/// Fills the database. What it holds is replaced if `may_replace`, else it must hold nothing. An older schema is brought up to date.
/// Servers that run on it are not ready when they next look, within seconds, and until [`super::after_restore`].
pub async fn restore(
    db: &Db,
    source: impl BufRead,
    may_replace: bool,
    now: DateTime<Utc>,
    progress: Progress<'_>,
) -> Result<Restored, Error> {
    let mut reader = Reader::new(source);
    let header = reader.header()?;
    let tx = migration::begin(db.writer()).await?;
    let has_replaced = require_room(&tx, may_replace).await?;
    migration::rebuild(&tx, &header.migrations).await?;
    let mut done = 0;
    for table in store::tables(&tx).await? {
        done += fill(&tx, &table, &mut reader, |rows| progress(table.name, done + rows, header.rows)).await?;
    }
    if done != header.rows {
        return Err(reader.fault("there are more or fewer rows than the first line tells"));
    }
    reader.finish()?;
    migration::complete(&tx).await?;
    db::forget_identity(&tx, header.epoch).await?;
    let details =
        json!({"taken_at": header.taken_at, "version": header.version, "engine": header.engine, "rows": done});
    let entry = Entry { details: Some(Actor::Operator.of(details)), ..Entry::default() };
    audit::record_uncounted(&tx, now, Event::DatabaseRestored, entry).await?;
    tx.commit().await?;
    Ok(Restored { header, has_replaced })
}

/// True when there is data.
async fn require_room(tx: &DatabaseTransaction, may_replace: bool) -> Result<bool, Error> {
    for table in store::tables(tx).await? {
        let rows = table.count(tx).await?;
        if rows > 0 && may_replace {
            return Ok(true);
        }
        if rows > 0 {
            return Err(Error::NotEmpty { table: table.name.to_owned(), rows });
        }
    }
    Ok(false)
}

/// Reads the lines of one table, which must be as the schema has it.
async fn fill(
    tx: &DatabaseTransaction,
    table: &Table,
    reader: &mut Reader<impl BufRead>,
    progress: impl Fn(u64),
) -> Result<u64, Error> {
    let section: Section = reader.line()?;
    if section.table != table.name || section.columns != table.columns {
        return Err(reader.fault(&format!("the columns of the table {} belong here", table.name)));
    }
    let mut batch = Vec::new();
    for row in 1..=section.rows {
        let cells: Vec<Value> = reader.line()?;
        let values = cells.iter().zip(&table.columns).map(|(cell, column)| column.kind.read(cell));
        let values = values.collect::<Option<Vec<_>>>().filter(|_| cells.len() == table.columns.len());
        batch.push(values.ok_or_else(|| reader.fault(&format!("is not a row of {}", table.name)))?);
        if batch.len() == BATCH || row == section.rows {
            table.insert(tx, std::mem::take(&mut batch)).await?;
            progress(row);
        }
    }
    if let Some(last) = section.last_id {
        table.set_last_id(tx, last).await?;
    }
    Ok(section.rows)
}
