//! Why a database cannot be used, and what to do about it.

use std::fmt;

use rusqlite::ErrorCode;

/// Why a database cannot be used.
#[derive(Debug)]
pub struct Failure {
    what: String,
    remedy: &'static str,
    passes: bool,
}

const OTHER_TABLES: &str = "the tables are not flowlog's: name another file with `db=`, or a \
                            table of ulogd2 with `table=`";

impl Failure {
    /// The connection stands, and the same may work later.
    pub fn passes(&self) -> bool {
        self.passes
    }

    /// What is wrong, and what to do.
    pub fn parts(&self) -> (&str, &'static str) {
        (&self.what, self.remedy)
    }

    fn new(what: impl fmt::Display, remedy: &'static str) -> Self {
        Self { what: what.to_string(), remedy, passes: false }
    }

    pub(super) fn read_only() -> Self {
        Self::new("it is read-only", "make the file, its directory and its disk writable")
    }

    pub(super) fn directory() -> Self {
        Self::new("it is a directory", "name a file in it with `db=`")
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
                "move it away and send SIGHUP; `sqlite3 FILE .recover` saves what can be read"
            }
            Some(ErrorCode::SystemIoFailure) => {
                "make room if the disk is full, else see what the kernel says of it"
            }
            _ => OTHER_TABLES,
        };
        let passes = matches!(
            code,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
        );
        Self { what: error.to_string(), remedy, passes }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// The fault is the row's: the table does not take it, now or ever.
pub(super) fn is_of_the_row(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch | ErrorCode::TooBig)
    )
}
