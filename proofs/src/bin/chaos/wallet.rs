//! What one client remembers of its session, and the oracle that judges each answer against it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use proofs::api::{Pair, generation};
use proofs::client::{Answer, Trouble};

use crate::ledger::{Breach, Ledger};

/// What a client does after an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// It was answered.
    Go,
    /// The same request again, after a while.
    Again(Duration),
    /// The session is over.
    Over,
}

/// What may be answered in a run beside what always may.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rules {
    /// Rate limits are on.
    pub(crate) has_limits: bool,
}

/// A session as its client knows it.
#[derive(Debug, Clone)]
pub(crate) struct Wallet {
    pub(crate) email: String,
    pub(crate) family: String,
    pub(crate) pair: Pair,
    /// The token before the newest; and two that are older than any retry.
    pub(crate) previous: Option<String>,
    pub(crate) older: Vec<String>,
    pub(crate) is_lost: bool,
    pub(crate) generation: i64,
    issued: HashSet<String>,
    /// Since when the newest token is on its way without an answer.
    pub(crate) unanswered_since: Option<Instant>,
}

/// A wallet must tell tokens apart, and need not keep them all whole.
fn mark(token: &str) -> String {
    token[token.len().saturating_sub(43)..].to_owned()
}

impl Wallet {
    /// Begins with the answer to a sign-in.
    pub(crate) fn new(email: &str, pair: Pair, ledger: &Ledger) -> Option<Self> {
        let Some((family, number)) = generation(&pair.refresh).filter(|(_, generation)| *generation == 0) else {
            ledger.breach(Breach::WrongShape, "a sign-in did not begin with generation 0");
            return None;
        };
        ledger.acknowledge(&family, number);
        let issued = HashSet::from([mark(&pair.refresh)]);
        Some(Self {
            email: email.to_owned(),
            family,
            pair,
            previous: None,
            older: Vec::new(),
            is_lost: false,
            generation: 0,
            issued,
            unanswered_since: None,
        })
    }

    /// Distinct refresh tokens that it was given.
    pub(crate) fn tokens(&self) -> i64 {
        i64::try_from(self.issued.len()).unwrap_or(i64::MAX)
    }

    /// Judges what came back for a refresh with `sent`: the newest token, or the one before when two were sent at once.
    pub(crate) fn judge(
        &mut self,
        sent: &str,
        result: &Result<Answer, Trouble>,
        rules: Rules,
        ledger: &Ledger,
    ) -> Next {
        let answer = match result {
            Ok(answer) => answer,
            Err(trouble) => {
                match trouble {
                    Trouble::Connect(_) => ledger.count("refused connections"),
                    Trouble::Lost(_) | Trouble::Slow => {
                        ledger.lost(trouble);
                        self.unanswered(sent);
                    }
                }
                return Next::Again(Duration::from_millis(100));
            }
        };
        match answer.status {
            200 => self.take(sent, answer, ledger),
            503 => {
                self.unanswered(sent);
                trouble_answer(answer, "answers 503", ledger)
            }
            429 if rules.has_limits => trouble_answer(answer, "answers 429", ledger),
            401 => self.refused(answer, ledger),
            status => {
                let text = String::from_utf8_lossy(&answer.body);
                ledger.breach(Breach::ForbiddenAnswer, &format!("refresh of {}: {status} {text}", self.email));
                Next::Again(Duration::from_millis(100))
            }
        }
    }

    fn unanswered(&mut self, sent: &str) {
        if sent == self.pair.refresh {
            self.unanswered_since.get_or_insert_with(Instant::now);
        }
    }

    fn take(&mut self, sent: &str, answer: &Answer, ledger: &Ledger) -> Next {
        let Some((pair, (family, number))) =
            Pair::of(answer).and_then(|pair| Some((generation(&pair.refresh)?, pair))).map(|(of, pair)| (pair, of))
        else {
            ledger.breach(Breach::WrongShape, &format!("refresh: {}", String::from_utf8_lossy(&answer.body).len()));
            return Next::Again(Duration::from_millis(100));
        };
        if answer.header("cache-control") != "no-store" {
            ledger.breach(Breach::WrongShape, "tokens without Cache-Control: no-store");
        }
        let is_second = self.previous.as_deref() == Some(sent);
        if is_second {
            // Two were sent at once: both get the same successor.
            if pair.refresh != self.pair.refresh {
                let text = format!("two successors of generation {} of {}", self.generation - 1, self.email);
                ledger.breach(Breach::Fork, &text);
            }
            ledger.count("same successors");
            return Next::Go;
        }
        let is_next = family == self.family && number == self.generation + 1 && self.issued.insert(mark(&pair.refresh));
        if !is_next {
            let text = format!("{}: generation {number} after {}", self.email, self.generation);
            ledger.breach(Breach::Fork, &text);
        }
        ledger.count(if self.unanswered_since.take().is_some() { "recovered" } else { "rotations" });
        ledger.acknowledge(&self.family, number);
        if let Some(previous) = self.previous.replace(std::mem::replace(&mut self.pair, pair).refresh)
            && self.older.len() < 2
        {
            self.older.push(previous);
        }
        self.generation = number;
        Next::Go
    }

    fn refused(&mut self, answer: &Answer, ledger: &Ledger) -> Next {
        let code = answer.code();
        let since = self.unanswered_since.map_or_else(
            || "without a lost answer before".to_owned(),
            |since| format!("{:.1} s after its first try", since.elapsed().as_secs_f64()),
        );
        let text = format!("{} with generation {}: {code}, {since}", self.email, self.generation);
        self.is_lost = true;
        let breach = if code == "refresh_reuse_detected" { Breach::FalseTheft } else { Breach::LostSession };
        ledger.breach(breach, &text);
        Next::Over
    }
}

/// Of 429 and 503, which may always be sent again: they say when.
pub(crate) fn trouble_answer(answer: &Answer, label: &'static str, ledger: &Ledger) -> Next {
    ledger.count(label);
    let Ok(seconds) = answer.header("retry-after").parse() else {
        ledger.breach(Breach::WrongShape, &format!("{} without Retry-After", answer.status));
        return Next::Again(Duration::from_millis(100));
    };
    // Capped, so that a run is not all waiting.
    Next::Again(Duration::from_millis(250).min(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::prelude::BASE64_URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn token(generation: i64, branch: &str) -> String {
        let claims = json!({"fam": "00000000-0000-0000-0000-000000000001", "gen": generation});
        format!("h.{}.{branch}{generation}", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    fn answer(status: u16, refresh: &str, headers: &[(&'static str, &'static str)]) -> Answer {
        let mut answer = Answer { status, headers: hyper::HeaderMap::new(), body: bytes::Bytes::new() };
        let body = json!({"access_token": "a", "refresh_token": refresh, "token_type": "Bearer", "expires_in": 9,
            "error": {"code": "refresh_reuse_detected"}});
        answer.body = body.to_string().into();
        for (name, text) in headers {
            answer.headers.insert(*name, hyper::header::HeaderValue::from_static(text));
        }
        answer
    }

    const STORE: (&str, &str) = ("cache-control", "no-store");

    /// The oracle can fail: each lie of a server is seen as what it is.
    #[test]
    fn every_lie_of_a_server_is_seen() {
        let first = token(0, "a");
        let rows = [
            ("honest", vec![Ok(answer(200, &token(1, "a"), &[STORE]))], None),
            ("a retry later", vec![Err(Trouble::Slow), Ok(answer(200, &token(1, "a"), &[STORE]))], None),
            ("the same token again", vec![Ok(answer(200, &first, &[STORE]))], Some(Breach::Fork)),
            ("a step too far", vec![Ok(answer(200, &token(2, "a"), &[STORE]))], Some(Breach::Fork)),
            ("tokens that caches keep", vec![Ok(answer(200, &token(1, "a"), &[]))], Some(Breach::WrongShape)),
            ("no token", vec![Ok(answer(200, "", &[STORE]))], Some(Breach::WrongShape)),
            ("called a thief", vec![Ok(answer(401, "", &[]))], Some(Breach::FalseTheft)),
            ("503 that does not say when", vec![Ok(answer(503, "", &[]))], Some(Breach::WrongShape)),
            ("an error of its own", vec![Ok(answer(500, "", &[]))], Some(Breach::ForbiddenAnswer)),
            ("a limit that is off", vec![Ok(answer(429, "", &[("retry-after", "1")]))], Some(Breach::ForbiddenAnswer)),
        ];
        for (name, answers, expected) in rows {
            let ledger = Ledger::default();
            let pair = Pair { access: "a".to_owned(), refresh: first.clone() };
            let mut wallet = Wallet::new("alice", pair, &ledger).expect("generation 0");

            for answer in &answers {
                wallet.judge(&first, answer, Rules::default(), &ledger);
            }

            assert_eq!(ledger.breaches(), u64::from(expected.is_some()), "{name}: {}", ledger.summary());
            if let Some(expected) = expected {
                assert_eq!(ledger.breaches_of(expected), 1, "{name}: {}", ledger.summary());
            }
        }
    }

    #[test]
    fn two_successors_of_one_token_are_a_fork() {
        let ledger = Ledger::default();
        let first = token(0, "a");
        let pair = Pair { access: "a".to_owned(), refresh: first.clone() };
        let mut wallet = Wallet::new("alice", pair, &ledger).expect("generation 0");

        wallet.judge(&first, &Ok(answer(200, &token(1, "a"), &[STORE])), Rules::default(), &ledger);
        wallet.judge(&first, &Ok(answer(200, &token(1, "b"), &[STORE])), Rules::default(), &ledger);

        assert_eq!(ledger.breaches_of(Breach::Fork), 1);
    }
}
