//! Records for a peer, in order: those that were sent and that nobody has
//! confirmed yet, then those that wait.

use std::collections::VecDeque;
use std::ops::Range;

use super::CHUNK;

/// A buffer that has grown beyond it gives memory back when it is empty.
const ROOMY: usize = 16 * CHUNK;
/// Records that a chunk has, roughly.
const RECORDS: usize = CHUNK / 128;

/// The records.
#[derive(Debug)]
pub(super) struct Backlog {
    bytes: Vec<u8>,
    /// Where the first record begins; what stands before it is done with, and
    /// is moved out seldom.
    head: usize,
    /// The length of each record from `head` on.
    lengths: VecDeque<u32>,
    /// Bytes from `head` on that were sent.
    sent: usize,
    /// The first record that was not sent whole: its number, and where it begins behind `head`.
    next: (usize, usize),
}

impl Backlog {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::with_capacity(CHUNK + 4096),
            head: 0,
            lengths: VecDeque::with_capacity(RECORDS),
            sent: 0,
            next: (0, 0),
        }
    }

    /// Takes a record in two parts.
    #[inline]
    pub(super) fn push(&mut self, front: &[u8], rest: &[u8]) {
        self.bytes.extend_from_slice(front);
        self.bytes.extend_from_slice(rest);
        self.lengths.push_back((front.len() + rest.len()) as u32);
    }

    /// Bytes that are kept.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.head
    }

    /// Records that are kept.
    pub(super) fn records(&self) -> u64 {
        self.lengths.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// Bytes that nobody has confirmed.
    pub(super) fn in_flight(&self) -> usize {
        self.sent
    }

    /// All that was not sent.
    pub(super) fn unsent(&self) -> &[u8] {
        &self.bytes[self.head + self.sent..]
    }

    /// The first record that was not sent, where records are sent whole.
    pub(super) fn next_record(&self) -> Option<&[u8]> {
        let Range { start, end } = self.next_range()?;
        Some(&self.bytes[self.head + start..self.head + end])
    }

    /// What is to be sent next: the rest of a record that was sent in part, or else whole
    /// records of together `most` bytes, at least one.
    pub(super) fn next_batch(&self, most: usize) -> &[u8] {
        let (first, start) = self.next;
        let mut end = start;
        for (number, length) in self.lengths.range(first..).enumerate() {
            let next = end + *length as usize;
            if number > 0 && next - self.sent > most {
                break;
            }
            end = next;
            // The rest of a record goes alone, so that the next begins a batch.
            if number == 0 && start < self.sent {
                break;
            }
        }
        &self.bytes[self.head + self.sent..self.head + end.max(self.sent)]
    }

    /// `bytes` more were sent.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.sent += bytes;
        let (number, start) = &mut self.next;
        while let Some(length) = self.lengths.get(*number)
            && *start + *length as usize <= self.sent
        {
            *start += *length as usize;
            *number += 1;
        }
    }

    /// The first `bytes` have arrived: forgets the records that are whole within
    /// them, and returns how many these are, and their bytes.
    pub(super) fn release(&mut self, bytes: usize) -> (u64, u64) {
        let (mut records, mut released) = (0_usize, 0);
        while let Some(length) = self.lengths.front().map(|length| *length as usize) {
            if released + length > bytes {
                break;
            }
            self.lengths.pop_front();
            released += length;
            records += 1;
        }
        self.head += released;
        self.sent = self.sent.saturating_sub(released);
        let (number, start) = self.next;
        self.next = (number.saturating_sub(records), start.saturating_sub(released));
        self.compact();
        (records as u64, released as u64)
    }

    /// What was sent is to be sent again, from the beginning of the first record
    /// on; returns how many whole records that makes twice.
    pub(super) fn rewind(&mut self) -> u64 {
        let (whole, _) = std::mem::take(&mut self.next);
        self.sent = 0;
        whole as u64
    }

    /// Gives up the first record that was not sent, and those before it.
    pub(super) fn drop_next(&mut self) -> (u64, u64) {
        let end = self.next_range().map_or(self.sent, |record| record.end);
        self.release(end)
    }

    /// The first record of which nothing was sent, behind `head`.
    fn next_range(&self) -> Option<Range<usize>> {
        let (number, start) = self.next;
        let length = |number: usize| Some(*self.lengths.get(number)? as usize);
        if start >= self.sent {
            return Some(start..start + length(number)?);
        }
        let start = start + length(number)?;
        Some(start..start + length(number + 1)?)
    }

    fn compact(&mut self) {
        if self.lengths.is_empty() {
            self.bytes.clear();
            self.head = 0;
            if self.bytes.capacity() > ROOMY {
                self.bytes.shrink_to(CHUNK + 4096);
                self.lengths.shrink_to(RECORDS);
            }
        } else if self.head > CHUNK && self.head > self.bytes.len() / 2 {
            self.bytes.drain(..self.head);
            self.head = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_record_that_was_cut_is_sent_again_whole() {
        let mut backlog = Backlog::new();
        for record in ["one\n", "two\n", "three\n"] {
            backlog.push(&record.as_bytes()[..1], &record.as_bytes()[1..]);
        }
        backlog.advance(10);
        assert_eq!(backlog.release(5), (1, 4));
        assert_eq!(backlog.in_flight(), 6);
        assert_eq!(backlog.rewind(), 1, "two was sent whole, three in part");
        assert_eq!(backlog.unsent(), b"two\nthree\n");
        assert_eq!(backlog.next_record(), Some(&b"two\n"[..]));
        backlog.advance(4);
        assert_eq!(backlog.next_record(), Some(&b"three\n"[..]));
        assert_eq!(backlog.release(10), (2, 10));
        assert!(backlog.is_empty() && backlog.unsent().is_empty());
    }

    #[test]
    fn a_batch_has_whole_records_and_what_was_torn_goes_first() {
        let mut backlog = Backlog::new();
        assert_eq!(backlog.next_batch(8), b"");
        for record in ["one\n", "two\n", "three\n", "much longer\n", "x\n"] {
            backlog.push(record.as_bytes(), b"");
        }
        assert_eq!(backlog.next_batch(8), b"one\ntwo\n");
        backlog.advance(2);
        assert_eq!(backlog.next_batch(8), b"e\n");
        backlog.advance(2);
        assert_eq!(backlog.next_batch(9), b"two\n");
        backlog.advance(10);
        assert_eq!(backlog.next_batch(8), b"much longer\n", "one that is longer goes alone");
        backlog.advance(12);
        assert_eq!(backlog.next_batch(8), b"x\n");
        backlog.advance(2);
        assert_eq!(backlog.next_batch(8), b"");
    }

    proptest! {
        /// Whatever is sent, confirmed and broken off: each record stays whole
        /// and in order until it is confirmed.
        #[test]
        fn nothing_is_torn_or_skipped(steps in prop::collection::vec((0..4_u8, 0..70_000_usize), 1..200)) {
            let mut backlog = Backlog::new();
            let (mut made, mut done) = (0_u64, 0_u64);
            for (step, size) in steps {
                match step {
                    0 => {
                        backlog.push(&made.to_le_bytes(), &vec![b'x'; size]);
                        made += 1;
                    }
                    1 => backlog.advance(size.min(backlog.unsent().len())),
                    2 => done += backlog.release(size.min(backlog.in_flight())).0,
                    _ => {
                        backlog.rewind();
                        if let Some(first) = backlog.next_record() {
                            prop_assert_eq!(&first[..8], &done.to_le_bytes());
                        }
                    }
                }
                prop_assert_eq!(backlog.records(), made - done);
            }
        }
    }
}
