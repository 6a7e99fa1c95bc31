//! Secrets in files are read again, so that whoever exchanges them restarts nothing. What does not work is not taken.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use crate::app::App;
use crate::config::Config;
use crate::keys::EncryptionKeys;
use crate::telemetry::traces;

/// How often the files are read. Reading tells more than the times of files do: an orchestrator swaps whole directories.
pub(super) const POLL: Duration = Duration::from_secs(5);

/// The secrets in use, and what was said of others.
#[derive(Debug)]
pub struct Secrets {
    database_url: SecretString,
    exchange: Option<traces::Exchange>,
    /// Why something is not taken, which is said once.
    refused: BTreeMap<&'static str, String>,
}

/// What was read anew.
struct Read {
    config: Config,
    encryption_keys: Result<EncryptionKeys, String>,
}

impl Secrets {
    /// Those that the server has started with.
    #[must_use]
    pub fn of(config: &Config, exchange: Option<traces::Exchange>) -> Self {
        Self { database_url: config.database.url.clone(), exchange, refused: BTreeMap::new() }
    }

    /// Reads the files and takes what is new and works.
    pub async fn reread(&mut self, app: &App) {
        let config = app.config.clone();
        // Files may lie on a network.
        let read = tokio::task::spawn_blocking(move || read(&config)).await;
        match read.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(read) => {
                self.refused.remove("files");
                self.take_database(app, &read.config).await;
                self.take_encryption_keys(app, read.encryption_keys).await;
                self.take_headers(&read.config);
            }
            // A file that is just being written, perhaps.
            Err(error) => {
                self.refused.retain(|what, _| *what == "files");
                if self.is_news("files", &error) {
                    tracing::warn!(error, "the secrets in files are not read anew: those before are used");
                }
            }
        }
        app.metrics.secrets_refused.set((!self.refused.is_empty()).into());
    }

    async fn take_database(&mut self, app: &App, config: &Config) {
        let url = &config.database.url;
        if url.expose_secret() == self.database_url.expose_secret() {
            self.refused.remove("database");
            return;
        }
        match app.db.renew(&config.database).await {
            Ok(true) => {
                self.database_url = url.clone();
                self.refused.remove("database");
                tracing::info!("the database's credentials were read anew");
            }
            Ok(false) => {
                if self.is_news("database", "elsewhere") {
                    tracing::warn!("database.url names another server or database: that takes a restart");
                }
            }
            Err(error) => {
                let error = error.to_string();
                if self.is_news("database", &error) {
                    tracing::warn!(error, "the database's new credentials do not work: those before are used");
                }
            }
        }
    }

    async fn take_encryption_keys(&mut self, app: &App, read: Result<EncryptionKeys, String>) {
        let taken = match read {
            Ok(keys) => app.keyring.exchange(keys, app.clock.now()).await.map_err(|error| error.to_string()),
            Err(error) => Err(error),
        };
        match taken {
            Ok(is_new) => {
                self.refused.remove("encryption keys");
                if is_new {
                    tracing::info!("the key-encryption keys were read anew");
                }
            }
            Err(error) => {
                if self.is_news("encryption keys", &error) {
                    tracing::error!(error, "the key-encryption keys are not taken: those before are used");
                }
            }
        }
    }

    fn take_headers(&self, config: &Config) {
        if self.exchange.as_ref().is_some_and(|exchange| exchange.exchange(&config.traces)) {
            tracing::info!("the headers of traces were read anew");
        }
    }

    /// True when this was not said before.
    fn is_news(&mut self, what: &'static str, why: &str) -> bool {
        self.refused.insert(what, why.to_owned()).as_deref() != Some(why)
    }
}

fn read(config: &Config) -> Result<Read, String> {
    let config = config.reread().map_err(|faults| faults.to_string())?;
    let encryption_keys = EncryptionKeys::read(&config.keys).map_err(|error| error.to_string());
    Ok(Read { config, encryption_keys })
}
