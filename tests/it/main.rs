//! One test binary for everything that needs HTTP, SQL or the command line.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![expect(clippy::print_stderr, reason = "cargo shows it when a test fails: which engine, which seed")]

mod adopt;
mod arrows;
mod audit;
mod cli;
mod contract;
mod db;
mod examples;
mod flows;
mod hostile;
mod keys;
mod limits;
mod migrations;
mod ops;
mod readme;
mod rest;
mod support;
mod tokens;
mod transcripts;
mod verifiers;
mod web;
