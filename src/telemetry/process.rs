//! Metrics of the process, under the names that every Prometheus client library gives them: read from `/proc`. Where there is none
//! they are absent.

use std::fmt::Write as _;
use std::fs;

use chrono::{DateTime, Utc};

use super::metrics::timestamp;

/// The clock ticks that `/proc` counts in: `USER_HZ`, 100 on every architecture that Rust has Linux on.
const TICKS: f64 = 100.0;

/// Appends what `/proc` says now, in Prometheus' text format.
pub(super) fn render(started: DateTime<Utc>, text: &mut String) {
    let rows = [
        ("cpu_seconds_total", "counter", "User and system time of the process.", cpu_seconds()),
        (
            "resident_memory_bytes",
            "gauge",
            "Memory that the process has in use.",
            of_status("VmRSS:").map(|kib| kib * 1024.0),
        ),
        ("open_fds", "gauge", "Open file descriptors.", open_fds()),
        ("max_fds", "gauge", "Most open file descriptors.", max_fds()),
        ("start_time_seconds", "gauge", "When the process started, since the epoch.", Some(timestamp(started))),
        ("threads", "gauge", "Threads of the process.", of_status("Threads:")),
    ];
    for (name, kind, help, value) in rows {
        if let Some(value) = value {
            let _ =
                write!(text, "# HELP process_{name} {help}\n# TYPE process_{name} {kind}\nprocess_{name} {value}\n");
        }
    }
}

/// `proc_pid_stat(5)`: fields 14 and 15, counted behind the name, which may hold anything.
fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS)
}

fn of_status(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Without the one that the folder itself is read by.
fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

/// No limit is no number, and absent.
fn max_fds() -> Option<f64> {
    u32::try_from(max_open_files()?).ok().map(f64::from)
}

/// How many files the process may have open; the greatest number when there is no limit.
pub(crate) fn max_open_files() -> Option<u64> {
    soft_limit_of_files(&fs::read_to_string("/proc/self/limits").ok()?)
}

fn soft_limit_of_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let text = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax open files            {soft}  4096  files\n")
        };
        assert_eq!(soft_limit_of_files(&text("1024")), Some(1024));
        assert_eq!(soft_limit_of_files(&text("unlimited")), Some(u64::MAX));
        assert_eq!(soft_limit_of_files(&text("x")), None);
        assert_eq!(soft_limit_of_files(""), None);
    }
}
