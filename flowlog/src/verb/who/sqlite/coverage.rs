//! Of which times a database has all records, and which it does not have: by its
//! table `coverage`, or by what it holds where it has none.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _};

use super::super::asked::{Answers, Covered, Trouble};
use super::super::times::Span;
use super::{signed, verify};
use crate::archive::coverage::{Gap, Reason};
use crate::archive::origin::Origin;

/// A run of flowlog: it has all up to the time of its last commit.
const RUN: &str = "run";
/// A loss is noticed within that time, nanoseconds.
const NOTICED_WITHIN: u64 = 5_000_000_000;

/// What is said of all times, and what is missing. Returns the rows of the table that are not
/// as they were written; none of them counts.
pub(super) fn read(
    connection: &Connection,
    path: &Path,
    span: Span,
    answers: &mut Answers<'_>,
) -> Result<Vec<i64>, Trouble> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'coverage'";
    if connection.prepare(table)?.exists([])? {
        return by_table(connection, path, answers);
    }
    let archive = path.to_string_lossy().into_owned();
    for gap in around(connection, span)? {
        answers.missing(gap, path, &archive);
    }
    let (place, span) = (path.to_owned(), by_records(connection)?);
    answers.covered(Covered { archive, place, span, beginnings: false });
    Ok(Vec::new())
}

/// What the table has.
#[derive(Default)]
struct Table {
    runs: Vec<(Span, Origin)>,
    gaps: Vec<Gap>,
    /// Rows that are not as they were written.
    damaged: Vec<i64>,
}

/// A row for each run, and one for each gap. Runs without an origin are of the archive that
/// the last one belongs to. A gap is one of each archive that the database has: it does not say
/// of which.
fn by_table(
    connection: &Connection,
    path: &Path,
    answers: &mut Answers<'_>,
) -> Result<Vec<i64>, Trouble> {
    let Table { runs, gaps, damaged } = rows(connection)?;
    let place = path.to_owned();
    let sink = runs.iter().rev().map(|(_, origin)| &origin.sink).find(|sink| !sink.is_empty());
    let last = sink.map_or_else(|| place.to_string_lossy().into_owned(), Clone::clone);
    let name = |sink: &str| if sink.is_empty() { last.clone() } else { sink.to_owned() };
    let mut archives: BTreeSet<String> = runs.iter().map(|(_, of)| name(&of.sink)).collect();
    archives.insert(last.clone());
    for archive in archives {
        for gap in &gaps {
            answers.missing(gap.clone(), path, &archive);
        }
        answers.covered(Covered { archive, place: place.clone(), span: None, beginnings: false });
    }
    for (span, Origin { sink, beginnings }) in &runs {
        let span = Some(*span).filter(|span| span.first <= span.last);
        let (archive, place) = (name(sink), place.clone());
        answers.covered(Covered { archive, place, span, beginnings: *beginnings });
    }
    Ok(damaged)
}

fn rows(connection: &Connection) -> Result<Table, Trouble> {
    // The last columns are those that the checksum covers, and itself, where there is one.
    let sql = "SELECT kind, since, until, records, detail, rowid, * FROM coverage";
    const OWN: usize = 6;
    let mut query = connection.prepare(sql)?;
    let names: Vec<String> = query.column_names().skip(OWN).map(str::to_owned).collect();
    let mut rows = query.query([])?;
    let mut table = Table::default();
    while let Some(row) = rows.next()? {
        let values: rusqlite::Result<Vec<Value>> = (0..names.len())
            .map(|column| row.get_ref(column + OWN)?.try_into().map_err(Into::into))
            .collect();
        if !verify::is_whole(&names, &values?) {
            table.damaged.push(row.get(5)?);
            continue;
        }
        let kind: String = row.get(0)?;
        let (since, until): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
        let (since, until) = (since as u64, until.unwrap_or(since) as u64);
        let detail = row.get::<_, Option<String>>(4)?.unwrap_or_default();
        if kind == RUN {
            let origin = Origin::parse(&detail).unwrap_or_default();
            // One that is inverted covers nothing.
            table.runs.push((Span { first: since, last: until }, origin));
            continue;
        }
        let reason = Reason::of(&kind).ok_or_else(|| {
            Trouble::Archive(format!(
                "its table coverage has `{kind}`, which a newer flowlog knows"
            ))
        })?;
        let records = row.get::<_, i64>(3)? as u64;
        table.gaps.push(Gap::new(reason, (since, until), records).at(&detail));
    }
    Ok(table)
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

/// Losses that were noticed after `span`: the first of them may be of it, as events were
/// lost since the last one that came, and in all of them the end of a connection may be.
fn around(connection: &Connection, span: Span) -> rusqlite::Result<Vec<Gap>> {
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
        gaps.push(Gap::new(Reason::Lost, (since, at as u64), events as u64).at(&source));
    }
    Ok(gaps)
}
