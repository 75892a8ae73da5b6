//! Of which times a database has all records, and which it does not have: by its
//! table `coverage`, or by what it holds where it has none.

use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _};

use super::super::asked::{Answers, Trouble};
use super::super::times::Span;
use super::{signed, verify};
use crate::archive::coverage::{Gap, Reason};

/// A run of flowlog: it has all up to the time of its last commit.
const RUN: &str = "run";
/// A loss is noticed within that time, nanoseconds.
const NOTICED_WITHIN: u64 = 5_000_000_000;
/// Records at either end that tell whether there are others than those of ends.
const LOOKED_AT: u32 = 1000;

/// What is said of all times, and what is missing. Returns the rows of the table that are not
/// as they were written; none of them counts.
pub(super) fn read(
    connection: &Connection,
    path: &Path,
    span: Span,
    answers: &mut Answers<'_>,
) -> Result<Vec<i64>, Trouble> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'coverage'";
    let ends_only = has_ends_only(connection)?;
    let mut damaged = Vec::new();
    if connection.prepare(table)?.exists([])? {
        damaged = by_table(connection, path, ends_only, answers)?;
    } else if let Some(covered) = by_records(connection)? {
        answers.covered(covered);
    }
    for gap in around(connection, span, ends_only)? {
        answers.missing(gap, path, ends_only);
    }
    Ok(damaged)
}

fn by_table(
    connection: &Connection,
    path: &Path,
    ends_only: bool,
    answers: &mut Answers<'_>,
) -> Result<Vec<i64>, Trouble> {
    // The last columns are those that the checksum covers, and itself, where there is one.
    let sql = "SELECT kind, since, until, records, rowid, * FROM coverage";
    let mut query = connection.prepare(sql)?;
    let names: Vec<String> = query.column_names().skip(5).map(str::to_owned).collect();
    let mut rows = query.query([])?;
    let mut damaged = Vec::new();
    while let Some(row) = rows.next()? {
        let values: rusqlite::Result<Vec<Value>> = (0..names.len())
            .map(|column| row.get_ref(column + 5)?.try_into().map_err(Into::into))
            .collect();
        if !verify::is_whole(&names, &values?) {
            damaged.push(row.get(4)?);
            continue;
        }
        let kind: String = row.get(0)?;
        let (since, until): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
        let (since, until) = (since as u64, until.unwrap_or(since) as u64);
        if kind == RUN {
            answers.covered(Span { first: since, last: until });
            continue;
        }
        let reason = Reason::of(&kind).ok_or_else(|| {
            Trouble::Archive(format!(
                "its table coverage has `{kind}`, which a newer flowlog knows"
            ))
        })?;
        let records = row.get::<_, i64>(3)? as u64;
        let gap = Gap::new(reason, (since, until), records);
        answers.missing(gap, path, ends_only);
    }
    Ok(damaged)
}

/// From the first record to the last: where nothing else is said.
fn by_records(connection: &Connection) -> rusqlite::Result<Option<Span>> {
    let mut covered: Option<Span> = None;
    for table in ["flow", "expectation", "lost"] {
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT time FROM {table} ORDER BY time {order} LIMIT 1");
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            let Some(row) = rows.next()? else { continue };
            let at = row.get::<_, i64>(0)? as u64;
            let known = covered.get_or_insert(Span { first: at, last: at });
            (known.first, known.last) = (known.first.min(at), known.last.max(at));
        }
    }
    Ok(covered)
}

/// As far as the first and the last records tell.
fn has_ends_only(connection: &Connection) -> rusqlite::Result<bool> {
    for order in ["ASC", "DESC"] {
        let others = format!(
            "SELECT 1 FROM (SELECT kind FROM flow ORDER BY time {order} LIMIT {LOOKED_AT}) \
             WHERE kind NOT LIKE '%destroy%' AND kind NOT LIKE '%gc%'"
        );
        if connection.prepare(&others)?.exists([])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Losses that were noticed after `span`: the first of them may be of it, as events
/// were lost since the last one that came, and all are of interest where there are
/// ends only.
fn around(connection: &Connection, span: Span, ends_only: bool) -> rusqlite::Result<Vec<Gap>> {
    let mut gaps = Vec::new();
    let mut query =
        connection.prepare("SELECT time, source, events FROM lost WHERE time > ? ORDER BY time")?;
    let mut before =
        connection.prepare("SELECT time FROM flow WHERE time < ? ORDER BY time DESC LIMIT 1")?;
    let mut rows = query.query([signed(span.last)])?;
    while let Some(row) = rows.next()? {
        let (at, source, events): (i64, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let noticed = (at as u64).saturating_sub(NOTICED_WITHIN);
        let last: Option<i64> = before.query_row([at], |row| row.get(0)).optional()?;
        let since = last.map_or(noticed, |last| noticed.min(last as u64));
        if since > span.last && !ends_only {
            break;
        }
        let gap = Gap::new(Reason::Lost, (since, at as u64), events as u64);
        gaps.push(Gap { source, ..gap });
    }
    Ok(gaps)
}
