//! Tools of the proofs: real servers and databases in processes of their own, clients, and a network that can be broken.
//!
//! The programs beside it (`src/bin`) say what is proved. Nothing here is shipped.

/// Anything that stops a proof: not a broken promise, but a run that tells nothing.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// What a tool returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

pub mod api;
pub mod client;
pub mod dice;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod server;
pub mod sql;
pub mod times;
pub mod verifier;
