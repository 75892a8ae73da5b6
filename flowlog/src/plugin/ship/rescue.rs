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
    let payloads = held.values().fold(0, |sum: u64, amount| sum.saturating_add(amount.bytes));
    let Ok((size, used)) = pages(from) else { return with_log(payloads, payloads) };
    // What a damaged row says of itself may be any number.
    let payloads = payloads.min(size);
    // A small row has less in its payload than around it, and in the index. So may a damaged number
    // of free pages have it.
    with_log(payloads, used.max(payloads))
}

/// Bytes of a file, with what stands beside it while payloads are copied there.
fn with_log(payloads: u64, bytes: u64) -> u64 {
    // A transaction has payloads up to that size, and what SQLite adds to them.
    let step = STEP as u128 * u128::from(bytes) / u128::from(payloads.max(1));
    let log = u64::try_from(step).unwrap_or(u64::MAX).min(bytes);
    bytes.saturating_add(bytes / 8).saturating_add(log)
}

/// Bytes of all pages, and of those that are in use.
fn pages(connection: &Connection) -> rusqlite::Result<(u64, u64)> {
    let sql = "SELECT page_count * page_size, max(page_count - freelist_count, 0) * page_size \
               FROM pragma_page_count(), pragma_freelist_count(), pragma_page_size()";
    connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
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
        let (most, used) = pages(&connection).unwrap();
        assert!((1_000_000..2_000_000).contains(&most) && used == most, "{most} {used}");
        let held = |bytes| Amounts::from([("a:NATS".to_owned(), Amount { bytes, records: 1 })]);
        for bytes in [0, 800, most, u64::MAX] {
            assert_eq!(takes(&connection, &held(bytes)), 2 * most + most / 8, "{bytes}");
        }
        // What was delivered leaves pages that a copy does not have.
        connection.execute_batch("DELETE FROM a").unwrap();
        let (most, used) = pages(&connection).unwrap();
        assert!(most > 1_000_000 && used < 20_000, "{most} {used}");
        for (bytes, copied) in [(0, used), (800_000, 800_000), (u64::MAX, most)] {
            assert_eq!(takes(&connection, &held(bytes)), 2 * copied + copied / 8, "{bytes}");
        }
    }

    /// A row of ten bytes takes more than five times as many.
    #[test]
    fn a_copy_of_small_rows_takes_what_sqlite_adds() {
        let directory = tempfile::tempdir().unwrap();
        let (old, new) = (directory.path().join("old"), directory.path().join("new"));
        let from = super::super::store::OpenFile::open(&old).unwrap().connection;
        let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) \
                   INSERT INTO batch (sequence, sink, encoding, records, bytes, complete, payload) \
                   SELECT i, 'nats1:NATS', 'json 1', 1, 10, 1, zeroblob(10) FROM n";
        from.execute(sql, []).unwrap();
        let held = amounts(&from).unwrap();
        let takes = takes(&from, &held);
        let mut to = super::super::store::OpenFile::open(&new).unwrap().connection;
        let Rescued { rows, .. } = copy(&from, 20_000, &mut to).unwrap();
        assert_eq!(rows["nats1:NATS"].bytes, 200_000);
        let length = |suffix: &str| {
            let path = directory.path().join(format!("new{suffix}"));
            std::fs::metadata(path).map_or(0, |file| file.len())
        };
        let taken = length("") + length("-wal");
        assert!(taken > 4 * held["nats1:NATS"].bytes && taken <= takes, "{taken} of {takes}");
    }
}
