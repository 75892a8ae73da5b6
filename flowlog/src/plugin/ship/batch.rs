//! Records in a row, as the spool holds them: each with its id and the hash of its
//! flow before it.

use crate::plugin::record_id::RecordId;

/// A record as its sink has encoded it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What tells it from all others, also when it comes twice.
    pub id: RecordId,
    /// The same for all records of a flow: a key for partitions.
    pub flow: u64,
    /// What the far side gets.
    pub body: &'a [u8],
}

/// Bytes before a body: its length, the id, the flow.
const HEAD: usize = 4 + 8 + 8 + 8;

impl<'a> Record<'a> {
    /// Bytes that it takes in a chunk.
    #[inline]
    pub(super) fn size(&self) -> usize {
        HEAD + self.body.len()
    }

    /// Appends it.
    #[inline]
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Self { id, flow, body } = self;
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&id.time.to_le_bytes());
        out.extend_from_slice(&id.hash.to_le_bytes());
        out.extend_from_slice(&flow.to_le_bytes());
        out.extend_from_slice(body);
    }

    /// Takes the first one off `bytes`; `None` if they are cut or damaged.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (time, rest) = rest.split_first_chunk()?;
        let (hash, rest) = rest.split_first_chunk()?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (body, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        let id = RecordId { time: u64::from_le_bytes(*time), hash: u64::from_le_bytes(*hash) };
        Some((Self { id, flow: u64::from_le_bytes(*flow), body }, rest))
    }
}

/// Whether `payload` holds `records` whole records, and nothing else.
pub(super) fn is_sound(payload: &[u8], records: u64) -> bool {
    let mut rest = payload;
    let mut found = 0;
    while let Some((_, behind)) = Record::split(rest) {
        rest = behind;
        found += 1;
    }
    rest.is_empty() && found == records
}

/// The times of the first and the last record of a payload, nanoseconds since the epoch; absent
/// if it is damaged, or has none.
pub(super) fn span(payload: &[u8]) -> Option<(u64, u64)> {
    let mut rest = payload;
    let mut span: Option<(u64, u64)> = None;
    while let Some((Record { id, .. }, behind)) = Record::split(rest) {
        rest = behind;
        let (first, last) = span.unwrap_or((id.time, id.time));
        span = Some((first.min(id.time), last.max(id.time)));
    }
    span.filter(|_| rest.is_empty())
}

/// A payload has no more records than that.
pub(super) fn most(payload: &[u8]) -> u64 {
    (payload.len() / HEAD) as u64
}

/// Records for a client, in order: some rows of the spool.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) encoding: String,
    pub(super) first: i64,
    pub(super) last: i64,
    pub(super) records: u64,
    pub(super) bytes: usize,
    pub(super) rows: Vec<Row>,
}

/// A row of the spool.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its number.
    pub number: i64,
    /// What happened before that time, nanoseconds since the epoch, is in this row or one
    /// before it, as far as it was not lost; 0: not known.
    pub complete: u64,
    /// Its records.
    pub(super) payload: Vec<u8>,
}

impl Batch {
    /// How the bodies are encoded: the word that the sink has given with them.
    /// Another version of flowlog, or another configuration, may have spooled them.
    pub fn encoding(&self) -> &str {
        &self.encoding
    }

    /// The number of the newest row of the spool that is in it. Rows are numbered
    /// from 1 on, and no number is ever used again.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// The number of the oldest row.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// Records in it.
    pub fn len(&self) -> u64 {
        self.records
    }

    /// There is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.records == 0
    }

    /// Bytes of it, with what stands before each body.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The records, the oldest first.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.rows().flat_map(|(_, records)| records)
    }

    /// How many records are in rows up to that number.
    pub(super) fn records_up_to(&self, number: i64) -> u64 {
        let rows = self.rows().filter(|(row, _)| row.number <= number);
        rows.map(|(_, records)| records.count() as u64).sum()
    }

    /// The rows, each with its records.
    pub fn rows(&self) -> impl Iterator<Item = (&Row, impl Iterator<Item = Record<'_>>)> {
        self.rows.iter().map(|row| {
            let mut rest = row.payload.as_slice();
            let records = std::iter::from_fn(move || {
                let (record, behind) = Record::split(rest)?;
                rest = behind;
                Some(record)
            });
            (row, records)
        })
    }

    #[cfg(test)]
    pub(in crate::plugin) fn of(encoding: &str, records: &[Record<'_>]) -> Self {
        let mut payload = Vec::new();
        records.iter().for_each(|record| record.write(&mut payload));
        Self {
            encoding: encoding.to_owned(),
            first: 1,
            last: 1,
            records: records.len() as u64,
            bytes: payload.len(),
            rows: vec![Row { number: 1, complete: 0, payload }],
        }
    }

    /// The same behind another, as one batch; its row gets the next number.
    #[cfg(test)]
    pub(in crate::plugin) fn then(mut self, other: Self) -> Self {
        self.last += 1;
        self.records += other.records;
        self.bytes += other.bytes;
        let number = self.last;
        self.rows.extend(other.rows.into_iter().map(|row| Row { number, ..row }));
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time: u64, body: &[u8]) -> Record<'_> {
        Record { id: RecordId { time, hash: 7 }, flow: 9, body }
    }

    #[test]
    fn records_come_out_as_they_went_in() {
        let records = [record(1, b"one"), record(2, b""), record(3, b"three")];
        let batch = Batch::of("text 1", &records);
        assert_eq!(batch.records().collect::<Vec<_>>(), records);
        assert_eq!(batch.bytes(), records.iter().map(Record::size).sum::<usize>());
    }

    #[test]
    fn records_are_counted_by_rows() {
        let row = |records: &[Record<'_>]| Batch::of("text 1", records);
        let batch = row(&[record(1, b"one"), record(2, b"two")]).then(row(&[record(3, b"three")]));
        assert_eq!([0, 1, 2, 9].map(|number| batch.records_up_to(number)), [0, 2, 3, 3]);
    }

    #[test]
    fn a_cut_or_longer_row_is_noticed() {
        let mut payload = Vec::new();
        record(1, b"one").write(&mut payload);
        record(2, b"two").write(&mut payload);
        assert!(is_sound(&payload, 2));
        assert!(!is_sound(&payload, 1) && !is_sound(&payload, 3));
        assert!(!is_sound(&payload[..payload.len() - 1], 2));
        payload.push(0);
        assert!(!is_sound(&payload, 2));
    }
}
