//! How many password hashes fit into the memory that the process may use: a container that grows past its limit is killed, and
//! whoever signs in would decide when.

use std::path::{Path, PathBuf};

use crate::config;

/// The part of the limit that hashes may take when nobody said how many.
const SHARE: u64 = 2;

/// What hashing takes on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// How many hashes may be computed at once.
    pub places: usize,
    /// Bytes that all of them take together.
    pub bytes: u64,
    /// Bytes that the process may use; `None` when no control group limits it.
    pub limit: Option<u64>,
}

/// What hashing takes with these settings. Errors when it does not fit into the memory of the control group.
pub fn need(config: &config::Passwords) -> Result<Need, String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (bytes, limit) = (u64::from(config.memory_kib) << 10, limit());
    let places = places(config.max_concurrent, cores, bytes, limit)?;
    Ok(Need { places, bytes: bytes.saturating_mul(places as u64), limit })
}

/// How many hashes of so many bytes may be computed at once: as many as were asked for, or (0) one per core as far as half of the memory
/// allows. Errors when what was asked for, or a single hash, does not fit.
fn places(asked: usize, cores: usize, bytes: u64, limit: Option<u64>) -> Result<usize, String> {
    let Some(limit) = limit else {
        return Ok(if asked == 0 { cores } else { asked });
    };
    let least = asked.max(1);
    if bytes.saturating_mul(least as u64) > limit {
        return Err(format!(
            "passwords.max_concurrent and passwords.memory_kib: {least} hash(es) of {} MiB do not fit into the memory limit of {} MiB",
            bytes >> 20,
            limit >> 20
        ));
    }
    if asked > 0 {
        return Ok(asked);
    }
    let fitting = usize::try_from(limit / SHARE / bytes.max(1)).unwrap_or(usize::MAX);
    Ok(cores.min(fitting.max(1)))
}

/// The limit of the control group that the process is in (cgroup version 2 or 1), in bytes; `None` without one.
fn limit() -> Option<u64> {
    limit_under(Path::new("/sys/fs/cgroup"), &std::fs::read_to_string("/proc/self/cgroup").ok()?)
}

/// `groups` is what `/proc/self/cgroup` says. The limits of the groups around count too.
fn limit_under(root: &Path, groups: &str) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.trim_start_matches('/');
        match controllers {
            "" => Some((root.to_owned(), path, "memory.max")),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some((root.join("memory"), path, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    let limits = files.flat_map(|(root, path, name)| {
        let inner: PathBuf = root.join(path);
        let around = inner.ancestors().take_while(|folder| folder.starts_with(&root)).map(|folder| folder.join(name));
        // In a container the path may be that of the host, and the group is mounted at the root.
        around.collect::<Vec<_>>()
    });
    limits.filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn hashes_that_do_not_fit_into_memory_are_refused_and_not_chosen() {
        let rows = [
            ("no limit", 0, 64, None, Ok(64)),
            ("no limit, asked", 4, 64, None, Ok(4)),
            ("one per core fits", 0, 2, Some(512 * MIB), Ok(2)),
            ("half of the memory", 0, 64, Some(512 * MIB), Ok(13)),
            ("at least one", 0, 64, Some(30 * MIB), Ok(1)),
            ("asked for and fits", 20, 2, Some(512 * MIB), Ok(20)),
            ("asked for too many", 30, 2, Some(512 * MIB), Err(())),
            ("not even one", 0, 2, Some(10 * MIB), Err(())),
        ];
        for (name, asked, cores, limit, expected) in rows {
            assert_eq!(places(asked, cores, 19 * MIB, limit).map_err(|_| ()), expected, "{name}");
        }
    }

    #[test]
    fn the_limit_is_the_least_of_the_groups_around() {
        let root = tempfile::TempDir::new().expect("a folder");
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
            std::fs::write(path, text).expect("a file");
        };
        write("pods/memory.max", "1000\n");
        write("pods/one/memory.max", "max\n");
        write("pods/two/memory.max", "500\n");
        write("memory/docker/memory.limit_in_bytes", "700\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let rows = [
            ("version 2", "0::/pods/one\n", Some(1000)),
            ("version 2, the inner one", "0::/pods/two\n", Some(500)),
            ("version 1", "4:memory:/docker\n3:cpuset:/docker\n", Some(700)),
            ("version 1, the host's path", "4:cpu,memory:/elsewhere\n", Some(9_223_372_036_854_771_712)),
            ("none", "0::/\n", None),
            ("nonsense", "x\n", None),
        ];
        for (name, groups, expected) in rows {
            assert_eq!(limit_under(root.path(), groups), expected, "{name}");
        }
    }
}
