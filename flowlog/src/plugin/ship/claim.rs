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
pub(super) struct Claim(Flock<File>);

/// Makes the directory where it is missing; returns whether it was.
pub(super) fn make(directory: &Path) -> Result<bool, Failure> {
    match DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure::Directory(directory.to_owned(), error)),
    }
}

impl Claim {
    /// Claims a directory.
    pub(super) fn take(directory: &Path) -> Result<Self, Failure> {
        let cannot = |error| Failure::Directory(directory.to_owned(), error);
        let path = directory.join(LOCK);
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let lock = Flock::lock(file.map_err(cannot)?, FlockArg::LockExclusiveNonblock);
        let lock = lock.map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => Failure::InUse(directory.to_owned()),
            errno => cannot(errno.into()),
        })?;
        Ok(Self(lock))
    }

    /// Claims the directory anew if the lock went with the one that was there, which is made again.
    pub(super) fn renew(&mut self, directory: &Path) -> Result<(), Failure> {
        let of = |file: fs::Metadata| (file.dev(), file.ino());
        let named = fs::metadata(directory.join(LOCK)).map(of).ok();
        if named.is_none() || named != self.0.metadata().map(of).ok() {
            make(directory)?;
            *self = Self::take(directory)?;
        }
        Ok(())
    }
}
