//! Passwords: argon2id for new hashes, bcrypt for those that the seed left, computed off the event loop behind a bound.
//!
//! A hash costs a core some 16 ms and 19 MiB. So at most as many run at once as there are cores, a bounded queue waits a bounded
//! time, and the permit stays with the computation, not with the request: a client that goes away frees nothing early.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use argon2::password_hash::phc::{PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use unicode_normalization::UnicodeNormalization as _;

use super::memory;
use crate::config;
use crate::random;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces;

const HASH_LENGTH: usize = 32;
const SALT_LENGTH: usize = 16;
/// bcrypt ignores what follows; the seed's users may rely on it.
const BCRYPT_LENGTH: usize = 72;
/// A stored cost above this is not ours but hostile: cost 31 takes a week.
const MAX_BCRYPT_COST: u32 = 16;
/// Stored argon2 parameters above these are not ours but hostile.
const MAX_MEMORY_KIB: u32 = 4 * 1024 * 1024;
const MAX_ITERATIONS: u32 = 100;

/// Why no hash was computed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too many hashes are waiting.
    #[error("too many password hashes are waiting")]
    Busy,
    /// The generator of salts failed.
    #[error(transparent)]
    Random(#[from] random::Error),
    /// The hashes that are to be computed at once do not fit into memory.
    #[error("{0}")]
    Memory(String),
    /// The library refused its parameters, or the computation died.
    #[error("password hash: {0}")]
    Failed(String),
}

/// What a verification found.
#[derive(Debug)]
pub(super) enum Verdict {
    /// The password is not the one of the hash.
    Wrong,
    /// It is. `renewed` is a hash with today's parameters when the stored one is weaker.
    Right { renewed: Option<String> },
}

/// Computes hashes.
#[derive(Debug)]
pub struct Hasher {
    params: Params,
    concurrency: usize,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    timeout: Duration,
    /// One buffer per permit, used again: a fresh one costs page faults.
    buffers: Arc<Mutex<Vec<Vec<Block>>>>,
    /// How long a bcrypt hash takes here, in microseconds: zero until one was met.
    bcrypt_micros: Arc<AtomicU64>,
    /// Nobody's hash, verified for unknown addresses so that they take as long as known ones.
    nobody: String,
    metrics: Arc<Metrics>,
}

/// How busy a hasher is.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Hashes that are being computed.
    pub in_progress: usize,
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Hashes that may be computed at once.
    pub max: usize,
    /// Requests that may wait.
    pub waiting_max: usize,
}

impl Hasher {
    /// Reads its parameters and bounds from the configuration.
    pub fn new(config: &config::Passwords, metrics: &Arc<Metrics>) -> Result<Self, Error> {
        let params = Params::new(config.memory_kib, config.iterations, config.parallelism, Some(HASH_LENGTH))
            .map_err(|error| Error::Failed(error.to_string()))?;
        let concurrency = memory::need(config).map_err(Error::Memory)?.places;
        let nobody = encode(&params, &random::bytes::<SALT_LENGTH>()?, &random::bytes::<HASH_LENGTH>()?);
        Ok(Self {
            params,
            concurrency,
            permits: Arc::new(Semaphore::new(concurrency)),
            waiting: AtomicUsize::new(0),
            queue: config.queue,
            timeout: Duration::from_secs(config.queue_timeout_seconds),
            buffers: Arc::default(),
            bcrypt_micros: Arc::default(),
            nobody,
            metrics: Arc::clone(metrics),
        })
    }

    /// Hashes a new password.
    pub async fn hash(&self, password: SecretString) -> Result<String, Error> {
        let params = self.params.clone();
        self.run(move |buffer| new_hash(&params, &password, buffer)).await
    }

    /// How many hashes run at once.
    #[must_use]
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// How busy it is at this moment.
    #[must_use]
    pub fn load(&self) -> Load {
        Load {
            in_progress: self.concurrency - self.permits.available_permits(),
            // Whoever finds the queue full stands in it for a moment.
            waiting: self.waiting.load(Ordering::Relaxed).min(self.queue),
            max: self.concurrency,
            waiting_max: self.queue,
        }
    }

    /// Verifies a password. A hash that cannot be read counts as wrong and takes as long. Whatever hash was stored, a refusal takes as
    /// long as one of a bcrypt hash, once there was one.
    pub(super) async fn verify(&self, password: SecretString, stored: String) -> Result<Verdict, Error> {
        let (params, nobody) = (self.params.clone(), self.nobody.clone());
        let bcrypt_micros = Arc::clone(&self.bcrypt_micros);
        let judged = self.run(move |buffer| {
            let started = Instant::now();
            let compared = matches(&password, &stored, buffer);
            if is_bcrypt(&stored) {
                note(&bcrypt_micros, started.elapsed());
            }
            let verdict = match compared {
                Some(true) => {
                    let renewed = is_outdated(&params, &stored, &password);
                    let renewed = renewed.then(|| new_hash(&params, &password, buffer));
                    Verdict::Right { renewed: renewed.transpose()? }
                }
                Some(false) => Verdict::Wrong,
                None => {
                    tracing::error!("a stored password hash cannot be read");
                    let _ = matches(&password, &nobody, buffer);
                    Verdict::Wrong
                }
            };
            Ok((verdict, started))
        });
        let (verdict, started) = judged.await?;
        if matches!(verdict, Verdict::Wrong) {
            self.level(started).await;
        }
        Ok(verdict)
    }

    /// Waits until a refusal has taken as long as one of a user with a bcrypt hash, once there was one: these take ten times as
    /// long, and time must tell neither who has an account nor whose hash is new.
    async fn level(&self, started: Instant) {
        let slowest = Duration::from_micros(self.bcrypt_micros.load(Ordering::Relaxed));
        tokio::time::sleep_until(started + slowest).await;
    }

    /// Takes as long as [`Hasher::verify`] of a wrong password.
    pub(super) async fn verify_nobody(&self, password: SecretString) -> Result<(), Error> {
        self.verify(password, self.nobody.clone()).await.map(|_| ())
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = self.permit().await.inspect_err(|_| self.metrics.hashes_refused.inc())?;
        let (_trace, request) = (traces::span("password hash"), tracing::Span::current());
        let (buffers, usual) = (Arc::clone(&self.buffers), self.params.block_count());
        let durations = self.metrics.hash_durations.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let lock = || buffers.lock().unwrap_or_else(PoisonError::into_inner);
            let mut buffer = lock().pop().unwrap_or_default();
            let started = Instant::now();
            let result = request.in_scope(|| work(&mut buffer));
            durations.observe(started.elapsed().as_secs_f64());
            // A stored hash with huge parameters must not keep its memory for ever.
            buffer.truncate(usual);
            buffer.shrink_to(usual);
            lock().push(buffer);
            result
        });
        done.await.map_err(|error| Error::Failed(error.to_string()))?
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _place = Place::take(&self.waiting, self.queue).ok_or(Error::Busy)?;
        let trace = traces::span("password queue");
        match trace.judge(tokio::time::timeout(self.timeout, Arc::clone(&self.permits).acquire_owned()).await) {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Error::Busy),
        }
    }
}

/// A place in the queue, given back when dropped: also when the client goes away.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize, queue: usize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < queue).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn new_hash(params: &Params, password: &SecretString, buffer: &mut Vec<Block>) -> Result<String, Error> {
    let salt: [u8; SALT_LENGTH] = random::bytes()?;
    let hash = argon2id(params, Algorithm::Argon2id, &nfc(password), &salt, HASH_LENGTH, buffer)
        .ok_or_else(|| Error::Failed("argon2 refused its parameters".to_owned()))?;
    Ok(encode(params, &salt, &hash))
}

/// Compares a password with a stored hash; `None` when the hash cannot be read.
fn matches(password: &SecretString, stored: &str, buffer: &mut Vec<Block>) -> Option<bool> {
    if is_bcrypt(stored) {
        return bcrypt_matches(password, stored);
    }
    let parsed = PasswordHash::new(stored).ok()?;
    let algorithm = Algorithm::try_from(parsed.algorithm.as_str()).ok()?;
    let params = Params::try_from(&parsed).ok()?;
    if params.m_cost() > MAX_MEMORY_KIB || params.t_cost() > MAX_ITERATIONS {
        return None;
    }
    let (salt, hash) = (parsed.salt?, parsed.hash?);
    let salt: &[u8] = Salt::as_ref(&salt);
    let computed = argon2id(&params, algorithm, &nfc(password), salt, hash.as_bytes().len(), buffer)?;
    Some(openssl::memcmp::eq(&computed, hash.as_bytes()))
}

#[expect(clippy::disallowed_methods, reason = "this is the file that hashes passwords")]
fn argon2id(
    params: &Params,
    algorithm: Algorithm,
    password: &str,
    salt: &[u8],
    length: usize,
    buffer: &mut Vec<Block>,
) -> Option<Zeroizing<Vec<u8>>> {
    if buffer.len() < params.block_count() {
        buffer.resize(params.block_count(), Block::default());
    }
    let mut hash = Zeroizing::new(vec![0; length]);
    Argon2::new(algorithm, Version::V0x13, params.clone())
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut hash, &mut *buffer)
        .ok()?;
    Some(hash)
}

/// The bytes as typed, then their NFC: the seed hashed what it got.
#[expect(clippy::disallowed_methods, reason = "this is the file that hashes passwords")]
fn bcrypt_matches(password: &SecretString, stored: &str) -> Option<bool> {
    let cost: u32 = stored.get(4..6)?.parse().ok()?;
    if cost > MAX_BCRYPT_COST {
        return None;
    }
    if bcrypt::verify(password.expose_secret(), stored).ok()? {
        return Some(true);
    }
    let nfc = nfc(password);
    if nfc.as_str() == password.expose_secret() {
        return Some(false);
    }
    bcrypt::verify(nfc.as_bytes(), stored).ok()
}

/// bcrypt knows only the first 72 bytes: a longer password is hashed anew when it is changed, not before, since the rest
/// was never checked.
fn is_outdated(params: &Params, stored: &str, password: &SecretString) -> bool {
    if is_bcrypt(stored) {
        return password.expose_secret().len() <= BCRYPT_LENGTH;
    }
    let Some(old) = PasswordHash::new(stored).ok().and_then(|parsed| Params::try_from(&parsed).ok()) else {
        return true;
    };
    !stored.starts_with("$argon2id$")
        || old.m_cost() < params.m_cost()
        || old.t_cost() < params.t_cost()
        || old.p_cost() < params.p_cost()
}

fn is_bcrypt(stored: &str) -> bool {
    ["$2a$", "$2b$", "$2y$"].iter().any(|prefix| stored.starts_with(prefix))
}

/// Follows a rise at once and a fall slowly: the longest usual time, not the longest ever.
fn note(micros: &AtomicU64, took: Duration) {
    let took = u64::try_from(took.min(Duration::from_secs(1)).as_micros()).unwrap_or_default();
    let _ = micros.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| {
        Some(if took >= known { took } else { known - (known - took) / 16 })
    });
}

/// PHC string format.
fn encode(params: &Params, salt: &[u8], hash: &[u8]) -> String {
    let (m, t, p) = (params.m_cost(), params.t_cost(), params.p_cost());
    let (salt, hash) = (BASE64_STANDARD_NO_PAD.encode(salt), BASE64_STANDARD_NO_PAD.encode(hash));
    format!("$argon2id$v=19$m={m},t={t},p={p}${salt}${hash}")
}

/// RFC 8265 4.2: the same password typed on another keyboard is the same.
fn nfc(password: &SecretString) -> Zeroizing<String> {
    Zeroizing::new(password.expose_secret().nfc().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(max_concurrent: usize, queue: usize) -> Hasher {
        let config = config::Passwords {
            memory_kib: 64,
            iterations: 1,
            parallelism: 1,
            max_concurrent,
            queue,
            queue_timeout_seconds: 1,
        };
        Hasher::new(&config, &Arc::new(Metrics::new("sqlite"))).expect("hasher")
    }

    fn is_right(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Right { .. })
    }

    #[tokio::test]
    async fn known_hashes_are_verified() {
        let bcrypt = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW";
        let rows = [
            ("bcrypt 2b", bcrypt.to_owned(), "secret", true),
            ("bcrypt 2a", bcrypt.replace("$2b$", "$2a$"), "secret", true),
            ("bcrypt 2y", bcrypt.replace("$2b$", "$2y$"), "secret", true),
            ("bcrypt, wrong", bcrypt.to_owned(), "Secret", false),
            ("bcrypt of hostile cost", bcrypt.replace("$12$", "$31$"), "secret", false),
            ("damaged", "$argon2id$v=19$m=65536".to_owned(), "secret", false),
            ("plain text", "secret".to_owned(), "secret", false),
            ("empty", String::new(), "secret", false),
        ];
        for (name, stored, password, expected) in rows {
            let verdict = hasher(1, 1).verify(password.into(), stored).await.expect("verified");
            assert_eq!(is_right(&verdict), expected, "{name}");
        }
    }

    #[tokio::test]
    async fn a_new_hash_matches_its_password_in_any_normal_form() {
        let hasher = hasher(1, 1);

        let stored = hasher.hash("pa\u{308}sswort".into()).await.expect("hashed");

        assert!(is_right(&hasher.verify("p\u{e4}sswort".into(), stored.clone()).await.expect("verified")));
        assert!(!is_right(&hasher.verify("passwort".into(), stored).await.expect("verified")));
    }

    #[test]
    fn weaker_hashes_are_outdated_but_long_bcrypt_passwords_keep_theirs() {
        let params = Params::new(64, 2, 1, Some(HASH_LENGTH)).expect("params");
        let stored = |m: u32, t: u32| encode(&Params::new(m, t, 1, Some(32)).expect("params"), &[1; 16], &[2; 32]);
        let bcrypt = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW".to_owned();
        let rows = [
            ("same", stored(64, 2), "x".repeat(8), false),
            ("stronger", stored(128, 2), "x".repeat(8), false),
            ("less memory", stored(32, 2), "x".repeat(8), true),
            ("fewer passes", stored(64, 1), "x".repeat(8), true),
            ("bcrypt", bcrypt.clone(), "x".repeat(72), true),
            ("bcrypt, longer than it knows", bcrypt, "x".repeat(73), false),
        ];
        for (name, stored, password, expected) in rows {
            assert_eq!(is_outdated(&params, &stored, &password.into()), expected, "{name}");
        }
    }

    #[test]
    fn the_time_of_bcrypt_rises_at_once_and_falls_slowly() {
        let micros = AtomicU64::new(0);
        for (took, expected) in [(250_000, 250_000), (90_000, 240_000), (300_000, 300_000), (5_000_000, 1_000_000)] {
            note(&micros, Duration::from_micros(took));
            assert_eq!(micros.load(Ordering::Relaxed), expected, "after {took}");
        }
    }

    /// Unknown addresses, and users whose hash is new, are refused as late as users whose hash the old service left.
    #[tokio::test]
    async fn a_refusal_waits_for_bcrypt_once_one_was_met() {
        let hasher = hasher(1, 1);
        let new = hasher.hash("right-password".into()).await.expect("hashed");
        let old = "$2b$12$EixZaYVK1fsbw1ZfbX3OXePaWxn96p36WQoeG6Lruj3vjPGga31lW".to_owned();
        hasher.verify("wrong-password".into(), old).await.expect("verified");
        let usual = Duration::from_micros(hasher.bcrypt_micros.load(Ordering::Relaxed));
        assert!(usual > Duration::from_millis(10), "{usual:?}");

        for (name, stored) in [("new", new), ("nobody", hasher.nobody.clone()), ("damaged", "$argon2id$".to_owned())] {
            let started = Instant::now();
            let verdict = hasher.verify("wrong-password".into(), stored).await.expect("verified");

            assert!(!is_right(&verdict) && started.elapsed() >= usual, "{name}: {:?}", started.elapsed());
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_busy_at_once() {
        let hasher = hasher(1, 0);
        let _permit = hasher.permit().await.expect("the only permit");

        assert!(matches!(hasher.permit().await, Err(Error::Busy)));
        assert_eq!(hasher.waiting.load(Ordering::Relaxed), 0, "places are given back");
    }
}
