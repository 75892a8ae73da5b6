//! Copies what can be read of a spool that is given up into the one that takes its place, under
//! the same numbers.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::losses;
use crate::stats::Amount;

/// Bytes that one transaction copies.
const STEP: usize = 16 << 20;

/// Numbers that are tried where a page cannot be read: some seconds.
const GUESSES: u32 = 1 << 20;

/// What a spool holds of each sink.
pub(super) type Amounts = HashMap<String, Amount>;

/// A row that is copied.
struct Row {
    sink: String,
    encoding: String,
    records: u64,
    complete: u64,
    payload: Vec<u8>,
}

/// Copies each row that can be read, up to the highest number; returns what that is. Rows that
/// are damaged are left out.
///
/// # Errors
/// The new spool cannot be written.
pub(super) fn copy(
    from: &Connection,
    highest: i64,
    to: &mut Connection,
) -> rusqlite::Result<Amounts> {
    let mut copied = Amounts::new();
    let mut last = 0;
    let mut guesses = GUESSES;
    let mut more = true;
    while more {
        let transaction = to.transaction()?;
        let mut bytes = 0;
        while more && bytes < STEP {
            last = match next(from, last) {
                Ok(Some(number)) => number,
                // A page with the next rows is damaged: those behind it are found by trying.
                Err(_) if last < highest && guesses > 0 => {
                    guesses -= 1;
                    last + 1
                }
                Ok(None) | Err(_) => {
                    more = false;
                    break;
                }
            };
            let number = last;
            let Ok(row) = read(from, number) else { continue };
            let Row { sink, encoding, records, complete, payload } = row;
            let length = payload.len();
            transaction
                .prepare_cached("INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?)")?
                .execute(params![number, sink, encoding, records, length, complete, payload])?;
            bytes += length;
            let amount = copied.entry(sink).or_default();
            amount.bytes += length as u64;
            amount.records += records;
        }
        transaction.commit()?;
    }
    losses::copy(from, to)?;
    Ok(copied)
}

/// The number of the row behind `last`.
fn next(from: &Connection, last: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT min(sequence) FROM batch WHERE sequence > ?";
    from.prepare_cached(sql)?.query_row([last], |row| row.get(0))
}

fn read(from: &Connection, number: i64) -> rusqlite::Result<Row> {
    let with = "SELECT sink, encoding, records, payload, complete FROM batch WHERE sequence = ?";
    // As spools of earlier versions have it.
    let without = "SELECT sink, encoding, records, payload, 0 FROM batch WHERE sequence = ?";
    let query = from.prepare_cached(with).or_else(|_| from.prepare_cached(without));
    query?.query_row([number], |row| {
        let (sink, encoding) = (row.get(0)?, row.get(1)?);
        let complete = row.get(4)?;
        Ok(Row { sink, encoding, records: row.get(2)?, complete, payload: row.get(3)? })
    })
}

/// What a spool holds of each sink.
pub(super) fn amounts(connection: &Connection) -> rusqlite::Result<Amounts> {
    let mut query =
        connection.prepare("SELECT sink, sum(bytes), sum(records) FROM batch GROUP BY sink")?;
    let rows = query.query_map([], |row| {
        Ok((row.get(0)?, Amount { bytes: row.get(1)?, records: row.get(2)? }))
    })?;
    rows.collect()
}

/// The highest number that a row ever had.
pub(super) fn highest(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'batch'";
    Ok(connection.query_row(sql, [], |row| row.get(0)).optional()?.unwrap_or(0))
}

/// Numbers rows of a new spool from behind that one.
pub(super) fn begin_behind(connection: &Connection, highest: i64) -> rusqlite::Result<()> {
    if highest > 0 {
        let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('batch', ?)";
        connection.execute(sql, [highest])?;
    }
    Ok(())
}
