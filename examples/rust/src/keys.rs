//! The keys of AuthService, as its JWK Set says.

use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{Jwk, JwkSet};
use tokio::sync::Mutex;

/// How long a reading counts: the server's max-age.
const MAX_AGE: Duration = Duration::from_mins(5);

/// The keys, read again when they are old and when a kid is unknown.
pub struct Keys {
    url: String,
    client: reqwest::Client,
    /// Anybody can make up kids: two readings for unknown ones are so far apart at least.
    cooldown: Duration,
    /// Locked while the keys are read, so that many requests read them once.
    known: Mutex<Option<(JwkSet, Instant)>>,
}

impl Keys {
    pub fn new(url: String, cooldown: Duration) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { url, client, cooldown, known: Mutex::new(None) })
    }

    /// The key with this kid; `None` when there is none.
    pub async fn find(&self, kid: &str) -> reqwest::Result<Option<Jwk>> {
        let mut known = self.known.lock().await;
        if let Some((keys, read_at)) = known.as_ref() {
            let (key, age) = (keys.find(kid), read_at.elapsed());
            if age < MAX_AGE && (key.is_some() || age < self.cooldown) {
                return Ok(key.cloned());
            }
        }
        let (keys, _) = known.insert((self.read().await?, Instant::now()));
        Ok(keys.find(kid).cloned())
    }

    async fn read(&self) -> reqwest::Result<JwkSet> {
        self.client.get(&self.url).send().await?.error_for_status()?.json().await
    }
}
