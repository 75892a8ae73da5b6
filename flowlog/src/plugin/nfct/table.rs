//! The flows that live: what NFCT keeps of each with `hash_enable=1`. Built
//! for memory: a fixed 128 bytes per flow in chunks that never move, found
//! through a table of 32-bit indexes.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::capture::FlowKey;
use crate::event::Kinds;
use crate::flow::{Counters, Flow, Tuple};

/// Entries per chunk: 64 KiB.
const CHUNK: usize = 512;

/// What is kept of one flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) orig: Tuple,
    pub(super) reply: Tuple,
    pub(super) zone: u16,
    /// [`Entry::SEEN`] bits.
    flags: u8,
    /// The dump in which it was last seen, modulo 256.
    pub(super) generation: u8,
    pub(super) id: u32,
    pub(super) mark: u32,
    /// Nanoseconds since the epoch.
    pub(super) start: u64,
    pub(super) counters: [Counters; 2],
}

// The promise of docs/performance.md: 160 bytes per flow, index included.
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    /// The kinds ASSURED, CONFIRMED and HELPER, moved down to fit a byte.
    const SEEN: u32 = Kinds::ASSURED.union(Kinds::CONFIRMED).union(Kinds::HELPER).bits();
    /// It came from the dump at start: the kernel may never tell its end.
    const PREEXISTING: u8 = 0x01;

    pub(super) fn new(flow: &Flow, start: u64, generation: u8) -> Self {
        Self {
            orig: flow.orig,
            reply: flow.reply,
            zone: flow.zone,
            flags: 0,
            generation,
            id: flow.id.unwrap_or(0),
            mark: flow.mark,
            start,
            counters: flow.counters.unwrap_or_default(),
        }
    }

    /// Takes over what a newer message says.
    pub(super) fn refresh(&mut self, flow: &Flow, generation: u8) {
        self.generation = generation;
        self.mark = flow.mark;
        if let Some(counters) = flow.counters {
            self.counters = counters;
        }
    }

    /// Remembers `kinds`, and returns those that were not yet known.
    pub(super) fn first_seen(&mut self, kinds: Kinds) -> Kinds {
        let bits = (kinds.bits() & Self::SEEN) as u8;
        let first = bits & !self.flags;
        self.flags |= bits;
        Kinds::from_bits_truncate(u32::from(first))
    }

    pub(super) fn is_preexisting(&self) -> bool {
        self.flags & Self::PREEXISTING != 0
    }

    pub(super) fn set_preexisting(&mut self, value: bool) {
        if value {
            self.flags |= Self::PREEXISTING;
        } else {
            self.flags &= !Self::PREEXISTING;
        }
    }

    /// The flow as far as it is kept.
    pub(super) fn flow(&self) -> Flow {
        Flow {
            orig: self.orig,
            reply: self.reply,
            zone: self.zone,
            mark: self.mark,
            id: Some(self.id),
            counters: Some(self.counters),
            ..Flow::default()
        }
    }

    pub(super) fn key(&self) -> FlowKey {
        FlowKey { orig: self.orig, zone: self.zone }
    }

    fn is(&self, flow: &Flow) -> bool {
        self.id == flow.id.unwrap_or(0) && self.zone == flow.zone && self.orig == flow.orig
    }
}

/// The live flows, by id, zone and original tuple: the id keeps a flow apart
/// from its successor with the same tuple when the event between was lost.
pub(super) struct FlowTable {
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    chunks: Vec<Box<[Entry]>>,
    /// Slots in the last chunk that were never used.
    fresh: u32,
    free: Vec<u32>,
    max_entries: usize,
    preexisting: usize,
}

impl FlowTable {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: HashTable::new(),
            chunks: Vec::new(),
            fresh: 0,
            free: Vec::new(),
            max_entries,
            preexisting: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Flows whose end the kernel may never tell.
    pub(super) fn preexisting(&self) -> usize {
        self.preexisting
    }

    /// What names `flow` among those that ended during a dump.
    pub(super) fn fingerprint(&self, flow: &Flow) -> u64 {
        hash(&self.hasher, flow.id.unwrap_or(0), flow.zone, &flow.orig)
    }

    pub(super) fn get_mut(&mut self, flow: &Flow) -> Option<&mut Entry> {
        let slot = *self.index.find(self.fingerprint(flow), |slot| self.at(*slot).is(flow))?;
        Some(self.at_mut(slot))
    }

    /// Adds an entry that is not there yet; `None` when the table is full.
    pub(super) fn insert(&mut self, entry: Entry) -> Option<&mut Entry> {
        if self.index.len() >= self.max_entries {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| self.fresh_slot(entry));
        self.preexisting += usize::from(entry.is_preexisting());
        *self.at_mut(slot) = entry;
        let Self { hasher, index, chunks, .. } = self;
        let hash_of = |entry: &Entry| hash(hasher, entry.id, entry.zone, &entry.orig);
        index.insert_unique(hash_of(&entry), slot, |slot| hash_of(at(chunks, *slot)));
        Some(self.at_mut(slot))
    }

    pub(super) fn remove(&mut self, flow: &Flow) -> Option<Entry> {
        let hash = self.fingerprint(flow);
        let chunks = &self.chunks;
        let found = self.index.find_entry(hash, |slot| at(chunks, *slot).is(flow)).ok()?;
        let (slot, _) = found.remove();
        self.free.push(slot);
        let entry = *self.at(slot);
        self.preexisting -= usize::from(entry.is_preexisting());
        Some(entry)
    }

    /// The kernel will tell this flow's end after all.
    pub(super) fn clear_preexisting(&mut self, flow: &Flow) {
        let Some(entry) = self.get_mut(flow) else { return };
        if entry.is_preexisting() {
            entry.set_preexisting(false);
            self.preexisting -= 1;
        }
    }

    /// Copies of the entries that `generation` has not seen.
    pub(super) fn not_seen_in(&self, generation: u8) -> Vec<Entry> {
        let entries = self.index.iter().map(|slot| self.at(*slot));
        entries.filter(|entry| entry.generation != generation).copied().collect()
    }

    /// Marks all entries as seen in `generation`.
    pub(super) fn mark_all(&mut self, generation: u8) {
        for entry in self.chunks.iter_mut().flat_map(|chunk| chunk.iter_mut()) {
            entry.generation = generation;
        }
    }

    fn fresh_slot(&mut self, filler: Entry) -> u32 {
        if self.fresh == 0 {
            self.chunks.push(vec![filler; CHUNK].into_boxed_slice());
            self.fresh = CHUNK as u32;
        }
        self.fresh -= 1;
        (self.chunks.len() * CHUNK) as u32 - self.fresh - 1
    }

    fn at(&self, slot: u32) -> &Entry {
        at(&self.chunks, slot)
    }

    fn at_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.chunks[slot as usize / CHUNK][slot as usize % CHUNK]
    }
}

fn at(chunks: &[Box<[Entry]>], slot: u32) -> &Entry {
    &chunks[slot as usize / CHUNK][slot as usize % CHUNK]
}

fn hash(hasher: &DefaultHashBuilder, id: u32, zone: u16, orig: &Tuple) -> u64 {
    hasher.hash_one((id, zone, orig))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(n: u32) -> Flow {
        let mut flow = Flow { id: Some(n), ..Flow::default() };
        flow.orig.src[..4].copy_from_slice(&n.to_be_bytes());
        flow
    }

    #[test]
    fn keeps_finds_and_forgets_more_than_a_chunk() {
        let mut table = FlowTable::new(2000);
        for n in 0..2000 {
            assert!(table.insert(Entry::new(&flow(n), u64::from(n), 0)).is_some());
        }
        assert!(table.insert(Entry::new(&flow(5000), 0, 0)).is_none(), "beyond max_entries");
        for n in (0..2000).step_by(2) {
            assert_eq!(table.remove(&flow(n)).map(|e| e.start), Some(u64::from(n)));
        }
        assert!(table.remove(&flow(0)).is_none());
        for n in (0..2000).step_by(2) {
            table.insert(Entry::new(&flow(n), 7, 0));
        }
        assert_eq!(table.get_mut(&flow(1)).map(|e| e.start), Some(1));
        assert_eq!(table.get_mut(&flow(2)).map(|e| e.start), Some(7));
        assert_eq!(table.chunks.len(), 4, "freed slots are used again");
    }

    #[test]
    fn the_id_keeps_successors_apart() {
        let mut table = FlowTable::new(10);
        let old = flow(1);
        let new = Flow { id: Some(2), ..old.clone() };
        table.insert(Entry::new(&old, 1, 0));
        table.insert(Entry::new(&new, 2, 0));
        assert_eq!(table.remove(&old).map(|e| e.start), Some(1));
        assert_eq!(table.remove(&new).map(|e| e.start), Some(2));
    }

    #[test]
    fn transitions_are_told_once() {
        let mut entry = Entry::new(&flow(1), 0, 0);
        entry.set_preexisting(true);
        assert_eq!(entry.first_seen(Kinds::CONFIRMED | Kinds::NEW), Kinds::CONFIRMED);
        assert_eq!(entry.first_seen(Kinds::CONFIRMED | Kinds::ASSURED), Kinds::ASSURED);
        assert_eq!(entry.first_seen(Kinds::all()), Kinds::HELPER);
        assert!(entry.is_preexisting());
    }
}
