//! A file that is appended to and that holds whole lines only, also after a
//! write that the file system took in part.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::{Gid, Uid, fchown, write};
use tracing::warn;

/// An open log file.
pub(super) struct LogFile {
    file: File,
    /// A regular file: its length can be set back to the end of a line.
    regular: bool,
    /// It did not exist before.
    created: bool,
}

impl LogFile {
    /// Opens `path` for appending, and creates it with mode 0644 less the umask.
    /// A last line that a crash has torn gets its line feed. `/dev/stdout` and
    /// `/dev/stderr` are the process's own, also where they are sockets, which
    /// cannot be opened.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let own = match path.to_str() {
            Some("/dev/stdout") => Some(io::stdout().as_fd().try_clone_to_owned()?),
            Some("/dev/stderr") => Some(io::stderr().as_fd().try_clone_to_owned()?),
            _ => None,
        };
        if let Some(own) = own {
            return Ok(Self { file: File::from(own), regular: false, created: false });
        }
        let created = !path.exists();
        let regular = created || path.metadata()?.is_file();
        let file = OpenOptions::new()
            .append(true)
            // For the last byte alone, and of no device or pipe.
            .read(regular)
            .create(true)
            .mode(0o644)
            .custom_flags(libc::O_NOCTTY)
            .open(path)?;
        let log = Self { file, regular, created };
        if regular && log.is_torn()? {
            warn!("{} ended within a line, which is ended now", path.display());
            write(&log.file, b"\n")?;
        }
        Ok(log)
    }

    fn is_torn(&self) -> io::Result<bool> {
        let mut file = &self.file;
        let mut last = [b'\n'];
        if file.metadata()?.size() > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        Ok(last != *b"\n")
    }

    /// Appends `lines`, and returns how many bytes of them are now in the file
    /// for good: all of them, or whole lines up to where writing failed.
    pub(super) fn append(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < lines.len() {
            match write(&self.file, &lines[written..]) {
                Ok(0) => return (self.whole(lines, written), Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return (self.whole(lines, written), Err(errno.into())),
            }
        }
        (written, Ok(()))
    }

    /// Sets the file back to the end of the last whole line, if a line was
    /// written in part; returns how much of `lines` then stands in it.
    fn whole(&mut self, lines: &[u8], written: usize) -> usize {
        let whole = lines[..written].iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
        let torn = (written - whole) as u64;
        if torn == 0 {
            return written;
        }
        if self.regular && self.take_back(torn).is_ok() {
            return whole;
        }
        // The rest of the line follows when writing works again.
        written
    }

    /// Shortens the file by what was just written, unless another process has
    /// appended since.
    fn take_back(&mut self, bytes: u64) -> io::Result<()> {
        let position = self.file.stream_position()?;
        if position != self.file.metadata()?.size() || bytes > position {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        self.file.set_len(position - bytes)
    }

    /// Waits until everything is on disk. Pipes and devices have no disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        if self.regular { self.file.sync_data() } else { Ok(()) }
    }

    pub(super) fn give_to(&self, uid: Uid, gid: Gid) {
        if !self.created {
            return;
        }
        if let Err(error) = fchown(&self.file, Some(uid), Some(gid)) {
            warn!("the owner of a log file could not be changed: {error}");
        }
    }
}
