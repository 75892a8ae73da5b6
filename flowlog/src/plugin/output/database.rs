//! Rows to a database, in one transaction for what comes together.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::backlog::Backlog;
use crate::plugin::sqlite3::{Database, Failure, Schema, Settings, Written};
use crate::ratelimit::RateLimit;
use crate::stats::{Measure, SinkStats};

/// How often a transaction that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How long rows gather where nobody asks for each batch to be on disk, and how
/// many: they spread over the pages of indexes, and a transaction writes each page
/// that it touches once.
const GATHER: Duration = Duration::from_millis(250);
const GATHERED: u64 = 16384;

/// A database, and the rows that wait for it.
pub struct DatabaseOutput {
    path: PathBuf,
    sync: bool,
    buffer_max: usize,
    schema: Schema,
    /// Absent while it cannot be opened.
    database: Option<Database>,
    rows: Backlog,
    /// When the first of them came.
    since: Instant,
    /// The last transaction failed, and why: rows wait.
    failing: Option<Failure>,
    retries: RateLimit,
    complaints: RateLimit,
    stats: SinkStats,
}

impl DatabaseOutput {
    /// Opens the database.
    ///
    /// # Errors
    /// It cannot be used.
    pub fn open(settings: &Settings, stats: SinkStats) -> Result<Self, Failure> {
        let Settings { db, table, sync, buffer_max } = settings;
        // A daemon leaves its directory; the file is opened anew by this path.
        let path = std::path::absolute(db).unwrap_or_else(|_| db.clone());
        let (database, schema) = Database::start(&path, *sync, table)?;
        let shown = path.display();
        match &schema {
            Schema::Ulogd(found) => {
                info!("{shown}: the {} columns of its table {table} are written", found.columns());
            }
            Schema::Own if table.is_empty() => {}
            Schema::Own => info!("{shown} has no table {table}: flowlog's own tables are written"),
        }
        Ok(Self {
            path,
            sync: *sync,
            buffer_max: *buffer_max,
            schema,
            database: Some(database),
            rows: Backlog::new(),
            since: Instant::now(),
            failing: None,
            retries: RateLimit::per_second(),
            complaints: RateLimit::per_second(),
            stats,
        })
    }

    /// Which tables are written.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    #[cfg(test)]
    pub(in crate::plugin) fn database(&self) -> &Database {
        self.database.as_ref().unwrap()
    }

    /// Takes a row in two parts.
    #[inline]
    pub fn push(&mut self, front: &[u8], rest: &[u8]) {
        let length = front.len() + rest.len();
        if self.rows.len() + length > self.buffer_max && !self.make_room(length) {
            self.stats.add(Measure::Lost, 1);
            return;
        }
        if self.rows.is_empty() {
            self.since = Instant::now();
        }
        self.rows.push(front, rest);
    }

    /// Makes room for `length` bytes, if it can be had.
    #[cold]
    fn make_room(&mut self, length: usize) -> bool {
        if self.failing.is_none() || self.retries.allow() {
            self.write();
        }
        self.rows.is_empty() || self.rows.len() + length <= self.buffer_max
    }

    /// Ends a batch: with `sync` it is on disk then, else it is written when it is
    /// time or there are many.
    pub fn flush(&mut self) {
        let due = match self.failing {
            Some(_) => !self.rows.is_empty() && self.retries.allow(),
            None => self.due_in() == Some(Duration::ZERO),
        };
        if due {
            self.write();
        }
    }

    /// When the rows are to be written that wait, while nothing fails.
    fn due_in(&self) -> Option<Duration> {
        match self.rows.records() {
            0 => None,
            rows if self.sync || rows >= GATHERED => Some(Duration::ZERO),
            _ => Some(GATHER.saturating_sub(self.since.elapsed())),
        }
    }

    /// See [`super::Output::retry_in`].
    pub fn retry_in(&self) -> Option<Duration> {
        let retry = self.failing.as_ref().map(|_| RETRY);
        self.due_in().map(|due| retry.unwrap_or(due))
    }

    /// The file, by its full path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`super::Output::fill`].
    pub fn fill(&self) -> (usize, usize) {
        (self.rows.len(), self.buffer_max)
    }

    /// Why the last transaction failed.
    pub fn failure(&self) -> Option<&Failure> {
        self.failing.as_ref()
    }

    /// See [`super::Output::close`].
    pub fn close(&mut self) {
        while !self.rows.is_empty() && self.write() {}
        let records = self.rows.records();
        if records > 0 {
            self.stats.add(Measure::Lost, records);
            warn!("{records} records for {} are lost at exit", self.path.display());
            self.rows.release(usize::MAX);
        }
        self.leave();
    }

    /// Closes the database. What was moved away takes its log with it.
    fn leave(&mut self) {
        match self.database.take() {
            Some(database) if database.has_moved() => database.leave(),
            database => drop(database),
        }
    }

    /// Opens the file anew, for rotation: what stands in its place now, or a new
    /// one. If that fails rows wait.
    pub fn reopen(&mut self) {
        // What was logged before belongs into the old file.
        if !self.rows.is_empty() {
            self.write();
        }
        self.leave();
        match self.connect() {
            Ok(()) => info!("{} opened anew", self.path.display()),
            Err(failure) => self.failed(failure),
        }
    }

    /// Hands the files to `user`, if flowlog has created them, so that they can
    /// be opened anew after privileges were dropped.
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        if let Some(database) = &self.database {
            database.give_to(uid, gid);
        }
    }

    /// Writes what can be written in a moment; returns whether that worked.
    fn write(&mut self) -> bool {
        match self.transact() {
            Ok(written) => {
                self.count(written);
                true
            }
            Err(failure) => {
                self.failed(failure);
                false
            }
        }
    }

    fn transact(&mut self) -> Result<Written, Failure> {
        self.connect()?;
        let Some(database) = &mut self.database else { return Ok(Written::default()) };
        database.write(self.rows.each())
    }

    fn connect(&mut self) -> Result<(), Failure> {
        if self.database.is_none() {
            self.database = Some(Database::open(&self.path, self.sync, &self.schema)?);
        }
        Ok(())
    }

    fn count(&mut self, written: Written) {
        let Written { rows, repeated, refused, why } = written;
        self.rows.release_records(rows);
        self.stats.add(Measure::Records, rows - repeated - refused);
        self.stats.add(Measure::Repeated, repeated);
        self.stats.add(Measure::Refused, refused);
        if let Some(why) = why
            && self.complaints.allow()
        {
            warn!(
                "{} refuses rows, {refused} are lost: {why}; see what the table demands",
                self.path.display()
            );
        }
        if self.failing.take().is_some() {
            info!("{} can be written again", self.path.display());
        }
    }

    #[cold]
    fn failed(&mut self, failure: Failure) {
        self.stats.add(Measure::Errors, 1);
        if self.complaints.allow() {
            let (waiting, lost) = (self.rows.len(), self.stats.get(Measure::Lost));
            warn!(
                "{} cannot be written: {failure}. {waiting} bytes wait, {lost} records lost so far",
                self.path.display()
            );
        }
        if !failure.passes() {
            // The file may be another one by then.
            self.leave();
        } else if let Some(database) = &self.database {
            // The disk may be full of it.
            database.use_log_again();
        }
        self.failing = Some(failure);
    }
}
