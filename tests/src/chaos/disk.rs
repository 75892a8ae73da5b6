//! Small disks that fill up: a tmpfs each, with a balloon in it that takes all the room there is.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::{FallocateFlags, fallocate};
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
}

impl Disk {
    /// Mounts one of so many MiB in a new directory.
    ///
    /// # Errors
    /// The caller is not root.
    pub(super) fn new(root: PathBuf, mebibytes: u32) -> Result<Self> {
        fs::DirBuilder::new().mode(0o755).create(&root)?;
        let option = format!("size={mebibytes}m");
        mount(Some("flowlog-chaos"), &root, Some("tmpfs"), MsFlags::empty(), Some(&*option))
            .context("mounting a tmpfs")?;
        Ok(Self { root })
    }

    /// Where it is.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes all its room.
    ///
    /// # Errors
    /// The balloon cannot be made.
    pub(super) fn fill(&self) -> Result<()> {
        let mut balloon = File::create(self.root.join("balloon"))?;
        let mut length = 0;
        // Others write meanwhile: what is left in the end is less than a page.
        for _ in 0..8 {
            let free = statvfs(&self.root)?;
            let free = free.blocks_available() * free.fragment_size();
            let more = i64::try_from(free)?;
            if more > 0 && fallocate(&balloon, FallocateFlags::empty(), length, more).is_ok() {
                length += more;
            }
        }
        // It may not even have this room.
        let _ = balloon.write_all(&[0; 4096]);
        Ok(())
    }

    /// Gives it back.
    ///
    /// # Errors
    /// There was no balloon.
    pub(super) fn free(&self) -> Result<()> {
        fs::remove_file(self.root.join("balloon")).context("removing the balloon")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount2(&self.root, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.root);
    }
}
