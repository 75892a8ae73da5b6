//! An open database: how it is opened, written and left.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::types::ToSqlOutput;
use rusqlite::{CachedStatement, Connection, OpenFlags, Transaction, TransactionBehavior};
use tracing::{info, warn};

use super::Schema;
use super::commits::Commits;
use super::coverage::{self, Ahead, Run};
use super::failure::{self, Failure};
use super::row;
use crate::archive::coverage::{Gap, Gaps, Reason};
use crate::plugin::beneath::{self, Anchor, Fate, beside};

/// How long a lock of another process is waited for at a time: the writer's thread may have to
/// end.
const PATIENCE: Duration = Duration::from_millis(250);
/// A transaction ends after this time, and the rest is left to the next one.
const TURN: Duration = Duration::from_millis(500);
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
pub(crate) struct Database {
    connection: Connection,
    inserts: Vec<String>,
    path: PathBuf,
    /// The file that was opened.
    anchor: Anchor,
    /// It did not exist before.
    created: bool,
    /// It has flowlog's own tables.
    own: bool,
}

/// What is written beside rows, into flowlog's own tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notes<'a> {
    /// What was lost.
    pub(super) gaps: &'a Gaps,
    /// The times that are covered, if they are to be written; the rows are of the last.
    pub(super) runs: &'a [Run],
    /// Runs of earlier processes that may cover a time to come.
    pub(super) ahead: Option<Ahead>,
}

/// What came of writing rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Written {
    /// Rows that were looked at, from the first on.
    pub(super) rows: u64,
    /// Of those, rows that were there already, other than by a commit that left them in doubt.
    pub(super) repeated: u64,
    /// The first rows, which an earlier commit has left in doubt.
    doubted: u64,
    /// Of those, rows that the table does not take.
    pub(super) refused: u64,
    /// Why not, of the last of them.
    pub(super) why: Option<String>,
    /// The times that are covered, as they were written.
    pub(super) runs: Vec<Run>,
}

impl Database {
    /// Opens the file. Where it is not `known` which tables are written, looks whether it has
    /// `table`. Makes flowlog's own where they are missing, and a known table of ulogd2 in an
    /// empty file.
    ///
    /// # Errors
    /// It cannot be used.
    pub(super) fn open(
        path: &Path,
        sync: bool,
        table: &str,
        known: Option<&Schema>,
    ) -> Result<(Self, Schema), Failure> {
        let (connection, created) = connect(path, sync)?;
        let schema = match known {
            Some(schema) => schema.clone(),
            None => Schema::find(&connection, table)?,
        };
        schema.create(&connection)?;
        let inserts = schema.inserts();
        for insert in &inserts {
            // Now, not with the first row: tables of others are told at start.
            connection.prepare_cached(insert)?;
        }
        let anchor = Anchor::open(path).map_err(|error| Failure::vanished(&error))?;
        let own = schema == Schema::Own;
        let database = Self { connection, inserts, path: path.to_owned(), anchor, created, own };
        Ok((database, schema))
    }

    /// Writes rows in one transaction, as many as can be in a moment. `commits` has whether it
    /// may be committed still, and what came of it.
    ///
    /// # Errors
    /// None of them was written, or where `commits` has them in doubt perhaps all.
    pub(super) fn write<'r>(
        &mut self,
        rows: impl Iterator<Item = &'r [u8]>,
        notes: Notes<'_>,
        commits: &Commits,
    ) -> Result<Written, Failure> {
        let Self { connection, inserts, anchor, own, .. } = self;
        if anchor.is_removed() {
            return Err(Failure::removed());
        }
        let begin = Instant::now();
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut written = Written { doubted: commits.in_doubt(), ..Written::default() };
        let refused = insert(&transaction, inserts, rows, &mut written, || begin.elapsed() < TURN)?;
        if *own {
            note(&transaction, notes, refused, &mut written)?;
        }
        // Else it is rolled back.
        let before = commits.begin(written.rows).ok_or_else(Failure::given_up)?;
        let committed = transaction.commit().map_err(Failure::from);
        // What was committed to a file without a name goes with it.
        let outcome = if anchor.is_removed() { Err(Failure::removed()) } else { committed };
        match outcome {
            Ok(()) => Ok(written),
            Err(failure) => {
                if !failure.leaves_doubt() {
                    commits.undone(before);
                }
                Err(failure)
            }
        }
    }

    /// Brings the log into the database, as far as that can be done at once: its
    /// file is then written from the beginning again, and takes no more room.
    pub(super) fn use_log_again(&self) {
        // Where it fails nothing is lost, and it is tried again.
        let _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Brings the whole log into the database, and both to the disk. After a sync that failed
    /// the log may hold a commit that counts as undone, whose pages the kernel takes for
    /// written: a commit that finds its rows there syncs nothing.
    ///
    /// # Errors
    /// That failed.
    pub(super) fn settle(&self) -> Result<(), Failure> {
        let (pages, moved): (i64, i64) =
            self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get(1)?, row.get(2)?))
            })?;
        if pages == moved { Ok(()) } else { Err(Failure::is_read()) }
    }

    /// A disk that is full after so many pages.
    #[cfg(test)]
    pub(crate) fn limit_pages(&self, pages: Option<i64>) {
        let pages = pages.unwrap_or(i64::from(u32::MAX) - 1);
        self.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
    }

    /// What became of the file's name.
    pub(super) fn fate(&self) -> Fate {
        self.anchor.fate()
    }

    /// Another file than that one; also if it is new under the number of an old one.
    pub(super) fn is_another_than(&self, device_and_inode: Option<(u64, u64)>) -> bool {
        self.created || device_and_inode != self.device_and_inode()
    }

    /// What tells the file from others that exist.
    pub(super) fn device_and_inode(&self) -> Option<(u64, u64)> {
        fs::metadata(&self.path).ok().map(|file| (file.dev(), file.ino()))
    }

    /// Closes a file that was moved. Its log stands where it was before, under a
    /// name that the next database there takes: it is brought into the file, or
    /// where that fails renamed as the file was, or set aside.
    pub(super) fn leave(self) {
        if self.fate() != Fate::Renamed {
            return;
        }
        let Self { connection, path, anchor, .. } = self;
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
            _ if follows(&path, anchor.name()) => {}
            _ => keep_log(&path),
        }
    }

    /// Closes a damaged file and renames it, with what stands beside it.
    pub(super) fn set_aside(self) -> Result<PathBuf, Failure> {
        let Self { connection, path, .. } = self;
        // Nothing is brought into a file that is damaged.
        let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
        drop(connection);
        set_aside(&path)
    }
}

fn insert<'r>(
    transaction: &Transaction<'_>,
    inserts: &[String],
    rows: impl Iterator<Item = &'r [u8]>,
    written: &mut Written,
    more: impl Fn() -> bool,
) -> Result<Option<Gap>, Failure> {
    let mut gap: Option<Gap> = None;
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
            // It was this process that wrote it.
            Ok(0) if written.rows < written.doubted => {}
            Ok(0) => written.repeated += 1,
            Ok(_) => {}
            Err(error) if failure::is_of_the_row(&error) => {
                written.refused += 1;
                written.why = Some(error.to_string());
                let time = row::time(row);
                let known = gap.get_or_insert(refused(time));
                known.since = known.since.min(time);
                known.until = known.until.max(time);
                known.records += 1;
            }
            Err(error) => return Err(error.into()),
        }
        written.rows += 1;
    }
    Ok(gap)
}

fn refused(time: u64) -> Gap {
    Gap::new(Reason::Refused, (time, time), 0).at("table")
}

/// Writes what is covered and what is not.
fn note(
    transaction: &Transaction<'_>,
    Notes { gaps, runs, ahead }: Notes<'_>,
    refused: Option<Gap>,
    written: &mut Written,
) -> Result<(), Failure> {
    for gap in gaps.all().iter().chain(refused.as_ref()) {
        coverage::write_gap(gap, transaction)?;
    }
    if let Some(ahead) = ahead {
        ahead.cut(transaction)?;
    }
    if let Some((present, ended)) = runs.split_last() {
        for run in ended {
            written.runs.push(run.write(transaction)?);
        }
        let records = written.rows - written.repeated - written.refused;
        written.runs.push(present.with(records).write(transaction)?);
    }
    Ok(())
}

fn connect(path: &Path, sync: bool) -> Result<(Connection, bool), Failure> {
    let found = fs::metadata(path);
    match &found {
        Ok(found) if found.is_dir() => return Err(Failure::directory()),
        Ok(found) if !found.is_file() => return Err(Failure::not_a_file()),
        _ => {}
    }
    let length = found.map_or(0, |file| file.len());
    if length == 0 && fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        // SQLite would remove it.
        keep_log(path);
    }
    let created = !path.exists();
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    if connection.is_readonly("main")? {
        return Err(Failure::read_only());
    }
    connection.busy_timeout(PATIENCE)?;
    // Where shared memory cannot be had it stays what it was, and that works too.
    connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", if sync { "full" } else { "normal" })?;
    connection.pragma_update(None, "cache_size", -CACHE)?;
    connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT, |_| Ok(()))?;
    connection.pragma_update_and_check(None, "journal_size_limit", LOG_KEPT, |_| Ok(()))?;
    Ok((connection, created))
}

/// Renames a log as its database was; returns whether that worked. The next connection to the
/// database brings it in.
fn follows(path: &Path, name: Option<PathBuf>) -> bool {
    let Some(log) = name.map(|name| beside(&name, "-wal")) else { return false };
    // One that is there already is that of somebody else who has it open.
    if log.exists() || fs::rename(beside(path, "-wal"), &log).is_err() {
        return false;
    }
    let _ = fs::remove_file(beside(path, "-shm"));
    info!(
        "{} has rows that could not be brought into their database: it has to stay beside it \
         until the database is opened",
        log.display()
    );
    true
}

/// Keeps a log from the next database of that name, to which it does not belong.
fn keep_log(path: &Path) {
    let log = beside(path, "-wal");
    let names = (1..).map(|turn| match turn {
        1 => beside(path, "-wal.left"),
        turn => beside(path, &format!("-wal.left.{turn}")),
    });
    // One of before keeps its name.
    let aside = names.into_iter().find(|name| !name.exists()).unwrap_or_default();
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

/// Renames a damaged database, which nothing has open any more.
///
/// # Errors
/// It stays where it is.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, Failure> {
    beneath::set_aside(path, "damaged").map_err(|error| Failure::cannot_be_set_aside(&error))
}
