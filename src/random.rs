//! Randomness: the only place that asks the operating system's generator, through OpenSSL's.
//!
//! A failing generator is an error, never a fallback.

use uuid::Uuid;

/// The generator failed; the caller answers 503.
#[derive(Debug, thiserror::Error)]
#[error("random number generator: {0}")]
pub struct Error(#[from] openssl::error::ErrorStack);

/// Returns `N` random bytes fit for keys.
#[expect(clippy::disallowed_methods, reason = "this is the one place that asks the generator")]
pub fn bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    openssl::rand::rand_bytes(&mut bytes)?;
    Ok(bytes)
}

/// Returns a random UUID (version 4): 122 random bits.
pub fn uuid() -> Result<Uuid, Error> {
    Ok(uuid::Builder::from_random_bytes(bytes()?).into_uuid())
}
