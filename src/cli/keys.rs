//! `authservice keys`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use clap::{Subcommand, ValueEnum};

use super::{Error, clock_of, connect, say, text};
use crate::clock::Clock as _;
use crate::config::Config;
use crate::keys::{Listed, Management, Purpose, Revoked, State, Succeeded};

/// List and manage signing keys; docs/keys.md tells when to do what
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// List keys in the order in which they sign
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Announce a successor of each key that makes tokens; it signs when verifiers have had time to fetch it
    Rotate {
        /// Of this purpose only: JWTs, or opaque refresh tokens
        #[arg(long, value_enum)]
        purpose: Option<Which>,
        /// Let the successor sign at once; verifiers fetch it when they meet its kid
        #[arg(long)]
        now: bool,
    },
    /// End a key at once: it leaves the JWK Set, and what it signed is refused
    Revoke {
        /// The key, as `keys list` shows it
        #[arg(allow_hyphen_values = true)]
        kid: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Import a private key (PEM, mode 0600); it is announced first
    Import {
        /// The file
        file: PathBuf,
    },
    /// Print the public half of a key as PEM
    ExportPublic {
        /// The key; the one that signs when none is given
        #[arg(allow_hyphen_values = true)]
        kid: Option<String>,
        /// Print it as a JWK instead
        #[arg(long)]
        jwk: bool,
    },
    /// Seal every key with the current key-encryption key, so that the previous one can be dropped
    Reseal,
}

/// What keys are for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Which {
    /// Sign JWTs
    Signing,
    /// Authenticate opaque refresh tokens
    Refresh,
}

impl Keys {
    pub(super) async fn run(self, config: &Config) -> Result<(), Error> {
        let db = connect(config).await?;
        migration::require_current(db.writer()).await?;
        let clock = clock_of(&db).await?;
        self.act(&Management::new(db.clone(), config)?, clock.now()).await?;
        db.close().await;
        Ok(())
    }

    async fn act(self, keys: &Management, now: DateTime<Utc>) -> Result<(), Error> {
        match self {
            Self::List { json } => {
                let listed = keys.list(now).await?;
                for line in if json { listed.iter().map(as_json).collect() } else { table(&listed) } {
                    say(&line);
                }
            }
            Self::Rotate { purpose, now: at_once } => {
                let purposes = match purpose {
                    None => Purpose::ALL.to_vec(),
                    Some(Which::Signing) => vec![Purpose::Signing],
                    Some(Which::Refresh) => vec![Purpose::Refresh],
                };
                for purpose in purposes {
                    tell(purpose.name(), &keys.rotate(purpose, at_once, now).await?);
                }
            }
            Self::Revoke { kid, yes } => {
                if !yes {
                    confirm(&kid)?;
                }
                tell_revoked(&kid, &keys.revoke(&kid, now).await?, keys.max_age_seconds());
            }
            Self::Import { file } => tell("signing", &keys.import(&file, now).await?),
            Self::ExportPublic { kid, jwk } => {
                let exported = keys.export_public(kid.as_deref(), now).await?;
                say(&if jwk { exported.jwk.to_string() } else { exported.pem.trim_end().to_owned() });
            }
            Self::Reseal => {
                let done = keys.reseal(now).await?;
                say(&format!(
                    "sealed with the current key-encryption key: {}; were already: {}",
                    done.resealed, done.current
                ));
                for kid in &done.unopened {
                    say(&format!("{kid} cannot be opened and was left as it is"));
                }
            }
        }
        Ok(())
    }
}

/// Asks at a terminal.
fn confirm(kid: &str) -> Result<(), Error> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::Input("say --yes to revoke without being asked".to_owned()));
    }
    let _ = write!(std::io::stderr(), "Everything that {kid} signed will be refused. Revoke it? Type yes: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).map_err(|error| Error::Input(error.to_string()))?;
    if line.trim() == "yes" { Ok(()) } else { Err(Error::Input("nothing was changed".to_owned())) }
}

fn tell(purpose: &str, succeeded: &Succeeded) {
    say(&match succeeded {
        Succeeded::By { kid, signing_at } => format!("{purpose}: {kid} signs from {} on", time(*signing_at)),
        Succeeded::Already { kid, signing_at } => {
            format!("{purpose}: {kid} is announced already and signs from {} on", time(*signing_at))
        }
    });
}

fn tell_revoked(kid: &str, revoked: &Revoked, max_age: u64) {
    let Revoked::Done { purpose, successor, has_maker } = revoked else {
        return say(&format!("{kid} was revoked already"));
    };
    say(&format!("{kid} is revoked; running servers refuse what it signed within a second"));
    match purpose {
        Purpose::Signing => {
            say(&format!(
                "access tokens that it signed: other verifiers refuse them when they fetch the JWK Set, after {max_age} s at most"
            ));
            say("refresh tokens that it signed (refresh.format = \"jwt\"): their users sign in again");
        }
        Purpose::Refresh => say("opaque refresh tokens that it made: their users sign in again"),
    }
    match (successor, has_maker) {
        (Some(successor), _) => say(&format!("{successor} takes over at once")),
        (None, true) => {}
        (None, false) => {
            say("no other key can take over: a running server makes one within a minute, or the next that starts");
        }
    }
}

const TIME: &str = "%Y-%m-%dT%H:%M:%SZ";

fn time(at: DateTime<Utc>) -> String {
    at.format(TIME).to_string()
}

/// What counts and cannot be opened is told so, whatever is planned for it.
fn state(listed: &Listed) -> &'static str {
    if listed.is_usable || listed.state == State::Gone { listed.state.name() } else { "undecryptable" }
}

fn table(keys: &[Listed]) -> Vec<String> {
    let head = [
        "KID",
        "PURPOSE",
        "ALGORITHM",
        "STATE",
        "ANNOUNCED",
        "SIGNING",
        "RETAINED",
        "UNPUBLISHED",
        "GONE",
        "SEALED BY",
    ];
    let end = |at: Option<DateTime<Utc>>| at.map_or_else(|| "-".to_owned(), time);
    let rows = keys.iter().map(|listed| {
        let key = &listed.key;
        [
            key.kid.clone(),
            key.purpose.clone(),
            key.algorithm.clone(),
            state(listed).to_owned(),
            time(key.announced_at),
            time(key.signing_at),
            end(key.retained_at),
            end(key.unpublished_at),
            end(key.gone_at),
            format!("{} ({})", listed.sealed_by.name(), key.encryption_key_id),
        ]
    });
    text::table(head, rows)
}

fn as_json(listed: &Listed) -> String {
    let key = &listed.key;
    serde_json::json!({
        "kid": key.kid,
        "purpose": key.purpose,
        "algorithm": key.algorithm,
        "state": state(listed),
        "announced_at": key.announced_at,
        "signing_at": key.signing_at,
        "retained_at": key.retained_at,
        "unpublished_at": key.unpublished_at,
        "gone_at": key.gone_at,
        "revoked_at": key.revoked_at,
        "is_imported": key.is_imported,
        "encryption_key": listed.sealed_by.name(),
        "encryption_key_id": key.encryption_key_id,
    })
    .to_string()
}
