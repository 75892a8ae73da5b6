//! The spool's file: a SQLite database, a row for each chunk of records.
//!
//! SQLite, because it is the kept library whose promise is the one that a spool
//! needs: what is committed is there after a loss of power (write-ahead log,
//! `synchronous=FULL`, which is an fdatasync for each commit), and room that
//! deleted rows leave is used again.
//!
//! A file that is damaged is set aside, one that was removed or replaced is made anew: what can
//! be read of it is copied, under the same numbers, so that nothing changes for the workers.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use super::claim::{Claim, LOCK};
use super::failure::Failure;
use super::given_up::GivenUp;
use super::health::Health;
use super::held;
use super::loss_table;
use super::losses::Loss;
use super::note::{self, NOTE, Note};
use super::replacement::{self, DAMAGED, FOUND, NEW, Replacement};
use super::rescue::{self, Amounts};
use super::spool::Chunk;
use super::stored::{self, Stored, sum_of};
use crate::plugin::beneath::{Anchor, Fate};
use crate::stats::Amount;

/// The file's name in its directory.
pub(super) const FILE: &str = "spool.db";
/// All that is flowlog's there: the file, what SQLite has beside it, what it held, the lock, and what
/// is there while another takes its place.
pub(super) const FILES: [&str; 7] =
    [FILE, "spool.db-wal", "spool.db-shm", held::FILE, LOCK, NEW, NOTE];
/// Of the tables below.
const VERSION: i64 = 1;
/// Bytes of a page: a chunk takes some sixteen, and the smallest commit two.
const PAGE: i64 = 16384;
/// What is kept of the log's file after it was brought into the database, bytes.
const LOG_KEPT: i64 = 64 << 20;
/// How long a lock is waited for; only `sqlite3` by hand holds one longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// `sequence` is never used again, so that whoever has noted one can tell what he
/// has. The payload stands last: whoever asks for the rest does not read it. `sum` is absent in
/// rows of earlier versions, which had no checksums.
const TABLES: &str = "
CREATE TABLE batch (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    encoding TEXT NOT NULL,
    records INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    complete INTEGER NOT NULL,
    sum INTEGER,
    payload BLOB NOT NULL
) STRICT;
";
/// Of what each sink has: also where a payload, or a page of them, cannot be read. Earlier versions
/// had one of `sink` and `sequence` alone.
const INDEX: &str = "
DROP INDEX IF EXISTS batch_of_sink;
CREATE INDEX IF NOT EXISTS batch_amounts ON batch (sink, sequence, records, bytes);
";

/// What spools of earlier versions do not have: of their rows it is not known.
const COMPLETE: &str = "ALTER TABLE batch ADD COLUMN complete INTEGER NOT NULL DEFAULT 0";

/// What is wrong with the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is damaged.
    Damaged,
    /// It was removed or renamed, or another is in its place.
    Replaced,
}

/// The spool's file, open for writing. One at a time.
pub(super) struct Store {
    file: OpenFile,
    path: PathBuf,
    directory: PathBuf,
    health: Health,
    claim: Claim,
    /// What is noted beside it, and may not be counted.
    noted: Option<Note>,
    /// It is left to the next start.
    keeps_note: bool,
}

/// What is done with a file that is found to be damaged when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDamage {
    /// It is replaced: what can be read of it is copied, which may take minutes.
    Replace,
    /// It stays as it is.
    Fail,
}

/// The file itself.
pub(super) struct OpenFile {
    pub(super) connection: Connection,
    anchor: Anchor,
    /// Bytes of all payloads.
    bytes: u64,
    /// The highest number that a row ever had.
    highest: i64,
}

impl OpenFile {
    /// Opens the file, and makes it where there is none. Also returned is what was given up, by
    /// this start or another one, and is not counted.
    ///
    /// # Errors
    /// It cannot be used; also if it is damaged, and is not to be replaced or cannot be.
    pub(super) fn find(
        path: &Path,
        on_damage: OnDamage,
    ) -> Result<(Self, Option<GivenUp>), Failure> {
        let earlier = replacement::vanished(path, replacement::resume(path)?)?;
        match Self::open(path) {
            Err(failure) if failure.is_damage() && on_damage == OnDamage::Replace => {
                let earlier = earlier.map(|given_up| given_up.all());
                let (file, given_up) = Self::replace(path, earlier)
                    .map_err(|why| Failure::Irreplaceable(path.to_owned(), Box::new(why)))?;
                Ok((file, Some(given_up)))
            }
            opened => Ok((opened?, earlier)),
        }
    }

    /// Makes a file in place of one that was damaged when it was opened.
    fn replace(path: &Path, earlier: Option<Note>) -> Result<(Self, GivenUp), Failure> {
        let failed = |error| Failure::Database(path.to_owned(), error);
        let old = Connection::open(path).map_err(failed)?;
        // It stays as it was found.
        old.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        let highest = rescue::highest(&old).unwrap_or(0);
        let replacement = Replacement::make(path, &old, highest, earlier)?;
        drop(old);
        replacement.install(DAMAGED)
    }

    /// Opens the file, and makes it where there is none.
    ///
    /// # Errors
    /// It cannot be used; also if it is damaged.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let failed = |error| Failure::Database(path.to_owned(), error);
        let connection = Connection::open(path).map_err(failed)?;
        prepare(&connection).map_err(failed)?;
        let version: i64 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        if version != VERSION {
            return Err(Failure::Foreign(path.to_owned()));
        }
        let amounts = rescue::amounts(&connection).map_err(failed)?;
        let bytes = amounts.values().map(|amount| amount.bytes).sum();
        let highest = rescue::highest(&connection).map_err(failed)?;
        loss_table::verify(&connection).map_err(failed)?;
        let anchor =
            Anchor::open(path).map_err(|error| Failure::Directory(path.to_owned(), error))?;
        Ok(Self { connection, anchor, bytes, highest })
    }
}

impl Store {
    /// The file, which is open, in the directory that was claimed; with what was given up, and is
    /// noted until it is forgotten.
    pub(super) fn new(
        (file, given_up): (OpenFile, Option<&GivenUp>),
        directory: &Path,
        claim: Claim,
        health: Health,
    ) -> Self {
        health.open();
        let (path, directory) = (directory.join(FILE), directory.to_owned());
        let noted = given_up.map(GivenUp::all);
        Self { file, path, directory, health, claim, noted, keeps_note: false }
    }

    /// What is wrong with the file, if anything is known to be.
    pub(super) fn wrong(&self) -> Option<Wrong> {
        match self.file.anchor.fate() {
            Fate::InPlace => self.health.is_damaged().then_some(Wrong::Damaged),
            Fate::Renamed | Fate::Removed => Some(Wrong::Replaced),
        }
    }

    /// Makes a file in place of the one that is open, and copies what can be read of that, which is
    /// announced before. It holds `held`, as far as that is known.
    ///
    /// # Errors
    /// None can be made: the old one stays in use.
    pub(super) fn replace(
        &mut self,
        wrong: Wrong,
        held: &Amounts,
        announce: impl FnOnce(),
    ) -> Result<GivenUp, Failure> {
        self.health.replaces(self.is_nameless());
        let made = self.try_to_replace(wrong, held, announce);
        self.health.detach(made.is_err() && self.is_nameless());
        self.health.replaces(false);
        made
    }

    fn is_nameless(&self) -> bool {
        self.file.anchor.fate() != Fate::InPlace
    }

    fn try_to_replace(
        &mut self,
        wrong: Wrong,
        held: &Amounts,
        announce: impl FnOnce(),
    ) -> Result<GivenUp, Failure> {
        let claimed = self.claim.renew(&self.directory);
        self.health.claims(claimed.is_ok());
        claimed?;
        announce();
        if self.is_nameless() {
            // A kill loses all of it then, and the next start finds no file: nor would it find the
            // number in a directory that was made anew.
            held::write(&self.directory, held);
        }
        // Of others, its rows have other numbers.
        let word = if wrong == Wrong::Damaged { DAMAGED } else { FOUND };
        let OpenFile { connection, highest, .. } = &self.file;
        let earlier = self.noted.clone();
        let replacement = Replacement::make(&self.path, connection, *highest, earlier)?;
        let (new, given_up) = replacement.install(word)?;
        self.noted = Some(given_up.all());
        self.file = new;
        self.health.another_file();
        Ok(given_up)
    }

    /// What was given up is noted beside it.
    pub(super) fn has_noted(&self) -> bool {
        self.noted.is_some() && !self.keeps_note
    }

    /// What was given up is counted by the next start.
    pub(super) fn keep_note(&mut self) {
        self.keeps_note = true;
    }

    /// What was given up was counted, and is noted as lost.
    pub(super) fn forget_given_up(&mut self) {
        self.noted = None;
        // Where that fails it is counted once more, by the next start.
        let _ = note::forget(&self.path);
    }

    /// Notes that the file has its name again, after it had none; returns whether it has.
    pub(super) fn attach(&self) -> bool {
        self.health.detach(false)
    }

    /// Notes beside the file what it holds.
    pub(super) fn note_held(&self, amounts: &Amounts) {
        if !self.health.is_detached() {
            held::write(&self.directory, amounts);
        }
    }

    /// What the threads know of the file.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Records of a sink in rows up to that number.
    pub(super) fn records_up_to(&self, sink: &str, last: i64) -> rusqlite::Result<u64> {
        let sql = "SELECT ifnull(sum(records), 0) FROM batch WHERE sink = ? AND sequence <= ?";
        self.file.connection.query_row(sql, params![sink, last], |row| row.get(0))
    }

    /// Begins to change it: `change` is done as a whole, or not at all.
    pub(super) fn transact<T>(
        &mut self,
        change: impl FnOnce(&mut Change<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, Failure> {
        let Self { file: OpenFile { connection, bytes, highest, .. }, path, .. } = self;
        let run = || {
            let transaction = connection.transaction()?;
            let mut changing =
                Change { connection: &transaction, bytes: *bytes, highest: *highest };
            let result = change(&mut changing)?;
            let left = (changing.bytes, changing.highest);
            transaction.commit()?;
            (*bytes, *highest) = left;
            Ok(result)
        };
        run().map_err(|error| Failure::Database(path.clone(), error))
    }

    /// Brings the log into the database, so that its file is written from the
    /// beginning again: for a disk that is full.
    pub(super) fn use_log_again(&self) {
        // Where it fails nothing is lost, and it is tried again.
        let _ = self.file.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
    }

    /// Gives room that nothing uses back to the disk.
    pub(super) fn shrink(&self) {
        // The same.
        let _ = self.file.connection.execute_batch("PRAGMA incremental_vacuum");
    }

    /// A disk that is full after so many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<i64>) {
        let pages = pages.unwrap_or(i64::from(u32::MAX) - 1);
        let pragma = format!("PRAGMA max_page_count = {pages}");
        self.file.connection.query_row(&pragma, [], |_| Ok(())).unwrap();
    }
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
            "BEGIN IMMEDIATE; {TABLES} {INDEX} PRAGMA user_version = {VERSION}; COMMIT;"
        ))?;
    }
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let without = "SELECT count(*) = 0 FROM sqlite_schema WHERE name = 'batch_amounts'";
    if version == VERSION && connection.query_row(without, [], |row| row.get(0))? {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {INDEX} COMMIT;"))?;
    }
    let without = "SELECT count(*) = 0 FROM pragma_table_info('batch') WHERE name = 'complete'";
    if version == VERSION && connection.query_row(without, [], |row| row.get(0))? {
        connection.execute_batch(COMPLETE)?;
    }
    if version != VERSION {
        return Ok(());
    }
    stored::add_sums(connection, "batch")?;
    loss_table::prepare(connection)
}

/// A row that was removed without having been delivered.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) number: i64,
    pub(super) sink: String,
    pub(super) amount: Amount,
    /// The times of its first and last record; absent if it was damaged.
    pub(super) span: Option<(u64, u64)>,
}

/// A change that is being made.
pub(super) struct Change<'a> {
    connection: &'a Connection,
    bytes: u64,
    highest: i64,
}

impl Change<'_> {
    /// Bytes of all payloads.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a row, and returns its number.
    pub(super) fn append(&mut self, sink: &str, chunk: &Chunk) -> rusqlite::Result<i64> {
        let Chunk { encoding, records, span: _, complete, payload } = chunk;
        // Given, as the checksum includes it.
        let number = self.highest + 1;
        let mut insert = self.connection.prepare_cached(
            "INSERT INTO batch (sequence, sink, encoding, records, bytes, complete, sum, payload) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let sum = sum_of(number, sink, encoding, *records, *complete, payload);
        let bytes = payload.len();
        let values = params![number, sink, &**encoding, records, bytes, complete, sum, payload];
        insert.execute(values)?;
        self.bytes += payload.len() as u64;
        self.highest = number;
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
        loss_table::insert(self.connection, sink, loss)
    }

    /// Removes losses.
    pub(super) fn forget(&mut self, said: &[(i64, Loss)]) -> rusqlite::Result<()> {
        loss_table::forget(self.connection, said)
    }

    /// Removes the oldest row that is not taken; returns what it was. Of each sink the rows behind
    /// the given number are not.
    pub(super) fn drop_oldest<'s>(
        &mut self,
        sinks: impl Iterator<Item = (&'s str, i64)>,
    ) -> rusqlite::Result<Option<Gone>> {
        let sql = "SELECT min(sequence) FROM batch WHERE sink = ? AND sequence > ?";
        let mut first = self.connection.prepare_cached(sql)?;
        let mut oldest: Option<(i64, &str)> = None;
        for (sink, taken) in sinks {
            let row: Option<i64> = first.query_row(params![sink, taken], |row| row.get(0))?;
            oldest = oldest.into_iter().chain(row.map(|row| (row, sink))).min();
        }
        let Some((number, sink)) = oldest else { return Ok(None) };
        let sql = format!("SELECT {}, bytes FROM batch WHERE sequence = ?", stored::COLUMNS);
        let mut query = self.connection.prepare_cached(&sql)?;
        let (row, bytes): (Stored, u64) =
            query.query_row([number], |row| Ok((Stored::read(row)?, row.get(7)?)))?;
        let span = row.span();
        let records = match span {
            Some(_) => row.records,
            None => row.records_if_damaged(self.connection, sink),
        };
        self.connection
            .prepare_cached("DELETE FROM batch WHERE sequence = ?")?
            .execute([number])?;
        self.bytes = self.bytes.saturating_sub(bytes);
        // The name in a damaged row may be another.
        let sink = sink.to_owned();
        Ok(Some(Gone { number, sink, amount: Amount { bytes, records }, span }))
    }
}
