//! `authservice backup`.

use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Error, clock_of, connect, note, progress};
use crate::backup::{self, Taken};
use crate::clock::Clock as _;
use crate::config::Config;
use crate::db::Db;

/// Write the whole database into one file, while servers run
///
/// One consistent state, in a form that either engine restores. It holds password hashes and sealed keys: keep it as secret as the
/// database. It does not hold the key-encryption key, without which the keys in it are of no use: keep that elsewhere.
#[derive(Debug, Args)]
pub(super) struct Backup {
    /// Where to: a file that is not there yet, readable by its owner only; `-` is standard output
    file: PathBuf,
    /// Overwrite the file if there is one, once the new one is complete
    #[arg(long)]
    force: bool,
}

impl Backup {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let is_pipe = self.file.as_os_str() == "-";
        if !is_pipe && !self.force && self.file.symlink_metadata().is_ok() {
            return Err(Error::Input(format!("{} is there already; say --force to overwrite it", self.file.display())));
        }
        let db = connect(config).await?;
        let taken = if is_pipe { take(&db, std::io::stdout()).await? } else { self.to_file(&db).await? };
        db.close().await;
        for table in &taken.left_out {
            note(&format!("not in the backup: the table {table}, which is not ours"));
        }
        note(&format!("{} rows as of {}", taken.header.rows, taken.header.taken_at));
        note("keep it as secret as the database, and the key-encryption key elsewhere: it is not in it");
        Ok(())
    }

    /// Whoever looks sees the whole file or none.
    async fn to_file(&self, db: &Db) -> Result<Taken, Error> {
        let fault = |error: std::io::Error| Error::Unavailable(format!("{}: {error}", self.file.display()));
        let folder = match self.file.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // Mode 0600, and gone again when anything fails.
        let mut draft = tempfile::NamedTempFile::new_in(folder).map_err(fault)?;
        let taken = take(db, draft.as_file_mut()).await?;
        draft.as_file().sync_all().map_err(fault)?;
        if self.force {
            draft.persist(&self.file).map_err(|error| fault(error.error))?;
        } else {
            draft.persist_noclobber(&self.file).map_err(|error| fault(error.error))?;
        }
        std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(fault)?;
        Ok(taken)
    }
}

async fn take(db: &Db, sink: impl std::io::Write + Send) -> Result<Taken, Error> {
    let bar = progress::bar();
    let show = |table: &str, done: u64, of: u64| {
        bar.set_message(table.to_owned());
        bar.set_length(of);
        bar.set_position(done);
    };
    let mut sink = BufWriter::with_capacity(1 << 16, sink);
    let now = clock_of(db).await?.now();
    let taken = backup::take(db, &mut sink, now, &show).await;
    bar.finish_and_clear();
    let taken = taken?;
    sink.flush().map_err(backup::Error::from)?;
    Ok(taken)
}
