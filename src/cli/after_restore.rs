//! `authservice after-restore`.

use clap::Args;

use super::{Error, clock_of, connect, say};
use crate::backup::{self, Accepted, Plan};
use crate::clock::Clock as _;
use crate::config::Config;

/// Let servers use a database that was restored: ends every session first
///
/// A restored database has forgotten what happened since it was saved. Sessions that ended are alive again: all end. Keys that
/// authenticate refresh tokens are replaced. Deactivated users and changed passwords are as they were then: set them right before.
/// Servers that wait go on within seconds.
#[derive(Debug, Args)]
pub(super) struct AfterRestore {
    /// Keep sessions and keys: only for a move in which nothing is lost, with the servers stopped before it was saved
    #[arg(long, conflicts_with = "revoke_keys")]
    keep_sessions: bool,
    /// Replace the signing keys too: when one was revoked since, or strangers may have had the backup and its key
    #[arg(long)]
    revoke_keys: bool,
    /// Do it also when no restore was noticed, as after a recovery to a point in time
    #[arg(long)]
    force: bool,
}

impl AfterRestore {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let db = connect(config).await?;
        let plan = Plan { keep_sessions: self.keep_sessions, revoke_keys: self.revoke_keys, force: self.force };
        let now = clock_of(&db).await?.now();
        let accepted = backup::after_restore(&db, config, plan, now).await?;
        db.close().await;
        let Accepted::Done { sessions, revoked, epoch } = accepted else {
            say(
                "nothing to do: the database is the one that it was; say --force after a recovery that cannot be noticed",
            );
            return Ok(());
        };
        if self.keep_sessions {
            say("sessions and keys go on");
        } else {
            say(&format!("ended {sessions} session(s)"));
        }
        for (purpose, count, kid) in revoked {
            say(&format!("revoked {count} {} key(s); {kid} takes over at once", purpose.name()));
        }
        say(&format!("the database is accepted (epoch {epoch}); servers that wait for it go on within seconds"));
        Ok(())
    }
}
