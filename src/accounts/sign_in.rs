//! Sign-in with address and password.

use secrecy::SecretString;
use tokio::time::Instant;

use super::password::Verdict;
use super::{Accounts, Email, Error, store};
use crate::audit::{self, Entry, Event, Origin};
use crate::clock::Clock;
use crate::tokens::Pair;

impl Accounts {
    /// Proves the password, opens a session and issues its first tokens. Unknown address, wrong password, and inactive user with a
    /// wrong password take the same time and give the same answer.
    /// `email` is `None` when the address can belong to nobody.
    pub async fn sign_in(
        &self,
        email: Option<Email>,
        password: SecretString,
        origin: &Origin,
        clock: &dyn Clock,
    ) -> Result<Pair, Error> {
        let started = Instant::now();
        let user = match email {
            Some(email) => store::user_by_email(self.db.reader(), &email).await?,
            None => None,
        };
        let Some(user) = user else {
            self.hasher.verify_nobody(password).await?;
            self.hasher.level(started).await;
            return Err(Error::InvalidCredentials);
        };
        let verdict = self.hasher.verify(password, user.hashed_password).await?;
        let Verdict::Right { renewed } = verdict else {
            return Err(Error::InvalidCredentials);
        };
        if !user.is_active {
            return Err(Error::Inactive);
        }
        // Read after the hash: a session must not begin in the past.
        let now = clock.now();
        let tx = self.db.begin().await?;
        // A password change or deactivation during the hash has moved the row on: the old password opens nothing.
        if !store::lock_unchanged_user(&tx, user.id, user.password_version).await? {
            return Err(Error::InvalidCredentials);
        }
        if let Some(hash) = renewed {
            store::renew_hash(&tx, user.id, &hash).await?;
        }
        let opened = self.sessions.open(&tx, (user.id, user.subject), origin, now).await?;
        let session_id = Some(opened.session_id());
        let entry = Entry { user_id: Some(user.id), session_id, origin: Some(origin), details: None };
        audit::record(&tx, now, Event::SignedIn, entry).await?;
        tx.commit().await?;
        Ok(self.sessions.first_tokens(&opened, now).await?)
    }
}
