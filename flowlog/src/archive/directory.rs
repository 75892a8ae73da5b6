//! The directory of an archive: what its files are called, that one writes to it
//! at a time, and that it is still there. Files of other names are not touched.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{AccessFlags, access};

use super::Error;

/// The file that is being written. There is one, as the directory is locked, so
/// the next run begins it anew if one has left it there.
const TEMPORARY: &str = ".flowlog.parquet.tmp";
/// Of a time in a name: UTC, so that names are in order.
const TIME: &str = "%Y%m%dT%H%M%S.%3f";

/// The directory.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked as long as it is open.
    lock: Flock<File>,
    /// Its closed files, the oldest first.
    files: Vec<Entry>,
}

/// A closed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Its first moment, milliseconds since the epoch, as its name tells.
    pub(super) from: i64,
    /// Its last moment.
    pub(super) to: i64,
    pub(super) bytes: u64,
}

/// What has gone because it was old, or too much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Makes the directory if it is missing; returns whether it was.
///
/// # Errors
/// It cannot be made, or written; says what to do.
pub fn prepare(path: &Path) -> Result<bool, Error> {
    let made = match DirBuilder::new().mode(0o750).create(path) {
        Ok(()) => {
            // Its name is on disk as what is put into it will be. Who may make it may
            // not be allowed to open what it is in: then the system sees to it.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let _ = File::open(parent.unwrap_or(Path::new("."))).and_then(|it| it.sync_all());
            true
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error.into()),
    };
    if !path.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory).into());
    }
    access(path, AccessFlags::W_OK | AccessFlags::X_OK).map_err(io::Error::from)?;
    Ok(made)
}

impl Directory {
    /// Opens and locks it. It is made if it is missing.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        prepare(path)?;
        let file = File::open(path)?;
        let lock =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| match why {
                Errno::EWOULDBLOCK => Error::Taken,
                why => io::Error::from(why).into(),
            })?;
        let mut directory = Self { path: path.to_owned(), lock, files: Vec::new() };
        directory.discard()?;
        directory.read()?;
        Ok(directory)
    }

    /// Its device and inode.
    pub(super) fn identity(&self) -> Result<(u64, u64), Error> {
        let open = self.lock.metadata()?;
        Ok((open.dev(), open.ino()))
    }

    /// Looks whether it is still what its path names, and `part` the file that is
    /// being written.
    ///
    /// # Errors
    /// [`Error::Gone`], or it cannot be looked at.
    pub(super) fn is_there(&self, part: Option<&File>) -> Result<(), Error> {
        let same = |path: &Path, open: &File| -> io::Result<bool> {
            let open = open.metadata()?;
            match fs::metadata(path) {
                Ok(now) => Ok((now.dev(), now.ino()) == (open.dev(), open.ino())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
                Err(error) => Err(error),
            }
        };
        let there = same(&self.path, &self.lock)?;
        let whole = part.map_or(Ok(true), |part| same(&self.temporary(), part))?;
        if there && whole { Ok(()) } else { Err(Error::Gone) }
    }

    /// Begins a file.
    pub(super) fn begin(&self) -> Result<File, Error> {
        let mut options = File::options();
        // Read as well: what was written is summed up.
        options.read(true).write(true).create(true).truncate(true);
        Ok(options.open(self.temporary())?)
    }

    /// Gives the file that is being written its name, which tells the time that
    /// it is of: `flowlog-20261122T131500.000Z-20261122T133000.000Z.parquet`. Names
    /// are in the order in which files are closed: where the clock was set back,
    /// they go on from the last one.
    pub(super) fn keep(&mut self, from: u64, to: u64) -> Result<PathBuf, Error> {
        let (mut from, mut to) = ((from / 1_000_000) as i64, (to / 1_000_000) as i64);
        if let Some(last) = self.files.last() {
            from = from.max(last.from);
            to = to.max(last.to.max(from));
            if (from, to) == (last.from, last.to) {
                to += 1;
            }
        }
        let mut path = self.path.join(name(from, to));
        // Somebody else has put it there.
        while path.exists() {
            to += 1;
            path = self.path.join(name(from, to));
        }
        fs::rename(self.temporary(), &path)?;
        self.lock.sync_all()?;
        let bytes = path.metadata()?.len();
        self.files.push(Entry { path: path.clone(), from, to, bytes });
        Ok(path)
    }

    /// Removes what was written of a file that will not be finished.
    pub(super) fn discard(&self) -> Result<(), Error> {
        match fs::remove_file(self.temporary()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Its closed files, the oldest first.
    pub(super) fn files(&self) -> &[Entry] {
        &self.files
    }

    /// Finds out which files are there.
    pub(super) fn read(&mut self) -> Result<(), Error> {
        self.files.clear();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some((from, to)) = name.to_str().and_then(times) {
                // Somebody may have taken it away meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                self.files.push(Entry { path: entry.path(), from, to, bytes: metadata.len() });
            }
        }
        self.files.sort_by(|a, b| (a.from, a.to, &a.path).cmp(&(b.from, b.to, &b.path)));
        Ok(())
    }

    /// Removes the files at these places.
    pub(super) fn remove(&mut self, places: &[usize]) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        for file in places.iter().filter_map(|place| self.files.get(*place)) {
            match fs::remove_file(&file.path) {
                // Somebody else was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                done => done?,
            }
            removed.files += 1;
            removed.bytes += file.bytes;
        }
        if removed.files > 0 {
            self.read()?;
        }
        Ok(removed)
    }

    fn temporary(&self) -> PathBuf {
        self.path.join(TEMPORARY)
    }
}

fn name(from: i64, to: i64) -> String {
    format!("flowlog-{}Z-{}Z.parquet", stamp(from), stamp(to))
}

fn stamp(time: i64) -> String {
    let time = Timestamp::from_millisecond(time).unwrap_or(Timestamp::MAX);
    time.strftime(TIME).to_string()
}

/// The times in the name of a file of the archive. Earlier versions have put a
/// number behind them.
fn times(name: &str) -> Option<(i64, i64)> {
    let times = name.strip_prefix("flowlog-")?.strip_suffix(".parquet")?;
    let mut parts = times.split('-');
    let (from, to) = (read_stamp(parts.next()?)?, read_stamp(parts.next()?)?);
    let number = parts.next().is_none_or(|number| number.parse::<u32>().is_ok());
    (from <= to && number && parts.next().is_none()).then_some((from, to))
}

fn read_stamp(text: &str) -> Option<i64> {
    let time = DateTime::strptime(TIME, text.strip_suffix('Z')?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}
