//! `authservice restore`.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;

use clap::Args;

use super::{Error, clock_of, connect, note, progress, say};
use crate::backup;
use crate::clock::Clock as _;
use crate::config::Config;

/// Fill the database from a file that `backup` wrote
///
/// Stop the servers first, and run `authservice after-restore` afterwards: until then none of them serves anybody. All happens in one
/// transaction once the whole file has proved to be undamaged; any failure leaves the database as it was.
#[derive(Debug, Args)]
pub(super) struct Restore {
    /// The file; `-` is standard input
    file: PathBuf,
    /// Lose what the database holds
    #[arg(long)]
    replace: bool,
}

impl Restore {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let source: Box<dyn BufRead + Send> = if self.file.as_os_str() == "-" {
            Box::new(BufReader::with_capacity(1 << 16, std::io::stdin()))
        } else {
            let opened = std::fs::File::open(&self.file);
            let file = opened.map_err(|error| Error::Input(format!("{}: {error}", self.file.display())))?;
            Box::new(BufReader::with_capacity(1 << 16, file))
        };
        let db = connect(config).await?;
        let now = clock_of(&db).await?.now();
        let bar = progress::bar();
        let show = |table: &str, done: u64, of: u64| {
            bar.set_message(table.to_owned());
            bar.set_length(of);
            bar.set_position(done);
        };
        let restored = backup::restore(&db, source, self.replace, now, &show).await;
        bar.finish_and_clear();
        let restored = restored?;
        db.close().await;
        let header = restored.header;
        say(&format!(
            "restored {} rows as of {}, written by {} on {}",
            header.rows, header.taken_at, header.version, header.engine
        ));
        if restored.has_replaced {
            say("what the database held before is gone");
        }
        note("the tables are new ones: a role of the server's own needs its rights on them again");
        note("no server serves anybody until `authservice after-restore` was run");
        Ok(())
    }
}
