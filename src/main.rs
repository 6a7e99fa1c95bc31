//! The binary `authservice`: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    authservice::cli::run()
}
