//! The ring in memory: the keys that could be opened and what was planned for them when the database was last read.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::key::{Fault, Key, PrivateKey};
use super::mac::MacKey;
use super::seal::{EncryptionKeys, Unopened};
use super::store::Plan;
use super::{Purpose, config};
use crate::entity::signing_key::Model;

/// A key of either purpose.
#[derive(Clone)]
pub enum AnyKey {
    /// Signs JWTs.
    Signing(Arc<Key>),
    /// Authenticates opaque refresh tokens.
    Mac(Arc<MacKey>),
}

/// A private key of a row that is opened.
pub(super) enum Private {
    Signing(PrivateKey),
    Mac(MacKey),
}

/// Opens a row.
pub(super) fn open(row: &Model, encryption_keys: Option<&EncryptionKeys>) -> Result<Private, Unopened> {
    let foreign = || Unopened::Foreign { kid: row.kid.clone(), id: row.encryption_key_id.clone() };
    let unknown = || Unopened::Unknown(Fault(format!("the key {} is of a newer release", row.kid)));
    let secret = encryption_keys.ok_or_else(foreign)?.open(row)?;
    if row.purpose == Purpose::Refresh.name() {
        return Ok(Private::Mac(MacKey::new(row.kid.clone(), &secret)?));
    }
    let algorithm = config::Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == row.algorithm);
    Ok(Private::Signing(PrivateKey::from_der(&secret, algorithm.ok_or_else(unknown)?)?))
}

impl Private {
    /// Makes it ready for use.
    pub(super) fn prepare(self) -> Result<AnyKey, Fault> {
        Ok(match self {
            Self::Signing(key) => AnyKey::Signing(Arc::new(key.prepare()?)),
            Self::Mac(key) => AnyKey::Mac(Arc::new(key)),
        })
    }
}

impl AnyKey {
    fn kid(&self) -> &str {
        match self {
            Self::Signing(key) => &key.kid,
            Self::Mac(key) => &key.kid,
        }
    }

    /// The key, if it signs JWTs.
    #[must_use]
    pub fn signing(&self) -> Option<&Arc<Key>> {
        match self {
            Self::Signing(key) => Some(key),
            Self::Mac(_) => None,
        }
    }

    /// The key, if it authenticates opaque tokens.
    #[must_use]
    pub fn mac(&self) -> Option<&Arc<MacKey>> {
        match self {
            Self::Mac(key) => Some(key),
            Self::Signing(_) => None,
        }
    }
}

/// The keys of one reading.
#[derive(Default)]
pub(super) struct Ring {
    /// Of every row that was read, also of those that could not be opened.
    pub(super) plans: Vec<Plan>,
    /// Newest first.
    members: Vec<Member>,
    by_kid: HashMap<String, usize>,
    /// Those that there were when it was opened.
    encryption_keys: Option<Arc<EncryptionKeys>>,
}

struct Member {
    key: AnyKey,
    plan: Plan,
}

impl Ring {
    pub(super) fn new(
        plans: Vec<Plan>,
        keys: Vec<(AnyKey, Plan)>,
        encryption_keys: Option<Arc<EncryptionKeys>>,
    ) -> Self {
        let mut members: Vec<Member> = keys.into_iter().map(|(key, plan)| Member { key, plan }).collect();
        members.sort_by_key(|member| std::cmp::Reverse(member.plan.signing_at));
        let by_kid = members.iter().enumerate().map(|(index, member)| (member.key.kid().to_owned(), index)).collect();
        Self { plans, members, by_kid, encryption_keys }
    }

    /// False when other key-encryption keys may open what those at the time did not.
    pub(super) fn is_opened_with(&self, encryption_keys: Option<&Arc<EncryptionKeys>>) -> bool {
        self.encryption_keys.as_ref().map(Arc::as_ptr) == encryption_keys.map(Arc::as_ptr)
    }

    /// Keys that make tokens at `now`, newest first: one of each purpose. A clock that stepped back behind the very first key
    /// finds that one last.
    pub(super) fn active(&self, now: DateTime<Utc>) -> impl Iterator<Item = &AnyKey> {
        let is_active = move |member: &&Member| {
            member.plan.signing_at <= now && member.plan.retained_at.is_none_or(|end| end > now)
        };
        let active = self.members.iter().filter(is_active);
        let not_yet = self.members.iter().rev().filter(move |member| member.plan.signing_at > now);
        active.chain(not_yet).map(|member| &member.key)
    }

    pub(super) fn find(&self, kid: &str, now: DateTime<Utc>) -> Option<AnyKey> {
        let member = self.members.get(*self.by_kid.get(kid)?)?;
        member.plan.gone_at.is_none_or(|end| end > now).then(|| member.key.clone())
    }

    /// Of each key that signs JWTs, or did or will, what is planned.
    pub(super) fn signing_plans(&self) -> impl Iterator<Item = &Plan> {
        self.members.iter().filter(|member| member.key.signing().is_some()).map(|member| &member.plan)
    }

    /// The signing keys that stand in the JWK Set at `now`.
    pub(super) fn published(&self, now: DateTime<Utc>) -> Vec<&Key> {
        let is_published = |member: &&Member| member.plan.unpublished_at.is_none_or(|end| end > now);
        self.members.iter().filter(is_published).filter_map(|member| member.key.signing().map(Arc::as_ref)).collect()
    }
}

/// RFC 7517 5.
pub(super) fn render(published: &[&Key]) -> Bytes {
    let keys: Vec<_> = published.iter().map(|key| &key.public_jwk).collect();
    serde_json::json!({"keys": keys}).to_string().into()
}
