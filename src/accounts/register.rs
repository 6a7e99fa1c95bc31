//! Registration.

use chrono::{DateTime, Utc};
use sea_orm::SqlErr;
use secrecy::ExposeSecret as _;

use super::{Accounts, Error, Registration, User, policy, store};
use crate::audit::{self, Entry, Event, Origin};
use crate::random;

impl Accounts {
    /// Registers an active user. Of many registrations of one address at once, one wins. What makes a user, and what finds the
    /// address taken, counts against the limits.
    pub async fn register(&self, form: Registration, origin: &Origin, now: DateTime<Utc>) -> Result<User, Error> {
        let registered = self.register_within_limits(form, origin, now).await;
        let outcome = registered.as_ref().map_or_else(Error::outcome, |_| "success");
        self.db.metrics().registrations.count(outcome);
        registered
    }

    async fn register_within_limits(
        &self,
        form: Registration,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<User, Error> {
        if let Some(weakness) =
            policy::refuse(form.password.expose_secret(), Some(&form.email), form.full_name.as_deref())
        {
            return Err(Error::PasswordRefused(weakness.to_string()));
        }
        let attempt = self.limits.registration(origin, now).await?;
        let registered = self.register_admitted(form, origin, now).await;
        if !matches!(registered, Ok(_) | Err(Error::EmailTaken)) {
            self.limits.give_back(attempt, now).await;
        }
        registered
    }

    async fn register_admitted(&self, form: Registration, origin: &Origin, now: DateTime<Utc>) -> Result<User, Error> {
        let Registration { email, password, full_name } = form;
        if store::user_by_email(self.db.reader(), &email).await?.is_some() {
            return Err(Error::EmailTaken);
        }
        let hash = self.hasher.hash(password).await?;
        let subject = random::uuid()?;
        let tx = self.db.begin().await?;
        let inserted = store::insert_user(&tx, subject, &email, full_name, hash, now).await;
        let user = match inserted {
            Err(error) if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => {
                return Err(Error::EmailTaken);
            }
            other => other?,
        };
        let entry = Entry { user_id: Some(user.id), origin: Some(origin), ..Entry::default() };
        audit::record(&tx, now, Event::UserRegistered, entry).await?;
        tx.commit().await?;
        Ok(user)
    }
}
