//! Why the spool cannot be used, and what to do.

use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::{AccessFlags, access};
use rusqlite::ErrorCode;

/// Why the spool cannot be used, with the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Its directory.
    #[error(
        "the spool's directory {0} cannot be used: {1}; make it, or name another with \
             `spool_dir=` in [global]"
    )]
    Directory(PathBuf, std::io::Error),
    /// Somebody else delivers what is in it.
    #[error(
        "the spool in {0} is in use by another flowlog: end that one, or name another \
             directory with `spool_dir=` in [global]"
    )]
    InUse(PathBuf),
    /// A file of another kind, or of a newer version.
    #[error(
        "{0} is not a spool of this version: move it away, or name another directory with \
             `spool_dir=` in [global]"
    )]
    Foreign(PathBuf),
    /// Its file is damaged, or another one is in its place, and stays there.
    #[error("the spool {0} cannot be renamed: {1}; make its directory writable")]
    InTheWay(PathBuf, std::io::Error),
    /// A file beside it.
    #[error(
        "{0}, which stands beside the spool, cannot be used: {1}; make room, and its directory writable"
    )]
    Beside(PathBuf, std::io::Error),
    /// Its file is damaged, and no other can be made in its place.
    #[error("the spool {0} is damaged, and cannot be replaced: {1}")]
    Irreplaceable(PathBuf, Box<Failure>),
    /// What SQLite says.
    #[error("the spool {0}: {1}; {remedy}", remedy = remedy(.1))]
    Database(PathBuf, rusqlite::Error),
}

impl Failure {
    /// The file is damaged.
    pub(super) fn is_damage(&self) -> bool {
        matches!(self, Self::Database(_, error) if is_damage(error))
    }

    /// It may pass by itself, or by what others do: nothing of the spool or its settings is wrong.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Directory(_, error) | Self::InTheWay(_, error) | Self::Beside(_, error) => {
                error.raw_os_error().is_some_and(|code| PASSING.contains(&code))
            }
            Self::InUse(_) | Self::Foreign(_) => false,
            Self::Irreplaceable(_, why) => why.may_pass(),
            Self::Database(path, error) => match error.sqlite_error_code() {
                Some(
                    ErrorCode::DiskFull
                    | ErrorCode::SystemIoFailure
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::FileLockingProtocolFailed
                    | ErrorCode::OutOfMemory,
                ) => true,
                // There are no descriptors or inodes, perhaps.
                Some(ErrorCode::CannotOpen) => is_permitted(path),
                _ => false,
            },
        }
    }

    /// The file is damaged, and was not replaced when that was tried.
    pub(super) fn is_irreplaceable(&self) -> bool {
        matches!(self, Self::Irreplaceable(..))
    }

    /// The disk has no room for a file: what SQLite says of a full one.
    pub(super) fn full(path: &Path) -> Self {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let what = "database or disk is full".to_owned();
        Self::Database(path.to_owned(), rusqlite::Error::SqliteFailure(code, Some(what)))
    }

    /// The disk is full.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Database(_, error)
            if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

/// What a system call says of a disk that is full or fails, and of a host without memory or
/// descriptors.
const PASSING: [i32; 7] =
    [libc::ENOSPC, libc::EDQUOT, libc::EIO, libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EINTR];

/// A file may be made there, and one that is there may be written.
fn is_permitted(path: &Path) -> bool {
    let may = |path: &Path, rights| access(path, rights).is_ok();
    let directory = path.parent().unwrap_or(Path::new("."));
    may(directory, AccessFlags::W_OK | AccessFlags::X_OK)
        && (!path.exists() || path.is_file() && may(path, AccessFlags::R_OK | AccessFlags::W_OK))
}

pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, Utf8Error,
    };
    let code = error.sqlite_error_code();
    // What was written had the types of its columns.
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
        || matches!(
            error,
            FromSqlConversionFailure(..)
                | IntegralValueOutOfRange(..)
                | InvalidColumnType(..)
                | Utf8Error(..)
        )
}

/// A checksum says that a row is not what was written.
pub(super) fn damage(what: &str) -> rusqlite::Error {
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(what.to_owned()))
}

fn remedy(error: &rusqlite::Error) -> &'static str {
    if is_damage(error) {
        return "flowlog sets it aside; `sqlite3 FILE .recover` saves what can be read";
    }
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has it open: end that one"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "make the file and its directory writable"
        }
        _ => "see what the kernel says of the disk",
    }
}
