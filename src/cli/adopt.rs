//! `authservice adopt`.

use std::path::PathBuf;

use clap::Args;

use super::{Error, clock_of, connect, progress, say};
use crate::adopt::{self, Choices, Counts};
use crate::clock::Clock as _;
use crate::config::Config;
use crate::keys::Keyring;

/// Take over the database of the FastAPI service in place
#[derive(Debug, Args)]
#[group(required = true, multiple = false, args = ["dry_run", "apply"])]
pub(super) struct Adopt {
    /// Say what would be taken over, and which addresses need a choice; change and lock nothing
    #[arg(long)]
    dry_run: bool,
    /// Take it over in one transaction; stop the old service first
    #[arg(long)]
    apply: bool,
    /// What becomes of addresses that cannot be taken over: lines `<user id> email <address>` or `<user id> skip`
    #[arg(long, value_name = "FILE")]
    conflicts: Option<PathBuf>,
}

impl Adopt {
    pub(super) async fn run(self, config: Config) -> Result<(), Error> {
        let choices = self.conflicts.as_deref().map_or(Ok(Choices::default()), Choices::read)?;
        let db = connect(&config).await?;
        let clock = clock_of(&db).await?;
        let bar = progress::bar();
        let progress = |doing: &str, done: i64, of: i64| {
            bar.set_message(doing.to_owned());
            bar.set_length(of.unsigned_abs());
            bar.set_position(done.unsigned_abs());
        };
        let counts = if self.apply {
            adopt::apply(&db, &config, &choices, clock.now(), &progress).await
        } else {
            adopt::dry_run(&db, &choices, clock.now(), &progress).await
        };
        bar.finish_and_clear();
        report(&counts?, self.apply);
        if self.apply {
            // The old key comes into the ring now; should this be cut off, the next start does it.
            Keyring::open(db.clone(), &config, clock.now()).await.map_err(crate::app::Error::from)?;
            say("the old tables are kept with the prefix seed_; start the server with `authservice serve`");
        }
        db.close().await;
        Ok(())
    }
}

fn report(counts: &Counts, is_done: bool) {
    let verb = if is_done { "taken over" } else { "to take over" };
    say(&format!("users {verb}: {}", counts.users));
    say(&format!("users left behind by choice: {}", counts.skipped));
    say(&format!("plain-text passwords hashed: {}", counts.plain_text_passwords));
    say(&format!("live sessions {verb}: {}", counts.live_sessions));
    say(&format!("ended sessions {verb}: {}", counts.ended_sessions));
}
