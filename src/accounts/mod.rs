//! Accounts: who a user is, how they prove it, what they may do with their own account.
//!
//! Invariants: an address is unique in its canonical form; a password is hashed without a database connection held; sign-in,
//! password change and deactivation meet on the user's row. Knows no HTTP and no tokens' insides.

use std::sync::Arc;

use sea_orm::DbErr;
use secrecy::SecretString;

use crate::config::Config;
use crate::db::Db;
use crate::entity::user;
use crate::limits::{self, Limits};
use crate::sessions::{self, Sessions};
use crate::tokens::{self, Tokens};

mod access;
mod email;
mod manage;
mod memory;
mod password;
mod policy;
mod register;
mod sign_in;
mod store;

pub use access::Caller;
pub use email::{Claimed, Email, Error as EmailError};
pub use manage::Management;
pub use memory::{Need, need as memory_for_hashes};
pub use password::{Error as HashError, Hasher, Load};
pub use user::Model as User;

/// Length of a password in characters, counted as typed.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=128;
/// Longest full name in characters.
pub const FULL_NAME_LENGTH: usize = 255;

/// Why an account cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address has an account.
    #[error("the address is taken")]
    EmailTaken,
    /// The password is too easy to guess.
    #[error("{0}")]
    PasswordRefused(String),
    /// Unknown address or wrong password; nobody learns which.
    #[error("the credentials are wrong")]
    InvalidCredentials,
    /// The user is deactivated, which only somebody with the right password or a live token learns.
    #[error("the user is inactive")]
    Inactive,
    /// No such user.
    #[error("no such user")]
    NotFound,
    /// The access token's session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// No hash was computed.
    #[error(transparent)]
    Password(#[from] password::Error),
    /// Too many attempts, or nobody knows how many there were.
    #[error(transparent)]
    Limits(#[from] limits::Error),
    /// The session could not be opened or ended.
    #[error(transparent)]
    Session(#[from] sessions::Error),
    /// A token could not be verified.
    #[error(transparent)]
    Token(#[from] tokens::Error),
    /// The random number generator failed.
    #[error(transparent)]
    Random(#[from] crate::random::Error),
    /// The database answered with an error.
    #[error("storage: {0}")]
    Storage(#[from] DbErr),
}

impl Error {
    /// What became of a sign-in or a registration, for those who count them.
    fn outcome(&self) -> &'static str {
        match self {
            Self::EmailTaken => "taken",
            Self::PasswordRefused(_) => "invalid",
            Self::InvalidCredentials => "invalid_credentials",
            Self::Inactive => "inactive",
            Self::Limits(limits::Error::RateLimited { .. }) => "rate_limited",
            _ => "unavailable",
        }
    }
}

/// What somebody registers with.
#[derive(Debug)]
pub struct Registration {
    /// The address.
    pub email: Email,
    /// The password as typed.
    pub password: SecretString,
    /// The name as typed.
    pub full_name: Option<String>,
}

/// The accounts of all users.
#[derive(Debug)]
pub struct Accounts {
    db: Db,
    sessions: Arc<Sessions>,
    limits: Arc<Limits>,
    tokens: Tokens,
    hasher: Arc<Hasher>,
}

impl Accounts {
    /// Reads its settings from the configuration.
    pub fn new(
        db: Db,
        sessions: Arc<Sessions>,
        limits: Arc<Limits>,
        tokens: Tokens,
        config: &Config,
    ) -> Result<Self, Error> {
        let hasher = Arc::new(Hasher::new(&config.passwords, db.metrics())?);
        Ok(Self { db, sessions, limits, tokens, hasher })
    }

    /// How busy the computation of password hashes is.
    #[must_use]
    pub fn hashes(&self) -> Load {
        self.hasher.load()
    }

    /// What operators do with accounts.
    #[must_use]
    pub fn management(&self) -> Management {
        Management::with(self.db.clone(), Arc::clone(&self.hasher))
    }
}
