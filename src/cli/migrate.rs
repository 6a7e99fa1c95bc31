//! `authservice migrate`.

use clap::Subcommand;

use super::{Error, connect, progress, say};
use crate::config::Config;

/// Apply or list migrations of the database
#[derive(Debug, Subcommand)]
pub(super) enum Migrate {
    /// Apply what is missing, under a lock
    Up,
    /// List every migration: applied, missing, or newer than this release, which may run nevertheless
    Status,
}

impl Migrate {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let db = connect(config).await?;
        match self {
            Self::Up => {
                let bar = progress::spinner();
                bar.set_message("applying migrations");
                let applied = migration::up(db.writer()).await;
                bar.finish_and_clear();
                let applied = applied?;
                for name in &applied {
                    say(&format!("applied {name}"));
                }
                if applied.is_empty() {
                    say("nothing to apply");
                }
            }
            Self::Status => {
                for step in migration::status(db.writer()).await? {
                    let state = match step.state {
                        migration::State::Applied => "applied",
                        migration::State::Missing => "missing",
                        migration::State::Newer => "newer  ",
                    };
                    say(&format!("{state} {}", step.name));
                }
            }
        }
        db.close().await;
        Ok(())
    }
}
