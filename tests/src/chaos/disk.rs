//! Disks that fill up: a tmpfs each, which shrinks to what is in it, and grows again. A balloon of
//! bytes would do the same, but memory that a virtual machine has never touched may be slow.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;

/// Gives this process, and those that it starts, mounts of their own: whatever happens to it, none
/// of its disks is left behind. Namespaces that are made outside are still seen.
///
/// # Errors
/// The caller is not root.
pub fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    let flags = MsFlags::MS_SLAVE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("mounts of its own")
}

/// Puts a file in the place of another one, in the mounts of this process.
///
/// # Errors
/// One of them is not there.
pub(super) fn cover(place: &Path, file: &Path) -> Result<()> {
    mount(Some(file), place, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| place.display().to_string())
}

/// A disk. Dropped, it is gone.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    bytes: u64,
}

impl Disk {
    /// Mounts one of `mebibytes` in a new directory.
    ///
    /// # Errors
    /// The caller is not root.
    pub(super) fn new(root: PathBuf, mebibytes: u64) -> Result<Self> {
        fs::DirBuilder::new().mode(0o755).create(&root)?;
        let disk = Self { root, bytes: mebibytes << 20 };
        disk.mount(disk.bytes, MsFlags::empty())?;
        Ok(disk)
    }

    fn mount(&self, bytes: u64, flags: MsFlags) -> Result<()> {
        let option = format!("size={bytes}");
        mount(Some("flowlog-chaos"), &self.root, Some("tmpfs"), flags, Some(&*option))
            .with_context(|| format!("a tmpfs of {bytes} bytes at {}", self.root.display()))
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes all its room. Nobody writes meanwhile.
    ///
    /// # Errors
    /// Somebody does.
    pub(super) fn fill(&self) -> Result<()> {
        let now = statvfs(&self.root)?;
        let used = (now.blocks() - now.blocks_free()) * now.fragment_size();
        // 0 would be no limit.
        self.mount(used.max(now.fragment_size()), MsFlags::MS_REMOUNT)
    }

    /// Gives it back.
    ///
    /// # Errors
    /// The caller is not root.
    pub(super) fn free(&self) -> Result<()> {
        self.mount(self.bytes, MsFlags::MS_REMOUNT)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}
