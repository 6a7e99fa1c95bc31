//! A key's life as timestamps: what is planned, what state that is now, and what must be done when the plans do not fit.

use chrono::{DateTime, TimeDelta, Utc};

use super::Purpose;
use super::seal::Unopened;
use super::store::Plan;
use crate::config::{self, Algorithm, Config};
use crate::entity::signing_key::Model;

/// For clocks that differ: nobody's clock is later by more.
pub(super) const MARGIN: TimeDelta = TimeDelta::seconds(120);

/// How long each part of a key's life is, and what new keys are made of.
#[derive(Debug, Clone)]
pub(super) struct Schedule {
    pub(super) algorithm: Algorithm,
    pub(super) rsa_bits: u32,
    /// A new key is published for so long before it signs.
    pub(super) announce: TimeDelta,
    /// How long a key signs; `None`: until somebody says so.
    rotate_after: Option<TimeDelta>,
    /// After its last signature a key is published until the last access token is dead.
    publish: TimeDelta,
    /// After its last signature a key is kept until the last refresh token is dead.
    keep: TimeDelta,
}

/// When a key stops making tokens, leaves the JWK Set, and is gone.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "the names of the columns")]
pub(super) struct Retirement {
    pub(super) retained_at: DateTime<Utc>,
    /// `None` for a key that was never published.
    pub(super) unpublished_at: Option<DateTime<Utc>>,
    pub(super) gone_at: DateTime<Utc>,
}

/// Where in its life a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Published, not yet signing.
    Announced,
    /// Makes tokens.
    Signing,
    /// Published until the last access token that it signed is dead.
    Retained,
    /// Kept for our own verification of refresh tokens.
    Unpublished,
    /// Counts no more.
    Gone,
}

impl State {
    /// The word for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Signing => "signing",
            Self::Retained => "retained",
            Self::Unpublished => "unpublished",
            Self::Gone => "gone",
        }
    }

    /// The state of a key at `now`.
    pub(super) fn of(row: &Model, now: DateTime<Utc>) -> Self {
        if row.revoked_at.is_some() { Self::Gone } else { Plan::from(row).state(now) }
    }
}

impl Plan {
    /// The state at `now` of a key that was not revoked.
    pub(super) fn state(&self, now: DateTime<Utc>) -> State {
        let has_passed = |end: Option<DateTime<Utc>>| end.is_some_and(|end| end <= now);
        if has_passed(self.gone_at) {
            State::Gone
        } else if has_passed(self.unpublished_at) {
            State::Unpublished
        } else if has_passed(self.retained_at) {
            State::Retained
        } else if self.signing_at <= now {
            State::Signing
        } else {
            State::Announced
        }
    }
}

impl Schedule {
    pub(super) fn new(config: &Config) -> Self {
        let keys = &config.keys;
        let max_age = i64::try_from(keys.jwks_max_age_seconds).unwrap_or(i64::MAX);
        let seconds = TimeDelta::seconds;
        Self {
            algorithm: keys.algorithm,
            rsa_bits: keys.rsa_bits,
            announce: seconds(config::keys_announced_for(keys.announce_seconds, max_age)),
            rotate_after: (keys.rotate_after_seconds > 0).then(|| seconds(keys.rotate_after_seconds)),
            publish: match keys.retain_seconds {
                0 => seconds(config.tokens.access_ttl_seconds) + MARGIN,
                set => seconds(set),
            },
            keep: seconds(config.refresh.absolute_ttl_seconds) + MARGIN,
        }
    }

    /// The end of the life of a key whose successor signs from `retained_at`.
    pub(super) fn retirement(&self, purpose: Purpose, retained_at: DateTime<Utc>) -> Retirement {
        Retirement {
            retained_at,
            unpublished_at: (purpose == Purpose::Signing).then(|| retained_at + self.publish),
            // Whoever verifies access tokens for longer than refresh tokens live needs the key for longer too.
            gone_at: retained_at + self.keep.max(self.publish),
        }
    }

    /// From when on the successor of a key that signs from `signing_at` is announced, and from when on it signs.
    pub(super) fn succession(&self, signing_at: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let successor_at = signing_at + self.rotate_after?;
        Some((successor_at - self.announce, successor_at))
    }

    /// How often somebody must look whether a successor is due.
    pub(super) fn interval(&self) -> TimeDelta {
        let (least, most) = (TimeDelta::seconds(1), TimeDelta::seconds(60));
        self.rotate_after.map_or(most, |after| (after / 10).clamp(least, most))
    }
}

/// What this process can do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    Usable,
    /// Nobody can open it.
    Damaged,
    /// Sealed with another key-encryption key, or made by another release: others may be able to use it.
    Foreign,
}

impl Fitness {
    pub(super) fn of<T>(opened: &Result<T, Unopened>) -> Self {
        match opened {
            Ok(_) => Self::Usable,
            Err(Unopened::Damaged(_)) => Self::Damaged,
            Err(Unopened::Foreign { .. } | Unopened::Unknown(_)) => Self::Foreign,
        }
    }
}

/// What must be done so that a usable key of a purpose makes tokens, and a usable one has no planned end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remedy {
    /// All is well, or none of our business.
    Nothing,
    /// No key succeeds this one any more: its planned end is void.
    Keep(String),
    /// The first key is damaged and has never signed: it ends, and its predecessor's planned end is void.
    Dismiss { damaged: String, kept: String },
    /// The announced key signs at once.
    BringForward(String),
    /// A new key is needed and signs at once.
    Add,
}

/// Judges the live keys of one purpose.
pub(super) fn remedy(keys: &[(&Model, Fitness)], now: DateTime<Utc>) -> Remedy {
    let signing = |fitness: Fitness| {
        let all = keys.iter().filter(move |(row, is)| *is == fitness && State::of(row, now) == State::Signing);
        all.map(|(row, _)| *row).max_by_key(|row| row.signing_at)
    };
    let newest = keys.iter().find(|(row, _)| row.retained_at.is_none());
    match (newest, signing(Fitness::Usable)) {
        // What others can use is not ours to replace: an operator gave this process the wrong key-encryption key.
        (Some((_, Fitness::Foreign)), _) | (Some((_, Fitness::Usable)), Some(_)) => Remedy::Nothing,
        (_, None) if signing(Fitness::Foreign).is_some() => Remedy::Nothing,
        (Some((row, Fitness::Usable)), None) => Remedy::BringForward(row.kid.clone()),
        (Some((row, Fitness::Damaged)), Some(kept)) => {
            Remedy::Dismiss { damaged: row.kid.clone(), kept: kept.kid.clone() }
        }
        (None, Some(kept)) => Remedy::Keep(kept.kid.clone()),
        (Some((_, Fitness::Damaged)) | None, None) => Remedy::Add,
    }
}

#[cfg(test)]
mod tests {
    use super::Fitness::{Damaged, Foreign, Usable};
    use super::*;

    /// A name, the keys, and what must be done.
    type Row = (&'static str, Vec<(Model, Fitness)>, Remedy);

    /// A key named by a letter that signs from and until a second around now, which is 0.
    fn key(kid: &str, signing_at: i64, retained_at: Option<i64>) -> Model {
        let at = |second: i64| DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
        Model {
            kid: kid.to_owned(),
            purpose: "signing".to_owned(),
            algorithm: "RS256".to_owned(),
            public_jwk: String::new(),
            sealed_private: Vec::new(),
            encryption_key_id: String::new(),
            announced_at: at(signing_at),
            signing_at: at(signing_at),
            retained_at: retained_at.map(at),
            unpublished_at: retained_at.map(|second| at(second + 10)),
            gone_at: retained_at.map(|second| at(second + 20)),
            is_imported: false,
            revoked_at: None,
        }
    }

    #[test]
    fn what_does_not_fit_is_mended() {
        let keep = |kid: &str| Remedy::Keep(kid.to_owned());
        let dismiss =
            |damaged: &str, kept: &str| Remedy::Dismiss { damaged: damaged.to_owned(), kept: kept.to_owned() };
        let forward = |kid: &str| Remedy::BringForward(kid.to_owned());
        let rows: Vec<Row> = vec![
            ("no key", vec![], Remedy::Add),
            ("one key", vec![(key("a", -9, None), Usable)], Remedy::Nothing),
            ("announced", vec![(key("a", -9, Some(5)), Usable), (key("b", 5, None), Usable)], Remedy::Nothing),
            ("succeeded", vec![(key("a", -9, Some(-1)), Usable), (key("b", -1, None), Usable)], Remedy::Nothing),
            ("the successor is lost", vec![(key("a", -9, Some(5)), Usable)], keep("a")),
            ("the signer is lost", vec![(key("b", 5, None), Usable)], forward("b")),
            ("only a retained one is left", vec![(key("a", -9, Some(-1)), Usable)], Remedy::Add),
            ("the only one is damaged", vec![(key("a", -9, None), Damaged)], Remedy::Add),
            (
                "the successor is damaged",
                vec![(key("a", -9, Some(5)), Usable), (key("b", 5, None), Damaged)],
                dismiss("b", "a"),
            ),
            (
                "the signer is damaged and has succeeded",
                vec![(key("a", -9, Some(-1)), Usable), (key("b", -1, None), Damaged)],
                Remedy::Add,
            ),
            (
                "the signer is damaged while its successor waits",
                vec![(key("a", -9, Some(5)), Damaged), (key("b", 5, None), Usable)],
                forward("b"),
            ),
            ("both are damaged", vec![(key("a", -9, Some(5)), Damaged), (key("b", 5, None), Damaged)], Remedy::Add),
            ("the only one is foreign", vec![(key("a", -9, None), Foreign)], Remedy::Nothing),
            (
                "the successor is foreign",
                vec![(key("a", -9, Some(5)), Usable), (key("b", 5, None), Foreign)],
                Remedy::Nothing,
            ),
            (
                "the signer is foreign while our successor waits",
                vec![(key("a", -9, Some(5)), Foreign), (key("b", 5, None), Usable)],
                Remedy::Nothing,
            ),
            (
                "the signer is foreign and its successor damaged",
                vec![(key("a", -9, Some(5)), Foreign), (key("b", 5, None), Damaged)],
                Remedy::Nothing,
            ),
        ];
        for (name, keys, expected) in rows {
            let keys: Vec<_> = keys.iter().map(|(row, fitness)| (row, *fitness)).collect();
            assert_eq!(remedy(&keys, DateTime::UNIX_EPOCH), expected, "{name}");
        }
    }

    #[test]
    fn states_change_at_their_very_moment() {
        let moment = TimeDelta::microseconds(1);
        let row = key("a", 0, Some(10));
        let ends = [(0, State::Signing), (10, State::Retained), (20, State::Unpublished), (30, State::Gone)];
        let mut before = State::Announced;
        for (second, after) in ends {
            let at = DateTime::UNIX_EPOCH + TimeDelta::seconds(second);
            assert_eq!((State::of(&row, at - moment), State::of(&row, at)), (before, after), "{second}");
            before = after;
        }
        let revoked = Model { revoked_at: Some(DateTime::UNIX_EPOCH), ..key("a", -9, None) };
        assert_eq!(State::of(&revoked, DateTime::UNIX_EPOCH - moment), State::Gone, "whatever a clock says");
    }
}
