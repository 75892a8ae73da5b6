//! The table `coverage`: for which time the database has every record, and what is missing.
//!
//! It is written in the transactions of the rows, so it never states more than they do. Only
//! flowlog's own tables have it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rusqlite::types::ValueRef;
use rusqlite::{Transaction, params};
use tracing::warn;

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

/// Runs of earlier processes that end after a time.
const AHEAD: &str = "SELECT rowid, since, until, records, detail, checksum FROM coverage \
                     WHERE kind = 'run' AND until > ? AND rowid < ?";
const CUT: &str = "UPDATE coverage SET until = ?, checksum = ? WHERE rowid = ?";

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
    /// The first row of this process in that file.
    first: Option<i64>,
    /// Runs of earlier processes were looked at by a clock that is right.
    looked: bool,
    /// The file was removed or damaged: its rows are in none that is read.
    gone: bool,
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

    /// Earlier runs that are to be looked at with the next write: once, when the clock is right.
    pub(super) fn ahead(&self, now: Moment, is_right: impl FnOnce() -> bool) -> Option<Ahead> {
        let before = self.first.unwrap_or(i64::MAX);
        (!self.looked && is_right()).then_some(Ahead { now: now.wall, before })
    }

    /// They were.
    pub(super) fn has_looked(&mut self) {
        self.looked = true;
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
        self.first = self.first.or_else(|| runs.iter().filter_map(|run| run.row).min());
        self.written = Some(Instant::now());
        self.file = database.and_then(Database::device_and_inode);
    }

    /// The file, or what it held, has gone.
    pub(super) fn rows_have_gone(&mut self) {
        self.gone = true;
    }

    /// The database was opened, perhaps another file than before: there the present run goes on.
    /// Where the file before was only renamed it has all until then.
    pub(super) fn goes_on_in(&mut self, database: &Database, now: u64) {
        let gone = std::mem::take(&mut self.gone);
        let has_rows = self.runs.iter().any(|run| run.row.is_some());
        if has_rows
            && database.is_another_than(self.file)
            && let Some(Run { number, since, until, .. }) = self.runs.pop_back()
        {
            let since = if gone { now } else { until.unwrap_or(since) };
            self.runs.clear();
            self.runs.push_back(Run { number, since, ..Run::default() });
            (self.first, self.looked) = (None, false);
        }
    }
}

/// A clock that is right, and what an earlier process may have written under one that was ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ahead {
    now: u64,
    /// The first row of this process.
    before: i64,
}

impl Ahead {
    /// Takes the end from runs that would cover a time to come, and reports it. What is damaged
    /// stays so.
    pub(super) fn cut(self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let Self { now, before } = self;
        let now = now as i64;
        let mut ahead = transaction.prepare_cached(AHEAD)?;
        let mut cut = transaction.prepare_cached(CUT)?;
        let mut rows = ahead.query(params![now, before])?;
        while let Some(row) = rows.next()? {
            let (number, since, end): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            let (records, detail): (i64, Option<String>) = (row.get(3)?, row.get(4)?);
            let checksum: Option<i64> = row.get(5)?;
            let detail = detail.as_deref();
            let found = Entry { kind: "run", since, until: Some(end), records, detail };
            if checksum.is_some_and(|checksum| checksum != found.checksum()) {
                continue;
            }
            // When it began and ended by the right clock is not known.
            let until = None;
            let checksum = checksum.map(|_| Entry { until, ..found }.checksum());
            cut.execute(params![until, checksum, number])?;
            warn!(
                "row {number} of the table coverage covered the time from {since} to {end}, which \
                 has not passed: it covers nothing now; see why the clock was ahead"
            );
        }
        Ok(())
    }
}

/// Writes a gap.
pub(super) fn write_gap(gap: &Gap, transaction: &Transaction<'_>) -> Result<(), Failure> {
    let Gap { reason, records, source, .. } = gap;
    let [since, until, records] = [gap.since(), gap.until(), *records].map(|number| number as i64);
    let kind = reason.name();
    Entry { kind, since, until: Some(until), records, detail: Some(source) }.insert(transaction)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// Until when each is, and whether it is as it was written.
    fn runs(connection: &Connection) -> Vec<(Option<i64>, bool)> {
        let sql = "SELECT kind, since, until, records, detail, checksum FROM coverage \
                   ORDER BY rowid";
        let mut query = connection.prepare(sql).unwrap();
        let run = |row: &rusqlite::Row<'_>| {
            let detail: Option<String> = row.get(4)?;
            let kind: String = row.get(0)?;
            let (since, until, records) = (row.get(1)?, row.get(2)?, row.get(3)?);
            let detail = detail.as_deref();
            let entry = Entry { kind: &kind, since, until, records, detail };
            let whole = row.get::<_, Option<i64>>(5)? == Some(entry.checksum());
            Ok((until, whole))
        };
        query.query_map([], run).unwrap().map(Result::unwrap).collect()
    }

    /// Of runs of an earlier process whose clock was ahead: one that has ended, one that goes
    /// beyond the present time, one that begins there, one that is damaged.
    #[test]
    fn runs_of_a_clock_that_was_ahead_are_cut() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(CREATE).unwrap();
        let transaction = connection.transaction().unwrap();
        let run = |since, until| Entry { kind: "run", since, until, records: 1, detail: None };
        for (since, until) in [(10, Some(90)), (20, Some(200)), (150, Some(300)), (30, Some(400))] {
            run(since, until).insert(&transaction).unwrap();
        }
        let change = "UPDATE coverage SET records = 7 WHERE since = 30";
        transaction.execute_batch(change).unwrap();
        // Of a gap it is only said when that was.
        Entry { kind: "lost", ..run(10, Some(500)) }.insert(&transaction).unwrap();
        run(50, Some(100)).insert(&transaction).unwrap();
        Ahead { now: 100, before: 6 }.cut(&transaction).unwrap();
        let expected = [
            (Some(90), true),
            (None, true),
            (None, true),
            (Some(400), false),
            (Some(500), true),
            (Some(100), true),
        ];
        assert_eq!(runs(&transaction), expected);
        // Nothing more the second time.
        Ahead { now: 100, before: 6 }.cut(&transaction).unwrap();
        assert_eq!(runs(&transaction), expected);
    }

    /// Not before the clock is right, and not again.
    #[test]
    fn earlier_runs_are_looked_at_once_the_clock_is_right() {
        let mut cover = Cover::default();
        cover.begin(5);
        let now = Moment::at(100);
        assert_eq!(cover.ahead(now, || false), None);
        assert_eq!(cover.ahead(now, || true), Some(Ahead { now: 100, before: i64::MAX }));
        let run = Run { row: Some(7), ..cover.due(Duration::ZERO, now)[0] };
        cover.written(1, &[run], None);
        assert_eq!(cover.ahead(now, || true), Some(Ahead { now: 100, before: 7 }));
        cover.has_looked();
        assert_eq!(cover.ahead(now, || panic!("asked again")), None);
    }
}
