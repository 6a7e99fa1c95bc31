//! Checks of the key ring: can it be opened, who signs, what is left over.

use chrono::{DateTime, TimeDelta, Utc};
use secrecy::ExposeSecret as _;

use super::{Checked, Patient, fail, ok, skip, warn};
use crate::keys::{Listed, Management, SealedBy, State};

/// How late a successor may be before somebody should look: servers look once a minute.
const LATE: TimeDelta = TimeDelta::minutes(10);

/// The key-encryption key, and that it opens what is sealed.
pub(super) async fn encryption_key(patient: &mut Patient<'_>) -> Checked {
    let config = patient.config;
    let directory = config.keys.directory.display();
    let db = patient.current()?.clone();
    let remedy = format!("set keys.encryption_key, or correct {directory}/encryption.key (mode 0600, 32 bytes)");
    let management = Management::new(db, config).map_err(|error| fail(error.to_string(), &remedy))?;
    let listed = management.list(patient.now).await.map_err(|error| fail(error.to_string(), &remedy))?;
    let unusable: Vec<&str> = listed.iter().filter(|key| !key.is_usable).map(|key| key.key.kid.as_str()).collect();
    let checked = if listed.iter().all(|key| key.state == State::Gone) && !management.has_encryption_key() {
        warn("there is none yet", format!("the first start makes {directory}/encryption.key; back it up"))
    } else if !management.has_encryption_key() {
        fail("there is none, and the database holds keys that it sealed", &remedy)
    } else if unusable.is_empty() {
        ok(format!("opens {} key(s)", listed.iter().filter(|key| key.state != State::Gone).count()))
    } else {
        let message = format!("does not open: {}", unusable.join(", "));
        let remedy = "set the key that sealed them as keys.previous_encryption_key, or `authservice keys revoke` them";
        if listed.iter().any(|key| key.is_usable && key.state != State::Gone) {
            warn(message, remedy)
        } else {
            fail(message, remedy)
        }
    };
    patient.keys = Some((management, listed));
    Ok(checked)
}

/// What lies in the directory: what the next start would refuse.
pub(super) async fn files(patient: &Patient<'_>) -> Checked {
    let (management, _) = patient.keys()?;
    let directory = patient.config.keys.directory.display();
    match management.require_startable(patient.now).await {
        Ok(None) => Ok(ok(format!("{directory}: nothing that the next start would refuse"))),
        Ok(Some(kid)) => Ok(ok(format!("the next start imports the key {kid}"))),
        Err(error) => Ok(fail(error.to_string(), "the server does not start like this: docs/keys.md")),
    }
}

/// The key that makes tokens of a purpose, and its successor.
pub(super) fn maker(patient: &Patient<'_>, purpose: &str) -> Checked {
    let (management, listed) = patient.keys()?;
    let of = || listed.iter().filter(|key| key.key.purpose == purpose && key.is_usable);
    let Some(maker) = of().filter(|key| key.state == State::Signing).max_by_key(|key| key.key.signing_at) else {
        if listed.iter().all(|key| key.state == State::Gone) {
            return Ok(warn("there is none yet", "the first start makes it"));
        }
        return Ok(fail(
            "no key may make tokens now",
            "start a server, which makes one, or `authservice keys rotate --now`",
        ));
    };
    let age = (patient.now - maker.key.signing_at).num_days();
    let message = format!("{} ({}) since {age} day(s)", maker.key.kid, maker.key.algorithm);
    if let Some(next) = of().find(|key| key.state == State::Announced) {
        return Ok(ok(format!("{message}; {} takes over at {}", next.key.kid, time(next.key.signing_at))));
    }
    let wanted = patient.config.keys.algorithm.name();
    if purpose == "signing" && maker.key.algorithm != wanted {
        return Ok(warn(format!("{message}; keys.algorithm is {wanted}"), "the next start announces a successor"));
    }
    match management.successor_at(&maker.key) {
        None => Ok(ok(format!("{message}; keys are not succeeded by themselves (keys.rotate_after_seconds is 0)"))),
        Some(at) if at + LATE < patient.now => Ok(warn(
            format!("{message}; its successor is due since {}", time(at)),
            "start a server: it announces a successor within a minute",
        )),
        Some(at) => Ok(ok(format!("{message}; its successor signs from {} on", time(at)))),
    }
}

/// A previous key-encryption key is for the time of the exchange only.
pub(super) fn previous(patient: &Patient<'_>) -> Checked {
    if patient.config.keys.previous_encryption_key.expose_secret().is_empty() {
        return Ok(ok("no previous key-encryption key is set"));
    }
    let (_, listed) = patient.keys()?;
    let sealed = listed.iter().filter(|key| key.state != State::Gone && key.sealed_by == SealedBy::Previous).count();
    if sealed == 0 {
        return Ok(warn("keys.previous_encryption_key is set, and opens nothing", "remove it"));
    }
    Ok(warn(
        format!("{sealed} key(s) are still sealed by the previous key-encryption key"),
        "when every server has the new one: `authservice keys reseal`, then remove keys.previous_encryption_key",
    ))
}

/// Ids of the keys that the JWK Set holds.
pub(super) fn published(patient: &Patient<'_>) -> Result<Vec<String>, super::Verdict> {
    let (_, listed) = patient.keys()?;
    let is_published = |key: &&Listed| {
        key.key.purpose == "signing"
            && key.is_usable
            && matches!(key.state, State::Announced | State::Signing | State::Retained)
    };
    let kids: Vec<String> = listed.iter().filter(is_published).map(|key| key.key.kid.clone()).collect();
    if kids.is_empty() { Err(skip("the database holds no key to compare with")) } else { Ok(kids) }
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
