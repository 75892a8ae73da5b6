//! The table `coverage`: for which time the database has every record, and what is missing.
//!
//! It is written in the transactions of the rows, so it never states more than they do. Only
//! flowlog's own tables have it.

use rusqlite::{Transaction, params};

use super::failure::Failure;
use crate::archive::coverage::Gap;

/// `run`: since the daemon started, or began this file, until the time up to which all
/// records are committed; absent: none is yet. Its detail is its [`Origin`]. Other kinds: see [`Reason`].
///
/// [`Origin`]: crate::archive::origin::Origin
/// [`Reason`]: crate::archive::coverage::Reason
pub(super) const CREATE: &str = "CREATE TABLE IF NOT EXISTS coverage (\n  \
    kind TEXT NOT NULL,\n  since INTEGER NOT NULL,\n  until INTEGER,\n  \
    records INTEGER NOT NULL,\n  detail TEXT\n) STRICT;\n";
const BEGIN: &str =
    "INSERT INTO coverage (kind, since, until, records, detail) VALUES ('run', ?, ?, ?, ?)";
const GO_ON: &str = "UPDATE coverage SET until = ?, records = ? WHERE rowid = ? AND kind = 'run'";
const GAP: &str =
    "INSERT INTO coverage (kind, since, until, records, detail) VALUES (?, ?, ?, ?, ?)";

/// The time that a database covers. Times are nanoseconds since the epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Run {
    /// Since when all records were taken.
    pub(super) since: u64,
    /// Up to when all of them are committed.
    pub(super) until: Option<u64>,
    /// How many.
    pub(super) records: u64,
    /// Its row, once it has one.
    pub(super) row: Option<i64>,
}

impl Run {
    /// Goes on in another file.
    pub(super) fn in_another_file(self) -> Self {
        Self { since: self.until.unwrap_or(self.since), until: None, records: 0, row: None }
    }

    /// Writes it; returns the number of its row.
    pub(super) fn write(
        &self,
        transaction: &Transaction<'_>,
        origin: Option<&str>,
    ) -> Result<i64, Failure> {
        let Self { since, until, records, row } = *self;
        let until = until.map(|until| until as i64);
        if let Some(row) = row {
            let values = params![until, records as i64, row];
            if transaction.prepare_cached(GO_ON)?.execute(values)? > 0 {
                return Ok(row);
            }
        }
        Ok(transaction.prepare_cached(BEGIN)?.insert(params![
            since as i64,
            until,
            records as i64,
            origin
        ])?)
    }
}

/// Writes a gap.
pub(super) fn write_gap(gap: &Gap, transaction: &Transaction<'_>) -> Result<(), Failure> {
    let Gap { reason, records, source, .. } = gap;
    let [since, until, records] = [gap.since(), gap.until(), *records].map(|number| number as i64);
    let values = params![reason.name(), since, until, records, source];
    transaction.prepare_cached(GAP)?.execute(values)?;
    Ok(())
}
