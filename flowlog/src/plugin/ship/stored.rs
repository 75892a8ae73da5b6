//! A row of the spool's file, with its checksum: SQLite does not notice a byte that has changed on
//! the disk.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::batch;

/// The columns that [`Stored::read`] takes, in this order.
pub(super) const COLUMNS: &str = "sequence, sink, encoding, records, complete, sum, payload";

/// A row.
#[derive(Debug)]
pub(super) struct Stored {
    /// Its number.
    pub(super) number: i64,
    pub(super) sink: String,
    pub(super) encoding: String,
    pub(super) records: u64,
    pub(super) complete: u64,
    /// The checksum that was stored with it; absent in rows of earlier versions.
    pub(super) sum: Option<u32>,
    pub(super) payload: Vec<u8>,
}

impl Stored {
    /// Reads the columns [`COLUMNS`].
    pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            number: row.get(0)?,
            sink: row.get(1)?,
            encoding: row.get(2)?,
            records: row.get(3)?,
            complete: row.get(4)?,
            sum: row.get(5)?,
            payload: row.get(6)?,
        })
    }

    /// It is what was written.
    pub(super) fn is_sound(&self) -> bool {
        let Self { number, sink, encoding, records, complete, sum, payload } = self;
        let unchanged = sum
            .is_none_or(|sum| sum == sum_of(*number, sink, encoding, *records, *complete, payload));
        unchanged && batch::is_sound(payload, *records)
    }

    /// The times of its first and last record; absent if it is damaged.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        if self.is_sound() { batch::span(&self.payload) } else { None }
    }

    /// Records of a row of `sink` that is damaged, and so may be their number: as many as the index
    /// has of it, which is a copy of its own, and no more than its bytes can be.
    pub(super) fn records_if_damaged(&self, connection: &Connection, sink: &str) -> u64 {
        let sql = "SELECT records FROM batch INDEXED BY batch_amounts \
                   WHERE sink = ? AND sequence = ?";
        let indexed = connection
            .prepare_cached(sql)
            .and_then(|mut query| {
                query.query_row(params![sink, self.number], |row| row.get(0)).optional()
            })
            .ok()
            .flatten();
        indexed.unwrap_or(self.records).min(batch::most(&self.payload))
    }
}

/// The checksum of a row.
pub(super) fn sum_of(
    number: i64,
    sink: &str,
    encoding: &str,
    records: u64,
    complete: u64,
    payload: &[u8],
) -> u32 {
    let numbers = [number as u64, records, complete];
    sum(&numbers, &[sink.as_bytes(), encoding.as_bytes(), payload])
}

/// A CRC-32 of these numbers and texts.
pub(super) fn sum(numbers: &[u64], texts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for number in numbers {
        hasher.update(&number.to_le_bytes());
    }
    for text in texts {
        // Else the end of one could be the beginning of the next.
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text);
    }
    hasher.finalize()
}

/// Adds the column of checksums to a table of an earlier version.
pub(super) fn add_sums(connection: &Connection, table: &str) -> rusqlite::Result<()> {
    let without = "SELECT count(*) = 0 FROM pragma_table_info(?) WHERE name = 'sum'";
    if connection.query_row(without, [table], |row| row.get(0))? {
        connection.execute_batch(&format!("ALTER TABLE {table} ADD COLUMN sum INTEGER"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::record_id::RecordId;
    use crate::plugin::ship::Record;

    fn stored() -> Stored {
        let mut payload = Vec::new();
        for (time, body) in [(5, &b"one"[..]), (9, b"two")] {
            let record = Record { id: RecordId { time, hash: 7 }, flow: 1, body };
            record.write(&mut payload);
        }
        let sum = Some(sum_of(3, "a", "text 1", 2, 4, &payload));
        let (sink, encoding) = ("a".to_owned(), "text 1".to_owned());
        Stored { number: 3, sink, encoding, records: 2, complete: 4, sum, payload }
    }

    #[test]
    fn each_changed_byte_is_noticed() {
        assert_eq!(stored().span(), Some((5, 9)));
        for at in 0..stored().payload.len() {
            for bit in 0..8 {
                let mut changed = stored();
                changed.payload[at] ^= 1 << bit;
                assert_eq!(changed.span(), None, "bit {bit} of byte {at}");
            }
        }
        assert!(!Stored { number: 4, ..stored() }.is_sound());
        assert!(!Stored { sink: "b".to_owned(), ..stored() }.is_sound());
        assert!(!Stored { encoding: "text 2".to_owned(), ..stored() }.is_sound());
        assert!(!Stored { complete: 5, ..stored() }.is_sound());
        assert!(!Stored { records: 1, ..stored() }.is_sound());
    }

    #[test]
    fn a_row_of_an_earlier_version_has_no_checksum() {
        assert!(Stored { sum: None, ..stored() }.is_sound());
        assert!(!Stored { sum: None, records: 3, ..stored() }.is_sound());
    }
}
