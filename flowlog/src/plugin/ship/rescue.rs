//! Copies what can be read of a spool that is given up into the one that takes its place, under
//! the same numbers.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::batch;
use super::loss_table;
use super::stored::Stored;
use crate::stats::Amount;

/// Bytes that one transaction copies.
const STEP: usize = 16 << 20;

/// Numbers that are tried where a page cannot be read: some seconds.
const GUESSES: u32 = 1 << 20;

/// What a spool holds of each sink.
pub(super) type Amounts = HashMap<String, Amount>;

/// What was copied.
pub(super) struct Rescued {
    /// Rows, of each sink.
    pub(super) rows: Amounts,
    /// All that was noted as lost.
    pub(super) losses: bool,
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
) -> rusqlite::Result<Rescued> {
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
            let Stored { number, sink, encoding, records, complete, sum, payload } = row;
            let length = payload.len();
            transaction
                .prepare_cached(
                    "INSERT INTO batch \
                     (sequence, sink, encoding, records, bytes, complete, sum, payload) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    number, sink, encoding, records, length, complete, sum, payload
                ])?;
            bytes += length;
            let amount = copied.entry(sink).or_default();
            amount.bytes += length as u64;
            amount.records += records;
        }
        transaction.commit()?;
    }
    let losses = loss_table::copy(from, to)?;
    Ok(Rescued { rows: copied, losses })
}

/// The number of the row behind `last`.
fn next(from: &Connection, last: i64) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT min(sequence) FROM batch WHERE sequence > ?";
    from.prepare_cached(sql)?.query_row([last], |row| row.get(0))
}

fn read(from: &Connection, number: i64) -> rusqlite::Result<Stored> {
    // As this version has it, and earlier ones.
    let query = [("complete", "sum"), ("complete", "NULL"), ("0", "NULL")]
        .into_iter()
        .map(|(complete, sum)| {
            from.prepare_cached(&format!(
                "SELECT sequence, sink, encoding, records, {complete}, {sum}, payload FROM batch \
                 WHERE sequence = ?"
            ))
        })
        .reduce(rusqlite::Result::or);
    let mut row = match query {
        Some(query) => query?.query_row([number], Stored::read)?,
        None => return Err(rusqlite::Error::QueryReturnedNoRows),
    };
    if !row.is_sound() {
        // It is found to be damaged once more; its number of records may be what is.
        row.records = row.records.min(batch::most(&row.payload));
    }
    Ok(row)
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

/// Bytes of disk that a copy of `held` may take, with its log and with what SQLite adds.
pub(super) fn takes(from: &Connection, held: &Amounts) -> u64 {
    let bytes = held.values().fold(0, |sum: u64, amount| sum.saturating_add(amount.bytes));
    // What a damaged row says of itself may be any number.
    let bytes = size(from).map_or(bytes, |size| bytes.min(size));
    bytes.saturating_add(bytes / 8).saturating_add(bytes.min(STEP as u64))
}

/// Bytes of all pages.
fn size(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()";
    connection.query_row(sql, [], |row| row.get(0))
}

/// The highest number that a row ever had.
pub(super) fn highest(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT max(ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'batch'), 0), \
               ifnull((SELECT max(sequence) FROM batch), 0))";
    connection.query_row(sql, [], |row| row.get(0))
}

/// Numbers rows of a new spool from behind that one.
pub(super) fn begin_behind(connection: &Connection, highest: i64) -> rusqlite::Result<()> {
    if highest > 0 {
        let sql = "INSERT INTO sqlite_sequence (name, seq) VALUES ('batch', ?)";
        connection.execute(sql, [highest])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_takes_no_more_than_the_file_has() {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "CREATE TABLE a (b); INSERT INTO a VALUES (zeroblob(1000000))";
        connection.execute_batch(sql).unwrap();
        let most = size(&connection).unwrap();
        assert!((1_000_000..2_000_000).contains(&most), "{most}");
        let held = |bytes| Amounts::from([("a:NATS".to_owned(), Amount { bytes, records: 1 })]);
        for (bytes, copied) in [(0, 0), (800, 800), (most, most), (u64::MAX, most)] {
            assert_eq!(takes(&connection, &held(bytes)), 2 * copied + copied / 8, "{bytes}");
        }
    }
}
