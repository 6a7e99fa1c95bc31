//! Checks of this machine and of what the settings ask of it. No database is needed.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{Checked, Verdict, fail, ok, skip, warn};
use crate::accounts;
use crate::config::{Config, Passwords, Server};
use crate::telemetry::process;

const MIB: u64 = 1 << 20;
/// Descriptors beside those of clients: the log, the listener, the runtime, the database's files.
const OWN_DESCRIPTORS: u64 = 64;

/// What others can read is no secret.
pub(super) fn secret_files(config: &Config) -> Verdict {
    let database = config.database.sqlite_file();
    let files: Vec<&PathBuf> = config.secret_files().iter().chain(&database).filter(|file| file.exists()).collect();
    let others: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let mode = fs::metadata(file).ok()?.permissions().mode() & 0o777;
            (mode & 0o007 != 0).then(|| format!("{} (mode {mode:04o})", file.display()))
        })
        .collect();
    if others.is_empty() {
        return ok(format!("{} file(s) with secrets, none is open to every user", files.len()));
    }
    warn(format!("open to every user of this machine: {}", others.join(", ")), "chmod o= the file(s)")
}

/// Behind a proxy that is not trusted all clients have one address, and share its limits.
pub(super) fn proxies(server: &Server) -> Verdict {
    let is_loopback = server.host == "localhost" || server.host.parse().is_ok_and(|host: IpAddr| host.is_loopback());
    if server.trusted_proxies.is_empty() {
        if !server.is_https() && is_loopback {
            return ok("no proxy is trusted, and none is needed on a loopback address");
        }
        let reason = if server.is_https() {
            "the issuer is https, so that a proxy stands before this server, and none is trusted"
        } else {
            "the server listens for other machines, and no proxy is trusted"
        };
        return warn(
            format!("{reason}: behind one, all clients would share the limits of its address"),
            "name the proxy in server.trusted_proxies; when there is none, this is as it should be",
        );
    }
    let wide: Vec<String> = server
        .trusted_proxies
        .iter()
        .filter(|net| net.prefix_len() < if net.addr().is_ipv4() { 8 } else { 16 })
        .map(ToString::to_string)
        .collect();
    if wide.is_empty() {
        return ok(format!("{} address(es) or network(s) of proxies are trusted", server.trusted_proxies.len()));
    }
    warn(
        format!("very many addresses may say who the client is: {}", wide.join(", ")),
        "name only the proxies in server.trusted_proxies",
    )
}

/// A container that grows past its limit is killed.
pub(super) fn memory(config: &Passwords) -> Checked {
    let need = accounts::memory_for_hashes(config)
        .map_err(|fault| fail(fault, "raise the container's memory limit, or lower passwords.max_concurrent"))?;
    let hashes = format!("{} hash(es) at once take {} MiB", need.places, need.bytes / MIB);
    // Version 1 of control groups writes "no limit" as a number that no machine has.
    match need.limit.filter(|limit| *limit < MIB << 30) {
        None => Ok(ok(format!("{hashes}; no control group limits the memory"))),
        Some(limit) if need.bytes > limit / 4 * 3 => Ok(warn(
            format!("{hashes} of the {} MiB that the process may use", limit / MIB),
            "leave a quarter for everything else: raise the limit, or lower passwords.max_concurrent",
        )),
        Some(limit) => Ok(ok(format!("{hashes} of the {} MiB that the process may use", limit / MIB))),
    }
}

/// A server without descriptors accepts nobody.
pub(super) fn descriptors(config: &Config) -> Verdict {
    let Some(soft) = process::max_open_files() else {
        return skip("this system does not tell the limit");
    };
    let need = config.limits.connections as u64 + u64::from(config.database.max_connections) + OWN_DESCRIPTORS;
    if soft >= need {
        return ok(format!("{soft} may be open, {need} may be needed"));
    }
    warn(
        format!("{soft} may be open here, and limits.connections asks for {need}"),
        format!(
            "let the server have more (systemd: LimitNOFILE={need}; shell: ulimit -n), or lower limits.connections"
        ),
    )
}

/// A full disk ends every write.
pub(super) fn disk(config: &Config) -> Checked {
    let Some(file) = config.database.sqlite_file() else {
        return Ok(skip("on SQLite only; PostgreSQL's disk is its own"));
    };
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let at = |error: rustix::io::Errno| {
        fail(format!("{}: {error}", folder.display()), "make the folder, and give it to the user of the server")
    };
    let space = rustix::fs::statvfs(folder).map_err(at)?;
    let (free, all) = (space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize));
    let message = format!("{} MiB of {} MiB are free in {}", free / MIB, all / MIB, folder.display());
    if free < 100 * MIB {
        return Ok(fail(message, "make room: a server that cannot write answers 503"));
    }
    if free < 1024 * MIB || free < all / 20 {
        return Ok(warn(message, "make room before it runs out"));
    }
    Ok(ok(message))
}
