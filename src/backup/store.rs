//! SQL of every table that a backup holds, made of the names that the database itself gives.

use sea_orm::{ConnectionTrait, DatabaseBackend, DbErr, QueryResult, Statement, Value as Bound};
use serde_json::{Value, json};

use super::file::{self, Column, Kind, Section};
use crate::entity::{MADE_ANEW, TABLES};

/// A table as the database describes it.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: Vec<Column>,
    /// Place of the primary key, which is one column.
    key: usize,
}

fn is_sqlite(db: &impl ConnectionTrait) -> bool {
    db.get_database_backend() == DatabaseBackend::Sqlite
}

async fn query(db: &impl ConnectionTrait, sql: &str, values: Vec<Bound>) -> Result<Vec<QueryResult>, DbErr> {
    db.query_all_raw(Statement::from_sql_and_values(db.get_database_backend(), sql, values)).await
}

/// The tables that are there, in the order of a backup. Their columns are those that the database has; not among them are the
/// migrations, which the first line lists, and what the database is known by.
pub(super) async fn tables(db: &impl ConnectionTrait) -> Result<Vec<Table>, DbErr> {
    const SQLITE: &str = "SELECT name, lower(type), pk > 0 FROM pragma_table_info($1) ORDER BY cid";
    const POSTGRES: &str = "SELECT a.attname::text, format_type(a.atttypid, NULL), COALESCE(a.attnum = ANY(i.indkey), false) \
        FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
        WHERE a.attrelid = to_regclass(quote_ident(current_schema()) || '.' || quote_ident($1)) \
        AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let mut tables = Vec::new();
    for name in TABLES {
        let (mut columns, mut key) = (Vec::new(), None);
        for row in query(db, if is_sqlite(db) { SQLITE } else { POSTGRES }, vec![name.into()]).await? {
            let (column, declared): (String, String) = (row.try_get_by_index(0)?, row.try_get_by_index(1)?);
            if row.try_get_by_index(2)? {
                key = Some(columns.len());
            }
            let kind = kind_of(&declared);
            let kind = kind.ok_or_else(|| DbErr::Type(format!("{name}.{column} has the unknown type {declared}")))?;
            columns.push(Column { name: column, kind });
        }
        if let Some(key) = key {
            tables.push(Table { name, columns, key });
        }
    }
    Ok(tables)
}

/// Tables that no backup holds.
pub(super) async fn other_tables(db: &impl ConnectionTrait) -> Result<Vec<String>, DbErr> {
    let sql = if is_sqlite(db) {
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    } else {
        "SELECT tablename::text FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
    };
    let rows = query(db, sql, Vec::new()).await?;
    let names = rows.iter().map(|row| row.try_get_by_index::<String>(0)).collect::<Result<Vec<_>, _>>()?;
    let is_ours = |name: &String| TABLES.contains(&name.as_str()) || MADE_ANEW.contains(&name.as_str());
    Ok(names.into_iter().filter(|name| !is_ours(name)).collect())
}

fn kind_of(declared: &str) -> Option<Kind> {
    let plain = declared.split('(').next().unwrap_or_default().trim();
    Some(match plain {
        "bigint" | "integer" | "smallint" => Kind::Integer,
        "boolean" => Kind::Boolean,
        "text" | "varchar" | "character varying" => Kind::Text,
        "bytea" | "blob" => Kind::Bytes,
        "uuid" | "uuid_text" => Kind::Uuid,
        "timestamp with time zone" | "timestamp_with_timezone_text" => Kind::Time,
        _ => return None,
    })
}

impl Table {
    pub(super) async fn count(&self, db: &impl ConnectionTrait) -> Result<u64, DbErr> {
        let rows = query(db, &format!("SELECT count(*) FROM \"{}\"", self.name), Vec::new()).await?;
        let count: i64 = rows.first().map_or(Ok(0), |row| row.try_get_by_index(0))?;
        Ok(count.unsigned_abs())
    }

    /// The line before its rows.
    pub(super) async fn section(&self, db: &impl ConnectionTrait) -> Result<Section, DbErr> {
        let (table, columns) = (self.name.to_owned(), self.columns.clone());
        Ok(Section { table, columns, rows: self.count(db).await?, last_id: self.last_id(db).await? })
    }

    /// The rows after the one with this key, in the order of keys, so many at most; and the key of the last.
    pub(super) async fn rows(
        &self,
        db: &impl ConnectionTrait,
        after: Option<Bound>,
        limit: u64,
    ) -> Result<(Vec<Vec<Value>>, Option<Bound>), DbErr> {
        let key = &self.columns[self.key].name;
        let columns: Vec<String> = self.columns.iter().map(selected).collect();
        let place = if after.is_some() { format!("WHERE \"{key}\" > $1") } else { String::new() };
        let sql =
            format!("SELECT {} FROM \"{}\" {place} ORDER BY \"{key}\" LIMIT {limit}", columns.join(", "), self.name);
        let read = query(db, &sql, after.into_iter().collect()).await?;
        let cells = |row: &QueryResult| {
            self.columns
                .iter()
                .enumerate()
                .map(|(at, column)| cell(row, at, column.kind))
                .collect::<Result<Vec<_>, _>>()
        };
        let rows = read.iter().map(cells).collect::<Result<Vec<_>, _>>()?;
        let last = rows.last().and_then(|row| self.columns[self.key].kind.read(&row[self.key]));
        Ok((rows, last))
    }

    pub(super) async fn insert(&self, tx: &impl ConnectionTrait, rows: Vec<Vec<Bound>>) -> Result<(), DbErr> {
        if rows.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = self.columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
        let width = names.len();
        let place = |row: usize| {
            let places: Vec<String> = (1..=width).map(|column| format!("${}", row * width + column)).collect();
            format!("({})", places.join(", "))
        };
        let places: Vec<String> = (0..rows.len()).map(place).collect();
        let sql = format!("INSERT INTO \"{}\" ({}) VALUES {}", self.name, names.join(", "), places.join(", "));
        let values: Vec<Bound> = rows.into_iter().flatten().collect();
        tx.execute_raw(Statement::from_sql_and_values(tx.get_database_backend(), &sql, values)).await.map(|_| ())
    }

    /// The last number that the engine gave to a row; `None` when it gives none or gave none yet.
    async fn last_id(&self, db: &impl ConnectionTrait) -> Result<Option<i64>, DbErr> {
        const SQLITE: &str = "SELECT seq FROM sqlite_sequence WHERE name = $1";
        const POSTGRES: &str = "SELECT s.last_value FROM pg_sequences s \
            WHERE quote_ident(s.schemaname) || '.' || quote_ident(s.sequencename) = pg_get_serial_sequence($1, $2)";
        let key = &self.columns[self.key];
        if key.kind != Kind::Integer {
            return Ok(None);
        }
        let rows = if is_sqlite(db) {
            query(db, SQLITE, vec![self.name.into()]).await?
        } else {
            query(db, POSTGRES, vec![self.name.into(), key.name.as_str().into()]).await?
        };
        rows.first().map_or(Ok(None), |row| row.try_get_by_index(0))
    }

    /// The engine gives greater numbers only.
    pub(super) async fn set_last_id(&self, tx: &impl ConnectionTrait, last: i64) -> Result<(), DbErr> {
        const POSTGRES: &str = "SELECT setval(pg_get_serial_sequence($1, $2)::regclass, $3)";
        if !is_sqlite(tx) {
            let key = self.columns[self.key].name.as_str();
            return query(tx, POSTGRES, vec![self.name.into(), key.into(), last.into()]).await.map(|_| ());
        }
        query(tx, "DELETE FROM sqlite_sequence WHERE name = $1", vec![self.name.into()]).await?;
        query(tx, "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)", vec![self.name.into(), last.into()])
            .await?;
        Ok(())
    }
}

/// Integers of any width are read as the widest.
fn selected(column: &Column) -> String {
    if column.kind == Kind::Integer {
        format!("CAST(\"{}\" AS bigint)", column.name)
    } else {
        format!("\"{}\"", column.name)
    }
}

fn cell(row: &QueryResult, at: usize, kind: Kind) -> Result<Value, DbErr> {
    Ok(match kind {
        Kind::Integer => json!(row.try_get_by_index::<Option<i64>>(at)?),
        Kind::Boolean => json!(row.try_get_by_index::<Option<bool>>(at)?),
        Kind::Text => json!(row.try_get_by_index::<Option<String>>(at)?),
        Kind::Bytes => row.try_get_by_index::<Option<Vec<u8>>>(at)?.map_or(Value::Null, |bytes| file::bytes(&bytes)),
        Kind::Uuid => json!(row.try_get_by_index::<Option<uuid::Uuid>>(at)?),
        Kind::Time => {
            row.try_get_by_index::<Option<chrono::DateTime<chrono::Utc>>>(at)?.map_or(Value::Null, file::time)
        }
    })
}
