//! Breaks a running server.
fn main() {}
