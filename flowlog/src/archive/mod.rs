//! The archive: a directory of Parquet files. A file is begun under a name that
//! no reader looks at, and renamed when all of it is on disk: whatever
//! `*.parquet` finds is whole. What it holds is in [`schema`].
//!
//! | module | its one job |
//! |---|---|
//! | [`schema`] | the columns, and what a file says of itself |
//! | `about` | what a file says of itself, written and read |
//! | [`checksums`] | what says that a byte is as it was written |
//! | `columns` | records → columns |
//! | `properties` | how columns are kept: encodings, statistics, bloom filters |
//! | `part` | a file that is being written |
//! | [`clock`] | two clocks, and that one was set |
//! | [`coverage`] | what a file does not have, though it covers the time |
//! | [`origin`] | which sink has written it, and what it gets |
//! | `directory` | names, the lock, leftovers |
//! | `retention` | which files go |
//! | `writer` | when a file is closed, what time it covers, what has been written |

use std::io;

use parquet::errors::ParquetError;

pub use self::directory::{Removed, prepare};
use self::origin::Origin;
pub use self::writer::{Archive, Closed, Settings};

mod about;
pub mod checksums;
pub mod clock;
mod columns;
pub mod coverage;
mod directory;
pub mod origin;
mod part;
mod properties;
mod retention;
pub mod schema;
#[cfg(test)]
pub(crate) mod small;
#[cfg(test)]
mod tests;
mod writer;

/// Whose records they are.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// What the hash of its record ids begins with.
    pub hash: u64,
    /// The sink that writes them.
    pub origin: Origin,
}

/// Why the archive cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another one writes there.
    #[error(
        "another sink or another flowlog writes there; give each its own directory, or stop the \
         other"
    )]
    Taken,
    /// The directory, or the file that is being written, is not there any more.
    #[error(
        "it was removed or replaced while flowlog wrote there; the directory is made again, and \
         the records of the open file are written again"
    )]
    Gone,
    /// The system refuses.
    #[error("{error}; {}", remedy(.error))]
    System {
        /// Why.
        #[from]
        error: io::Error,
    },
    /// A file cannot be made of the records, which is a mistake in flowlog.
    #[error("{0}; please report it, and give SQLITE3 or JSON the records meanwhile")]
    Parquet(ParquetError),
}

impl Error {
    /// It may be over without anybody doing anything here.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Taken | Self::Gone => true,
            Self::Parquet(_) => false,
            Self::System { error } => !matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::ReadOnlyFilesystem
            ),
        }
    }
}

impl From<ParquetError> for Error {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(why) => match why.downcast::<io::Error>() {
                Ok(error) => Self::System { error: *error },
                Err(why) => Self::Parquet(ParquetError::External(why)),
            },
            error => Self::Parquet(error),
        }
    }
}

impl From<arrow_schema::ArrowError> for Error {
    fn from(error: arrow_schema::ArrowError) -> Self {
        Self::Parquet(error.into())
    }
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make the directory that it is in",
        io::ErrorKind::NotADirectory => "name a directory",
        io::ErrorKind::PermissionDenied => "make the directory writable for flowlog's user",
        io::ErrorKind::ReadOnlyFilesystem => "name a directory that can be written",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room, or let `keep_bytes` do it"
        }
        _ => "see to the disk",
    }
}
