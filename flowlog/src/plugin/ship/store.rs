//! The spool's file: a SQLite database, a row for each chunk of records.
//!
//! SQLite, because it is the kept library whose promise is the one that a spool
//! needs: what is committed is there after a loss of power (write-ahead log,
//! `synchronous=FULL`, which is an fdatasync for each commit), and room that
//! deleted rows leave is used again.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, params};

use super::batch::{self, Batch};
use super::losses::{self, Loss};
use super::tally::Amount;

/// The file's name in its directory, and that of its lock.
const FILE: &str = "spool.db";
const LOCK: &str = "spool.lock";
/// All that is flowlog's there: the file, what SQLite has beside it, the lock.
pub(super) const FILES: [&str; 4] = [FILE, "spool.db-wal", "spool.db-shm", LOCK];
/// Of the tables below.
const VERSION: i64 = 1;
/// Bytes of a page: a chunk takes some sixteen, and the smallest commit two.
const PAGE: i64 = 16384;
/// What is kept of the log's file after it was brought into the database, bytes.
const LOG_KEPT: i64 = 64 << 20;
/// How long a lock is waited for; only `sqlite3` by hand holds one longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// `sequence` is never used again, so that whoever has noted one can tell what he
/// has. The payload stands last: whoever asks for the rest does not read it.
const TABLES: &str = "
CREATE TABLE batch (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    encoding TEXT NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE INDEX batch_of_sink ON batch (sink, sequence);
";

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
    /// What SQLite says.
    #[error("the spool {0}: {1}; {remedy}", remedy = remedy(.1))]
    Database(PathBuf, rusqlite::Error),
}

impl Failure {
    /// The disk is full.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Database(_, error)
            if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

fn remedy(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => "make room",
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "another process has it open: end that one"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
            "make the file and its directory writable"
        }
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            "end flowlog, move it away and start again; `sqlite3 FILE .recover` saves what can be \
             read"
        }
        _ => "see what the kernel says of the disk",
    }
}

/// The spool's file, open for writing. One at a time.
pub(super) struct Store {
    connection: Connection,
    path: PathBuf,
    /// Bytes of all payloads.
    bytes: u64,
    /// Its directory was not there before.
    made_directory: bool,
    _lock: Flock<fs::File>,
}

impl Store {
    /// Opens the file, and makes it where there is none.
    pub(super) fn open(directory: &Path) -> Result<Self, Failure> {
        let (lock, made_directory) = lock(directory)?;
        let path = directory.join(FILE);
        let failed = |error| Failure::Database(path.clone(), error);
        let connection = Connection::open(&path).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        if version != VERSION {
            return Err(Failure::Foreign(path));
        }
        let bytes = connection
            .query_row("SELECT ifnull(sum(bytes), 0) FROM batch", [], |row| row.get(0))
            .map_err(failed)?;
        Ok(Self { connection, path, bytes, made_directory, _lock: lock })
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its directory was not there before.
    pub(super) fn made_directory(&self) -> bool {
        self.made_directory
    }

    /// What it holds of each sink.
    pub(super) fn amounts(&self) -> Result<HashMap<String, Amount>, Failure> {
        let read = || {
            let mut query = self
                .connection
                .prepare("SELECT sink, sum(bytes), sum(records) FROM batch GROUP BY sink")?;
            let rows = query.query_map([], |row| {
                Ok((row.get(0)?, Amount { bytes: row.get(1)?, records: row.get(2)? }))
            })?;
            rows.collect::<rusqlite::Result<_>>()
        };
        read().map_err(|error| Failure::Database(self.path.clone(), error))
    }

    /// Begins to change it: `change` is done as a whole, or not at all.
    pub(super) fn transact<T>(
        &mut self,
        change: impl FnOnce(&mut Change<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let Self { connection, path, bytes, .. } = self;
        let run = || {
            let transaction = connection.transaction()?;
            let mut changing = Change { connection: &transaction, bytes: *bytes };
            let result = change(&mut changing)?;
            let left = changing.bytes;
            transaction.commit()?;
            *bytes = left;
            Ok(result)
        };
        run().map_err(|error| Failure::Database(path.clone(), error))
    }

    /// Brings the log into the database, so that its file is written from the
    /// beginning again: for a disk that is full.
    pub(super) fn use_log_again(&self) {
        // Where it fails nothing is lost, and it is tried again.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Gives room that nothing uses back to the disk.
    pub(super) fn shrink(&self) {
        // The same.
        let _ = self.connection.execute_batch("PRAGMA incremental_vacuum");
    }

    /// A disk that is full after so many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<i64>) {
        let pages = pages.unwrap_or(i64::from(u32::MAX) - 1);
        let pragma = format!("PRAGMA max_page_count = {pages}");
        self.connection.query_row(&pragma, [], |_| Ok(())).unwrap();
    }
}

/// Keeps others out, also other namespaces' and users'; makes the directory, and
/// returns whether it was missing.
fn lock(directory: &Path) -> Result<(Flock<fs::File>, bool), Failure> {
    let cannot = |error| Failure::Directory(directory.to_owned(), error);
    let made = match fs::DirBuilder::new().mode(0o750).create(directory) {
        Ok(()) => true,
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => false,
        Err(error) => return Err(cannot(error)),
    };
    let path = directory.join(LOCK);
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let lock = Flock::lock(file.map_err(cannot)?, FlockArg::LockExclusiveNonblock)
        .map_err(|_| Failure::InUse(directory.to_owned()))?;
    Ok((lock, made))
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "page_size", PAGE)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT, |_| Ok(()))?;
    let empty = "SELECT count(*) = 0 FROM sqlite_schema";
    if connection.query_row(empty, [], |row| row.get(0))? {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    connection.execute_batch(losses::TABLE)
}

/// A row that found no room any more.
pub(super) struct Dropped {
    pub(super) sink: String,
    pub(super) amount: Amount,
    /// Of the first and the last of its records.
    pub(super) times: Option<(u64, u64)>,
}

/// A change that is being made.
pub(super) struct Change<'a> {
    connection: &'a Connection,
    bytes: u64,
}

impl Change<'_> {
    /// Bytes of all payloads.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a row, and returns its number.
    pub(super) fn append(
        &mut self,
        sink: &str,
        encoding: &str,
        records: u64,
        payload: &[u8],
    ) -> rusqlite::Result<i64> {
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO batch (sink, encoding, records, bytes, payload) VALUES (?, ?, ?, ?, ?)",
        )?;
        let number = insert.insert(params![sink, encoding, records, payload.len(), payload])?;
        self.bytes += payload.len() as u64;
        Ok(number)
    }

    /// Removes the rows of a sink up to `last`; returns what they held.
    pub(super) fn acknowledge(&mut self, sink: &str, last: i64) -> rusqlite::Result<Amount> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM batch WHERE sink = ? AND sequence <= ? RETURNING bytes, records",
        )?;
        let mut gone = Amount::default();
        let mut rows = delete.query(params![sink, last])?;
        while let Some(row) = rows.next()? {
            gone.bytes += row.get::<_, u64>(0)?;
            gone.records += row.get::<_, u64>(1)?;
        }
        self.bytes = self.bytes.saturating_sub(gone.bytes);
        Ok(gone)
    }

    /// Adds a loss of a sink.
    pub(super) fn lose(&mut self, sink: &str, loss: &Loss) -> rusqlite::Result<()> {
        losses::insert(self.connection, sink, loss)
    }

    /// Removes losses.
    pub(super) fn forget(&mut self, said: &[(i64, Loss)]) -> rusqlite::Result<()> {
        losses::forget(self.connection, said)
    }

    /// Removes the oldest row of all; returns its sink, what it held, and of which
    /// time that was.
    pub(super) fn drop_oldest(&mut self) -> rusqlite::Result<Option<Dropped>> {
        let mut delete = self.connection.prepare_cached(
            "DELETE FROM batch WHERE sequence = (SELECT min(sequence) FROM batch) \
             RETURNING sink, bytes, records, payload",
        )?;
        let gone = delete.query_row([], |row| {
            let amount = Amount { bytes: row.get(1)?, records: row.get(2)? };
            let times = row.get_ref(3)?.as_blob().ok().and_then(batch::times);
            Ok(Dropped { sink: row.get(0)?, amount, times })
        });
        let gone = gone.optional()?;
        if let Some(Dropped { amount, .. }) = &gone {
            self.bytes = self.bytes.saturating_sub(amount.bytes);
        }
        Ok(gone)
    }
}

/// The spool's file, open for one worker to read.
pub(super) struct Reader {
    connection: Connection,
    path: PathBuf,
}

/// What a reader found.
#[derive(Debug)]
pub(super) enum Found {
    /// Rows, as many as were asked for, or all that there are of an encoding.
    Batch(Batch),
    /// A row whose payload is not what was written: its number and its records.
    Damaged(i64, u64),
    /// No row.
    Nothing,
}

impl Reader {
    /// Opens the file, which is there.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::Database(path.to_owned(), error);
        let connection =
            Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
        connection.busy_timeout(PATIENCE).map_err(failed)?;
        connection.pragma_update(None, "query_only", true).map_err(failed)?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// The rows of `sink` behind the number `after`, of one encoding, until they
    /// hold `bytes`.
    pub(super) fn next(&self, sink: &str, after: i64, bytes: usize) -> Result<Found, Failure> {
        self.read(sink, after, bytes).map_err(|error| Failure::Database(self.path.clone(), error))
    }

    /// Losses of `sink`, each with its number.
    pub(super) fn losses(&self, sink: &str) -> Result<Vec<(i64, Loss)>, Failure> {
        losses::read(&self.connection, sink)
            .map_err(|error| Failure::Database(self.path.clone(), error))
    }

    fn read(&self, sink: &str, after: i64, bytes: usize) -> rusqlite::Result<Found> {
        let mut query = self.connection.prepare_cached(
            "SELECT sequence, encoding, records, payload FROM batch \
             WHERE sink = ? AND sequence > ? ORDER BY sequence",
        )?;
        let mut rows = query.query(params![sink, after])?;
        let mut batch = Batch::default();
        while let Some(row) = rows.next()? {
            let (number, encoding): (i64, String) = (row.get(0)?, row.get(1)?);
            let (records, payload): (u64, Vec<u8>) = (row.get(2)?, row.get(3)?);
            if !batch.is_empty() && encoding != batch.encoding {
                break;
            }
            if !batch::is_sound(&payload, records) {
                if batch.is_empty() {
                    return Ok(Found::Damaged(number, records));
                }
                break;
            }
            if batch.is_empty() {
                batch.first = number;
                batch.encoding = encoding;
            }
            batch.last = number;
            batch.records += records;
            batch.bytes += payload.len();
            batch.payloads.push((number, payload));
            if batch.bytes >= bytes {
                break;
            }
        }
        Ok(if batch.is_empty() { Found::Nothing } else { Found::Batch(batch) })
    }
}
