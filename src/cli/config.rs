//! `authservice config`.

use clap::Subcommand;

use super::say;
use crate::config::Config;

/// Check or show the configuration
#[derive(Debug, Subcommand)]
pub(super) enum Settings {
    /// Report every fault and exit with 78, or say that there is none
    Check,
    /// Print every setting with its source; secrets are masked
    Show,
}

impl Settings {
    pub(super) fn run(&self, config: &Config) {
        match self {
            Self::Check => say("the configuration is valid"),
            Self::Show => say(config.show().trim_end()),
        }
    }
}
