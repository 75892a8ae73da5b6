//! An open database: how it is opened, written and left.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid};
use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, OpenFlags, Transaction, TransactionBehavior};
use tracing::warn;

use super::Schema;
use super::failure::{self, Failure};
use super::row;

/// How long a lock of another process is waited for: at start, and by the loop,
/// which has events to read.
const PATIENCE_AT_START: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_millis(50);
/// A transaction ends after this time, and the rest is left to the next one.
const TURN: Duration = Duration::from_millis(100);
/// Rows between two looks at the clock.
const STRIDE: usize = 64;
/// Pages of 4 KiB that the log may have before it is brought into the database:
/// rows spread over the indexes, and a page is then written once for many.
const CHECKPOINT: i64 = 8192;
/// What is kept of the log's file afterwards, bytes: that many pages.
const LOG_KEPT: i64 = CHECKPOINT * 4096;
/// Pages kept in memory, KiB: those of the indexes are used again and again.
const CACHE: i64 = 16 << 10;

/// An open database.
pub struct Database {
    connection: Connection,
    inserts: Vec<String>,
    path: PathBuf,
    /// Device and inode of the file that was opened.
    identity: (u64, u64),
    /// It did not exist before.
    created: bool,
}

/// What came of writing rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Rows that were looked at, from the first on.
    pub rows: u64,
    /// Of those, rows that were there already.
    pub repeated: u64,
    /// Of those, rows that the table does not take.
    pub refused: u64,
    /// Why not, of the last of them.
    pub why: Option<String>,
}

impl Database {
    /// Opens the file at start, and learns which table is to be written. Makes
    /// flowlog's own where there is none of that name.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn start(path: &Path, sync: bool, table: &str) -> Result<(Self, Schema), Failure> {
        let (connection, created) = connect(path, sync, PATIENCE_AT_START)?;
        let schema = Schema::find(&connection, table)?;
        let database = Self::prepare(connection, created, path, &schema)?;
        database.connection.busy_timeout(PATIENCE)?;
        Ok((database, schema))
    }

    /// Opens the file, in which the tables are as they were, or are made.
    ///
    /// # Errors
    /// As [`Database::start`].
    pub fn open(path: &Path, sync: bool, schema: &Schema) -> Result<Self, Failure> {
        let (connection, created) = connect(path, sync, PATIENCE)?;
        Self::prepare(connection, created, path, schema)
    }

    fn prepare(
        connection: Connection,
        created: bool,
        path: &Path,
        schema: &Schema,
    ) -> Result<Self, Failure> {
        schema.create(&connection)?;
        let inserts = schema.inserts();
        for insert in &inserts {
            // Now, not with the first row: tables of others are told at start.
            connection.prepare_cached(insert)?;
        }
        let identity = identity(path).unwrap_or_default();
        Ok(Self { connection, inserts, path: path.to_owned(), identity, created })
    }

    /// Writes rows in one transaction, as many as can be in a moment.
    ///
    /// # Errors
    /// None of them was written.
    pub fn write<'r>(&mut self, rows: impl Iterator<Item = &'r [u8]>) -> Result<Written, Failure> {
        let Self { connection, inserts, .. } = self;
        let begin = Instant::now();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut written = Written::default();
        insert(&transaction, inserts, rows, &mut written, || begin.elapsed() < TURN)?;
        transaction.commit()?;
        Ok(written)
    }

    /// Brings the log into the database, as far as that can be done at once: its
    /// file is then written from the beginning again, and takes no more room.
    pub fn use_log_again(&self) {
        // Where it fails nothing is lost, and it is tried again.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// A disk that is full after so many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<i64>) {
        let pages = pages.unwrap_or(i64::from(u32::MAX) - 1);
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
    }

    /// The file was renamed or removed, or another stands in its place.
    pub fn has_moved(&self) -> bool {
        identity(&self.path) != Some(self.identity)
    }

    /// Closes a file that was moved. Its log stands where it was before, under a
    /// name that the next database there takes: it is brought into the file, or
    /// set aside.
    pub fn leave(self) {
        let Self { connection, path, .. } = self;
        let state = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        drop(connection);
        match state {
            Ok((pages, moved)) if pages == moved => {
                // Empty by now, and nobody's.
                for suffix in ["-wal", "-shm"] {
                    let _ = fs::remove_file(beside(&path, suffix));
                }
            }
            _ => set_aside(&path),
        }
    }

    /// Hands the files that were made here to a user.
    pub fn give_to(&self, uid: Uid, gid: Gid) {
        if !self.created {
            return;
        }
        for suffix in ["", "-wal", "-shm"] {
            let file = beside(&self.path, suffix);
            match nix::unistd::chown(&file, Some(uid), Some(gid)) {
                Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
                Err(error) => {
                    warn!("the owner of {} could not be changed: {error}", file.display());
                }
            }
        }
    }
}

fn insert<'r>(
    transaction: &Transaction<'_>,
    inserts: &[String],
    rows: impl Iterator<Item = &'r [u8]>,
    written: &mut Written,
    more: impl Fn() -> bool,
) -> Result<(), Failure> {
    // Rows of a kind mostly follow one another.
    let mut current: Option<(usize, CachedStatement<'_>)> = None;
    for (count, row) in rows.enumerate() {
        if count % STRIDE == STRIDE - 1 && !more() {
            break;
        }
        let (number, values) = row::read(row);
        let statement = match &mut current {
            Some((known, statement)) if *known == number => statement,
            _ => {
                let sql = inserts.get(number).map_or("", String::as_str);
                &mut current.insert((number, transaction.prepare_cached(sql)?)).1
            }
        };
        for (place, value) in values.enumerate() {
            statement.raw_bind_parameter(place + 1, ToSqlOutput::Borrowed(value))?;
        }
        match statement.raw_execute() {
            Ok(0) => written.repeated += 1,
            Ok(_) => {}
            Err(error) if failure::is_of_the_row(&error) => {
                written.refused += 1;
                written.why = Some(error.to_string());
            }
            Err(error) => return Err(error.into()),
        }
        written.rows += 1;
    }
    Ok(())
}

fn connect(path: &Path, sync: bool, patience: Duration) -> Result<(Connection, bool), Failure> {
    if path.is_dir() {
        return Err(Failure::directory());
    }
    let length = fs::metadata(path).map_or(0, |file| file.len());
    if length == 0 && fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        // SQLite would remove it.
        set_aside(path);
    }
    let created = !path.exists();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    if connection.is_readonly("main")? {
        return Err(Failure::read_only());
    }
    connection.busy_timeout(patience)?;
    // Where shared memory cannot be had it stays what it was, and that works too.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", if sync { "full" } else { "normal" })?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT, |_| Ok(()))?;
    Ok((connection, created))
}

/// Keeps a log from the next database of that name, to which it does not belong.
fn set_aside(path: &Path) {
    let log = beside(path, "-wal");
    let aside = beside(path, "-wal.left");
    match fs::rename(&log, &aside) {
        Ok(()) => warn!(
            "{} has rows of a database that was moved away, and is {} now; rename it to that \
             database's name with -wal behind it before that is opened",
            log.display(),
            aside.display()
        ),
        Err(error) => warn!("{} cannot be set aside: {error}", log.display()),
    }
    let _ = fs::remove_file(beside(path, "-shm"));
}

/// A file of SQLite's beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}
