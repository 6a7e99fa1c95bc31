//! How far a command is that takes long: on a terminal only, which indicatif finds out, and on standard error.

use indicatif::{ProgressBar, ProgressStyle};

/// What is done, of how much.
pub(super) fn bar() -> ProgressBar {
    with(ProgressBar::new(0), "{msg:30} {bar:40} {pos}/{len} {eta}")
}

/// What is being done, when nobody knows of how much.
pub(super) fn spinner() -> ProgressBar {
    let bar = with(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}");
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar
}

fn with(bar: ProgressBar, template: &str) -> ProgressBar {
    bar.with_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()))
}
