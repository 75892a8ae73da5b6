//! What happens to a database's files beneath the daemon: they are removed, replaced, damaged.
//!
//! SQLite keeps up to three files: NAME, NAME-wal and NAME-shm. They are set aside together,
//! so that `sqlite3 NAME .recover` finds all of them.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::libc;

/// What SQLite has beside a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];
/// In the names of files that were set aside, in UTC.
const TIME: &str = "%Y%m%dT%H%M%SZ";

/// A file of SQLite's beside the database.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The files of a database: itself, its log, its shared memory.
pub(super) fn files(path: &Path) -> [PathBuf; 3] {
    SUFFIXES.map(|suffix| beside(path, suffix))
}

/// Renames a database and what stands beside it to `NAME.WORD-TIME`; returns that name.
///
/// # Errors
/// The database itself cannot be renamed.
pub(super) fn set_aside(path: &Path, word: &str) -> io::Result<PathBuf> {
    let time = jiff::Timestamp::now().strftime(TIME).to_string();
    let names = (1..).map(|turn| match turn {
        1 => beside(path, &format!(".{word}-{time}")),
        turn => beside(path, &format!(".{word}-{time}.{turn}")),
    });
    // Two in one second: neither replaces the other.
    let aside = names.into_iter().find(|name| !name.exists()).unwrap_or_default();
    fs::rename(path, &aside)?;
    for suffix in &SUFFIXES[1..] {
        // Absent where the database was closed in order.
        let _ = fs::rename(beside(path, suffix), beside(&aside, suffix));
    }
    Ok(aside)
}

/// Makes the directory of a file that was removed together with it; what was above that stays
/// missing.
pub(super) fn make_directory_of(path: &Path) -> io::Result<()> {
    let Some(directory) = path.parent() else { return Ok(()) };
    match fs::DirBuilder::new().mode(0o750).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// What became of a file that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It has its name.
    InPlace,
    /// It has another name; another file or none stands in its place.
    Renamed,
    /// It has no name any more.
    Removed,
}

/// Holds a file by its inode, whatever becomes of its name. Opened with O_PATH: a close of
/// any other descriptor of the file would drop SQLite's locks on it (POSIX).
#[derive(Debug)]
pub(super) struct Anchor {
    file: File,
    path: PathBuf,
}

impl Anchor {
    /// The file that has that name now.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(path)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// What became of it.
    pub(super) fn fate(&self) -> Fate {
        let Ok(held) = self.file.metadata() else { return Fate::Removed };
        if held.nlink() == 0 {
            return Fate::Removed;
        }
        match fs::metadata(&self.path) {
            Ok(it) if (it.dev(), it.ino()) == (held.dev(), held.ino()) => Fate::InPlace,
            Ok(_) => Fate::Renamed,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Fate::Renamed,
                // It cannot be said what stands there.
                _ => Fate::InPlace,
            },
        }
    }

    /// The name that it has now, if that can be known.
    pub(super) fn name(&self) -> Option<PathBuf> {
        let name = fs::read_link(format!("/proc/self/fd/{}", self.file.as_raw_fd())).ok()?;
        let (held, named) = (self.file.metadata().ok()?, fs::metadata(&name).ok()?);
        ((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some(name)
    }

    /// It has no name any more. Cheaper than [`Anchor::fate`].
    pub(super) fn is_removed(&self) -> bool {
        self.file.metadata().map_or(true, |held| held.nlink() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fate_of_a_file_is_known() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        fs::write(&path, "1").unwrap();
        let anchor = Anchor::open(&path).unwrap();
        assert_eq!(anchor.fate(), Fate::InPlace);
        assert_eq!(anchor.name(), Some(path.clone()));
        fs::rename(&path, directory.path().join("b")).unwrap();
        assert_eq!(anchor.name(), Some(directory.path().join("b")));
        assert_eq!(anchor.fate(), Fate::Renamed);
        fs::write(&path, "2").unwrap();
        assert_eq!(anchor.fate(), Fate::Renamed);
        fs::rename(&path, directory.path().join("b")).unwrap();
        assert_eq!(anchor.fate(), Fate::Removed);
        assert!(anchor.is_removed());
    }

    #[test]
    fn what_is_set_aside_keeps_its_log_and_replaces_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("flow.db");
        let mut names = Vec::new();
        for _ in 0..3 {
            fs::write(&path, "db").unwrap();
            fs::write(beside(&path, "-wal"), "log").unwrap();
            let aside = set_aside(&path, "damaged").unwrap();
            assert_eq!(fs::read(beside(&aside, "-wal")).unwrap(), b"log");
            assert!(!path.exists() && !beside(&path, "-wal").exists());
            names.push(aside);
        }
        names.dedup();
        assert_eq!(names.len(), 3);
        assert!(names[0].to_str().unwrap().contains("flow.db.damaged-20"), "{names:?}");
        assert_eq!(set_aside(&path, "damaged").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn only_the_last_directory_is_made() {
        let directory = tempfile::tempdir().unwrap();
        make_directory_of(&directory.path().join("a/b")).unwrap();
        make_directory_of(&directory.path().join("a/b")).unwrap();
        assert!(directory.path().join("a").is_dir());
        make_directory_of(&directory.path().join("c/d/e")).unwrap_err();
    }
}
