//! The whole database as one file that either engine can read, and what must happen after a restore.
//!
//! A backup is one consistent state, read while servers run. A restore is one transaction: it has happened wholly or not at all. What
//! is restored lacks what happened since, so no server serves it before [`after_restore`]
//! ([why a format of our own](../../docs/decisions/0015-a-backup-of-our-own.md)).

use sea_orm::DbErr;

use crate::{keys, random};

mod after;
mod file;
mod restore;
mod store;
mod take;

pub use after::{Accepted, Plan, after_restore};
pub use file::Header;
pub use restore::{Restored, restore};
pub use take::{Taken, take};

/// Called with the table that is being read or written, how many rows are done, and how many there are.
pub type Progress<'a> = &'a (dyn Fn(&str, u64, u64) + Sync);

/// Why there is no backup, or why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a backup, or not the whole of one, or not as it was written.
    #[error("line {line} of the backup: {fault}; nothing was changed")]
    Damaged {
        /// Which line.
        line: u64,
        /// What is wrong with it.
        fault: String,
    },
    /// The file's form is that of a newer release.
    #[error(
        "the backup has form {0}, which this release does not know; restore it with the newer release; nothing was changed"
    )]
    NewerForm(u64),
    /// There is something to lose.
    #[error("the database has {rows} row(s) in {table}; say --replace to lose all that it holds; nothing was changed")]
    NotEmpty {
        /// The first table that is not empty.
        table: String,
        /// Its rows.
        rows: u64,
    },
    /// The schema is not usable.
    #[error(transparent)]
    Migration(#[from] migration::Error),
    /// The keys cannot be made anew.
    #[error(transparent)]
    Keys(#[from] keys::Error),
    /// A file could not be read or written.
    #[error("{0}")]
    File(#[from] std::io::Error),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] random::Error),
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
}
