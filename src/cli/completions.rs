//! `authservice completions`: what a shell needs to complete commands and options.

use std::io::Write as _;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    authservice completions bash >/etc/bash_completion.d/authservice\n  \
    authservice completions zsh >/usr/local/share/zsh/site-functions/_authservice\n  \
    authservice completions fish >~/.config/fish/completions/authservice.fish")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self) {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "authservice", &mut script);
        // A closed pipe is nobody's fault.
        let _ = std::io::stdout().write_all(&script);
    }
}
