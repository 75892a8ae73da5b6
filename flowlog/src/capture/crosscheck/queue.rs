//! The events that wait for the other source's word: in the order in which they
//! are to be logged, and found by what names them.
//!
//! The order is that of arrival, which is the ring's. A message that eBPF has
//! not told (an orphan) has no place in that order; it gets one before the next
//! event that netlink tells too, because netlink's order is the kernel's as well.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::time::Instant;

use bitflags::bitflags;
use hashbrown::HashMap;

use crate::event::{Event, ExpectAction, Expectation, Witness};
use crate::flow::Tuple;
use crate::stats::CheckKind;

/// What names an event for both sources; several events in a row may have one
/// name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) kind: CheckKind,
    /// Of an expectation: that it goes.
    gone: bool,
    pub(super) zone: u16,
    /// Original tuple, or what is expected.
    pub(super) tuple: Tuple,
    /// Of an expectation: the original tuple of the connection that expects.
    master: Tuple,
}

impl Key {
    pub(super) fn of_flow(kind: CheckKind, orig: Tuple, zone: u16) -> Self {
        Self { kind, gone: false, zone, tuple: orig, master: Tuple::default() }
    }

    /// Netlink tells no zone of expectations.
    pub(super) fn of_expectation(expectation: &Expectation) -> Self {
        let Expectation { action, tuple, master, .. } = *expectation;
        let gone = action == ExpectAction::Destroy;
        Self { kind: CheckKind::Expect, gone, zone: 0, tuple, master }
    }
}

/// In a few words instead of each byte: names are looked up for every word that
/// is told.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { kind, gone, zone, tuple, master } = self;
        let rest = u64::from(*zone) << 16 | u64::from(*gone) << 8 | *kind as u64;
        state.write_u64(rest);
        words(tuple).into_iter().for_each(|word| state.write_u64(word));
        if *kind == CheckKind::Expect {
            words(master).into_iter().for_each(|word| state.write_u64(word));
        }
    }
}

fn words(tuple: &Tuple) -> [u64; 5] {
    let Tuple { family, proto, src, dst, src_l4, dst_l4 } = tuple;
    let l4 = u64::from(*src_l4) << 16 | u64::from(*dst_l4);
    let halves = |address: &[u8; 16]| {
        let address = u128::from_ne_bytes(*address);
        [address as u64, (address >> 64) as u64]
    };
    let ([a, b], [c, d]) = (halves(src), halves(dst));
    [a, b, c, d, l4 << 16 | u64::from(*proto) << 8 | *family as u64]
}

/// What happened, as a source told it.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are events, and items are used again")]
pub(super) enum Content {
    Event(Event),
    /// And when.
    Expectation(Expectation, u64),
}

bitflags! {
    /// Who has told of an event.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Parts: u8 {
        /// eBPF told it.
        const EBPF = 1;
        /// Netlink told it.
        const NETLINK = 2;
        /// The kernel was seen to make a message of it.
        const NOTICE = 4;
    }
}

/// An event that waits.
#[derive(Debug)]
pub(super) struct Item {
    /// Its place in the order of arrival.
    pub(super) number: u64,
    pub(super) key: Key,
    /// Address of the entry, once it has been told; 0 for expectations.
    pub(super) entry: Option<u64>,
    /// The entry's id, once somebody has told it.
    pub(super) id: Option<u32>,
    pub(super) parts: Parts,
    /// As eBPF told it, else as netlink did; absent: nobody has told more than
    /// that a message is due.
    pub(super) content: Option<Content>,
    /// Netlink had queued it before both were listened to.
    pub(super) early: bool,
    /// Its entry had ended before: somebody else had a message repeated.
    pub(super) again: bool,
    /// Arrival of the first word.
    pub(super) since: Instant,
    /// When it happened, nanoseconds of `CLOCK_BOOTTIME`: what the sources tell is
    /// compared by it alone, whatever the time of day is set to. Netlink does not
    /// tell; then when its message was read. 0: not known yet.
    pub(super) at: u64,
    /// When its notice says that it happened, nanoseconds since the epoch.
    pub(super) noticed: Option<u64>,
    /// It waits no longer, and is to be logged as told by these.
    pub(super) done: Option<Witness>,
    /// Orphans that come before it.
    before: VecDeque<Id>,
    /// The next item of the same name.
    next: Option<Id>,
}

// The promise of docs/crosscheck.md, limits.
const _: () = assert!(size_of::<Option<Item>>() <= 568);

/// Where an item is kept.
pub(super) type Id = u32;

/// The waiting events.
#[derive(Debug, Default)]
pub(super) struct Queue {
    items: Vec<Option<Item>>,
    free: Vec<Id>,
    /// All but orphans, by number.
    order: VecDeque<Id>,
    /// Orphans that have no place yet, by number.
    loose: VecDeque<Id>,
    /// All orphans by number, with some that have gone.
    orphans: VecDeque<(u64, Id)>,
    /// First and last item of each name, chained by `next`.
    names: HashMap<Key, (Id, Id)>,
    numbers: u64,
}

/// Slots that are kept when all items have gone; a storm's memory is given back.
const KEPT: usize = 1 << 12;

impl Queue {
    /// Items that are kept.
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the next item: all that have arrived have lower ones.
    pub(super) fn mark(&self) -> u64 {
        self.numbers
    }

    /// Whether all items below this mark have gone.
    pub(super) fn has_passed(&mut self, mark: u64) -> bool {
        while let Some((number, id)) = self.orphans.front()
            && self.items[*id as usize].as_ref().is_none_or(|item| item.number != *number)
        {
            self.orphans.pop_front();
        }
        let oldest = self.orphans.front().map(|(number, _)| *number);
        let first = self.order.front().map(|id| self.get(*id).number);
        [oldest, first].into_iter().flatten().all(|number| number >= mark)
    }

    fn add(&mut self, key: Key, since: Instant) -> Id {
        let item = Item {
            number: self.numbers,
            key,
            entry: None,
            id: None,
            parts: Parts::empty(),
            content: None,
            early: false,
            again: false,
            since,
            at: 0,
            noticed: None,
            done: None,
            before: VecDeque::new(),
            next: None,
        };
        self.numbers += 1;
        let id = match self.free.pop() {
            Some(id) => {
                self.items[id as usize] = Some(item);
                id
            }
            None => {
                self.items.push(Some(item));
                (self.items.len() - 1) as Id
            }
        };
        let last = self.names.entry(key).or_insert((id, id));
        if last.1 != id {
            let before = std::mem::replace(&mut last.1, id);
            self.get_mut(before).next = Some(id);
        }
        id
    }

    /// An item at the end of the order.
    pub(super) fn push(&mut self, key: Key, since: Instant) -> Id {
        let id = self.add(key, since);
        self.order.push_back(id);
        id
    }

    /// An item that eBPF has not told.
    pub(super) fn push_orphan(&mut self, key: Key, since: Instant) -> Id {
        let id = self.add(key, since);
        self.loose.push_back(id);
        self.orphans.push_back((self.get(id).number, id));
        id
    }

    /// Netlink has told `id` now: orphans that it told before come before it.
    pub(super) fn place_orphans_before(&mut self, id: Id) {
        let number = self.get(id).number;
        let mut later = self.loose.len();
        while later > 0 && self.get(self.loose[later - 1]).number > number {
            later -= 1;
        }
        if later < self.loose.len() {
            let placed = self.loose.split_off(later);
            self.get_mut(id).before.extend(placed);
        }
    }

    /// The items of this name, in the order of arrival.
    pub(super) fn named(&self, key: &Key) -> impl Iterator<Item = (Id, &Item)> + Clone {
        let mut next = self.names.get(key).map(|(first, _)| *first);
        std::iter::from_fn(move || {
            let id = next?;
            let item = self.get(id);
            next = item.next;
            Some((id, item))
        })
    }

    #[expect(clippy::panic, reason = "an id without an item is a fault of this file")]
    pub(super) fn get(&self, id: Id) -> &Item {
        match &self.items[id as usize] {
            Some(item) => item,
            None => panic!("item {id} has gone"),
        }
    }

    #[expect(clippy::panic, reason = "an id without an item is a fault of this file")]
    pub(super) fn get_mut(&mut self, id: Id) -> &mut Item {
        match &mut self.items[id as usize] {
            Some(item) => item,
            None => panic!("item {id} has gone"),
        }
    }

    /// The item that is to go next: first the orphans before an item, then
    /// itself.
    pub(super) fn first(&self) -> Option<Id> {
        let number = |id: &Id| self.get(*id).number;
        let (ordered, loose) = (self.order.front(), self.loose.front());
        let first = match (ordered, loose) {
            (Some(a), Some(b)) => *if number(a) < number(b) { a } else { b },
            (Some(one), None) | (None, Some(one)) => *one,
            (None, None) => return None,
        };
        Some(self.get(first).before.front().copied().unwrap_or(first))
    }

    /// Takes out the item that [`Queue::first`] has told.
    pub(super) fn pop(&mut self) -> Option<Item> {
        let id = self.first()?;
        if self.order.front() == Some(&id) {
            self.order.pop_front();
        } else if self.loose.front() == Some(&id) {
            self.loose.pop_front();
        } else if let Some(host) = self.order.front().copied() {
            self.get_mut(host).before.pop_front();
        }
        self.unchain(id);
        let item = self.items[id as usize].take();
        self.free.push(id);
        if self.is_empty() && self.items.len() > KEPT {
            let numbers = self.numbers;
            *self = Self { numbers, ..Self::default() };
        }
        item
    }

    fn unchain(&mut self, id: Id) {
        let Item { key, next, .. } = *self.get(id);
        let Some((first, last)) = self.names.get(&key).copied() else { return };
        if first == id {
            match next {
                Some(next) => self.names.insert(key, (next, last)),
                None => self.names.remove(&key),
            };
            return;
        }
        let mut before = first;
        while let Some(after) = self.get(before).next {
            if after == id {
                self.get_mut(before).next = next;
                if last == id {
                    self.names.insert(key, (first, before));
                }
                return;
            }
            before = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(port: u16) -> Key {
        let tuple = Tuple { src_l4: port, ..Tuple::default() };
        Key::of_flow(CheckKind::New, tuple, 0)
    }

    fn ports(queue: &mut Queue) -> Vec<u16> {
        std::iter::from_fn(|| queue.pop().map(|item| item.key.tuple.src_l4)).collect()
    }

    fn ids(queue: &Queue, port: u16) -> Vec<Id> {
        queue.named(&key(port)).map(|(id, _)| id).collect()
    }

    #[test]
    fn items_go_in_the_order_of_arrival_and_are_found_by_name() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let one = queue.push(key(1), now);
        let two = queue.push(key(1), now);
        queue.push(key(2), now);
        assert_eq!(ids(&queue, 1), [one, two]);
        assert!(ids(&queue, 3).is_empty());
        assert_eq!(ports(&mut queue), [1, 1, 2]);
        assert!(queue.is_empty() && queue.names.is_empty() && queue.first().is_none());
    }

    #[test]
    fn chains_survive_removal_in_any_order() {
        let mut queue = Queue::default();
        let now = Instant::now();
        let added: Vec<_> = (0..4).map(|_| queue.push_orphan(key(1), now)).collect();
        let host = queue.push(key(2), now);
        // The third has a place of its own, later than the rest.
        queue.unchain(added[2]);
        assert_eq!(ids(&queue, 1), [added[0], added[1], added[3]]);
        queue.unchain(added[3]);
        queue.unchain(added[0]);
        assert_eq!(ids(&queue, 1), [added[1]]);
        assert_eq!(ids(&queue, 2), [host]);
    }

    #[test]
    fn orphans_come_before_what_netlink_told_next() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.push(key(1), now);
        let end = queue.push(key(2), now);
        queue.push_orphan(key(3), now);
        queue.push_orphan(key(4), now);
        queue.place_orphans_before(end);
        queue.push_orphan(key(5), now);
        queue.push(key(6), now);
        assert_eq!(ports(&mut queue), [1, 3, 4, 2, 5, 6]);
    }

    #[test]
    fn a_mark_is_passed_when_all_before_it_have_gone() {
        let mut queue = Queue::default();
        let now = Instant::now();
        assert!(queue.has_passed(queue.mark()));
        queue.push_orphan(key(1), now);
        let mark = queue.mark();
        let late = queue.push(key(2), now);
        queue.push_orphan(key(3), now);
        queue.place_orphans_before(late);
        assert!(!queue.has_passed(mark));
        queue.pop();
        assert!(queue.has_passed(mark) && !queue.has_passed(queue.mark()));
        queue.pop();
        queue.pop();
        assert!(queue.has_passed(queue.mark()));
    }
}
