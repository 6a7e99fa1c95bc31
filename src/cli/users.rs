//! `authservice users`.

use std::io::IsTerminal as _;

use clap::Subcommand;
use secrecy::SecretString;

use super::{Error, clock_of, connect, say, text};
use crate::accounts::{Email, Management, User};
use crate::clock::{Clock as _, DatabaseClock};
use crate::config::Config;

/// List and manage users
#[derive(Debug, Subcommand)]
pub(super) enum Users {
    /// List users by id
    List {
        /// Begin after this id
        #[arg(long, default_value_t = 0)]
        after: i64,
        /// List so many at most
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
        limit: u64,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// End every session of a user and refuse new ones
    Deactivate {
        /// Address of the user
        email: String,
    },
    /// Let a deactivated user sign in again; ended sessions stay ended
    Activate {
        /// Address of the user
        email: String,
    },
    /// Set a new password, read from the terminal or standard input, and end every session
    SetPassword {
        /// Address of the user
        email: String,
    },
}

impl Users {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let db = connect(config).await?;
        migration::require_current(db.writer()).await?;
        let clock = clock_of(&db).await?;
        self.act(&Management::new(db.clone(), config)?, &clock).await?;
        db.close().await;
        Ok(())
    }

    async fn act(self, accounts: &Management, clock: &DatabaseClock) -> Result<(), Error> {
        match self {
            Self::List { after, limit, json } => {
                for user in accounts.list(after, limit).await? {
                    say(&if json { as_json(&user) } else { as_line(&user) });
                }
            }
            Self::Deactivate { email } => {
                let has_changed = accounts.set_active(&parse(&email)?, false, clock.now()).await?;
                say(if has_changed { "deactivated; every session has ended" } else { "was inactive already" });
            }
            Self::Activate { email } => {
                let has_changed = accounts.set_active(&parse(&email)?, true, clock.now()).await?;
                say(if has_changed { "activated" } else { "was active already" });
            }
            Self::SetPassword { email } => {
                let (email, password) = (parse(&email)?, read_password()?);
                accounts.set_password(&email, password, clock.now()).await?;
                say("the password is set; every session has ended");
            }
        }
        Ok(())
    }
}

fn parse(email: &str) -> Result<Email, Error> {
    Email::parse(email).map_err(|fault| Error::Input(fault.to_string()))
}

/// Asks twice at a terminal, without echo; reads one line otherwise.
fn read_password() -> Result<SecretString, Error> {
    let unreadable = |error: std::io::Error| Error::Input(format!("the password cannot be read: {error}"));
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).map_err(unreadable)?;
        return Ok(line.trim_end_matches(['\r', '\n']).into());
    }
    let first = rpassword::prompt_password("New password: ").map_err(unreadable)?;
    if rpassword::prompt_password("Again: ").map_err(unreadable)? != first {
        return Err(Error::Input("the two passwords differ".to_owned()));
    }
    Ok(first.into())
}

fn as_line(user: &User) -> String {
    let state = if user.is_active { "active" } else { "inactive" };
    format!("{}\t{state}\t{}\t{}", user.id, user.created_at.format("%Y-%m-%dT%H:%M:%SZ"), text::escaped(&user.email))
}

fn as_json(user: &User) -> String {
    text::json(&serde_json::json!({
        "id": user.id,
        "subject": user.subject,
        "email": user.email,
        "full_name": user.full_name,
        "is_active": user.is_active,
        "is_superuser": user.is_superuser,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }))
}
