//! A file that is appended to and that holds whole lines only, also after a
//! write that the file system took in part.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use nix::unistd::{Gid, Uid, fchown, write};
use tracing::warn;

use super::pipe::Pipe;

/// What stands at the path of an output.
pub(super) enum Opened {
    /// A file, or a device that nobody has to read.
    File(LogFile),
    /// A pipe, a terminal or a socket: somebody has to read there.
    Pipe(Pipe),
    /// A FIFO that nobody has opened for reading.
    Awaited,
}

/// Opens `path` for appending, and creates it with mode 0644 less the umask. Never waits: what
/// it is, is asked of the descriptor. `/dev/stdout` and `/dev/stderr` are the process's own, also
/// where they are sockets, which cannot be opened.
pub(super) fn open(path: &Path) -> io::Result<Opened> {
    open_or(path, |options| Ok(Some(options.create(true).open(path)?)))
}

/// The same, and creates nothing: a FIFO that is made again is awaited.
pub(super) fn open_what_is_there(path: &Path) -> io::Result<Opened> {
    open_or(path, |_| Ok(None))
}

fn open_or(
    path: &Path,
    create: impl FnOnce(&mut OpenOptions) -> io::Result<Option<File>>,
) -> io::Result<Opened> {
    let own = match path.to_str() {
        Some("/dev/stdout") => Some(io::stdout().as_fd().try_clone_to_owned()?),
        Some("/dev/stderr") => Some(io::stderr().as_fd().try_clone_to_owned()?),
        _ => None,
    };
    if let Some(own) = own {
        let file = File::from(own);
        return Ok(if is_read_by_somebody(&file)? {
            Opened::Pipe(Pipe::inherited(file)?)
        } else {
            Opened::File(LogFile::inherited(file)?)
        });
    }
    let mut options = OpenOptions::new();
    options.append(true).mode(0o644).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    let (file, created) = match options.open(path) {
        Ok(file) => (file, false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match create(&mut options)? {
            Some(file) => (file, true),
            None => return Ok(Opened::Awaited),
        },
        Err(error) if is_unread(&error, path) => return Ok(Opened::Awaited),
        Err(error) => return Err(error),
    };
    if is_read_by_somebody(&file)? {
        return Ok(Opened::Pipe(Pipe::nonblocking(file)?));
    }
    let regular = file.metadata()?.is_file();
    let mut log = LogFile { file, regular, on_disk: regular, created, torn: false };
    if regular && log.is_torn(path) {
        warn!("{} ended within a line, which is ended now", path.display());
        log.torn = true;
        // Where the disk is full the next line does it.
        let _ = log.end_line();
    }
    Ok(Opened::File(log))
}

/// The error is that of a FIFO without a reader.
fn is_unread(error: &io::Error, path: &Path) -> bool {
    error.raw_os_error() == Some(libc::ENXIO)
        && path.metadata().is_ok_and(|file| file.file_type().is_fifo())
}

/// What is written there waits until it is read.
fn is_read_by_somebody(file: &File) -> io::Result<bool> {
    let kind = file.metadata()?.file_type();
    Ok(kind.is_fifo() || kind.is_socket() || (kind.is_char_device() && file.is_terminal()))
}

/// Device and inode of a file, and how many names it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// An open log file.
pub(super) struct LogFile {
    file: File,
    /// A regular file that was opened by its name: its length can be set back to the end of a
    /// line, and it may be removed.
    regular: bool,
    /// A regular file, also where it was inherited.
    on_disk: bool,
    /// It did not exist before.
    created: bool,
    /// Its last line has no line feed.
    torn: bool,
}

impl LogFile {
    /// One that this process did not open by its name.
    pub(super) fn inherited(file: File) -> io::Result<Self> {
        let on_disk = file.metadata()?.is_file();
        Ok(Self { file, regular: false, on_disk, created: false, torn: false })
    }

    /// It has a disk to wait for.
    #[cfg(test)]
    pub(super) fn syncs(&self) -> bool {
        self.on_disk
    }

    /// It is on a disk, under a name.
    pub(super) fn is_regular(&self) -> bool {
        self.regular
    }

    /// It did not exist before.
    pub(super) fn is_new(&self) -> bool {
        self.created
    }

    /// Which file it is, and whether it still has a name.
    pub(super) fn identity(&self) -> io::Result<(Identity, bool)> {
        let metadata = self.file.metadata()?;
        Ok((Identity::of(&metadata), metadata.nlink() > 0))
    }

    /// It was removed: nobody can open it any more. Devices and inherited files are not asked.
    pub(super) fn is_removed(&self) -> bool {
        self.regular && self.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0)
    }

    /// Whether the last line has no line feed; what cannot be read is taken for whole.
    fn is_torn(&self, path: &Path) -> bool {
        let last = || {
            let mut file = File::open(path)?;
            let mut last = [b'\n'];
            if file.metadata()?.size() > 0 {
                file.seek(SeekFrom::End(-1))?;
                file.read_exact(&mut last)?;
            }
            io::Result::Ok(last)
        };
        last().is_ok_and(|last| last != *b"\n")
    }

    /// Appends `lines`, and returns how many bytes of them are now in the file
    /// for good: all of them, or whole lines up to where writing failed.
    pub(super) fn append(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        if let Err(error) = self.end_line() {
            return (0, Err(error));
        }
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

    /// Ends a line that somebody else has left torn.
    fn end_line(&mut self) -> io::Result<()> {
        if self.torn {
            write(&self.file, b"\n")?;
            self.torn = false;
        }
        Ok(())
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
        if self.on_disk { self.file.sync_data() } else { Ok(()) }
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
