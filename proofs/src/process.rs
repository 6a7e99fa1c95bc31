//! Processes of the machine: signals, what they use, who their children are, free ports.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::Result;

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub rss: u64,
    /// The most that it ever was.
    pub peak_rss: u64,
    /// Open file descriptors.
    pub descriptors: usize,
    /// Threads.
    pub threads: usize,
    /// Processor time, user and system, in seconds.
    pub cpu_seconds: f64,
}

impl Usage {
    /// Reads it from `/proc`.
    pub fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name stands in brackets and may hold anything; utime and stime are the 12th and 13th field after it.
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        let ticks: f64 = after.split(' ').skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
        Ok(Self {
            rss: field("VmRSS:") * 1024,
            peak_rss: field("VmHWM:") * 1024,
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: usize::try_from(field("Threads:"))?,
            // Linux counts for user space in hundredths of a second on every machine that we know.
            cpu_seconds: ticks / 100.0,
        })
    }
}

/// Sends a signal by its short name (`KILL`, `TERM`, `STOP`, `CONT`). A process that is gone is an error.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    // The shell's own `kill`: it is there on every machine, and needs no unsafe code.
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {pid} 2>/dev/null")]).status()?;
    if status.success() { Ok(()) } else { Err(format!("no process {pid} to send SIG{name} to").into()) }
}

/// The children of a process, by what `/proc` says now.
#[must_use]
pub fn children(parent: u32) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// True when we run as root.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

/// A port of 127.0.0.1 that nobody listens on. It lies below the range of outgoing connections, so that a server that is started
/// again finds it free.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Runs that were started one after the other begin far apart.
    let start = u16::try_from(std::process::id().wrapping_mul(131) % 12_000)?;
    for _ in 0..1_000 {
        let port = 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".into())
}
