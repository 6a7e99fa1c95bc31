//! What an operator does with accounts.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::password::Hasher;
use super::{Email, Error, PASSWORD_LENGTH, User, policy, store};
use crate::audit::{self, Actor, Entry, Event};
use crate::config::Config;
use crate::db::Db;
use crate::limits;
use crate::sessions::{self, Reason};

/// Accounts in an operator's hands. Needs no keys: it issues nothing.
#[derive(Debug, Clone)]
pub struct Management {
    db: Db,
    hasher: Arc<Hasher>,
}

impl Management {
    /// Reads its settings from the configuration.
    pub fn new(db: Db, config: &Config) -> Result<Self, Error> {
        let hasher = Arc::new(Hasher::new(&config.passwords, db.metrics())?);
        Ok(Self::with(db, hasher))
    }

    pub(super) fn with(db: Db, hasher: Arc<Hasher>) -> Self {
        Self { db, hasher }
    }

    /// Lists users by id, beginning after `after`.
    pub async fn list(&self, after: i64, limit: u64) -> Result<Vec<User>, Error> {
        Ok(store::users_after(self.db.reader(), after, limit).await?)
    }

    /// The user with this address.
    pub async fn by_email(&self, email: &Email) -> Result<User, Error> {
        store::user_by_email(self.db.reader(), email).await?.ok_or(Error::NotFound)
    }

    /// Lets the user sign in, or ends every session and refuses new ones. Returns false when nothing changed.
    pub async fn set_active(&self, email: &Email, is_active: bool, now: DateTime<Utc>) -> Result<bool, Error> {
        let user = self.by_email(email).await?;
        let tx = self.db.begin().await?;
        let has_changed = store::set_active(&tx, user.id, is_active, now).await?;
        if !is_active {
            sessions::end_all(&tx, user.id, Reason::Deactivated, now).await?;
            limits::forget(&tx, user.id).await?;
        }
        if has_changed {
            let event = if is_active { Event::UserActivated } else { Event::UserDeactivated };
            audit::record(&tx, now, event, entry(&user)).await?;
        }
        tx.commit().await?;
        Ok(has_changed)
    }

    /// Sets a new password and ends every session.
    pub async fn set_password(&self, email: &Email, password: SecretString, now: DateTime<Utc>) -> Result<(), Error> {
        let user = self.by_email(email).await?;
        refuse_impossible(password.expose_secret())?;
        let own = Email::parse(&user.email).ok();
        if let Some(weakness) = policy::refuse(password.expose_secret(), own.as_ref(), user.full_name.as_deref()) {
            return Err(Error::PasswordRefused(weakness.to_string()));
        }
        let hash = self.hasher.hash(password).await?;
        let tx = self.db.begin().await?;
        store::set_password(&tx, user.id, &hash, now).await?;
        sessions::end_all(&tx, user.id, Reason::PasswordChange, now).await?;
        // Whoever had the old password may have signed in from an address that is known since.
        limits::forget(&tx, user.id).await?;
        audit::record(&tx, now, Event::PasswordSet, entry(&user)).await?;
        tx.commit().await?;
        Ok(())
    }
}

fn entry(user: &User) -> Entry<'static> {
    Entry { user_id: Some(user.id), details: Some(Actor::Operator.of(json!({}))), ..Entry::default() }
}

/// What the API refuses before a password reaches a domain.
fn refuse_impossible(password: &str) -> Result<(), Error> {
    let (least, most) = PASSWORD_LENGTH.into_inner();
    if !PASSWORD_LENGTH.contains(&password.chars().count()) {
        return Err(Error::PasswordRefused(format!("a password has {least} to {most} characters")));
    }
    if password.contains('\0') {
        return Err(Error::PasswordRefused("a password has no NUL character".to_owned()));
    }
    Ok(())
}
