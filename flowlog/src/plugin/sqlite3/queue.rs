//! Rows that wait: in chunks, as the engine's thread hands them over.

use std::collections::VecDeque;

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
}

/// Chunks in a row.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Each with the time up to which rows were handed over by then.
    chunks: VecDeque<(Chunk, u64)>,
    /// Rows and bytes of the first that are done with.
    done: (usize, usize),
}

impl Queue {
    /// Takes rows that were handed over up to a time. Returns it if no row waits.
    pub(super) fn push(&mut self, chunk: Chunk, until: u64) -> Option<u64> {
        if !chunk.is_empty() {
            self.chunks.push_back((chunk, until));
            return None;
        }
        match self.chunks.back_mut() {
            Some((_, known)) => {
                *known = until;
                None
            }
            None => Some(until),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Each row that waits.
    pub(super) fn each(&self) -> impl Iterator<Item = &[u8]> {
        let (mut rows, mut bytes) = self.done;
        self.chunks.iter().flat_map(move |(chunk, _)| {
            let lengths = &chunk.lengths[std::mem::take(&mut rows)..];
            let mut rest = &chunk.bytes[std::mem::take(&mut bytes)..];
            lengths.iter().map_while(move |length| {
                let (row, behind) = rest.split_at_checked(*length as usize)?;
                rest = behind;
                Some(row)
            })
        })
    }

    /// Forgets the first rows; returns how much that is, and up to when no row waits any more,
    /// where a chunk has ended.
    pub(super) fn release(&mut self, rows: u64) -> (Amount, Option<u64>) {
        let mut released = Amount::default();
        let mut reached = None;
        while released.records < rows {
            let Some((chunk, until)) = self.chunks.front() else { break };
            let (done, before) = self.done;
            let wanted = (rows - released.records) as usize;
            let last = (done + wanted).min(chunk.lengths.len());
            let bytes: usize =
                chunk.lengths[done..last].iter().map(|length| *length as usize).sum();
            released.records += (last - done) as u64;
            released.bytes += bytes as u64;
            self.done = (last, before + bytes);
            if last == chunk.lengths.len() {
                reached = Some(*until);
                self.chunks.pop_front();
                self.done = (0, 0);
            }
        }
        (released, reached)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However rows are handed over and released: each stays whole and in order.
        #[test]
        fn rows_leave_in_order(
            chunks in prop::collection::vec(0..40_u32, 1..20),
            steps in prop::collection::vec(0..70_u64, 1..40),
        ) {
            let mut queue = Queue::default();
            let (mut made, mut gone) = (0_u32, 0_u32);
            for rows in chunks {
                let mut chunk = Chunk::default();
                for _ in 0..rows {
                    chunk.push(&vec![made as u8; made as usize % 7]);
                    made += 1;
                }
                let empty = queue.is_empty() && chunk.is_empty();
                prop_assert_eq!(queue.push(chunk, made.into()), empty.then_some(made.into()));
            }
            for step in steps {
                let expected: Vec<_> =
                    (gone..made).map(|n| vec![n as u8; n as usize % 7]).collect();
                prop_assert_eq!(queue.each().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
                let (released, until) = queue.release(step);
                let first = expected.iter().take(step as usize);
                prop_assert_eq!(released.bytes, first.map(Vec::len).sum::<usize>() as u64);
                gone += released.records as u32;
                prop_assert!(until.is_none_or(|until| until <= gone.into()));
                prop_assert_eq!(queue.is_empty(), gone == made);
            }
        }
    }
}
