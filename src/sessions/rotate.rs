//! Refreshing: the effects of the state machine.
//!
//! Strict rotation logs honest clients out when an answer is lost or two tabs refresh at once; forgiving rotation lets a thief fork
//! a branch. Here a retry gets **the same** successor, an older token ends the session, and one conditional statement takes a
//! generation, so any number of replicas agree.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::DbErr;

use super::family::State;
use super::store::{self, Family};
use super::{Error, Reason, Sessions};
use crate::audit::{self, Entry, Event, Origin};
use crate::config::ContextMismatch;
use crate::tokens::{Pair, RefreshClaims};

/// A request that has waited for longer judges nothing: its client was answered 503, and may have gone on with this token since. A
/// client that gives up earlier and refreshes twice meanwhile is not covered.
const LONGEST: Duration = Duration::from_secs(10);
/// The outcome of a retry, for those who count.
const RETRIED: &str = "retried";

impl Sessions {
    /// Exchanges a refresh token for its successor and a new access token.
    pub async fn rotate(&self, token: &str, origin: &Origin, now: DateTime<Utc>) -> Result<Pair, Error> {
        let exchanged = self.exchange(token, origin, now).await;
        let metrics = self.db.metrics();
        metrics.refreshes.count(exchanged.as_ref().map_or_else(Error::outcome, |(_, outcome)| *outcome));
        if matches!(exchanged, Err(Error::RateLimited { .. })) {
            metrics.rate_limited.count("refreshes_per_minute");
        }
        exchanged.map(|(pair, _)| pair)
    }

    /// The pair, and whether it is new.
    async fn exchange(&self, token: &str, origin: &Origin, now: DateTime<Utc>) -> Result<(Pair, &'static str), Error> {
        let started = Instant::now();
        let token = self.tokens.verify_refresh(token, now).await?;
        if let Some(limit) = &self.limit {
            let counted = limit.count(token.family_id, now).await;
            counted.map_err(|retry_after| Error::RateLimited { retry_after })?;
        }
        // The second round is for whoever lost the race: by then the winner's row tells what this token is.
        let window = self.retry_window();
        for _ in 0..2 {
            let Some(family) = store::family(self.db.reader(), token.family_id).await? else {
                return Err(Error::Dead);
            };
            if started.elapsed() > LONGEST {
                return Err(Error::Contended);
            }
            match family.judge(&token, window, now) {
                State::Dead if family.is_active => return Err(Error::Dead),
                State::Dead => return Err(Error::Inactive),
                State::Expired => return Err(Error::Expired),
                State::Future => return Err(self.end_lost(&family, &token, origin, now).await),
                State::Retry => return Ok((self.retry(&family, &token, origin, now).await?, RETRIED)),
                State::Late if self.was_down(&family, now).await? => {
                    return Ok((self.retry(&family, &token, origin, now).await?, RETRIED));
                }
                State::Late | State::Theft => return Err(self.end_stolen(&family, &token, origin, now).await),
                State::Rotate => {
                    if let Some(pair) = self.take(&family, now).await? {
                        return Ok((pair, "rotated"));
                    }
                }
            }
        }
        Err(Error::Contended)
    }

    /// Takes the next generation; `None` when somebody else changed the row first.
    async fn take(&self, family: &Family, now: DateTime<Utc>) -> Result<Option<Pair>, Error> {
        let key_id = self.tokens.refresh_key_id(now)?;
        let idle_end = now + TimeDelta::seconds(self.settings.idle_ttl_seconds);
        let Some(step) = store::take_refresh(&self.db, family, &key_id, idle_end, now).await? else {
            return Ok(None);
        };
        let next = Family {
            generation: family.generation + 1,
            key_id,
            rotated_at: step.rotated_at,
            idle_end: step.idle_end,
            ..family.clone()
        };
        self.issue(&next, now).await.map(Some)
    }

    /// Answers a retry with the current token again. Another device is noted, or taken for a thief, as the setting says.
    async fn retry(
        &self,
        family: &Family,
        token: &RefreshClaims,
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<Pair, Error> {
        let address = origin.ip_address.map(|address| address.to_string());
        if address != family.ip_address || origin.user_agent != family.user_agent {
            if self.settings.retry_context_mismatch == ContextMismatch::Theft {
                return Err(self.end_stolen(family, token, origin, now).await);
            }
            let details = Some(serde_json::json!({"context_mismatch": true, "generation": token.generation}));
            if let Err(error) = self.note_retry(entry(family, origin, details), now).await {
                tracing::warn!(error = %error, "a refresh retry was not noted");
            }
        }
        self.issue(family, now).await
    }

    async fn note_retry(&self, entry: Entry<'_>, now: DateTime<Utc>) -> Result<(), DbErr> {
        let tx = self.db.begin().await?;
        audit::record(&tx, now, Event::RefreshRetry, entry).await?;
        tx.commit().await
    }

    /// RFC 9700 4.14.2: an older token ends the session. Returns the refusal.
    async fn end_stolen(&self, family: &Family, token: &RefreshClaims, origin: &Origin, now: DateTime<Utc>) -> Error {
        match self.end_because(family, token, (Reason::ReuseDetected, Event::RefreshReuse), origin, now).await {
            Ok(()) => {
                tracing::warn!(user.id = family.user_id, session.id = %family.session_id, "a refresh token was used twice");
                Error::Reused
            }
            Err(error) => error.into(),
        }
    }

    /// The database was restored, or lost commits. Returns the refusal.
    async fn end_lost(&self, family: &Family, token: &RefreshClaims, origin: &Origin, now: DateTime<Utc>) -> Error {
        match self.end_because(family, token, (Reason::FutureToken, Event::RefreshFromTheFuture), origin, now).await {
            Ok(()) => {
                tracing::error!(
                    user.id = family.user_id,
                    session.id = %family.session_id,
                    "a refresh token is newer than the database: was it restored, or has it lost commits?"
                );
                Error::FromTheFuture
            }
            Err(error) => error.into(),
        }
    }

    /// Ends the session, notes why, and commits. When the database fails nobody may believe that the session ended.
    async fn end_because(
        &self,
        family: &Family,
        token: &RefreshClaims,
        (reason, event): (Reason, Event),
        origin: &Origin,
        now: DateTime<Utc>,
    ) -> Result<(), DbErr> {
        let tx = self.db.begin().await?;
        if store::end_session(&tx, family.session_id, reason, now).await? {
            let details = serde_json::json!({"presented": token.generation, "current": family.generation});
            audit::record(&tx, now, event, entry(family, origin, Some(details))).await?;
            tx.count(self.db.metrics().thefts.clone());
        }
        tx.commit().await
    }
}

fn entry<'a>(family: &Family, origin: &'a Origin, details: Option<serde_json::Value>) -> Entry<'a> {
    Entry { user_id: Some(family.user_id), session_id: Some(family.session_id), origin: Some(origin), details }
}
