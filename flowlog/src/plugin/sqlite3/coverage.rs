//! The table `coverage`: for which time the database has every record, and what is missing.
//!
//! It is written in the transactions of the rows, so it never states more than they do. Only
//! flowlog's own tables have it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{Transaction, params};

use super::database::Database;
use super::failure::Failure;
use super::own::checksum;
use super::queue::Mark;
use crate::archive::clock::Moment;
use crate::archive::coverage::Gap;

/// The name of the table.
pub(super) const TABLE: &str = "coverage";
/// `run`: since the daemon started, or began this file, until the time up to which all
/// records are committed; absent: none is yet. Its detail is its [`Origin`]. Other kinds: see [`Reason`].
///
/// [`Origin`]: crate::archive::origin::Origin
/// [`Reason`]: crate::archive::coverage::Reason
pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS coverage (\n  \
    kind TEXT NOT NULL,\n  since INTEGER NOT NULL,\n  until INTEGER,\n  \
    records INTEGER NOT NULL,\n  detail TEXT,\n  checksum INTEGER\n) STRICT;\n";
/// Only if it is not there: a commit whose sync failed may have written it.
const INSERT: &str = "INSERT INTO coverage (kind, since, until, records, detail, checksum) \
                      SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (\
                      SELECT 1 FROM coverage WHERE kind = ?1 AND since = ?2 AND until IS ?3 \
                      AND records = ?4 AND detail IS ?5 \
                      AND rowid > (SELECT max(rowid) - 512 FROM coverage))";
const RUN: &str = "SELECT max(rowid) FROM coverage WHERE kind = 'run' AND since = ?1 \
                   AND rowid > (SELECT max(rowid) - 512 FROM coverage)";
const GO_ON: &str = "UPDATE coverage SET until = ?, records = ?, checksum = ? \
                     WHERE rowid = ? AND kind = 'run' AND since = ?";

/// A row.
struct Entry<'a> {
    kind: &'a str,
    since: i64,
    until: Option<i64>,
    records: i64,
    detail: Option<&'a str>,
}

impl Entry<'_> {
    /// As of rows of the other tables: over the values in the order of the columns.
    fn checksum(&self) -> i64 {
        let Self { kind, since, until, records, detail } = *self;
        let values = [
            text(kind),
            ValueRef::Integer(since),
            until.map_or(ValueRef::Null, ValueRef::Integer),
            ValueRef::Integer(records),
            detail.map_or(ValueRef::Null, text),
        ];
        checksum(values.into_iter())
    }

    fn insert(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let Self { kind, since, until, records, detail } = *self;
        let values = params![kind, since, until, records, detail, self.checksum()];
        transaction.prepare_cached(INSERT)?.execute(values)?;
        Ok(())
    }
}

fn text(text: &str) -> ValueRef<'_> {
    ValueRef::Text(text.as_bytes())
}

/// A time that a database covers. Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Tells it from others of this process.
    number: u32,
    /// Since when all records were taken.
    pub(super) since: u64,
    /// Up to when all of them are committed.
    pub(super) until: Option<u64>,
    /// How many.
    pub(super) records: u64,
    /// Its row, once it has one.
    row: Option<i64>,
    /// It is another than its row.
    changed: bool,
}

impl Run {
    /// With records of a transaction.
    pub(super) fn with(self, records: u64) -> Self {
        Self { records: self.records + records, ..self }
    }

    /// As it may be stated at `now`: it does not end later, and one that begins later covers
    /// nothing.
    fn at(self, now: u64) -> Self {
        let until = self.until.map(|until| until.min(now)).filter(|until| *until >= self.since);
        Self { until, ..self }
    }

    /// Writes it; returns it with its row. `origin`: where its records come from.
    pub(super) fn write(
        self,
        transaction: &Transaction<'_>,
        origin: Option<&str>,
    ) -> Result<Self, Failure> {
        let until = self.until.map(|until| until as i64);
        let (since, records) = (self.since as i64, self.records as i64);
        let entry = Entry { kind: "run", since, until, records, detail: origin };
        let find = || -> Result<Option<i64>, Failure> {
            Ok(transaction.prepare_cached(RUN)?.query_row([since], |row| row.get(0))?)
        };
        let row = self.row.map_or_else(find, |row| Ok(Some(row)))?;
        if let Some(row) = row {
            let values = params![until, records, entry.checksum(), row, since];
            // Somebody may have removed it.
            if transaction.prepare_cached(GO_ON)?.execute(values)? > 0 {
                return Ok(Self { row: Some(row), changed: false, ..self });
            }
        }
        entry.insert(transaction)?;
        Ok(Self { row: find()?, changed: false, ..self })
    }
}

/// What a database covers: a run for each time that a clock was set in; none where the tables are
/// ulogd2's.
#[derive(Debug, Default)]
pub(super) struct Cover {
    /// The last is the present one.
    runs: VecDeque<Run>,
    begun: u32,
    /// When the present one was written.
    written: Option<Instant>,
    /// The file that has their rows.
    file: Option<(u64, u64)>,
    /// When the clock was set for the last time.
    set: Option<Moment>,
}

/// Runs that are remembered, so that they can be cut when the clock is set back, and mended.
const REMEMBERED: usize = 16;

impl Cover {
    /// All records are taken from now on.
    pub(super) fn begin(&mut self, since: u64) {
        self.begun += 1;
        self.runs.push_back(Run { number: self.begun, since, ..Run::default() });
        self.written = None;
    }

    /// Its tables turned out to be ulogd2's.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Goes past a mark: what stands before it is committed.
    pub(super) fn pass(&mut self, mark: Mark) {
        match mark {
            Mark::Reached(until) => self.reaches(until),
            Mark::ClockSet(now) => self.clock_was_set(now),
        }
    }

    fn reaches(&mut self, until: u64) {
        if let Some(run) = self.runs.back_mut()
            // What happened before it began is not known.
            && until >= run.since
        {
            run.until = Some(until);
            run.changed = true;
        }
    }

    /// The present run ends with the last time that is known by the old clock, and another one
    /// begins. All are written anew: those of the future were cut, and are whole again where the
    /// clock was set back by mistake.
    fn clock_was_set(&mut self, now: Moment) {
        self.set = Some(now);
        if self.runs.is_empty() {
            return;
        }
        self.runs.retain(|run| run.row.is_some() || run.until.is_some() || run.records > 0);
        self.runs.iter_mut().for_each(|run| run.changed = true);
        if self.runs.len() >= REMEMBERED {
            self.runs.pop_front();
        }
        self.begin(now.wall);
    }

    /// There is a run to be written: one that has ended, or the present one, which has not been
    /// for `period`.
    pub(super) fn is_due(&self, period: Duration) -> bool {
        let mut runs = self.runs.iter().rev();
        let Some(present) = runs.next() else { return false };
        let long_ago = self.written.is_none_or(|written| written.elapsed() >= period);
        let is_due = present.row.is_none() || present.changed && long_ago;
        is_due || runs.any(|run| run.changed)
    }

    /// The runs to be written; the last of them is the present one. None of them ends after
    /// `now`.
    pub(super) fn due(&self, period: Duration, now: Moment) -> Vec<Run> {
        if !self.is_due(period) {
            return Vec::new();
        }
        let last = self.runs.len().saturating_sub(1);
        let each = self.runs.iter().enumerate();
        let due = each.filter(|(place, run)| *place == last || run.changed);
        // The clock may have been set since without a mark that has come here.
        let passed = |set: Moment| now.steady.saturating_sub(set.steady);
        let known = self.set.map_or(now.wall, |set| set.wall.saturating_add(passed(set)));
        due.map(|(_, run)| run.at(known.min(now.wall))).collect()
    }

    /// Records of the present run were committed, and these runs with them, in a database.
    pub(super) fn written(&mut self, records: u64, runs: &[Run], database: Option<&Database>) {
        let Some(present) = self.runs.back_mut() else { return };
        if runs.is_empty() {
            present.records += records;
            present.changed |= records > 0;
            return;
        }
        for written in runs {
            if let Some(run) = self.runs.iter_mut().find(|run| run.number == written.number) {
                (run.row, run.records, run.changed) = (written.row, written.records, false);
            }
        }
        self.written = Some(Instant::now());
        self.file = database.and_then(Database::device_and_inode);
    }

    /// The database was opened, perhaps another file than before: there the present run goes on.
    pub(super) fn goes_on_in(&mut self, database: &Database) {
        let has_rows = self.runs.iter().any(|run| run.row.is_some());
        if has_rows
            && database.is_another_than(self.file)
            && let Some(Run { number, since, until, .. }) = self.runs.pop_back()
        {
            let since = until.unwrap_or(since);
            self.runs.clear();
            self.runs.push_back(Run { number, since, ..Run::default() });
        }
    }
}

/// Writes a gap.
pub(super) fn write_gap(gap: &Gap, transaction: &Transaction<'_>) -> Result<(), Failure> {
    let Gap { reason, records, source, .. } = gap;
    let [since, until, records] = [gap.since(), gap.until(), *records].map(|number| number as i64);
    let kind = reason.name();
    Entry { kind, since, until: Some(until), records, detail: Some(source) }.insert(transaction)
}
