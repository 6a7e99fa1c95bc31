//! 2A: clients that are slow, silent, or too many. All of them at once, on both engines at once, because what they cost is a wait.

use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::oracle::{Stage, flaws};
use super::wire::{Wire, bare, exchange};
use super::{LOGIN, ME, answers};
use crate::support::Engine;

/// What a slow client does, and how it must end.
struct Slow {
    id: &'static str,
    name: &'static str,
    /// Sent at once.
    first: Vec<u8>,
    /// Sent every second.
    then: &'static [u8],
    /// Answers, as in a case.
    expected: &'static str,
    /// Closed no later.
    within: Duration,
}

fn slow(
    id: &'static str,
    name: &'static str,
    first: impl Into<Vec<u8>>,
    then: &'static [u8],
    expected: &'static str,
    seconds: u64,
) -> Slow {
    // What the machine adds is not the server's.
    Slow { id, name, first: first.into(), then, expected, within: Duration::from_secs(seconds + 4) }
}

fn rows() -> Vec<Slow> {
    let login =
        |headers: &str| format!("POST {LOGIN} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}\r\n");
    let declared = "Content-Length: 10000\r\n";
    vec![
        slow("A27", "a head, a byte a second", "GET / HTTP/1.1\r\nX: ", b"a", "closed", 10),
        slow("A27", "silence", "", b"", "closed", 10),
        slow("+A27", "a head without its end", "GET / HTTP/1.1\r\nHost: a\r\n", b"", "closed", 10),
        slow("+A27", "a header a second", "GET / HTTP/1.1\r\n", b"X: a\r\n", "closed", 10),
        slow("+A27", "empty lines", "", b"\r\n", "closed", 10),
        slow("+A27", "half of TLS", b"\x16\x03\x01\x02\0\x01".to_vec(), b"", "400|closed", 10),
        slow("A28", "a body, a byte a second", login(declared), b" ", "408", 15),
        slow("A28", "a body that never comes", login(declared), b"", "408", 15),
        slow(
            "+A28",
            "a body that lacks its last byte",
            format!("{}{}", login(declared), " ".repeat(9999)),
            b"",
            "408",
            15,
        ),
        slow("+A28", "a chunk a second", login("Transfer-Encoding: chunked\r\n"), b"1\r\n \r\n", "408", 15),
        slow(
            "+A28",
            "a chunk's size without its end",
            format!("{}2", login("Transfer-Encoding: chunked\r\n")),
            b"",
            "408",
            15,
        ),
        // The size alone is no reason to refuse: what comes is counted.
        slow(
            "A24",
            "a chunk of 2^64 - 1 bytes",
            format!("{}FFFFFFFFFFFFFFFF\r\n{{}}", login("Transfer-Encoding: chunked\r\n")),
            b" ",
            "400|408|413",
            15,
        ),
        slow("+A28", "a size of zeros without end", login("Transfer-Encoding: chunked\r\n"), b"0", "400|408", 15),
        slow(
            "+A28",
            "an extension without end",
            format!("{}2;", login("Transfer-Encoding: chunked\r\n")),
            b"x",
            "400|408",
            15,
        ),
        slow(
            "+A28",
            "trailers without end",
            format!("{}0\r\n", login("Transfer-Encoding: chunked\r\n")),
            b"X: a\r\n",
            "400|408",
            15,
        ),
        slow(
            "A34",
            "100-continue, then no body",
            login(&format!("{declared}Expect: 100-continue\r\n")),
            b"",
            "408",
            15,
        ),
        slow(
            "+A34",
            "100-continue, then a byte a second",
            login(&format!("{declared}Expect: 100-continue\r\n")),
            b" ",
            "408",
            15,
        ),
    ]
}

#[tokio::test]
async fn slow_clients() {
    let engine = |engine| async move {
        let stage = Stage::start(engine, &[]).await;
        let mut stage = tokio::task::spawn_blocking(move || all_at_once(stage)).await.unwrap();
        for fault in stage.health() {
            stage.fault(&fault);
        }
        stage.finish(&[]).await;
    };
    tokio::join!(engine(Engine::Sqlite), engine(Engine::Postgres));
}

fn all_at_once(mut stage: Stage) -> Stage {
    let address = stage.address;
    let rows = rows();
    let faults: Vec<String> = std::thread::scope(|scope| {
        let slow: Vec<_> = rows.iter().map(|row| scope.spawn(move || run(address, row))).collect();
        let deaf = scope.spawn(move || deaf(address));
        let flood = scope.spawn(move || silent_flood(address));
        let late = [deaf, flood].into_iter().filter_map(|handle| handle.join().unwrap());
        let mut faults: Vec<String> = late.collect();
        faults.extend(slow.into_iter().flat_map(|handle| handle.join().unwrap()));
        faults
    });
    for fault in faults {
        stage.fault(&fault);
    }
    stage
}

fn run(address: SocketAddr, row: &Slow) -> Vec<String> {
    let mut wire = Wire::open(address);
    let started = Instant::now();
    let _ = wire.stream.write_all(&row.first);
    let found = loop {
        match wire.answer(false, Instant::now() + Duration::from_secs(1)) {
            Err(_) if started.elapsed() < row.within => {
                let _ = wire.stream.write_all(row.then);
            }
            found => break found,
        }
    };
    let mut faults = Vec::new();
    match found {
        Ok(Some(answer)) => {
            let status = answer.status.to_string();
            if !answers(row.expected).any(|one| one == status) {
                faults.push(format!("{answer:?}"));
            }
            faults.extend(flaws(&answer, &row.first));
            faults.extend(wire.closes());
        }
        Ok(None) if answers(row.expected).any(|one| one == "closed") => {}
        other => faults.push(format!("{other:?}")),
    }
    if started.elapsed() > row.within {
        faults.push(format!("closed after {:?}", started.elapsed()));
    }
    faults.into_iter().map(|fault| format!("{} {}: {fault}", row.id, row.name)).collect()
}

/// A29: asks again and again and never reads an answer. Once nothing can be written any more the server gives up after 30 seconds.
fn deaf(address: SocketAddr) -> Option<String> {
    let mut wire = Wire::open(address);
    wire.stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let requests = bare("GET /openapi.json").repeat(50);
    let started = Instant::now();
    let mut last = Instant::now();
    while started.elapsed() < Duration::from_mins(1) {
        match wire.stream.write(&requests) {
            Ok(_) => last = Instant::now(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return None,
        }
    }
    Some(format!("A29 a client that never reads: not closed {:?} after its last write", last.elapsed()))
}

/// 200 connections on which nothing is said: others are served, and they are closed.
fn silent_flood(address: SocketAddr) -> Option<String> {
    let mut silent: Vec<Wire> = (0..200).map(|_| Wire::open(address)).collect();
    let started = Instant::now();
    for _ in 0..20 {
        let live = exchange(address, &bare("GET /health/live"), 1);
        if live.answers.first().is_none_or(|answer| answer.status != 200) {
            return Some(format!("R25 beside 200 silent connections: {live:?}"));
        }
        let me = exchange(address, &bare(&format!("GET {ME}")), 1);
        if me.answers.first().is_none_or(|answer| answer.status != 401) || me.took > Duration::from_secs(5) {
            return Some(format!("R25 beside 200 silent connections: {me:?}"));
        }
    }
    let left = silent.iter_mut().filter_map(Wire::closes).count();
    let took = started.elapsed();
    (left > 0 || took > Duration::from_secs(25))
        .then(|| format!("R25: {left} silent connections are left after {took:?}"))
}
