//! A row as bytes, so that rows can wait in a buffer of so many bytes, and have a checksum.
//!
//! Each value is a byte and what follows it: 0 for NULL; 1 and the number, 8 bytes,
//! little-endian; 2 for text or 3 for a blob, its length in 2 bytes, little-endian, its bytes.

use rusqlite::types::ValueRef;
use twox_hash::XxHash64;

const NULL: u8 = 0;
const INTEGER: u8 = 1;
const TEXT: u8 = 2;
const BLOB: u8 = 3;

/// A row that is being made: the number of its statement, then its values.
#[derive(Debug, Default)]
pub(super) struct Row(Vec<u8>);

impl Row {
    /// Begins anew, for the statement of that number.
    pub(super) fn begin(&mut self, statement: u8) {
        self.0.clear();
        self.0.push(statement);
    }

    pub(super) fn null(&mut self) {
        self.0.push(NULL);
    }

    pub(super) fn integer(&mut self, value: i64) {
        self.0.push(INTEGER);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// SQLite has no unsigned numbers: what does not fit comes out negative.
    pub(super) fn number(&mut self, value: impl Into<u64>) {
        self.integer(value.into() as i64);
    }

    pub(super) fn optional(&mut self, value: Option<impl Into<u64>>) {
        match value {
            Some(value) => self.number(value),
            None => self.null(),
        }
    }

    /// Text, cut after 64 KiB, which none has; what is no UTF-8 is replaced.
    pub(super) fn text(&mut self, text: &[u8]) {
        match str::from_utf8(text) {
            Ok(_) => self.bytes(TEXT, text),
            Err(_) => self.bytes(TEXT, String::from_utf8_lossy(text).as_bytes()),
        }
    }

    pub(super) fn optional_text(&mut self, text: Option<&[u8]>) {
        match text {
            Some(text) => self.text(text),
            None => self.null(),
        }
    }

    pub(super) fn optional_blob(&mut self, blob: Option<&[u8]>) {
        match blob {
            Some(blob) => self.bytes(BLOB, blob),
            None => self.null(),
        }
    }

    fn bytes(&mut self, tag: u8, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(usize::from(u16::MAX))];
        self.0.push(tag);
        self.0.extend_from_slice(&(bytes.len() as u16).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// A value as SQLite has it.
    pub(super) fn value(&mut self, value: ValueRef<'_>) {
        match value {
            ValueRef::Null => self.null(),
            ValueRef::Integer(number) => self.integer(number),
            ValueRef::Text(text) => self.bytes(TEXT, text),
            ValueRef::Blob(bytes) => self.bytes(BLOB, bytes),
            // No column has them.
            ValueRef::Real(number) => self.integer(number.to_bits() as i64),
        }
    }

    /// XXH64, seed 0, over the values.
    pub(super) fn checksum(&self) -> i64 {
        XxHash64::oneshot(0, self.0.get(1..).unwrap_or_default()) as i64
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Stands in place of a statement: which tables are written was not known yet, and the row of
/// flowlog's own tables follows, its length before it, then that with all keys of ulogd2, if
/// there is one.
const EITHER: u8 = 0xff;

impl Row {
    /// Makes a row that is decided upon later.
    pub(super) fn either(&mut self, own: &Self, ulogd: &Self) {
        self.begin(EITHER);
        self.0.extend_from_slice(&(own.0.len() as u32).to_le_bytes());
        self.0.extend_from_slice(&own.0);
        self.0.extend_from_slice(&ulogd.0);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// The two of a row that was to be decided upon later; absent: it is one already.
pub(super) fn both(row: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = row.strip_prefix(&[EITHER])?.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// A row that was made: its statement, and its values.
pub(super) fn read(row: &[u8]) -> (usize, Values<'_>) {
    let (statement, rest) = row.split_first().unwrap_or((&0, &[]));
    (usize::from(*statement), Values(rest))
}

/// The time of a row of flowlog's own tables: its first value.
pub(super) fn time(row: &[u8]) -> u64 {
    match read(row).1.next() {
        Some(ValueRef::Integer(time)) => time as u64,
        _ => 0,
    }
}

/// The values of a row.
pub(super) struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = ValueRef<'a>;

    fn next(&mut self) -> Option<ValueRef<'a>> {
        let (tag, rest) = self.0.split_first()?;
        let (value, rest) = match *tag {
            INTEGER => {
                let (bytes, rest) = rest.split_first_chunk()?;
                (ValueRef::Integer(i64::from_le_bytes(*bytes)), rest)
            }
            TEXT | BLOB => {
                let (length, rest) = rest.split_first_chunk()?;
                let (bytes, rest) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
                let text = *tag == TEXT;
                (if text { ValueRef::Text(bytes) } else { ValueRef::Blob(bytes) }, rest)
            }
            _ => (ValueRef::Null, rest),
        };
        self.0 = rest;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_as_it_was_made() {
        let mut row = Row::default();
        row.begin(9);
        row.begin(2);
        row.number(u64::MAX);
        row.optional(None::<u32>);
        row.optional(Some(7_u8));
        row.text(b"a\xffb");
        row.optional_blob(Some(b"\xff"));
        row.optional_text(None);
        row.text(b"");
        let (statement, values) = read(row.as_bytes());
        assert_eq!(statement, 2);
        let expected = [
            ValueRef::Integer(-1),
            ValueRef::Null,
            ValueRef::Integer(7),
            ValueRef::Text("a\u{fffd}b".as_bytes()),
            ValueRef::Blob(b"\xff"),
            ValueRef::Null,
            ValueRef::Text(b""),
        ];
        assert_eq!(values.collect::<Vec<_>>(), expected);
    }
}
