//! Of which times a database has all records, and which it does not have: by its
//! table `coverage`, or by what it holds where it has none.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::super::asked::{Answers, Covered, Trouble};
use super::super::times::Span;
use super::signed;
use crate::archive::coverage::{Gap, Reason};
use crate::archive::origin::Origin;

/// A run of flowlog: it has all up to the time of its last commit.
const RUN: &str = "run";
/// A loss is noticed within that time, nanoseconds.
const NOTICED_WITHIN: u64 = 5_000_000_000;

/// What is said of all times, and what is missing.
pub(super) fn read(
    connection: &Connection,
    path: &Path,
    span: Span,
    answers: &mut Answers<'_>,
) -> Result<(), Trouble> {
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
    Ok(())
}

/// A row for each run, and one for each gap. Runs without an origin are of the archive that
/// the last one belongs to.
fn by_table(
    connection: &Connection,
    path: &Path,
    answers: &mut Answers<'_>,
) -> Result<(), Trouble> {
    let mut query =
        connection.prepare("SELECT kind, since, until, records, detail FROM coverage")?;
    let mut rows = query.query([])?;
    let (mut runs, mut gaps) = (Vec::new(), Vec::new());
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        let (since, until): (i64, Option<i64>) = (row.get(1)?, row.get(2)?);
        let (since, until) = (since as u64, until.unwrap_or(since) as u64);
        let detail = row.get::<_, Option<String>>(4)?.unwrap_or_default();
        if kind == RUN {
            let origin = Origin::parse(&detail).unwrap_or_default();
            // One that is inverted covers nothing.
            runs.push((Span { first: since, last: until }, origin));
            continue;
        }
        let reason = Reason::of(&kind).ok_or_else(|| {
            Trouble::Archive(format!(
                "its table coverage has `{kind}`, which a newer flowlog knows"
            ))
        })?;
        gaps.push(Gap::new(reason, (since, until), row.get::<_, i64>(3)? as u64).at(&detail));
    }
    let place = path.to_owned();
    let sink = runs.iter().rev().map(|(_, origin)| &origin.sink).find(|sink| !sink.is_empty());
    let archive = sink.map_or_else(|| place.to_string_lossy().into_owned(), Clone::clone);
    for gap in gaps {
        answers.missing(gap, path, &archive);
    }
    let of = |span, beginnings| {
        let (archive, place) = (archive.clone(), place.clone());
        Covered { archive, place, span, beginnings }
    };
    answers.covered(of(None, false));
    for (span, Origin { beginnings, .. }) in &runs {
        answers.covered(of(Some(*span).filter(|span| span.first <= span.last), *beginnings));
    }
    Ok(())
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
