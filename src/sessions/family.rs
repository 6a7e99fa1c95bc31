//! The state machine of refresh tokens, without its effects: what a token is, judged against its family's row.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::store::Family;
use crate::hmac;
use crate::tokens::RefreshClaims;

/// What an authentic token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Its family has ended, or it is not the family's own.
    Dead,
    /// Its family was not refreshed in time or is past its absolute end.
    Expired,
    /// The newest: it may be exchanged.
    Rotate,
    /// The one before the newest, sent again soon enough: it gets the newest again.
    Retry,
    /// The one before the newest, sent again after the window: theft, unless an outage explains it.
    Late,
    /// Older.
    Theft,
    /// Newer than the row.
    Future,
}

/// Below every generation, and not the one before generation 0, which would be a retry.
const OLDER_THAN_ALL: i64 = -2;

impl Family {
    /// Judges the token. A window of zero is strict: every older token is theft.
    pub(super) fn judge(&self, token: &RefreshClaims, window: TimeDelta, now: DateTime<Utc>) -> State {
        let Some(generation) = self.proven_generation(token) else {
            return State::Dead;
        };
        if self.revoked_at.is_some() || !self.is_active {
            return State::Dead;
        }
        if now >= self.idle_end || now >= self.absolute_end {
            return State::Expired;
        }
        let is_strict = window == TimeDelta::zero();
        match self.generation - generation {
            0 => State::Rotate,
            1 if !is_strict && now - self.rotated_at < window => State::Retry,
            1 if !is_strict => State::Late,
            1.. => State::Theft,
            _ => State::Future,
        }
    }

    /// The token's generation, if the token is this family's own: its `jti` can only be made with the family's secret. Of the old
    /// service's tokens the one that was still good at the takeover is generation 0, and every other one is older than all.
    pub(super) fn proven_generation(&self, token: &RefreshClaims) -> Option<i64> {
        if token.session_id.is_some_and(|id| id != self.session_id) {
            return None;
        }
        if let Some(hash) = token.legacy_hash {
            let kept = self.legacy_hash.as_ref()?;
            return Some(if hash[..] == kept[..] { 0 } else { OLDER_THAN_ALL });
        }
        let generation = token.generation.filter(|generation| *generation >= 0)?;
        let proof = proof(&self.family_secret, generation);
        openssl::memcmp::eq(proof.as_bytes(), token.jti?.as_bytes()).then_some(generation)
    }
}

/// The `jti` of a generation: a version 8 UUID (RFC 9562 5.8) from HMAC-SHA-256, so that every token ever issued is recognised
/// and can be made again, and none is stored.
pub(super) fn proof(family_secret: &[u8], generation: i64) -> Uuid {
    let tag = hmac::Key::new(family_secret).and_then(|key| key.tag(&generation.to_be_bytes()));
    let tag = tag.expect("HMAC-SHA-256 takes any key and input");
    let bytes: [u8; 16] = tag[..16].try_into().expect("a SHA-256 tag has 32 bytes");
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(now: DateTime<Utc>) -> Family {
        Family {
            family_id: Uuid::from_u128(1),
            session_id: Uuid::from_u128(2),
            user_id: 1,
            client_id: "c".to_owned(),
            scope: "s".to_owned(),
            generation: 5,
            family_secret: vec![7; 32],
            key_id: "k".to_owned(),
            rotated_at: now - TimeDelta::seconds(10),
            idle_end: now + TimeDelta::days(14),
            absolute_end: now + TimeDelta::days(180),
            revoked_at: None,
            legacy_hash: None,
            subject: Uuid::from_u128(3),
            is_active: true,
            auth_time: now,
            user_agent: String::new(),
            ip_address: None,
        }
    }

    fn token(family: &Family, generation: i64) -> RefreshClaims {
        RefreshClaims {
            session_id: Some(family.session_id),
            family_id: family.family_id,
            jti: Some(proof(&family.family_secret, generation)),
            generation: Some(generation),
            legacy_hash: None,
        }
    }

    fn old_token(family: &Family, hash: [u8; 32]) -> RefreshClaims {
        RefreshClaims { generation: None, legacy_hash: Some(hash), ..token(family, 0) }
    }

    #[test]
    fn every_state_is_the_one_of_the_table() {
        let now = DateTime::from_timestamp(1_800_000_000, 0).expect("a time");
        let window = TimeDelta::seconds(30);
        let live = family(now);
        let ended = Family { revoked_at: Some(now), ..family(now) };
        let inactive = Family { is_active: false, ..family(now) };
        let idle = Family { idle_end: now, ..family(now) };
        let old = Family { absolute_end: now, ..family(now) };
        let ahead = Family { rotated_at: now + TimeDelta::microseconds(1), ..family(now) };
        let late = Family { rotated_at: now - window, ..family(now) };
        let foreign = RefreshClaims { jti: Some(Uuid::from_u128(9)), ..token(&live, 5) };
        let other_session = RefreshClaims { session_id: Some(Uuid::from_u128(9)), ..token(&live, 5) };
        let taken_over = Family { generation: 0, legacy_hash: Some(vec![1; 32]), ..family(now) };
        let taken_over_and_rotated = Family { generation: 1, ..taken_over.clone() };
        let rows = [
            ("old token that was good", &taken_over, old_token(&taken_over, [1; 32]), window, State::Rotate),
            (
                "old token that was good, again",
                &taken_over_and_rotated,
                old_token(&taken_over, [1; 32]),
                window,
                State::Retry,
            ),
            ("older token of the old service", &taken_over, old_token(&taken_over, [2; 32]), window, State::Theft),
            ("old token of a family of ours", &live, old_token(&live, [1; 32]), window, State::Dead),
            ("newest", &live, token(&live, 5), window, State::Rotate),
            ("one before, in time", &live, token(&live, 4), window, State::Retry),
            ("one before, exactly at the end of the window", &late, token(&live, 4), window, State::Late),
            ("one before, strict", &live, token(&live, 4), TimeDelta::zero(), State::Theft),
            (
                "one before, strict, by a clock behind the winner's",
                &ahead,
                token(&live, 4),
                TimeDelta::zero(),
                State::Theft,
            ),
            ("two before, in time", &live, token(&live, 3), window, State::Theft),
            ("first", &live, token(&live, 0), window, State::Theft),
            ("newer", &live, token(&live, 6), window, State::Future),
            ("negative", &live, token(&live, -1), window, State::Dead),
            ("forged jti", &live, foreign, window, State::Dead),
            ("other session", &live, other_session, window, State::Dead),
            ("no jti", &live, RefreshClaims { jti: None, ..token(&live, 5) }, window, State::Dead),
            ("no generation", &live, RefreshClaims { generation: None, ..token(&live, 5) }, window, State::Dead),
            ("ended, newest", &ended, token(&live, 5), window, State::Dead),
            ("ended, older", &ended, token(&live, 1), window, State::Dead),
            ("inactive", &inactive, token(&live, 5), window, State::Dead),
            ("idle", &idle, token(&live, 5), window, State::Expired),
            ("idle, older", &idle, token(&live, 1), window, State::Expired),
            ("absolute end", &old, token(&live, 5), window, State::Expired),
        ];
        for (name, family, token, window, expected) in rows {
            assert_eq!(family.judge(&token, window, now), expected, "{name}");
        }
    }
}
