//! The log file, or FIFO, at a path: opened anew when it was removed or replaced,
//! and awaited while a FIFO has no reader.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::queue::Message;
use super::target::{Outcome, append, dated};

/// How often it is looked whether a file is still the one at its path.
const LOOK: Duration = Duration::from_secs(1);

/// A file or FIFO at a path.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    /// Absent while a FIFO has no reader.
    file: Option<File>,
    /// When it was last compared with what stands at the path.
    looked: Instant,
    /// It is no longer at the path, and the path cannot be opened, which was said.
    displaced: bool,
    /// It was deleted, and has not been opened anew since.
    removed: bool,
    /// It is a FIFO. One that was deleted is awaited: a file in its place would have no reader.
    fifo: bool,
    remark: Option<String>,
}

impl LogFile {
    /// Opens `path`. A FIFO without a reader is awaited.
    ///
    /// # Errors
    /// It cannot be opened, or is a socket.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, true)?;
        Ok(Self {
            path: path.to_owned(),
            fifo: file.as_ref().is_none_or(is_fifo),
            file,
            looked: Instant::now(),
            displaced: false,
            removed: false,
            remark: None,
        })
    }

    /// It is a FIFO without a reader.
    pub(super) fn awaits_reader(&self) -> bool {
        self.file.is_none()
    }

    /// What is to be said of it, once.
    pub(super) fn remark(&mut self) -> Option<String> {
        self.remark.take()
    }

    /// What stands at the path now.
    fn open_anew(&mut self) -> io::Result<Option<File>> {
        let file = open(&self.path, !self.fifo)?;
        self.fifo = file.as_ref().is_none_or(is_fifo);
        Ok(file)
    }

    /// Opens it anew; the old one stays in use if that fails.
    pub(super) fn reopen(&mut self) {
        self.looked = Instant::now();
        match self.open_anew() {
            Ok(file) => {
                self.file = file;
                self.displaced = false;
                self.removed = false;
            }
            Err(error) => {
                let path = self.path.display();
                self.remark = Some(format!(
                    "cannot reopen logfile '{path}': {error}; the old one stays in use. Correct it, \
                     and send SIGHUP again"
                ));
                self.displaced = true;
            }
        }
    }

    /// Writes a message whose first `done` bytes are written already.
    pub(super) fn write(&mut self, message: &Message, done: &mut usize) -> Outcome {
        if self.looked.elapsed() > LOOK && self.look() {
            // The line as a whole.
            *done = 0;
        }
        if self.file.is_none() {
            // A FIFO may have a reader now, a path its directory again.
            self.file = self.open_anew().unwrap_or_default();
            if self.file.is_some() && std::mem::take(&mut self.removed) {
                self.note_anew("removed");
            }
        }
        let Some(file) = &self.file else { return Outcome::Away };
        let mut outcome = append(file.as_fd(), &dated(message), done);
        if outcome == Outcome::Done && file.metadata().is_ok_and(|file| is_removed(&file)) {
            // Nobody can read it there.
            *done = 0;
            self.look();
            let Some(file) = &self.file else { return Outcome::Away };
            outcome = append(file.as_fd(), &dated(message), done);
        }
        let Some(file) = &self.file else { return Outcome::Away };
        if outcome == Outcome::Away && is_fifo(file) {
            // The next reader gets the line as a whole.
            self.file = None;
            *done = 0;
        }
        outcome
    }

    /// Opens the file anew if it was removed or replaced. One that was deleted
    /// would take messages that nobody can ever read.
    /// Returns whether it is another one now.
    pub(super) fn look(&mut self) -> bool {
        self.looked = Instant::now();
        let Some(old) = self.file.as_ref().and_then(|file| file.metadata().ok()) else {
            return false;
        };
        let found = self.path.metadata();
        if found.as_ref().is_ok_and(|new| is_same(&old, new)) {
            return false;
        }
        match self.open_anew() {
            Ok(file) => {
                self.removed = file.is_none();
                self.file = file;
                self.displaced = false;
                if self.file.is_some() {
                    self.note_anew(if found.is_ok() { "replaced" } else { "removed" });
                }
                return true;
            }
            Err(_) if old.nlink() == 0 => {
                self.file = None;
                self.removed = true;
                return true;
            }
            Err(error) if !self.displaced => {
                self.displaced = true;
                self.remark = Some(format!(
                    "logfile '{}' was moved, and cannot be opened anew: {error}; the old one \
                     stays in use. Correct it: flowlog tries again each second",
                    self.path.display()
                ));
            }
            Err(_) => {}
        }
        false
    }

    fn note_anew(&mut self, what: &str) {
        let path = self.path.display();
        self.remark = Some(format!("logfile '{path}' was {what}; it is opened anew"));
    }
}

fn is_same(one: &Metadata, other: &Metadata) -> bool {
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

fn is_removed(metadata: &Metadata) -> bool {
    metadata.file_type().is_file() && metadata.nlink() == 0
}

fn is_fifo(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo())
}

/// Opens a file for appending; `None` if it is a FIFO that nobody reads, or if nothing is there
/// and nothing may be created.
fn open(path: &Path, create: bool) -> io::Result<Option<File>> {
    let opened = OpenOptions::new()
        .append(true)
        .create(create)
        .mode(0o640)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(error) if !create && error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
            let is_fifo = path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo());
            if is_fifo { Ok(None) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::super::level;
    use super::*;

    fn write_to(target: &mut LogFile, text: &str) -> Outcome {
        target.write(&Message::new(level::WARNING, text), &mut 0)
    }

    #[test]
    fn a_fifo_without_reader_is_awaited_and_then_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        assert!(file.awaits_reader());
        assert_eq!(write_to(&mut file, "away"), Outcome::Away);
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        let mut reader = open().unwrap();
        assert_eq!(write_to(&mut file, "one"), Outcome::Done);
        let mut text = [0; 100];
        let length = reader.read(&mut text).unwrap();
        assert!(text[..length].ends_with(b" <6> one\n"));
        drop(reader);
        assert_eq!(write_to(&mut file, "away"), Outcome::Away);
        let _reader = open().unwrap();
        assert_eq!(write_to(&mut file, "two"), Outcome::Done);
    }

    #[test]
    fn a_fifo_that_was_removed_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        let make = || mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let open = || OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
        make();
        let mut reader = open().unwrap();
        let mut file = LogFile::open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.look();
        assert_eq!(write_to(&mut file, "away"), Outcome::Away);
        assert!(!path.exists(), "no file takes its place");
        assert_eq!(reader.read(&mut [0; 10]).unwrap(), 0, "the old one is closed");
        make();
        let mut reader = open().unwrap();
        assert_eq!(write_to(&mut file, "one"), Outcome::Done);
        let mut text = [0; 100];
        let length = reader.read(&mut text).unwrap();
        assert!(text[..length].ends_with(b" one\n"));
        assert!(file.remark().unwrap().contains("was removed"));
        file.reopen();
        assert!(file.remark().is_none());
    }

    #[test]
    fn a_fifo_that_is_not_read_blocks_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        mkfifo(&path, Mode::from_bits_truncate(0o600)).unwrap();
        let mut options = OpenOptions::new();
        let _reader = options.read(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        let mut file = LogFile::open(&path).unwrap();
        let long = "x".repeat(3000);
        let mut outcome = Outcome::Done;
        for _ in 0..1000 {
            outcome = write_to(&mut file, &long);
            if outcome != Outcome::Done {
                break;
            }
        }
        assert_eq!(outcome, Outcome::Full);
    }

    #[test]
    fn a_full_disk_is_tried_again() {
        let mut file = LogFile::open(Path::new("/dev/full")).unwrap();
        assert_eq!(write_to(&mut file, "one"), Outcome::Away);
    }

    #[test]
    fn a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let _socket = UnixDatagram::bind(&path).unwrap();
        assert!(LogFile::open(&path).is_err());
    }

    #[test]
    fn a_file_that_was_removed_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = LogFile::open(&path).unwrap();
        assert_eq!(write_to(&mut file, "one"), Outcome::Done);
        fs::remove_file(&path).unwrap();
        file.look();
        assert!(file.remark().unwrap().contains("was removed"));
        assert_eq!(write_to(&mut file, "two"), Outcome::Done);
        assert!(fs::read_to_string(&path).unwrap().ends_with(" two\n"));
        fs::rename(&path, dir.path().join("other")).unwrap();
        fs::write(&path, "").unwrap();
        file.look();
        assert!(file.remark().unwrap().contains("was replaced"));
        assert_eq!(write_to(&mut file, "three"), Outcome::Done);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        file.look();
        assert!(file.remark().is_none());
    }

    /// Right after the last look.
    #[test]
    fn no_message_goes_into_a_removed_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = LogFile::open(&path).unwrap();
        file.look();
        fs::remove_file(&path).unwrap();
        assert_eq!(write_to(&mut file, "one"), Outcome::Done);
        assert!(fs::read_to_string(&path).unwrap().ends_with(" one\n"));
        assert!(file.remark().unwrap().contains("was removed"));
    }

    #[test]
    fn a_directory_that_was_removed_is_awaited() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("log");
        let mut file = LogFile::open(&path).unwrap();
        fs::remove_dir_all(&inner).unwrap();
        file.look();
        assert_eq!(write_to(&mut file, "away"), Outcome::Away);
        fs::create_dir(&inner).unwrap();
        assert_eq!(write_to(&mut file, "two"), Outcome::Done);
        assert!(file.remark().unwrap().contains("was removed"));
        assert!(fs::read_to_string(&path).unwrap().ends_with(" two\n"));
    }

    #[test]
    fn a_moved_file_stays_in_use_while_there_is_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut file = LogFile::open(&path).unwrap();
        let moved = dir.path().join("log.1");
        fs::rename(&path, &moved).unwrap();
        fs::create_dir(&path).unwrap();
        file.look();
        assert!(file.remark().unwrap().contains("the old one stays in use"));
        assert_eq!(write_to(&mut file, "one"), Outcome::Done);
        file.look();
        assert!(file.remark().is_none(), "it is said once");
        file.reopen();
        assert!(file.remark().unwrap().contains("cannot reopen"));
        assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 1);
    }
}
