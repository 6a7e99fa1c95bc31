//! One test binary for everything that needs HTTP, SQL or the command line.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod flows;
mod readme;
mod rest;
mod support;
mod tokens;
mod transcripts;
