//! Whether a database is as it was written: its structure and its indexes, for which
//! SQLite has a check of its own, and the checksums of the rows that are read.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

use super::super::asked::Trouble;
use crate::plugin::sqlite3;

/// How often a check that goes on is interrupted.
const AGAIN: Duration = Duration::from_millis(1);
/// The checksum of a row, and a column that is made of others.
pub(super) const CHECKSUM: &str = "checksum";
const RECORD_ID: &str = "record_id";

/// Whether the tables, and the indexes that rows are found by, are as they were
/// written; not known where that takes longer than `limit`. It reads all of the database,
/// a gigabyte in some seconds.
///
/// # Errors
/// They are not.
pub(super) fn structure(
    connection: &Connection,
    limit: Option<Duration>,
) -> Result<Option<()>, Trouble> {
    let found = match limit {
        Some(limit) => check_within(connection, limit),
        None => check(connection),
    };
    match found {
        Ok(found) if found == "ok" => Ok(Some(())),
        Ok(found) => Err(damaged(&found)),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// As [`check`], interrupted after `limit`.
fn check_within(connection: &Connection, limit: Duration) -> rusqlite::Result<String> {
    let handle = connection.get_interrupt_handle();
    let (end, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut wait = limit;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                // Of a query that has not begun it does nothing.
                handle.interrupt();
                wait = AGAIN;
            }
        });
        let found = check(connection);
        drop(end);
        found
    })
}

/// The first thing that is wrong, or `ok`.
fn check(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
}

/// The trouble of a database that is damaged.
pub(super) fn damaged(what: &str) -> Trouble {
    let what = what.replace(char::is_control, " ");
    Trouble::Archive(format!(
        "it is damaged: {what}; `sqlite3 FILE .recover` saves what can be read"
    ))
}

/// Whether a row is as it was written, if it says so: XXH64 over its values in the
/// order of the table, as docs/sqlite.md describes it.
pub(super) fn is_whole(names: &[String], values: &[ValueRef<'_>]) -> bool {
    // No column has such a number, and one with the bits of an integer has its checksum.
    if values.iter().any(|value| matches!(value, ValueRef::Real(_))) {
        return false;
    }
    let columns = || names.iter().zip(values);
    let sum = columns().find(|(name, _)| *name == CHECKSUM).map(|(_, value)| value);
    let sum = match sum {
        None | Some(ValueRef::Null) => return true,
        Some(ValueRef::Integer(sum)) => *sum,
        Some(_) => return false,
    };
    let values = columns().filter(|(name, _)| *name != CHECKSUM && *name != RECORD_ID);
    sqlite3::checksum(values.map(|(_, value)| *value)) == sum
}

#[cfg(test)]
mod tests {
    use twox_hash::XxHash64;

    use super::*;

    #[test]
    fn a_check_that_takes_too_long_is_given_up() {
        let connection = Connection::open_in_memory().unwrap();
        connection
            .execute_batch(
                "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT); CREATE INDEX i ON t (b);
                 WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 200000)
                 INSERT INTO t SELECT x, 'value ' || x FROM n;",
            )
            .unwrap();
        for limit in [Some(Duration::from_secs(60)), None] {
            assert_eq!(structure(&connection, limit).unwrap(), Some(()));
        }
        assert_eq!(structure(&connection, Some(Duration::ZERO)).unwrap(), None);
        // It can be asked afterwards.
        let count: i64 =
            connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
        assert_eq!(count, 200_000);
    }

    #[test]
    fn a_row_has_the_checksum_of_its_values() {
        let names = ["time", "kind", "labels", "stop", RECORD_ID, CHECKSUM].map(str::to_owned);
        let encoded = b"\x01\x07\0\0\0\0\0\0\0\x02\x03\0new\x03\x02\0\xff\0\0";
        let sum = XxHash64::oneshot(0, encoded) as i64;
        let mut values = [
            ValueRef::Integer(7),
            ValueRef::Text(b"new"),
            ValueRef::Blob(&[0xff, 0]),
            ValueRef::Null,
            ValueRef::Text(b"0000"),
            ValueRef::Integer(sum),
        ];
        assert!(is_whole(&names, &values));
        values[3] = ValueRef::Integer(0);
        assert!(!is_whole(&names, &values));
        values[3] = ValueRef::Null;
        // The same bits as another type.
        values[0] = ValueRef::Real(f64::from_bits(7));
        assert!(!is_whole(&names, &values));
        values[0] = ValueRef::Integer(8);
        assert!(!is_whole(&names, &values));
        // Rows of earlier versions have none.
        values[5] = ValueRef::Null;
        assert!(is_whole(&names, &values) && is_whole(&names[..5], &values[..5]));
    }
}
