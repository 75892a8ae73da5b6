//! The directory of an archive: what its files are called, that one writes to it
//! at a time, and what goes when it is old. Files of other names are not touched.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

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
}

/// A closed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    /// Its last moment, milliseconds since the epoch, as its name tells.
    to: i64,
    bytes: u64,
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
        Ok(()) => true,
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
        let directory = Self { path: path.to_owned(), lock };
        directory.discard()?;
        Ok(directory)
    }

    /// Begins a file.
    pub(super) fn begin(&self) -> Result<File, Error> {
        Ok(File::create(self.temporary())?)
    }

    /// Gives the file that is being written its name, which tells the time that
    /// it covers: `flowlog-20261122T131500.000Z-20261122T133000.000Z.parquet`.
    pub(super) fn keep(&self, from: u64, to: u64) -> Result<PathBuf, Error> {
        let stem = format!("flowlog-{}Z-{}Z", stamp(from), stamp(to));
        // Two of one millisecond: a number tells them apart.
        let names = (0..).map(|number| match number {
            0 => format!("{stem}.parquet"),
            number => format!("{stem}-{number}.parquet"),
        });
        let mut paths = names.map(|name| self.path.join(name));
        let path = paths.find(|path| !path.exists()).unwrap_or_default();
        fs::rename(self.temporary(), &path)?;
        self.lock.sync_all()?;
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
    pub(super) fn files(&self) -> Result<Vec<Entry>, Error> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            if let Some(to) = name.to_str().and_then(last_moment) {
                // Somebody may have taken it away meanwhile.
                let Ok(metadata) = entry.metadata() else { continue };
                files.push(Entry { path: entry.path(), to, bytes: metadata.len() });
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Removes files that ended before `keep_for` ago, then the oldest ones until
    /// `keep_bytes` are left. The newest stays.
    pub(super) fn tidy(
        &self,
        now: u64,
        keep_for: Option<Duration>,
        keep_bytes: Option<u64>,
    ) -> Result<Removed, Error> {
        let mut removed = Removed::default();
        if keep_for.is_none() && keep_bytes.is_none() {
            return Ok(removed);
        }
        let mut files = self.files()?;
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        files.pop();
        let oldest = keep_for.map(|keep| (now / 1_000_000) as i64 - keep.as_millis() as i64);
        for file in files {
            let old = oldest.is_some_and(|oldest| file.to < oldest);
            if old || keep_bytes.is_some_and(|most| bytes > most) {
                match fs::remove_file(&file.path) {
                    // Somebody else was faster.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error.into());
                    }
                    _ => {}
                }
                removed.files += 1;
                removed.bytes += file.bytes;
                bytes -= file.bytes;
            }
        }
        Ok(removed)
    }

    fn temporary(&self) -> PathBuf {
        self.path.join(TEMPORARY)
    }
}

fn stamp(time: u64) -> impl std::fmt::Display {
    let time = Timestamp::from_nanosecond(time.into()).unwrap_or(Timestamp::MAX);
    time.strftime(TIME).to_string()
}

/// The second time in the name of a file of the archive.
fn last_moment(name: &str) -> Option<i64> {
    let times = name.strip_prefix("flowlog-")?.strip_suffix(".parquet")?;
    let mut parts = times.split('-');
    let (from, to) = (read_stamp(parts.next()?)?, read_stamp(parts.next()?)?);
    let number = parts.next().is_none_or(|number| number.parse::<u32>().is_ok());
    (from <= to && number && parts.next().is_none()).then_some(to)
}

fn read_stamp(text: &str) -> Option<i64> {
    let time = DateTime::strptime(TIME, text.strip_suffix('Z')?).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond())
}
