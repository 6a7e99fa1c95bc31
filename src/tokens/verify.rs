//! What must stand in a token that we accept. josekit's validator is not used: it lets missing claims pass and knows no leeway.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::claims::{AccessClaims, RefreshClaims};
use super::jws::Token;
use super::{Error, Kind, Tokens};
use crate::config::Profile;

/// Times outside are not dates but attacks (the year 2242 is in range).
const MAX_TIME: i64 = 1 << 33;

impl Tokens {
    /// RFC 9068 4 and RFC 7519 4.1.
    pub(super) fn access_claims(&self, token: &Token, now: DateTime<Utc>) -> Result<AccessClaims, Error> {
        let claims = &token.claims;
        self.check_times(claims, now)?;
        self.check_kind(token, Kind::Access)?;
        let is_bare = self.settings.profile == Profile::Seed;
        if !is_bare || claims.contains_key("iss") || claims.contains_key("aud") {
            self.check_parties(claims, &self.audience)?;
            for name in ["client_id", "scope"] {
                text(claims, name).ok_or(Error::Invalid("A required claim is missing or has the wrong type"))?;
            }
            uuid(claims, "jti").ok_or(Error::Invalid("The jti claim is missing or invalid"))?;
        }
        let subject = uuid(claims, "sub");
        if subject.is_none() && (!is_bare || claims.contains_key("sub")) {
            return Err(Error::Invalid("The sub claim is missing or invalid"));
        }
        Ok(AccessClaims {
            user_id: user_id(claims)?,
            subject,
            session_id: uuid(claims, "sid").ok_or(Error::Invalid("The sid claim is missing or invalid"))?,
        })
    }

    pub(super) fn refresh_claims(&self, token: &Token) -> Result<RefreshClaims, Error> {
        let claims = &token.claims;
        self.check_kind(token, Kind::Refresh)?;
        time(claims, "exp", "Token is missing the \"exp\" claim")?;
        time(claims, "iat", "Token is missing the \"iat\" claim")?;
        let (Some(session_id), Some(family_id)) = (uuid(claims, "sid"), uuid(claims, "fam")) else {
            return Err(Error::Malformed);
        };
        self.check_parties(claims, &self.refresh_audience)?;
        user_id(claims)?;
        let generation = match claims.get("gen") {
            None => None,
            Some(value) => Some(value.as_i64().ok_or(Error::Invalid("The gen claim is invalid"))?),
        };
        Ok(RefreshClaims {
            session_id: Some(session_id),
            family_id,
            jti: uuid(claims, "jti"),
            generation,
            legacy_hash: None,
        })
    }

    /// `exp` without leeway, `iat` and `nbf` with it.
    pub(super) fn check_times(&self, claims: &Map<String, Value>, now: DateTime<Utc>) -> Result<(), Error> {
        let (now, latest) = (now.timestamp(), now.timestamp() + self.settings.leeway_seconds);
        let exp = time(claims, "exp", "Token is missing the \"exp\" claim")?;
        let iat = time(claims, "iat", "Token is missing the \"iat\" claim")?;
        if iat > latest {
            return Err(Error::Invalid("The token is not yet valid (iat)"));
        }
        if claims.contains_key("nbf") && time(claims, "nbf", "")? > latest {
            return Err(Error::Invalid("The token is not yet valid (nbf)"));
        }
        if exp <= now {
            return Err(Error::Expired);
        }
        if iat > exp {
            return Err(Error::Invalid("The token expires before it is issued"));
        }
        Ok(())
    }

    /// A genuine token of the other kind is told so; a `typ` of neither kind is not a token of ours.
    fn check_kind(&self, token: &Token, kind: Kind) -> Result<(), Error> {
        let (own, other) = match kind {
            Kind::Access => (&self.settings.access_type, Kind::Refresh),
            Kind::Refresh => (&self.settings.refresh_type, Kind::Access),
        };
        if token.media_type == other.media_type() {
            return Err(Error::WrongKind);
        }
        if token.media_type != kind.media_type() {
            return Err(Error::Invalid("The typ of the token is not allowed"));
        }
        if text(&token.claims, &self.settings.type_claim) != Some(own) {
            return Err(Error::WrongKind);
        }
        Ok(())
    }

    /// RFC 8725 3.8 and 3.9: the exact issuer, and an audience that is us.
    fn check_parties(&self, claims: &Map<String, Value>, audience: &str) -> Result<(), Error> {
        if text(claims, "iss") != Some(&self.issuer) {
            return Err(Error::Invalid("Invalid issuer"));
        }
        let is_ours = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        };
        if is_ours { Ok(()) } else { Err(Error::Invalid("Invalid audience")) }
    }
}

pub(super) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

pub(super) fn uuid(claims: &Map<String, Value>, name: &str) -> Option<Uuid> {
    text(claims, name).and_then(|text| Uuid::try_parse(text).ok())
}

pub(super) fn user_id(claims: &Map<String, Value>) -> Result<i64, Error> {
    let id = claims.get("user_id").and_then(Value::as_i64).filter(|id| *id > 0);
    id.ok_or(Error::Invalid("The user_id claim is missing or invalid"))
}

/// A whole number of seconds in a sane range: no float, no text, nothing that overflows a clock.
pub(super) fn time(claims: &Map<String, Value>, name: &'static str, missing: &'static str) -> Result<i64, Error> {
    let value = claims.get(name).ok_or(Error::Invalid(missing))?;
    let seconds = value.as_i64().filter(|seconds| (0..=MAX_TIME).contains(seconds));
    seconds.ok_or(match name {
        "exp" => Error::Invalid("Expiration Time claim (exp) must be an integer."),
        "iat" => Error::Invalid("Issued At claim (iat) must be an integer."),
        _ => Error::Invalid("Not Before claim (nbf) must be an integer."),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json;

    /// The claim of a payload with this JSON text, if it can be read at all.
    fn claims(text: &str) -> Option<Map<String, Value>> {
        json::parse(&format!(r#"{{"exp":{text},"user_id":{text}}}"#)).ok()?.as_object().cloned()
    }

    proptest! {
        /// RFC 7519 4.1.4: a time is a whole number in range, whatever its size; nothing overflows and nothing is rounded.
        #[test]
        fn times_of_any_size_are_judged(text in "-?(0|[1-9][0-9]{0,40})") {
            let claims = claims(&text).expect("a number");
            let expected = text.parse::<i128>().ok().filter(|seconds| (0..=i128::from(MAX_TIME)).contains(seconds));
            // JSON has a negative zero, which is a float to those who read it.
            let expected = expected.filter(|_| text != "-0");
            prop_assert_eq!(time(&claims, "exp", "missing").ok().map(i128::from), expected);
            let is_id = text.parse::<i64>().is_ok_and(|id| id > 0);
            prop_assert_eq!(user_id(&claims).is_ok(), is_id);
        }

        #[test]
        fn fractions_and_powers_are_no_times(
            text in r"-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,20}([eE][+-]?[0-9]{1,4})?|[eE][+-]?[0-9]{1,4})"
        ) {
            // What is beyond a float is not read.
            if let Some(claims) = claims(&text) {
                prop_assert!(time(&claims, "exp", "missing").is_err());
                prop_assert!(user_id(&claims).is_err());
            }
        }
    }
}
