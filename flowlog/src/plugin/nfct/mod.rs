//! NFCT, the source plugin: takes records from a capture, applies filters,
//! `event_mask` and, with `hash_enable=1`, the table of live flows, and hands
//! on what is to be logged.

use std::time::{Duration, Instant};

use self::losses::Losses;
use self::reset::Reset;
use self::sync::{Action, Purpose};
use self::table::{Entry, Lookup};
use self::tracker::Tracker;
use super::{Body, Downstream, Item};
use crate::capture::filter::Filter;
use crate::event::{Cause, End, Event, Expectation, Kinds, Record, Witness};
use crate::flow::{Flow, Status};
use crate::stats::{Counter, Handed, Stats};

mod losses;
mod renew;
mod reset;
pub mod sync;
mod table;
mod tracker;

/// How NFCT is to work.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which events are logged.
    pub mask: Kinds,
    /// One line per flow at its end, instead of one per event; holds the number
    /// of flows that are kept at most.
    pub hash: Option<usize>,
    /// Dump the table this often instead of listening to events.
    pub poll: Option<Duration>,
    /// From an overrun to the dump that makes good for it.
    pub resync: Duration,
    /// While flows live that the kernel may never report, dump this often.
    pub redump: Option<Duration>,
    /// Which flows are logged.
    pub filter: Filter,
}

impl Settings {
    /// Kinds that an update of a flow may be the moment of.
    const UPDATES: Kinds =
        Kinds::UPDATE.union(Kinds::ASSURED).union(Kinds::CONFIRMED).union(Kinds::HELPER);

    /// Whether the mask asks for more than the beginnings and ends of flows
    /// (and expectations).
    pub fn wants_updates(&self) -> bool {
        self.mask.intersects(Self::UPDATES)
    }

    /// Whether the beginning of each connection is handed on when it happens.
    pub fn hands_on_beginnings(&self) -> bool {
        let when_they_happen = self.hash.is_none() && self.poll.is_none();
        self.mask.contains(Kinds::NEW) && when_they_happen && self.filter.accepts_all()
    }

    /// The multicast groups that the mask needs, as in nfnetlink.h.
    pub fn groups(&self) -> Vec<u32> {
        const NEW: u32 = 1;
        const UPDATE: u32 = 2;
        const DESTROY: u32 = 3;
        const EXPECT: [u32; 3] = [4, 5, 6];
        if self.poll.is_some() {
            return Vec::new();
        }
        let mut groups = Vec::new();
        let mut join = |wanted: Kinds, group: u32| {
            if self.mask.intersects(wanted) {
                groups.push(group);
            }
        };
        join(Kinds::NEW | Kinds::HELPER, NEW);
        join(Self::UPDATES, UPDATE);
        join(if self.hash.is_some() { Kinds::all() } else { Kinds::DESTROY }, DESTROY);
        for group in EXPECT {
            join(Kinds::EXPECT, group);
        }
        groups
    }
}

/// The source plugin.
pub struct Nfct {
    settings: Settings,
    tracker: Option<Tracker>,
    /// SIGUSR2 where no table is kept.
    reset: Reset,
    losses: Losses,
    handed: Handed,
    stats: Stats,
}

impl Nfct {
    /// A source that works as `settings` say.
    pub fn new(settings: Settings, stats: Stats) -> Self {
        let tracker = settings.hash.map(|max_entries| Tracker::new(max_entries, &settings));
        Self {
            settings,
            tracker,
            reset: Reset::default(),
            losses: Losses::default(),
            handed: Handed::default(),
            stats,
        }
    }

    /// The dump at start has not succeeded yet: what exists is not known.
    pub fn is_starting(&self) -> bool {
        self.tracker.as_ref().is_some_and(|tracker| tracker.sync.is_starting())
    }

    /// Flows that are kept now.
    pub fn live(&self) -> usize {
        self.tracker.as_ref().map_or(0, |tracker| tracker.table.len())
    }

    /// Flows whose end the kernel may never tell.
    pub fn preexisting(&self) -> usize {
        self.tracker.as_ref().map_or(0, |tracker| tracker.table.preexisting())
    }

    /// Flows that can be kept; absent without a table.
    pub fn limit(&self) -> Option<usize> {
        self.settings.hash
    }

    /// Which events may be handed on, and those that were.
    pub fn handed(&self) -> (Kinds, &Handed) {
        (self.settings.mask, &self.handed)
    }

    /// Fetches what these events will need from the table.
    pub fn announce(&self, events: &[Event]) {
        if let Some(tracker) = &self.tracker {
            tracker.table.touch(events.iter().map(|event| &event.flow));
        }
    }

    /// Takes a record and hands on what it gives.
    #[inline]
    pub fn record(&mut self, record: Record<'_>, out: &mut dyn Downstream) {
        match record {
            Record::Event(event) if !self.settings.filter.accepts(&event.flow.orig) => {
                self.stats.add(Counter::FlowsFiltered, 1);
            }
            Record::Event(event) if self.tracker.is_some() => self.tracked(event, out),
            Record::Event(event) => self.untracked(event, out),
            Record::Expectation(expectation, at) => self.expectation(expectation, at, out),
            Record::Lost(lost) => self.lost(lost, out),
            Record::Known(flow, at) => self.known(flow, at, out),
            Record::DumpDone { complete, netns } => match &mut self.tracker {
                Some(tracker) => tracker.end_dump(complete, netns),
                None => self.reset.ended(complete, Instant::now()),
            },
            Record::QueryDone { complete } => self.query_done(complete, out),
        }
    }

    /// SIGUSR2: dump the table and reset the kernel's counters.
    pub fn dump_and_reset(&mut self) -> Action {
        match &mut self.tracker {
            Some(tracker) => tracker.sync.request_reset(),
            None => self.reset.begin(),
        }
    }

    /// When [`Nfct::tick`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let sync = self.tracker.as_ref().and_then(|tracker| tracker.sync.deadline());
        [sync, self.reset.again, self.losses.due()].into_iter().flatten().min()
    }

    /// Does what time has made due; the caller carries the action out.
    pub fn tick(&mut self, now: Instant, out: &mut dyn Downstream) -> Option<Action> {
        if self.losses.are_due() {
            self.flush_lost(out);
        }
        if self.reset.again.is_some_and(|again| again <= now) {
            return Some(self.reset.begin());
        }
        let tracker = self.tracker.as_mut()?;
        let pending = tracker.table.preexisting() > 0;
        let action = tracker.sync.tick(now, pending, |candidates| {
            candidates.retain(|old| {
                let entry = tracker.table.get_mut(&old.flow());
                entry.is_some_and(|entry| entry.generation == old.generation)
            });
        })?;
        if matches!(action, Action::Dump | Action::DumpAndReset) {
            tracker.begin_dump();
        }
        Some(action)
    }

    /// The action of [`Nfct::tick`] could not be carried out.
    pub fn action_failed(&mut self, now: Instant) {
        match &mut self.tracker {
            Some(tracker) => tracker.sync.failed(now),
            None => self.reset.ended(false, now),
        }
    }

    /// Hands on losses that were held back to keep to one report a second.
    pub fn finish(&mut self, out: &mut dyn Downstream) {
        self.flush_lost(out);
    }

    /// `hash_enable=0`: each event speaks for itself.
    #[inline]
    fn untracked(&mut self, event: &Event, out: &mut dyn Downstream) {
        let start = match event.flow.start {
            None if event.kinds.contains(Kinds::NEW) => Some(event.at),
            told => told,
        };
        self.select(told(event), event, start, out);
    }

    /// `hash_enable=1`: NEW and UPDATE feed the table, DESTROY gives the line.
    fn tracked(&mut self, event: &Event, out: &mut dyn Downstream) {
        if event.flow.status.contains(Status::NAT_CLASH) {
            // Its key may be that of the entry that has won the clash, which goes
            // on, and no dump shows it.
            let ended = event.kinds.contains(Kinds::DESTROY);
            let kinds = if ended { event.kinds } else { transitions(event) };
            self.select(kinds, event, event.flow.start, out);
        } else if !event.kinds.contains(Kinds::DESTROY) {
            let first = self.keep(event, out);
            self.select(first, event, event.flow.start, out);
        } else if let Some(tracker) = &mut self.tracker {
            if tracker.sync.is_dumping() {
                tracker.pass_over(&event.flow);
            }
            let start = tracker.table.remove(&event.flow).or(event.flow.start);
            self.select(event.kinds, event, start, out);
        }
    }

    /// Takes a living flow into the table, and returns what of it is new.
    #[inline]
    fn keep(&mut self, event: &Event, out: &mut dyn Downstream) -> Kinds {
        let Some(tracker) = &mut self.tracker else { return Kinds::empty() };
        let generation = tracker.generation;
        let start = event.flow.start.unwrap_or(event.at);
        let found =
            tracker.table.get_or_insert(&event.flow, || Entry::new(&event.flow, start, generation));
        match found {
            Lookup::Added(entry) => entry.first_seen(seen(&event.flow)),
            Lookup::Known(entry)
                if event.kinds.contains(Kinds::NEW) && entry.is_older_than(start) =>
            {
                self.succeed(event, out)
            }
            Lookup::Known(entry) => {
                entry.refresh(&event.flow, generation);
                let first = entry.first_seen(seen(&event.flow));
                if entry.is_preexisting() {
                    tracker.table.clear_preexisting(&event.flow);
                }
                first
            }
            Lookup::Full => {
                if event.kinds.contains(Kinds::NEW) {
                    tracker.refused(&event.flow, &self.stats);
                }
                transitions(event)
            }
        }
    }

    /// The end of the flow that was kept has not been told, and a new one takes
    /// its place.
    #[cold]
    fn succeed(&mut self, event: &Event, out: &mut dyn Downstream) -> Kinds {
        if let Some(tracker) = &mut self.tracker
            && let Some(old) = tracker.table.get_mut(&event.flow).map(|entry| *entry)
        {
            tracker.table.remove(&event.flow);
            self.vanished(&old, event.at, Some(Cause::Lost), out);
        }
        self.keep(event, out)
    }

    /// Hands on what the mask lets through of `kinds`.
    #[inline]
    fn select(
        &mut self,
        kinds: Kinds,
        event: &Event,
        start: Option<u64>,
        out: &mut dyn Downstream,
    ) {
        let tag = tag(kinds, self.settings.mask);
        if tag.is_empty() {
            return;
        }
        let Event { at, ref flow, ref end, witness, kinds: _, transitions: _ } = *event;
        let ended = kinds.contains(Kinds::DESTROY);
        let body = Body::Flow {
            flow,
            start,
            end: ended.then(|| flow.stop.unwrap_or(at)),
            how: end.as_ref(),
            counted: ended,
            witness,
        };
        self.hand_on(&Item { tag, at, body }, out);
    }

    /// Counts an event, and gives it to the stacks.
    #[inline]
    fn hand_on(&mut self, item: &Item<'_>, out: &mut dyn Downstream) {
        self.stats.add(Counter::FlowsSelected, 1);
        self.handed.count(item);
        out.push(item);
    }

    /// A flow whose end nobody told has ended some time before `at`.
    fn vanished(&mut self, entry: &Entry, at: u64, cause: Option<Cause>, out: &mut dyn Downstream) {
        self.stats.add(Counter::FlowsVanished, 1);
        if self.settings.poll.is_some() || self.settings.mask.contains(Kinds::DESTROY) {
            let flow = entry.flow();
            let how = cause.map(|cause| End { cause, portid: None, process: None });
            let body = Body::Flow {
                flow: &flow,
                start: Some(entry.start),
                end: Some(at),
                how: how.as_ref(),
                counted: true,
                witness: Witness::Single,
            };
            self.hand_on(&Item { tag: Kinds::DESTROY, at, body }, out);
        }
    }

    fn expectation(&mut self, expectation: &Expectation, at: u64, out: &mut dyn Downstream) {
        if !self.settings.mask.contains(Kinds::EXPECT) {
            return;
        }
        if !self.settings.filter.accepts(&expectation.tuple) {
            self.stats.add(Counter::FlowsFiltered, 1);
            return;
        }
        let body = Body::Expectation(expectation);
        self.hand_on(&Item { tag: Kinds::EXPECT, at, body }, out);
    }

    /// An entry that a dump or a query told.
    fn known(&mut self, flow: &Flow, at: u64, out: &mut dyn Downstream) {
        let Some(tracker) = &mut self.tracker else { return };
        if !self.settings.filter.accepts(&flow.orig) {
            return;
        }
        let generation = tracker.generation;
        let purpose = tracker.sync.purpose();
        let startup = purpose == Purpose::Startup;
        if tracker.is_passed_over(flow) {
            return;
        }
        let told = flow.start.unwrap_or(at);
        let found = tracker.table.get_or_insert(flow, || {
            let mut entry = Entry::new(flow, told, generation);
            entry.set_preexisting(startup);
            entry
        });
        let mut first = Kinds::empty();
        let start = match found {
            Lookup::Known(entry) => {
                entry.refresh(flow, generation);
                entry.start
            }
            Lookup::Added(entry) => {
                first = entry.first_seen(seen(flow));
                tracker.opened += 1;
                told
            }
            Lookup::Full => {
                tracker.unkept += 1;
                if startup {
                    tracker.refused(flow, &self.stats);
                }
                told
            }
        };
        let (tag, counted, witness) = match purpose {
            Purpose::Reset => (Kinds::UPDATE, true, Witness::Single),
            // Events that are still under way find that this has been told. Of
            // its beginning there is no line: it stands in that of the end.
            Purpose::Resync if tracker.sync.is_dumping() => {
                (first & self.settings.mask, false, Witness::Healed)
            }
            Purpose::Startup | Purpose::Resync | Purpose::Compare => return,
        };
        if !tag.is_empty() {
            let start = Some(start);
            let body = Body::Flow { flow, start, end: None, how: None, counted, witness };
            self.hand_on(&Item { tag, at, body }, out);
        }
    }

    /// What the queries did not find has vanished without an event.
    fn query_done(&mut self, complete: bool, out: &mut dyn Downstream) {
        let Some(tracker) = &mut self.tracker else { return };
        let generation = tracker.generation;
        let resync = tracker.sync.purpose() == Purpose::Resync;
        let Some(candidates) = tracker.sync.query_done(complete, Instant::now()) else { return };
        let mut closed = 0;
        let now = crate::capture::netlink::now_ns();
        for candidate in candidates {
            let flow = candidate.flow();
            let Some(tracker) = &mut self.tracker else { return };
            let Some(entry) = tracker.table.get_mut(&flow) else { continue };
            if entry.generation == generation {
                continue;
            }
            let entry = *entry;
            tracker.table.remove(&flow);
            closed += 1;
            let lost = resync && entry.end_is_told();
            self.vanished(&entry, now, lost.then_some(Cause::Lost), out);
        }
        if let Some(tracker) = &self.tracker
            && resync
        {
            tracker.report_resync(closed);
        }
    }
}

/// What an event tells that speaks for itself.
pub(crate) fn told(event: &Event) -> Kinds {
    if event.kinds.contains(Kinds::DESTROY) {
        event.kinds
    } else {
        event.kinds | transitions(event)
    }
}

/// What the mask lets through of `kinds`. Where a bit says what changed, the
/// bare UPDATE says no more.
#[inline]
pub(crate) fn tag(kinds: Kinds, mask: Kinds) -> Kinds {
    let mut tag = kinds & mask;
    if tag != Kinds::UPDATE {
        tag.remove(Kinds::UPDATE);
    }
    tag
}

/// What an event tells beyond its kind: what it is the moment of, or else all
/// that the state after it shows.
fn transitions(event: &Event) -> Kinds {
    event.transitions.unwrap_or_else(|| seen(&event.flow))
}

/// What a flow's own state shows.
fn seen(flow: &Flow) -> Kinds {
    let mut kinds = Kinds::empty();
    kinds.set(Kinds::ASSURED, flow.status.contains(Status::ASSURED));
    kinds.set(Kinds::CONFIRMED, flow.status.contains(Status::SEEN_REPLY));
    kinds.set(Kinds::HELPER, flow.helper.is_some());
    kinds
}

#[cfg(test)]
mod tests;
