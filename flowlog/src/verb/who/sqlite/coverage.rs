//! Of which times a database has all records, and which it does not have: by its
//! table `coverage`, or by what it holds where it has none.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension as _};

use super::super::asked::{Answers, Covered, Loss, Trouble};
use super::super::record::Row as _;
use super::super::times::Span;
use super::rows::Table as Rows;
use super::{Damaged, signed};
use crate::archive::coverage::{Gap, Reason};
use crate::archive::origin::Origin;

/// A run of flowlog: it has all up to the time of its last commit.
const RUN: &str = "run";
/// A loss is noticed within that time, nanoseconds.
const NOTICED_WITHIN: u64 = 5_000_000_000;

/// What is said of all times, and what is missing. Rows that are not as they were written do not
/// count, and are added to `damaged`.
pub(super) fn read(
    connection: &Connection,
    path: &Path,
    span: Span,
    losses: &[Loss],
    answers: &mut Answers<'_>,
    damaged: &mut Damaged,
) -> Result<(), Trouble> {
    // As SQLite finds it, so that a letter of another case in its name does not hide it.
    let table = "SELECT count(*) > 0 FROM pragma_table_info('coverage')";
    if connection.query_row(table, [], |row| row.get(0))? {
        damaged.coverage = by_table(connection, path, answers)?;
        return Ok(());
    }
    let archive = path.to_string_lossy().into_owned();
    for gap in around(connection, span, losses)? {
        answers.missing(gap, path, &archive);
    }
    let (place, span) = (path.to_owned(), by_records(connection, losses, damaged)?);
    answers.covered(Covered { archive, place, span, beginnings: false });
    Ok(())
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
    let columns = Rows::find(connection, "coverage")?;
    let sql = format!("SELECT rowid, {} FROM coverage", columns.list());
    let mut query = connection.prepare(&sql)?;
    let mut rows = query.query([])?;
    let mut table = Table::default();
    while let Some(row) = rows.next()? {
        let values = columns.values(row, 1)?;
        let Some(since) = values.number("since").filter(|_| values.is_whole()) else {
            table.damaged.push(row.get(0)?);
            continue;
        };
        let kind = values.text("kind").unwrap_or_default();
        let until = values.number("until").unwrap_or(since);
        let detail = values.text("detail").unwrap_or_default();
        if kind == RUN {
            let origin = Origin::parse(detail).unwrap_or_default();
            // One that is inverted covers nothing.
            table.runs.push((Span { first: since, last: until }, origin));
            continue;
        }
        let reason = Reason::of(kind).ok_or_else(|| {
            Trouble::Archive(format!(
                "its table coverage has `{kind}`, which a newer flowlog knows"
            ))
        })?;
        let records = values.number("records").unwrap_or_default();
        table.gaps.push(Gap::new(reason, (since, until), records).at(detail));
    }
    Ok(table)
}

/// From the first record to the last: where nothing else is said.
fn by_records(
    connection: &Connection,
    losses: &[Loss],
    damaged: &mut Damaged,
) -> Result<Option<Span>, Trouble> {
    let mut covered = losses
        .first()
        .zip(losses.last())
        .map(|(first, last)| Span { first: first.at, last: last.at });
    for table in ["flow", "expectation"] {
        let rows = Rows::find(connection, table)?;
        for order in ["ASC", "DESC"] {
            let end = format!("ORDER BY time {order} LIMIT 1");
            let mut count = |_| damaged.records += 1;
            rows.each(connection, &end, [], &mut count, |row| {
                let Some(at) = row.number("time") else { return Ok(ControlFlow::Break(())) };
                let known = covered.get_or_insert(Span { first: at, last: at });
                (known.first, known.last) = (known.first.min(at), known.last.max(at));
                Ok(ControlFlow::Break(()))
            })?;
        }
    }
    Ok(covered)
}

/// Losses that were noticed after `span`: the first of them may be of it, as events were
/// lost since the last one that came, and in all of them the end of a connection may be.
fn around(
    connection: &Connection,
    span: Span,
    losses: &[Loss],
) -> Result<Vec<Gap>, rusqlite::Error> {
    let mut gaps = Vec::new();
    // SQLite's check compares the times of this table with its indexes.
    let mut before =
        connection.prepare("SELECT time FROM flow WHERE time < ? ORDER BY time DESC LIMIT 1")?;
    for Loss { at, source, events } in losses.iter().filter(|loss| loss.at > span.last) {
        let noticed = at.saturating_sub(NOTICED_WITHIN);
        let last: Option<i64> = before.query_row([signed(*at)], |row| row.get(0)).optional()?;
        let since = last.map_or(noticed, |last| noticed.min(last as u64));
        gaps.push(Gap::new(Reason::Lost, (since, *at), *events).at(source));
    }
    Ok(gaps)
}
