//! Rows that wait: in chunks, as the engine's thread hands them over, and between them the
//! marks of a clock that was set.

use std::collections::VecDeque;
use std::time::Instant;

use super::Schema;
use super::row::{self, Row};
use crate::archive::clock::Moment;
use crate::archive::coverage::Gaps;
use crate::stats::Amount;

/// Rows that are handed over together.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    /// The length of each row.
    lengths: Vec<u32>,
    /// What was lost since the chunk before.
    pub(crate) gaps: Gaps,
}

impl Chunk {
    /// Takes a row.
    #[inline]
    pub(crate) fn push(&mut self, row: &[u8]) {
        self.bytes.extend_from_slice(row);
        self.lengths.push(row.len() as u32);
    }

    /// Bytes and rows.
    pub(crate) fn amount(&self) -> Amount {
        Amount { bytes: self.bytes.len() as u64, records: self.lengths.len() as u64 }
    }

    /// There is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.lengths.is_empty()
    }

    /// The same, where rows could not be of one table yet: of that schema. Those that have no
    /// row there are left out.
    pub(super) fn decided(self, schema: &Schema) -> Self {
        if !self.each_from(0, 0).any(|row| row::both(row).is_some()) {
            return self;
        }
        let mut chunk = Self { gaps: self.gaps.clone(), ..Self::default() };
        let mut selected = Row::default();
        for row in self.each_from(0, 0) {
            match (row::both(row), schema) {
                (None, _) => chunk.push(row),
                (Some((own, _)), Schema::Own) => chunk.push(own),
                (Some((_, [])), Schema::Ulogd(_)) => {}
                (Some((_, all)), Schema::Ulogd(table)) => {
                    table.select(all, &mut selected);
                    chunk.push(selected.as_bytes());
                }
            }
        }
        chunk
    }

    /// The rows from that number on, which begins at that byte.
    fn each_from(&self, row: usize, byte: usize) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.get(byte..).unwrap_or_default();
        let lengths = self.lengths.get(row..).unwrap_or_default();
        lengths.iter().map_while(move |length| {
            let (row, behind) = rest.split_at_checked(*length as usize)?;
            rest = behind;
            Some(row)
        })
    }
}

/// What the engine's thread asks for.
#[derive(Debug)]
pub(crate) enum Job {
    /// To write rows, which were handed over up to a time (nanoseconds since the epoch).
    Write(Chunk, u64),
    /// The clock was set by then, behind the rows that were handed over.
    ClockSet(Moment),
    /// To open the file anew, once all that came before is written.
    Reopen,
    /// To end: when all is written, or at that time.
    End(Instant),
}

/// What waits, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// Rows and bytes of the first chunk that are done with.
    done: (usize, usize),
}

#[derive(Debug)]
enum Entry {
    /// Rows, with the time up to which rows were handed over by then.
    Rows(Chunk, u64),
    ClockSet(Moment),
}

/// What stands behind rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// All rows up to that time, nanoseconds since the epoch, stand before it.
    Reached(u64),
    /// The clock was set by then: rows behind it have their times by the new clock.
    ClockSet(Moment),
}

impl Queue {
    /// Takes rows that were handed over up to a time.
    pub(super) fn push(&mut self, chunk: Chunk, until: u64) {
        match self.entries.back_mut() {
            Some(Entry::Rows(_, known)) if chunk.is_empty() => *known = until,
            _ => self.entries.push_back(Entry::Rows(chunk, until)),
        }
    }

    /// Takes the mark of a clock that was set.
    pub(super) fn push_clock_set(&mut self, now: Moment) {
        self.entries.push_back(Entry::ClockSet(now));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Has rows that could not be of one table yet be of that schema; none of them was released.
    /// Returns how much less that is.
    pub(super) fn decide(&mut self, schema: &Schema) -> Amount {
        let mut less = Amount::default();
        for entry in &mut self.entries {
            if let Entry::Rows(chunk, _) = entry {
                let before = chunk.amount();
                *chunk = std::mem::take(chunk).decided(schema);
                let after = chunk.amount();
                less.bytes += before.bytes - after.bytes;
                less.records += before.records - after.records;
            }
        }
        less
    }

    /// Each row that waits, up to where the clock was set.
    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        let (mut rows, mut bytes) = self.done;
        let chunks = self.entries.iter().map_while(|entry| match entry {
            Entry::Rows(chunk, _) => Some(chunk),
            Entry::ClockSet(_) => None,
        });
        chunks.flat_map(move |chunk| {
            chunk.each_from(std::mem::take(&mut rows), std::mem::take(&mut bytes))
        })
    }

    /// Forgets the first rows; returns how much that is, and the marks before the next row that
    /// waits.
    pub(super) fn release(&mut self, rows: u64) -> (Amount, Vec<Mark>) {
        let mut released = Amount::default();
        let mut marks = Vec::new();
        while let Some(first) = self.entries.front() {
            let mark = match first {
                Entry::ClockSet(now) => Mark::ClockSet(*now),
                Entry::Rows(chunk, until) => {
                    let (done, before) = self.done;
                    let wanted = (rows - released.records) as usize;
                    let last = (done + wanted).min(chunk.lengths.len());
                    let bytes: usize =
                        chunk.lengths[done..last].iter().map(|length| *length as usize).sum();
                    released.records += (last - done) as u64;
                    released.bytes += bytes as u64;
                    self.done = (last, before + bytes);
                    if last < chunk.lengths.len() {
                        break;
                    }
                    self.done = (0, 0);
                    Mark::Reached(*until)
                }
            };
            marks.push(mark);
            self.entries.pop_front();
        }
        (released, marks)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However rows are handed over and released: each stays whole and in order, and so do
        /// the marks; no transaction has rows of two clocks.
        #[test]
        fn rows_leave_in_order(
            chunks in prop::collection::vec((0..40_u32, any::<bool>()), 1..20),
            steps in prop::collection::vec(0..70_u64, 1..40),
        ) {
            let mut queue = Queue::default();
            // The first row of each clock.
            let mut clocks = Vec::new();
            let (mut made, mut gone) = (0_u32, 0_u32);
            for (rows, set) in chunks {
                let mut chunk = Chunk::default();
                for _ in 0..rows {
                    chunk.push(&vec![made as u8; made as usize % 7]);
                    made += 1;
                }
                queue.push(chunk, made.into());
                if set {
                    queue.push_clock_set(Moment::at(made.into()));
                    clocks.push(made);
                }
            }
            let mut passed = queue.release(0).1;
            for step in steps {
                let end = clocks.iter().copied().find(|first| *first > gone).unwrap_or(made);
                let expected: Vec<_> =
                    (gone..end).map(|n| vec![n as u8; n as usize % 7]).collect();
                prop_assert_eq!(queue.each().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
                let first = expected.iter().take(step as usize);
                let (released, marks) = queue.release(first.len() as u64);
                prop_assert_eq!(released.bytes, first.map(Vec::len).sum::<usize>() as u64);
                gone += released.records as u32;
                passed.extend(marks);
                prop_assert_eq!(queue.is_empty(), gone == made);
            }
            let (mut times, mut set) = (Vec::new(), Vec::new());
            for mark in passed {
                match mark {
                    Mark::Reached(until) => times.push(until),
                    Mark::ClockSet(now) => set.push(now.wall as u32),
                }
            }
            prop_assert!(times.is_sorted() && times.last().is_none_or(|time| *time <= gone.into()));
            let reached: Vec<_> = clocks.into_iter().filter(|first| *first <= gone).collect();
            prop_assert_eq!(set, reached);
        }
    }
}
