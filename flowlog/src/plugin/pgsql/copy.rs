//! Rows in the binary form of COPY (PostgreSQL's manual, "COPY", "Binary Format"),
//! each apart from the others: so a few of them can be sent again.

use std::ops::Range;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Before the rows: the signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// Behind the rows.
const TRAILER: &[u8] = &[0xff, 0xff];
/// PostgreSQL counts from the beginning of 2000, in microseconds.
const EPOCH: i64 = 946_684_800_000_000;
/// `PGSQL_AF_INET` and `PGSQL_AF_INET6` (src/include/utils/inet.h).
const INET: u8 = 2;
const INET6: u8 = 3;

/// Rows that are being made.
#[derive(Debug, Default)]
pub(super) struct Rows {
    bytes: BytesMut,
    /// Where each row that is done ends.
    ends: Vec<usize>,
}

impl Rows {
    /// Begins a row of so many columns. What was begun and not ended is forgotten.
    pub(super) fn begin(&mut self, columns: usize) {
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.bytes.put_i16(columns as i16);
    }

    /// Ends it.
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len());
    }

    /// Takes all that was made.
    pub(super) fn take(&mut self) -> Copied {
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        Copied { bytes: self.bytes.split().freeze(), ends: std::mem::take(&mut self.ends) }
    }

    pub(super) fn null(&mut self) {
        self.bytes.put_i32(-1);
    }

    /// `smallint`.
    pub(super) fn smallint(&mut self, value: i16) {
        self.bytes.put_i32(2);
        self.bytes.put_i16(value);
    }

    /// `integer`.
    pub(super) fn integer(&mut self, value: i32) {
        self.bytes.put_i32(4);
        self.bytes.put_i32(value);
    }

    /// `bigint`.
    pub(super) fn bigint(&mut self, value: i64) {
        self.bytes.put_i32(8);
        self.bytes.put_i64(value);
    }

    /// `bigint`, which is signed: what does not fit comes out negative.
    pub(super) fn number(&mut self, value: impl Into<u64>) {
        self.bigint(value.into() as i64);
    }

    /// `bigint`.
    pub(super) fn optional(&mut self, value: Option<impl Into<u64>>) {
        match value {
            Some(value) => self.number(value),
            None => self.null(),
        }
    }

    /// `integer`, of a value that fits.
    pub(super) fn port(&mut self, value: Option<u32>) {
        match value {
            Some(value) => self.integer(value as i32),
            None => self.null(),
        }
    }

    /// `smallint`, of a value that fits.
    pub(super) fn small(&mut self, value: Option<u32>) {
        match value {
            Some(value) => self.smallint(value as i16),
            None => self.null(),
        }
    }

    /// `timestamptz`, of nanoseconds since 1970.
    pub(super) fn timestamp(&mut self, time: Option<u64>) {
        match time {
            Some(time) => self.bigint((time / 1000) as i64 - EPOCH),
            None => self.null(),
        }
    }

    /// `uuid`.
    pub(super) fn uuid(&mut self, halves: [u64; 2]) {
        self.bytes.put_i32(16);
        halves.into_iter().for_each(|half| self.bytes.put_u64(half));
    }

    /// `inet`, of 4 or 16 bytes; of none nothing.
    pub(super) fn inet(&mut self, address: &[u8]) {
        let family = match address.len() {
            0 => return self.null(),
            4 => INET,
            _ => INET6,
        };
        let length = address.len() as u8;
        self.bytes.put_i32(i32::from(length) + 4);
        // A host, not a network (`cidr`).
        self.bytes.put_slice(&[family, length * 8, 0, length]);
        self.bytes.put_slice(address);
    }

    /// `text` and the like, in UTF-8; `bytea`.
    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.bytes.put_i32(value.len() as i32);
        self.bytes.put_slice(value);
    }

    /// The same, of nothing nothing.
    pub(super) fn filled(&mut self, value: &[u8]) {
        if value.is_empty() { self.null() } else { self.bytes(value) }
    }

    /// The same, where it is known.
    pub(super) fn text(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.bytes(value.as_bytes()),
            None => self.null(),
        }
    }
}

/// Rows that were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Copied {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Copied {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    /// What COPY is to be sent for some of them.
    pub(super) fn parts(&self, rows: Range<usize>) -> [Bytes; 3] {
        let at = |row: usize| match row {
            0 => 0,
            _ => self.ends.get(row - 1).copied().unwrap_or(self.bytes.len()),
        };
        let rows = self.bytes.slice(at(rows.start)..at(rows.end));
        [Bytes::from_static(HEADER), rows, Bytes::from_static(TRAILER)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_can_be_sent_by_parts() {
        let mut rows = Rows::default();
        for number in 0..4 {
            rows.begin(1);
            rows.integer(number);
            rows.end();
            rows.begin(2);
            rows.null();
        }
        let copied = rows.take();
        assert_eq!((copied.len(), rows.take().len()), (4, 0));
        let [header, two, trailer] = copied.parts(1..3);
        assert_eq!((header.len(), trailer.len()), (19, 2));
        assert_eq!(two[..], [0, 1, 0, 0, 0, 4, 0, 0, 0, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, 2]);
        assert!(copied.parts(4..4)[1].is_empty() && copied.parts(0..4)[1].len() == 40);
    }

    #[test]
    fn values_are_as_the_server_reads_them() {
        let mut rows = Rows::default();
        rows.begin(4);
        rows.timestamp(Some(946_684_800_000_000_999));
        rows.inet(&[10, 77, 1, 2]);
        rows.uuid([1, 2]);
        rows.filled(b"");
        rows.end();
        let [_, row, _] = rows.take().parts(0..1);
        let expected = [
            &[0, 4, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &[0, 0, 0, 8, 2, 32, 0, 4, 10, 77, 1, 2],
            &[0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2],
            &[0xff; 4],
        ];
        assert_eq!(row[..], expected.concat());
    }
}
