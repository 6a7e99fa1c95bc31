//! A small disk of our own, which can be filled. It needs root.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proofs::{Result, process};

/// A mounted disk; gone when dropped.
pub(crate) struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever still has a file open does not keep it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

impl Disk {
    /// Mounts a disk of so many MiB; `None` when we may not.
    pub(crate) fn mount(path: &Path, size: u32) -> Result<Option<Self>> {
        std::fs::create_dir_all(path)?;
        let options = format!("size={size}m,mode=755");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", &options, "chaos"]).arg(path).stderr(std::process::Stdio::null());
        let is_mounted = process::is_root() && command.status().is_ok_and(|status| status.success());
        Ok(is_mounted.then(|| Self(path.to_owned())))
    }

    /// Writes until nothing fits any more.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast())?;
        for size in [1 << 20, 4096] {
            let block = vec![1; size];
            while ballast.write_all(&block).is_ok() {}
        }
        Ok(())
    }

    /// Makes room again.
    pub(crate) fn free(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}
