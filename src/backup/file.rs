//! The form of a backup: lines of JSON. A header; for each table its columns and then its rows as arrays; at the end SHA-256 of all
//! lines before. The sum tells damage, not forgery: whoever may write the file may restore what they like.

use std::io::{BufRead, Read as _, Write};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::{DateTime, SecondsFormat, Utc};
use openssl::sha::Sha256;
use sea_orm::Value as Bound;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::Error;

/// Of the form as this release writes it.
const FORM: u64 = 1;
/// No line of ours comes near; a file without line ends must not fill the memory.
const LONGEST: u64 = 16 << 20;

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Form of the file.
    pub authservice_backup: u64,
    /// Release that wrote it.
    pub version: String,
    /// `sqlite` or `postgres`; the rows are the same.
    pub engine: String,
    /// When, by the database's clock.
    pub taken_at: DateTime<Utc>,
    /// How often the database had been restored, and what it was known by.
    pub epoch: i64,
    /// See `epoch`; empty when no server had used it.
    pub identity: String,
    /// The schema.
    pub migrations: Vec<String>,
    /// Of all tables together.
    pub rows: u64,
}

impl Header {
    pub(super) fn new(
        migrations: Vec<String>,
        engine: &str,
        known: Option<(i64, String)>,
        taken_at: DateTime<Utc>,
    ) -> Self {
        let (epoch, identity) = known.unwrap_or_default();
        let (version, engine) = (env!("CARGO_PKG_VERSION").to_owned(), engine.to_owned());
        Self { authservice_backup: FORM, version, engine, taken_at, epoch, identity, migrations, rows: 0 }
    }
}

/// The line before a table's rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Section {
    pub(super) table: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: u64,
    /// The last number that was given to a row; such numbers never come again.
    pub(super) last_id: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: Kind,
}

/// What a column holds, on both engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Integer,
    Boolean,
    Text,
    /// Base64.
    Bytes,
    Uuid,
    /// RFC 3339.
    Time,
}

impl Kind {
    /// The value of one place in a line; `None` when it is of another kind.
    pub(super) fn read(self, value: &Value) -> Option<Bound> {
        let text = value.as_str();
        Some(match (self, value.is_null()) {
            (Self::Integer, true) => None::<i64>.into(),
            (Self::Boolean, true) => None::<bool>.into(),
            (Self::Text, true) => None::<String>.into(),
            (Self::Bytes, true) => None::<Vec<u8>>.into(),
            (Self::Uuid, true) => None::<Uuid>.into(),
            (Self::Time, true) => None::<DateTime<Utc>>.into(),
            (Self::Integer, false) => value.as_i64()?.into(),
            (Self::Boolean, false) => value.as_bool()?.into(),
            (Self::Text, false) => text?.into(),
            (Self::Bytes, false) => BASE64_STANDARD.decode(text?).ok()?.into(),
            (Self::Uuid, false) => text?.parse::<Uuid>().ok()?.into(),
            (Self::Time, false) => text?.parse::<DateTime<Utc>>().ok()?.into(),
        })
    }
}

pub(super) fn bytes(bytes: &[u8]) -> Value {
    json!(BASE64_STANDARD.encode(bytes))
}

pub(super) fn time(time: DateTime<Utc>) -> Value {
    json!(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

/// Writes lines and sums them.
pub(super) struct Writer<W> {
    sink: W,
    sum: Sha256,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(sink: W) -> Self {
        Self { sink, sum: Sha256::new() }
    }

    pub(super) fn line(&mut self, line: &impl Serialize) -> Result<(), Error> {
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::from)?;
        text.push(b'\n');
        self.sum.update(&text);
        Ok(self.sink.write_all(&text)?)
    }

    /// Writes the sum.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let mut text = json!({"sha256": hex(self.sum.finish())}).to_string();
        text.push('\n');
        self.sink.write_all(text.as_bytes())?;
        Ok(self.sink.flush()?)
    }
}

/// Reads lines and sums them.
pub(super) struct Reader<R> {
    source: R,
    sum: Sha256,
    number: u64,
}

#[derive(Deserialize)]
struct Form {
    authservice_backup: u64,
}

#[derive(Deserialize)]
struct Sum {
    sha256: String,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, sum: Sha256::new(), number: 0 }
    }

    /// The first line, whatever release has written it.
    pub(super) fn header(&mut self) -> Result<Header, Error> {
        let line = self.next()?;
        let form: Result<Form, _> = serde_json::from_slice(&line);
        let Form { authservice_backup: form } = form.map_err(|_| self.fault("this is not a backup of authservice"))?;
        if form != FORM {
            return Err(Error::NewerForm(form));
        }
        self.sum.update(&line);
        serde_json::from_slice(&line).map_err(|error| self.fault(&error.to_string()))
    }

    /// The next line, which must be there.
    pub(super) fn line<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let line = self.next()?;
        self.sum.update(&line);
        // The text of the error would tell values.
        serde_json::from_slice(&line).map_err(|_| self.fault("is not what belongs here"))
    }

    /// Errors unless the sum is the next line and the last.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let line = self.next()?;
        let sum: Result<Sum, _> = serde_json::from_slice(&line);
        let Sum { sha256 } = sum.map_err(|_| self.fault("the sum belongs here"))?;
        if sha256 != hex(self.sum.clone().finish()) {
            return Err(self.fault("the sum is not that of the lines before: the file is damaged"));
        }
        if !self.source.fill_buf()?.is_empty() {
            return Err(self.fault("something follows the sum"));
        }
        Ok(())
    }

    pub(super) fn fault(&self, fault: &str) -> Error {
        Error::Damaged { line: self.number, fault: fault.to_owned() }
    }

    fn next(&mut self) -> Result<Vec<u8>, Error> {
        self.number += 1;
        let mut line = Vec::new();
        self.source.by_ref().take(LONGEST).read_until(b'\n', &mut line)?;
        match line.last() {
            Some(b'\n') => Ok(line),
            None => Err(self.fault("the file ends here: it is cut off")),
            Some(_) if line.len() as u64 == LONGEST => Err(self.fault("is too long")),
            Some(_) => Err(self.fault("the file ends within this line: it is cut off")),
        }
    }
}

fn hex(sum: [u8; 32]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in sum {
        // A String takes everything.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
