//! The flows that live: what NFCT keeps of each with `hash_enable=1`. Built
//! for memory: a fixed 128 bytes per flow, found through a table of 32-bit
//! indexes. With hundreds of thousands of flows nearly every access misses the
//! caches, so what a look-up needs stands together, in huge pages.
#![expect(unsafe_code, reason = "madvise has no safe form")]

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable, hash_table};

use crate::capture::FlowKey;
use crate::event::Kinds;
use crate::flow::{Counters, Flow, Netns, Tuple};

/// Flows for which room is reserved from the start, at most. Memory is taken
/// only for flows that are kept; growing later means to visit every entry.
const RESERVE: usize = 1 << 20;

/// The smallest page of the architectures that Linux runs on today is a part
/// of this, bytes.
const PAGE: usize = 1 << 16;

/// What is kept of one flow.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Entry {
    // The first cache line: all that a look-up and the end of a flow need.
    pub(super) orig: Tuple,
    pub(super) zone: u16,
    /// [`Flow::tie_breaker`]
    tie_breaker: u32,
    pub(super) mark: u32,
    /// Nanoseconds since the epoch.
    pub(super) start: u64,
    /// [`Entry::SEEN`] bits, and the bits below.
    flags: u8,
    /// The dump in which it was last seen, modulo 256.
    pub(super) generation: u8,
    // The rest, for dumps and for flows that vanish.
    pub(super) reply: Tuple,
    pub(super) counters: [Counters; 2],
}

// The promise of docs/performance.md: 160 bytes per flow, index included.
const _: () = assert!(size_of::<Entry>() == 128);

impl Entry {
    /// The kinds ASSURED, CONFIRMED and HELPER, moved down to fit a byte.
    const SEEN: u32 = Kinds::ASSURED.union(Kinds::CONFIRMED).union(Kinds::HELPER).bits();
    /// It came from the dump at start: the kernel may never tell its end.
    const PREEXISTING: u8 = 0x01;
    /// The tie breaker is the number of a namespace, not an id.
    const NETNS: u8 = 0x02;

    pub(super) fn new(flow: &Flow, start: u64, generation: u8) -> Self {
        Self {
            orig: flow.orig,
            reply: flow.reply,
            zone: flow.zone,
            flags: if flow.netns.is_some() { Self::NETNS } else { 0 },
            generation,
            tie_breaker: flow.tie_breaker(),
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

    /// Whether this can only be a flow before the one with the same key that
    /// began at `start`, so that the event of its end is missing. An id tells
    /// the two apart by itself. A dump may tell a flow just before the event
    /// of its beginning does, but then with a later start.
    pub(super) fn is_older_than(&self, start: u64) -> bool {
        self.flags & Self::NETNS != 0 && self.start < start
    }

    /// The number of its namespace, if the source tells it.
    fn netns(&self) -> Option<u32> {
        (self.flags & Self::NETNS != 0).then_some(self.tie_breaker)
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

    /// Whether a source that loses nothing tells its end: netlink may not, of a
    /// flow from before the start.
    pub(super) fn end_is_told(&self) -> bool {
        self.flags & Self::NETNS != 0 || !self.is_preexisting()
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
        let netns = self.netns().map(|inum| Netns { cookie: None, inum });
        Flow {
            orig: self.orig,
            reply: self.reply,
            zone: self.zone,
            mark: self.mark,
            id: netns.is_none().then_some(self.tie_breaker),
            netns,
            counters: Some(self.counters),
            ..Flow::default()
        }
    }

    pub(super) fn key(&self) -> FlowKey {
        FlowKey { orig: self.orig, zone: self.zone }
    }

    fn is(&self, flow: &Flow) -> bool {
        self.tie_breaker == flow.tie_breaker() && self.zone == flow.zone && self.orig == flow.orig
    }
}

/// What [`FlowTable::get_or_insert`] found.
pub(super) enum Lookup<'a> {
    /// The flow was there.
    Known(&'a mut Entry),
    /// It has been added.
    Added(&'a mut Entry),
    /// It is not there, and there is no room for it.
    Full,
}

/// The live flows, by tie breaker ([`Flow::tie_breaker`]), zone and original
/// tuple.
pub(super) struct FlowTable {
    hasher: DefaultHashBuilder,
    index: HashTable<u32>,
    slots: Slots,
    max_entries: usize,
    preexisting: usize,
}

impl FlowTable {
    pub(super) fn new(max_entries: usize) -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            index: HashTable::with_capacity(max_entries.min(RESERVE)),
            slots: Slots::new(max_entries.min(RESERVE)),
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
        hash(&self.hasher, flow.tie_breaker(), flow.zone, &flow.orig)
    }

    /// Looks flows up and throws the result away, so that what is found comes
    /// into the caches. With many flows each look-up waits for memory some
    /// three times; here nothing depends on the one before, and the processor
    /// waits for several at once.
    pub(super) fn touch<'a>(&self, flows: impl Iterator<Item = &'a Flow>) {
        for flow in flows {
            let hash = self.fingerprint(flow);
            std::hint::black_box(self.index.find(hash, |slot| self.slots.get(*slot).is(flow)));
        }
    }

    pub(super) fn get_mut(&mut self, flow: &Flow) -> Option<&mut Entry> {
        let hash = self.fingerprint(flow);
        let slot = *self.index.find(hash, |slot| self.slots.get(*slot).is(flow))?;
        Some(self.slots.get_mut(slot))
    }

    /// The entry of `flow`, or else the one that `make` makes.
    pub(super) fn get_or_insert(
        &mut self,
        flow: &Flow,
        make: impl FnOnce() -> Entry,
    ) -> Lookup<'_> {
        let hash_of_flow = self.fingerprint(flow);
        let full = self.index.len() >= self.max_entries;
        let Self { hasher, index, slots, preexisting, .. } = self;
        let found = index.entry(
            hash_of_flow,
            |slot| slots.get(*slot).is(flow),
            |slot| {
                let entry = slots.get(*slot);
                hash(hasher, entry.tie_breaker, entry.zone, &entry.orig)
            },
        );
        match found {
            hash_table::Entry::Occupied(found) => Lookup::Known(slots.get_mut(*found.get())),
            hash_table::Entry::Vacant(_) if full => Lookup::Full,
            hash_table::Entry::Vacant(room) => {
                let slot = slots.take(make());
                room.insert(slot);
                let entry = slots.get_mut(slot);
                *preexisting += usize::from(entry.is_preexisting());
                Lookup::Added(entry)
            }
        }
    }

    /// Forgets `flow`, and returns its start.
    pub(super) fn remove(&mut self, flow: &Flow) -> Option<u64> {
        let hash = self.fingerprint(flow);
        let slots = &self.slots;
        let found = self.index.find_entry(hash, |slot| slots.get(*slot).is(flow)).ok()?;
        let (slot, _) = found.remove();
        let entry = self.slots.get(slot);
        self.preexisting -= usize::from(entry.is_preexisting());
        let start = entry.start;
        self.slots.free.push(slot);
        Some(start)
    }

    /// The kernel will tell this flow's end after all.
    pub(super) fn clear_preexisting(&mut self, flow: &Flow) {
        let Some(entry) = self.get_mut(flow) else { return };
        if entry.is_preexisting() {
            entry.set_preexisting(false);
            self.preexisting -= 1;
        }
    }

    /// Copies of the entries that `generation` has not seen, of all namespaces
    /// or of one.
    pub(super) fn not_seen_in(&self, generation: u8, netns: Option<u32>) -> Vec<Entry> {
        let entries = self.index.iter().map(|slot| self.slots.get(*slot));
        entries
            .filter(|entry| entry.generation != generation)
            .filter(|entry| netns.is_none() || entry.netns() == netns)
            .copied()
            .collect()
    }

    /// Copies of all entries.
    pub(super) fn all(&self) -> Vec<Entry> {
        self.index.iter().map(|slot| *self.slots.get(*slot)).collect()
    }

    /// Marks all entries as seen in `generation`.
    pub(super) fn mark_all(&mut self, generation: u8) {
        for entry in &mut self.slots.entries {
            entry.generation = generation;
        }
    }
}

/// Entries; freed slots are used again.
struct Slots {
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Slots {
    fn new(reserve: usize) -> Self {
        let mut entries: Vec<Entry> = Vec::with_capacity(reserve);
        let room = entries.spare_capacity_mut();
        let address = room.as_mut_ptr().addr().next_multiple_of(PAGE) as *mut libc::c_void;
        let length = size_of_val(room).saturating_sub(PAGE);
        // SAFETY: the range lies within the room that `entries` owns, and the
        // advice changes nothing that a program can see. Where huge pages are
        // not to be had, small ones do.
        let _ = unsafe { libc::madvise(address, length, libc::MADV_HUGEPAGE) };
        Self { entries, free: Vec::new() }
    }

    fn get(&self, slot: u32) -> &Entry {
        &self.entries[slot as usize]
    }

    fn get_mut(&mut self, slot: u32) -> &mut Entry {
        &mut self.entries[slot as usize]
    }

    /// Puts `entry` into a slot, and returns which.
    fn take(&mut self, entry: Entry) -> u32 {
        match self.free.pop() {
            Some(slot) => {
                *self.get_mut(slot) = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u32
            }
        }
    }
}

/// An id is nearly unique, and nobody can choose it: the kernel makes it with a
/// secret key. A namespace's number is the same for many, so addresses and
/// ports count in full.
fn hash(hasher: &DefaultHashBuilder, tie_breaker: u32, zone: u16, orig: &Tuple) -> u64 {
    let [src, dst] = [&orig.src, &orig.dst].map(|address| u128::from_ne_bytes(*address));
    let rest = u128::from(tie_breaker) << 64
        | u128::from(orig.src_l4) << 48
        | u128::from(orig.dst_l4) << 32
        | u128::from(zone) << 16
        | u128::from(orig.proto);
    hasher.hash_one((rest, src, dst))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(n: u32) -> Flow {
        let mut flow = Flow { id: Some(n), ..Flow::default() };
        flow.orig.src[..4].copy_from_slice(&n.to_be_bytes());
        flow
    }

    fn add(table: &mut FlowTable, flow: &Flow, start: u64) -> bool {
        matches!(table.get_or_insert(flow, || Entry::new(flow, start, 0)), Lookup::Added(_))
    }

    #[test]
    fn keeps_finds_and_forgets() {
        let mut table = FlowTable::new(2000);
        for n in 0..2000 {
            assert!(add(&mut table, &flow(n), n.into()));
        }
        let more = flow(5000);
        let found = table.get_or_insert(&more, || Entry::new(&more, 0, 0));
        assert!(matches!(found, Lookup::Full), "beyond max_entries");
        for n in (0..2000).step_by(2) {
            assert_eq!(table.remove(&flow(n)), Some(u64::from(n)));
        }
        assert!(table.remove(&flow(0)).is_none());
        for n in (0..2000).step_by(2) {
            assert!(add(&mut table, &flow(n), 7));
            assert!(!add(&mut table, &flow(n), 8), "it is known already");
        }
        assert_eq!(table.get_mut(&flow(1)).map(|e| e.start), Some(1));
        assert_eq!(table.get_mut(&flow(2)).map(|e| e.start), Some(7));
        assert_eq!(table.slots.entries.len(), 2000, "freed slots are used again");
    }

    #[test]
    fn the_id_keeps_successors_apart() {
        let mut table = FlowTable::new(10);
        let old = flow(1);
        let new = Flow { id: Some(2), ..old.clone() };
        assert!(add(&mut table, &old, 1) && add(&mut table, &new, 2));
        assert_eq!(table.remove(&old), Some(1));
        assert_eq!(table.remove(&new), Some(2));
    }

    #[test]
    fn the_namespace_keeps_equal_flows_apart_and_is_told_again() {
        let within = |inum| Flow { netns: Some(Netns { cookie: Some(5), inum }), ..flow(1) };
        let mut table = FlowTable::new(10);
        assert!(add(&mut table, &within(100), 1) && add(&mut table, &within(200), 2));
        let entry = *table.get_mut(&within(200)).unwrap();
        assert_eq!(entry.flow().netns, Some(Netns { cookie: None, inum: 200 }));
        assert_eq!((entry.flow().id, entry.start), (None, 2));
        let vanished = table.not_seen_in(1, Some(100));
        assert_eq!(vanished.iter().map(Entry::netns).collect::<Vec<_>>(), [Some(100)]);
        assert_eq!(table.not_seen_in(1, None).len(), 2);
        assert_eq!(table.remove(&entry.flow()), Some(2));
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

    #[test]
    fn netlink_may_not_tell_the_end_of_an_old_flow() {
        let netns = Some(Netns { cookie: None, inum: 7 });
        for (netns, old, told) in
            [(None, false, true), (None, true, false), (netns, false, true), (netns, true, true)]
        {
            let mut entry = Entry::new(&Flow { netns, ..flow(1) }, 0, 0);
            entry.set_preexisting(old);
            assert_eq!(entry.end_is_told(), told, "{netns:?} {old}");
        }
    }
}
