//! Honest requests, spoilt at random: bytes changed, cut, repeated, moved. The oracle is the same; what may come back is any refusal.
//!
//! The seed is fixed; `HOSTILE_SEED` sets another, and a failure names the one that repeats it.

use std::io::Write as _;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::json;

use super::oracle::{PASSWORD, Stage, flaws};
use super::wire::{PATIENCE, Wire, bare, bearer, posted, shown};
use super::{LOGIN, LOGOUT, ME, REFRESH, REGISTER, SESSIONS, case, each_engine};

/// Requests on each engine.
const ROUNDS: usize = 500;
const ALLOWED: [u16; 19] =
    [200, 201, 204, 304, 307, 400, 401, 403, 404, 405, 408, 409, 413, 414, 415, 417, 422, 431, 503];
const ALICE: &str = "canary.alice@example.com";

#[tokio::test]
async fn mutations() {
    let seed = std::env::var("HOSTILE_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(20_261_124);
    eprintln!("HOSTILE_SEED={seed}");
    each_engine(&[], &[], async |stage| {
        let alice = stage.account(ALICE);
        let victim = stage.account("canary.victim@example.com");
        let user = json!({"email": ALICE, "password": PASSWORD, "full_name": "\u{1f511} \\ \" \n"}).to_string();
        let honest = [
            bare("GET /health/ready"),
            bare("GET /.well-known/jwks.json"),
            bearer(&format!("GET {ME}"), &alice.access),
            bearer(&format!("GET {SESSIONS}"), &alice.access),
            bearer(&format!("DELETE {SESSIONS}/00000000-0000-4000-8000-000000000000"), &alice.access),
            bearer(&format!("POST {REFRESH}"), &alice.refresh),
            bearer(&format!("POST {LOGOUT}"), "eyJhbGciOiJSUzI1NiJ9.e30.AAAA"),
            posted(LOGIN, r#"{"email":"canary.alice@example.com","password":"C4nary!"}"#),
            posted(REGISTER, &user),
            String::from_utf8(posted(LOGIN, "{}"))
                .unwrap()
                .replacen("\r\n", "\r\nTransfer-Encoding: chunked\r\n", 1)
                .into_bytes(),
        ];
        let mut dice = Dice(seed);
        for round in 0..ROUNDS {
            let bytes = spoilt(&mut dice, &honest);
            for fault in send(stage, &bytes) {
                stage.fault(&format!("HOSTILE_SEED={seed}, round {round}: {fault}\n    {}", shown(&bytes)));
            }
        }
        stage.run(&case("+", "somebody else's session", bearer(&format!("GET {ME}"), &victim.access), "200"));
        stage.run(&case("+", "somebody else's session", bearer(&format!("POST {REFRESH}"), &victim.refresh), "200"));
    })
    .await;
}

/// What is wrong with what comes back. What is cut waits for the rest, so after a while the client hangs up.
fn send(stage: &mut Stage, bytes: &[u8]) -> Vec<String> {
    let mut wire = Wire::open(stage.address);
    let _ = wire.stream.write_all(bytes);
    let is_head = bytes.starts_with(b"HEAD ");
    let mut found = wire.answer(is_head, Instant::now() + Duration::from_millis(60));
    if found.is_err() {
        let _ = wire.stream.shutdown(Shutdown::Write);
        found = wire.answer(is_head, Instant::now() + PATIENCE);
    }
    let mut faults = Vec::new();
    match found {
        Ok(None) => {}
        Ok(Some(answer)) => {
            stage.remember(std::slice::from_ref(&answer));
            if !ALLOWED.contains(&answer.status) {
                faults.push(format!("{answer:?}"));
            }
            faults.extend(flaws(&answer, bytes));
        }
        Err(fault) => faults.push(fault),
    }
    drop(wire);
    faults.extend(stage.health());
    faults
}

/// One of the requests with one to four faults.
fn spoilt(dice: &mut Dice, honest: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = honest[dice.below(honest.len())].clone();
    for _ in 0..=dice.below(4) {
        if bytes.is_empty() {
            break;
        }
        let at = dice.below(bytes.len());
        let length = 1 + dice.below((bytes.len() - at).min(40));
        match dice.below(9) {
            0 => bytes[at] ^= 1 << dice.below(8),
            1 => bytes[at] = u8::try_from(dice.below(256)).unwrap_or_default(),
            2 => drop(bytes.drain(at..at + length)),
            3 => bytes.truncate(at),
            4 => {
                let piece = bytes[at..at + length].repeat(1 + dice.below(50));
                bytes.splice(at..at, piece);
            }
            5 => {
                let odd: [&[u8]; 12] = [
                    b"\r\n",
                    b"\n",
                    b"\0",
                    b"\r",
                    b" ",
                    b"\t",
                    b":",
                    b"\xff\xfe",
                    b"\"",
                    b"%00",
                    b"\r\n\r\n",
                    b"Content-Length: 7\r\n",
                ];
                let piece = odd[dice.below(odd.len())].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => {
                let other = dice.below(bytes.len());
                bytes.swap(at, other);
            }
            7 => bytes[at..at + length].reverse(),
            _ => {
                // The head of one and the rest of another.
                let other = &honest[dice.below(honest.len())];
                let from = dice.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// xorshift64* (Marsaglia; Vigna 2014): the same on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let roll = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(roll).unwrap_or_default() % bound
    }
}
