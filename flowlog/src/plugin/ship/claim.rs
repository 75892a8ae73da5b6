//! The claim of one flowlog to the spool's directory: a lock that keeps others out, also those of
//! other namespaces and users.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::failure::Failure;

/// The name of the lock in the directory.
pub(super) const LOCK: &str = "spool.lock";

/// The claim, until it is dropped.
pub(super) struct Claim {
    lock: Flock<File>,
    /// The directory was not there before.
    pub(super) made_directory: bool,
}

impl Claim {
    /// Makes the directory where it is missing, and claims it.
    pub(super) fn take(directory: &Path) -> Result<Self, Failure> {
        let cannot = |error| Failure::Directory(directory.to_owned(), error);
        let made_directory = match DirBuilder::new().mode(0o750).create(directory) {
            Ok(()) => true,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
            Err(error) => return Err(cannot(error)),
        };
        let path = directory.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let lock = Flock::lock(file.map_err(cannot)?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Failure::InUse(directory.to_owned()),
            errno => cannot(errno.into()),
        })?;
        Ok(Self { lock, made_directory })
    }

    /// Claims the directory anew if the lock went with the one that was there.
    pub(super) fn renew(&mut self, directory: &Path) -> Result<(), Failure> {
        let of = |file: fs::Metadata| (file.dev(), file.ino());
        let named = fs::metadata(directory.join(LOCK)).map(of).ok();
        if named.is_none() || named != self.lock.metadata().map(of).ok() {
            *self = Self::take(directory)?;
        }
        Ok(())
    }
}
