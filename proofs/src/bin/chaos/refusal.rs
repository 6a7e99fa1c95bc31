//! A start that is expected to fail: how soon, with which code, in which words.

use std::time::{Duration, Instant};

use proofs::Result;
use proofs::server::{Server, Settings};

/// A fault that an operator must mend is told within this time.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// sysexits(3): an operator must change the configuration, the keys or the database.
pub(crate) const CONFIGURATION: i32 = 78;

/// How a start ended.
#[derive(Debug)]
pub(crate) struct Start {
    /// `None` when the server runs.
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) time: Duration,
}

impl Start {
    /// Starts a server, and stops it again if it runs.
    pub(crate) async fn of(settings: &Settings) -> Result<Self> {
        let started = Instant::now();
        let mut server = Server::spawn(settings)?;
        loop {
            if let Some(status) = server.ended_within(Duration::ZERO).await? {
                let time = started.elapsed();
                return Ok(Self { code: Some(status.code().unwrap_or(-1)), text: server.errors(), time });
            }
            let is_running = server.logs()?.contains("\"listening\"");
            if is_running || started.elapsed() > Duration::from_secs(20) {
                return Ok(Self { code: None, text: String::new(), time: started.elapsed() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Refused in time, with the right code, and naming this.
    pub(crate) fn is_refusal_of(&self, name: &str) -> bool {
        self.code == Some(CONFIGURATION) && self.time <= SOON && self.text.contains(name)
    }
}
