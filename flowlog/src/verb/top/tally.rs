//! Records → counts: by kind, by cause, and by each of the tables' keys. Nothing
//! is allocated for an event whose namespace has been seen before.

use super::counts::Counts;
use super::heavy::Heavy;
use super::key::{Address, Keys, Port};
use crate::capture::RecordSink;
use crate::event::{Cause, Event, Kinds, Process, Record};
use crate::flow::Netns;
use crate::verb::watch::Selection;
use crate::verb::watch::names::Names;

/// Rows of the tables of addresses and ports, and of the other two: some 2 MiB.
const MANY: usize = 4096;
const FEW: usize = 1024;

/// A number, and what of it is new in this interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rising {
    /// Since the start.
    pub(super) total: u64,
    /// At the end of the last interval.
    before: u64,
}

impl Rising {
    /// In this interval.
    pub(super) fn recent(self) -> u64 {
        self.total - self.before
    }

    fn next_interval(&mut self) {
        self.before = self.total;
    }
}

/// What has been counted.
#[derive(Debug)]
pub(super) struct Tally {
    selection: Selection,
    /// All events.
    pub(super) events: Rising,
    /// As [`Kinds::NAMES`] has them; an event may be of several.
    pub(super) kinds: [Rising; Kinds::NAMES.len()],
    /// Ends, as [`Cause::ALL`] has them.
    pub(super) causes: [Rising; Cause::ALL.len()],
    pub(super) sources: Heavy<Address>,
    pub(super) destinations: Heavy<Address>,
    pub(super) ports: Heavy<Port>,
    pub(super) namespaces: Heavy<Netns>,
    pub(super) processes: Heavy<Process>,
    /// Of the namespaces that were seen.
    pub(super) names: Names,
}

impl Tally {
    pub(super) fn new(selection: Selection) -> Self {
        Self {
            selection,
            events: Rising::default(),
            kinds: Default::default(),
            causes: Default::default(),
            sources: Heavy::new(MANY),
            destinations: Heavy::new(MANY),
            ports: Heavy::new(MANY),
            namespaces: Heavy::new(FEW),
            processes: Heavy::new(FEW),
            names: Names::new(),
        }
    }

    /// An interval ends.
    pub(super) fn next_interval(&mut self) {
        self.events.next_interval();
        self.kinds.iter_mut().chain(&mut self.causes).for_each(Rising::next_interval);
        self.sources.next_interval();
        self.destinations.next_interval();
        self.ports.next_interval();
        self.namespaces.next_interval();
        self.processes.next_interval();
        // Who had no name yet may have one now.
        for row in self.namespaces.rows() {
            self.names.named(row.key);
        }
    }

    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.events = Rising::default();
        (self.kinds, self.causes) = Default::default();
        self.sources.clear();
        self.destinations.clear();
        self.ports.clear();
        self.namespaces.clear();
        self.processes.clear();
    }

    fn count(&mut self, tag: Kinds) {
        self.events.total += 1;
        for ((kind, _), count) in Kinds::NAMES.iter().zip(&mut self.kinds) {
            count.total += u64::from(tag.contains(*kind));
        }
    }

    fn event(&mut self, event: &Event) {
        let tag = self.selection.tag(event);
        if tag.is_empty() {
            return;
        }
        self.count(tag);
        if let Some(end) = &event.end {
            self.causes[end.cause as usize].total += 1;
        }
        let counts = Counts::of(event);
        let keys = Keys::of(event);
        self.sources.add(keys.source, counts);
        self.destinations.add(keys.destination, counts);
        self.ports.add(keys.port, counts);
        // Its name is looked for while it has one.
        if let Some(netns) = keys.netns
            && self.namespaces.add(netns, counts)
        {
            self.names.named(netns);
        }
        if let Some(process) = keys.process {
            self.processes.add(process, counts);
        }
    }
}

impl RecordSink for Tally {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Event(event) => self.event(event),
            Record::Expectation(expectation, _) => {
                if self.selection.shows(expectation) {
                    self.count(Kinds::EXPECT);
                }
            }
            // Losses are counted by the capture, in numbers that are shown.
            Record::Lost(_) => {}
            // Nothing is dumped or asked for.
            Record::Known(..) | Record::DumpDone { .. } | Record::QueryDone { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::watch::tests::{ended, expectation, tcp, udp6};

    fn kind(tally: &Tally, kind: Kinds) -> Rising {
        let place = Kinds::NAMES.iter().position(|(known, _)| *known == kind).unwrap();
        tally.kinds[place]
    }

    #[test]
    fn each_event_is_counted_once_everywhere() {
        let kinds = Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY | Kinds::EXPECT;
        let mut tally = Tally::new(Selection { kinds, ..Selection::default() });
        for event in [tcp(Kinds::NEW), ended(Cause::Deleted), udp6(Kinds::UPDATE)] {
            tally.record(Record::Event(&event));
        }
        tally.record(Record::Expectation(&expectation(), 1));
        assert_eq!((tally.events.total, tally.events.recent()), (4, 4));
        for one in [Kinds::NEW, Kinds::UPDATE, Kinds::DESTROY, Kinds::EXPECT] {
            assert_eq!(kind(&tally, one).total, 1, "{one:?}");
        }
        assert_eq!(tally.causes[Cause::Deleted as usize].recent(), 1);
        let rows = [tally.sources.rows().len(), tally.ports.rows().len()];
        assert_eq!((rows, tally.namespaces.rows().len()), ([2, 2], 1));
        assert_eq!(tally.processes.rows()[0].total.bytes, 836);
        tally.next_interval();
        assert_eq!((tally.events.total, tally.events.recent()), (4, 0));
        assert_eq!(tally.causes[Cause::Deleted as usize].recent(), 0);
        tally.clear();
        assert!(tally.events.total == 0 && tally.sources.rows().is_empty());
    }

    #[test]
    fn what_is_not_selected_is_not_counted() {
        let mut tally = Tally::new(Selection { kinds: Kinds::DESTROY, ..Selection::default() });
        tally.record(Record::Event(&tcp(Kinds::NEW)));
        tally.record(Record::Expectation(&expectation(), 1));
        assert!(tally.events.total == 0 && tally.sources.rows().is_empty());
    }
}
