//! `authservice man`: the manual pages, from the same words as `--help`.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, CommandFactory as _};

use super::{Cli, Error};

/// Print the manual page, or write one page for each command
#[derive(Debug, Args)]
pub(super) struct Man {
    /// Write the pages of all commands into this directory, which must exist: authservice.1, authservice-keys.1, ...
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

impl Man {
    pub(super) fn run(&self) -> Result<(), Error> {
        if let Some(directory) = &self.directory {
            return clap_mangen::generate_to(Cli::command(), directory)
                .map_err(|error| Error::Input(format!("{}: {error}", directory.display())));
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command().disable_help_subcommand(true))
            .render(&mut page)
            .map_err(|error| Error::Internal(error.to_string()))?;
        // A closed pipe is nobody's fault.
        let _ = std::io::stdout().write_all(&page);
        Ok(())
    }
}
