//! Sign-in with address and password.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use tracing::Instrument as _;

use super::password::Verdict;
use super::{Accounts, Claimed, Error, User, store};
use crate::audit::{self, Entry, Event, Origin};
use crate::clock::Clock;
use crate::limits::Attempt;
use crate::sessions::Opened;
use crate::tokens::Pair;

/// Whether the password was that of the account.
enum Proof {
    /// It was. `renewed` is to be stored in place of the hash.
    Right { user: User, renewed: Option<String> },
    /// It was not, or there is no such account.
    Wrong { user_id: Option<i64> },
}

impl Accounts {
    /// Proves the password, opens a session and issues its first tokens. Unknown address, wrong password, and inactive user with a
    /// wrong password take the same time and give the same answer, also when there were too many of them.
    pub async fn sign_in(
        &self,
        email: Claimed,
        password: SecretString,
        origin: &Origin,
        clock: &dyn Clock,
    ) -> Result<Pair, Error> {
        let signed_in = self.sign_in_within_limits(email, password, origin, clock).await;
        let outcome = signed_in.as_ref().map_or_else(Error::outcome, |_| "success");
        self.db.metrics().sign_ins.count(outcome);
        signed_in
    }

    async fn sign_in_within_limits(
        &self,
        email: Claimed,
        password: SecretString,
        origin: &Origin,
        clock: &dyn Clock,
    ) -> Result<Pair, Error> {
        let attempt = self.limits.sign_in(email.account(), origin, clock).await?;
        let (opened, now) = match self.sign_in_admitted(&attempt, &email, password, origin, clock).await {
            Ok(opened) => opened,
            Err(Error::InvalidCredentials) => return Err(Error::InvalidCredentials),
            Err(error @ (Error::Inactive | Error::Password(_))) => {
                self.limits.give_back(attempt, clock.now()).await;
                return Err(error);
            }
            Err(error) => {
                // The database is in trouble: nobody waits for it twice.
                let (limits, now) = (Arc::clone(&self.limits), clock.now());
                tokio::spawn(async move { limits.give_back(attempt, now).await }.in_current_span());
                return Err(error);
            }
        };
        Ok(self.sessions.first_tokens(&opened, now).await?)
    }

    /// Settles the attempt when it commits a success or a failure; any other error leaves that to the caller.
    async fn sign_in_admitted(
        &self,
        attempt: &Attempt,
        email: &Claimed,
        password: SecretString,
        origin: &Origin,
        clock: &dyn Clock,
    ) -> Result<(Opened, DateTime<Utc>), Error> {
        let (user, renewed) = match self.prove(email, password).await? {
            Proof::Right { user, renewed } if user.is_active => (user, renewed),
            Proof::Right { .. } => return Err(Error::Inactive),
            Proof::Wrong { user_id } => return self.refuse(attempt, user_id, origin, clock.now()).await,
        };
        // Read after the hash: a session must not begin in the past.
        let now = clock.now();
        let tx = self.db.begin().await?;
        // A password change or deactivation during the hash has moved the row on: the old password opens nothing.
        if !store::lock_unchanged_user(&tx, user.id, user.password_version).await? {
            drop(tx);
            return self.refuse(attempt, Some(user.id), origin, now).await;
        }
        if let Some(hash) = renewed {
            store::renew_hash(&tx, user.id, &hash).await?;
        }
        let opened = self.sessions.open(&tx, (user.id, user.subject), origin, now).await?;
        let session_id = Some(opened.session_id());
        let entry = Entry { user_id: Some(user.id), session_id, origin: Some(origin), details: None };
        audit::record(&tx, now, Event::SignedIn, entry).await?;
        self.limits.succeeded(&tx, attempt, user.id, now).await?;
        tx.commit().await?;
        Ok((opened, now))
    }

    async fn prove(&self, email: &Claimed, password: SecretString) -> Result<Proof, Error> {
        let user = match email.email() {
            Some(email) => store::user_by_email(self.db.reader(), email).await?,
            None => None,
        };
        let Some(user) = user else {
            self.hasher.verify_nobody(password).await?;
            return Ok(Proof::Wrong { user_id: None });
        };
        match self.hasher.verify(password, user.hashed_password.clone()).await? {
            Verdict::Right { renewed } => Ok(Proof::Right { user, renewed }),
            Verdict::Wrong => Ok(Proof::Wrong { user_id: Some(user.id) }),
        }
    }

    /// Commits the failure before it is answered.
    async fn refuse<T>(
        &self,
        attempt: &Attempt,
        user_id: Option<i64>,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<T, Error> {
        let tx = self.db.begin().await?;
        let entry = Entry { user_id, origin: Some(origin), ..Entry::default() };
        audit::record(&tx, now, Event::SignInFailed, entry).await?;
        self.limits.failed(&tx, attempt, user_id, origin, now).await?;
        tx.commit().await?;
        Err(Error::InvalidCredentials)
    }
}
