//! Why a database cannot be used, and what to do about it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use nix::unistd::{AccessFlags, access};
use rusqlite::ErrorCode;

use crate::plugin::beneath::beside;

/// Why a database cannot be used.
#[derive(Debug)]
pub struct Failure {
    what: String,
    remedy: &'static str,
    kind: Kind,
}

/// What to do after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The connection stands, and the same may work later.
    Passes,
    /// The disk or the system failed: the file has to be opened anew, which may work later.
    Io,
    /// The file, or one beside it, cannot be opened; later it may be.
    CannotOpen,
    /// The file is damaged.
    Damaged,
    /// What stands there is not a database, or not any more.
    NotADatabase,
    /// The file was removed while it was open.
    Removed,
    /// It stays so until a person changes something.
    Lasting,
    /// The rows were counted as lost before they could be committed.
    GivenUp,
}

const OTHER_TABLES: &str = "the tables are not flowlog's: name another file with `db=`, or a \
                            table of ulogd2 with `table=`";

impl Failure {
    /// The connection stands, and the same may work later.
    pub fn passes(&self) -> bool {
        self.kind == Kind::Passes
    }

    /// It stays so until a person changes something.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self.kind, Kind::Lasting | Kind::GivenUp)
    }

    /// The rows were counted as lost before they could be committed.
    pub(super) fn is_given_up(&self) -> bool {
        self.kind == Kind::GivenUp
    }

    /// Whether what was to be committed is written all the same is not known.
    pub(super) fn leaves_doubt(&self) -> bool {
        self.kind == Kind::Io
    }

    /// At start: the database is awaited, as it may be used later without a change of the
    /// configuration. A file that is missing and cannot be made is a mistake.
    pub fn may_pass(&self, path: &Path) -> bool {
        match self.kind {
            Kind::Passes | Kind::Io => true,
            Kind::CannotOpen => is_permitted(path),
            _ => false,
        }
    }

    /// The file, which was a database when it was opened, is damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self.kind, Kind::Damaged | Kind::NotADatabase)
    }

    /// The file, which was never opened before, is a damaged database and not another file.
    pub(super) fn is_damage_of(&self, path: &Path) -> bool {
        match self.kind {
            Kind::Damaged => true,
            Kind::NotADatabase => was_a_database(path),
            _ => false,
        }
    }

    /// The file was removed while it was open.
    pub fn is_removal(&self) -> bool {
        self.kind == Kind::Removed
    }

    /// What is wrong, and what to do.
    pub fn parts(&self) -> (&str, &'static str) {
        (&self.what, self.remedy)
    }

    fn new(what: impl fmt::Display, remedy: &'static str) -> Self {
        Self { what: what.to_string(), remedy, kind: Kind::Lasting }
    }

    pub(super) fn removed() -> Self {
        let what = "it was removed, or replaced by another file";
        Self { kind: Kind::Removed, ..Self::new(what, "make its directory and make it writable") }
    }

    pub(super) fn vanished(error: &io::Error) -> Self {
        let what = format!("it was removed while it was opened: {error}");
        Self { kind: Kind::CannotOpen, ..Self::new(what, "see who removes it") }
    }

    pub(super) fn given_up() -> Self {
        Self { kind: Kind::GivenUp, ..Self::new("its rows were given up", "") }
    }

    pub(super) fn cannot_be_set_aside(error: &io::Error) -> Self {
        Self::new(
            format!("it is damaged and cannot be renamed: {error}"),
            "make its directory writable, or move it away and send SIGHUP",
        )
    }

    pub(super) fn read_only() -> Self {
        Self::new("it is read-only", "make the file, its directory and its disk writable")
    }

    pub(super) fn directory() -> Self {
        Self::new("it is a directory", "name a file in it with `db=`")
    }

    pub(super) fn is_read() -> Self {
        let remedy = "another process reads it: end its transaction, or that process";
        let what = "its log cannot be checkpointed after a sync that failed";
        Self { kind: Kind::Io, ..Self::new(what, remedy) }
    }

    pub(super) fn not_a_file() -> Self {
        Self::new("it is not a file", "name another one with `db=`")
    }

    pub(super) fn column(table: &str, column: &str) -> Self {
        Self::new(
            format!("the column {column} of its table {table} is no key that a flow has"),
            "remove the column, or name another table with `table=`; `flowlog info NFCT` lists \
             the keys, of which a column has `_` for `.`",
        )
    }

    pub(super) fn is_view(name: &str) -> Self {
        Self::new(format!("{name} is a view"), "name a table with `table=`")
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let remedy = match code {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                "another process writes it: end its transaction, or that process"
            }
            Some(ErrorCode::DiskFull) => "make room",
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
                return Self { what: error.to_string(), ..Self::read_only() };
            }
            Some(ErrorCode::CannotOpen) => {
                "make its directory and make it writable, or name another file with `db=`"
            }
            Some(ErrorCode::NotADatabase) => {
                "it is another file: move it away, or name another with `db=`"
            }
            Some(ErrorCode::DatabaseCorrupt) => {
                "it is set aside; `sqlite3 FILE .recover` saves what can be read"
            }
            Some(ErrorCode::SystemIoFailure) => {
                "make room if the disk is full, else see what the kernel says of it"
            }
            Some(ErrorCode::OutOfMemory) => "free memory, or raise the limit of flowlog's service",
            Some(ErrorCode::FileLockingProtocolFailed) => {
                "see which processes open it, and whether its file system has locks"
            }
            _ => OTHER_TABLES,
        };
        let kind = match code {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::DiskFull,
            ) => Kind::Passes,
            Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => Kind::Io,
            Some(ErrorCode::CannotOpen) => Kind::CannotOpen,
            Some(ErrorCode::DatabaseCorrupt) => Kind::Damaged,
            Some(ErrorCode::NotADatabase) => Kind::NotADatabase,
            _ => Kind::Lasting,
        };
        Self { what: error.to_string(), remedy, kind }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// Nothing forbids to make the file, or to write it where it is.
fn is_permitted(path: &Path) -> bool {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = parent.unwrap_or(Path::new("."));
    let may = |path: &Path, rights| access(path, rights).is_ok();
    may(directory, AccessFlags::W_OK | AccessFlags::X_OK)
        && (!path.exists() || may(path, AccessFlags::R_OK | AccessFlags::W_OK))
}

/// Whether SQLite has written the file, whatever became of it: its first bytes are those of a
/// database, or the page that had them was lost, or its log of changes is still there.
fn was_a_database(path: &Path) -> bool {
    const MAGIC: &[u8] = b"SQLite format 3\0";
    const LOG_MAGIC: [u8; 3] = [0x37, 0x7f, 0x06];
    let first = |path: &Path| -> io::Result<Vec<u8>> {
        let mut first = Vec::new();
        File::open(path)?.take(512).read_to_end(&mut first)?;
        Ok(first)
    };
    let begin = first(path).unwrap_or_default();
    let lost = begin.len() == 512 && begin.iter().all(|byte| *byte == 0);
    let log = first(&beside(path, "-wal")).unwrap_or_default();
    begin.starts_with(MAGIC) || lost || log.starts_with(&LOG_MAGIC)
}

/// The fault is the row's: the table does not take it, now or ever.
pub(super) fn is_of_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}
