//! Records in, items out: what each mode and mask makes of the life of a flow.

use super::*;
use crate::event::Lost;
use crate::flow::HelperName;

mod ebpf;
mod healing;
mod losses;

/// What was handed on: tag, start and end; or a loss.
#[derive(Debug, PartialEq)]
pub(super) enum Out {
    Flow(Kinds, Option<u64>, Option<u64>),
    Lost(u64),
}

#[derive(Default)]
pub(super) struct Outs(Vec<Out>);

impl Downstream for Outs {
    fn push(&mut self, item: &Item<'_>) {
        self.0.push(match item.body {
            Body::Flow { start, end, .. } => Out::Flow(item.tag, start, end),
            Body::Expectation(_) => Out::Flow(item.tag, None, None),
            Body::Lost(lost) => Out::Lost(lost.events),
        });
    }
}

pub(super) struct Bench {
    pub(super) nfct: Nfct,
    pub(super) outs: Outs,
    stats: Stats,
}

impl Bench {
    pub(super) fn new(mask: Kinds, hash: Option<usize>) -> Self {
        let mut bench = Self::unstarted(mask, hash);
        if hash.is_some() {
            bench.dump(&[]);
        }
        bench
    }

    /// One whose dump at start is yet to come.
    pub(super) fn unstarted(mask: Kinds, hash: Option<usize>) -> Self {
        let stats = Stats::default();
        let settings = Settings {
            mask,
            hash,
            poll: None,
            resync: Duration::ZERO,
            redump: None,
            filter: Filter::default(),
        };
        Self { nfct: Nfct::new(settings, stats.clone()), outs: Outs::default(), stats }
    }

    pub(super) fn event(&mut self, kinds: Kinds, at: u64, flow: &Flow) {
        self.tell(&Event { kinds, at, flow: flow.clone(), ..Event::default() });
    }

    fn tell(&mut self, event: &Event) {
        self.nfct.record(Record::Event(event), &mut self.outs);
    }

    /// A dump that shows these flows.
    pub(super) fn dump(&mut self, flows: &[&Flow]) {
        self.dump_of(None, flows);
    }

    /// A dump that shows these flows, and then fails.
    pub(super) fn failed_dump(&mut self, flows: &[&Flow]) {
        let action = self.nfct.tick(Instant::now(), &mut self.outs);
        assert!(matches!(action, Some(Action::Dump)), "{action:?}");
        for flow in flows {
            self.nfct.record(Record::Known(flow, 77), &mut self.outs);
        }
        let done = Record::DumpDone { complete: false, netns: None };
        self.nfct.record(done, &mut self.outs);
    }

    /// A dump of one namespace among others.
    fn dump_of(&mut self, netns: Option<u32>, flows: &[&Flow]) {
        let action = self.nfct.tick(Instant::now(), &mut self.outs);
        assert!(matches!(action, Some(Action::Dump | Action::DumpAndReset)), "{action:?}");
        for flow in flows {
            self.nfct.record(Record::Known(flow, 77), &mut self.outs);
        }
        self.nfct.record(Record::DumpDone { complete: true, netns }, &mut self.outs);
    }

    /// The queries that follow a dump; `found` still exist.
    fn queries(&mut self, found: &[&Flow]) -> usize {
        let later = Instant::now() + Duration::from_secs(1);
        let Some(Action::Query(keys)) = self.nfct.tick(later, &mut self.outs) else { return 0 };
        for flow in found {
            self.nfct.record(Record::Known(flow, 78), &mut self.outs);
        }
        self.nfct.record(Record::QueryDone { complete: true }, &mut self.outs);
        keys.len()
    }

    fn lose(&mut self, events: u64) {
        let lost = Lost::noticed("netlink", events, 1);
        self.nfct.record(Record::Lost(lost), &mut self.outs);
    }

    pub(super) fn take(&mut self) -> Vec<Out> {
        std::mem::take(&mut self.outs.0)
    }
}

pub(super) fn flow(id: u32, status: Status) -> Flow {
    let mut flow = Flow { id: Some(id), status, ..Flow::default() };
    flow.orig.src[0] = id as u8;
    flow
}

const SEEN: Status = Status::SEEN_REPLY;
const BOTH: Status = Status::SEEN_REPLY.union(Status::ASSURED);

#[test]
fn without_table_each_message_speaks_for_itself() {
    let mut bench = Bench::new(Kinds::all(), None);
    let mut new = flow(1, Status::CONFIRMED);
    new.helper = Some(HelperName::new(b"ftp"));
    bench.event(Kinds::NEW, 10, &new);
    bench.event(Kinds::UPDATE, 11, &flow(1, SEEN));
    bench.event(Kinds::UPDATE, 12, &flow(1, BOTH));
    bench.event(Kinds::UPDATE, 13, &flow(1, BOTH));
    bench.event(Kinds::DESTROY, 14, &flow(1, BOTH));
    let both = Kinds::CONFIRMED | Kinds::ASSURED;
    assert_eq!(
        bench.take(),
        [
            Out::Flow(Kinds::NEW | Kinds::HELPER, Some(10), None),
            Out::Flow(Kinds::CONFIRMED, None, None),
            Out::Flow(both, None, None),
            Out::Flow(both, None, None),
            Out::Flow(Kinds::DESTROY, None, Some(14)),
        ]
    );
}

#[test]
fn only_what_the_mask_names_is_handed_on() {
    let mut bench = Bench::new(Kinds::UPDATE, None);
    bench.event(Kinds::NEW, 10, &flow(1, Status::empty()));
    bench.event(Kinds::UPDATE, 11, &flow(1, BOTH));
    bench.event(Kinds::DESTROY, 12, &flow(1, BOTH));
    assert_eq!(bench.take(), [Out::Flow(Kinds::UPDATE, None, None)]);
    assert_eq!(bench.stats.get(Counter::FlowsSelected), 1);
}

#[test]
fn with_table_a_flow_is_one_line_with_start_and_end() {
    let mut bench = Bench::new(Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &flow(1, Status::empty()));
    bench.event(Kinds::UPDATE, 11, &flow(1, BOTH));
    bench.event(Kinds::DESTROY, 14, &Flow { stop: Some(13), ..flow(1, BOTH) });
    bench.event(Kinds::DESTROY, 15, &flow(2, BOTH));
    assert_eq!(
        bench.take(),
        [Out::Flow(Kinds::DESTROY, Some(10), Some(13)), Out::Flow(Kinds::DESTROY, None, Some(15)),]
    );
    assert_eq!(bench.nfct.live(), 0);
}

#[test]
fn with_table_each_transition_is_told_once() {
    let mut bench = Bench::new(Kinds::CONFIRMED | Kinds::ASSURED, Some(10));
    bench.event(Kinds::NEW, 10, &flow(1, Status::empty()));
    for status in [SEEN, SEEN, BOTH, BOTH] {
        bench.event(Kinds::UPDATE, 11, &flow(1, status));
    }
    bench.event(Kinds::DESTROY, 12, &flow(1, BOTH));
    assert_eq!(
        bench.take(),
        [Out::Flow(Kinds::CONFIRMED, None, None), Out::Flow(Kinds::ASSURED, None, None)]
    );
}

#[test]
fn a_dump_does_not_swallow_a_transition_whose_event_is_under_way() {
    let mut bench = Bench::new(Kinds::CONFIRMED, Some(10));
    bench.event(Kinds::NEW, 10, &flow(1, Status::empty()));
    bench.lose(1);
    bench.dump(&[&flow(1, SEEN)]);
    bench.event(Kinds::UPDATE, 11, &flow(1, SEEN));
    assert_eq!(bench.take(), [Out::Lost(1), Out::Flow(Kinds::CONFIRMED, None, None)]);
}

#[test]
fn after_a_loss_vanished_flows_end_once_and_unknown_ones_are_taken_up() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    let gone = Flow { counters: None, ..flow(1, SEEN) };
    let (late, stays, unknown) = (flow(2, SEEN), flow(3, SEEN), flow(4, SEEN));
    for flow in [&gone, &late, &stays] {
        bench.event(Kinds::NEW, 10, flow);
    }
    bench.lose(5);
    bench.dump(&[&unknown]);
    // Its event was only late, so it is no candidate any more.
    bench.event(Kinds::DESTROY, 20, &late);
    // The dump had passed one over that the kernel still knows.
    assert_eq!(bench.queries(&[&stays]), 2);
    let outs = bench.take();
    assert_eq!(outs[..2], [Out::Lost(5), Out::Flow(Kinds::DESTROY, Some(10), Some(20))]);
    assert!(matches!(outs[2..], [Out::Flow(Kinds::DESTROY, Some(10), Some(_))]), "{outs:?}");
    assert_eq!(bench.stats.get(Counter::FlowsVanished), 1);
    bench.event(Kinds::DESTROY, 30, &unknown);
    assert_eq!(bench.take(), [Out::Flow(Kinds::DESTROY, Some(77), Some(30))]);
    assert_eq!(bench.nfct.live(), 1, "the one that stays");
}

#[test]
fn a_flow_that_ends_during_a_dump_is_not_taken_up_again() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.lose(1);
    assert!(bench.nfct.tick(Instant::now(), &mut bench.outs).is_some());
    bench.event(Kinds::DESTROY, 20, &flow(1, SEEN));
    bench.nfct.record(Record::Known(&flow(1, SEEN), 21), &mut bench.outs);
    bench.nfct.record(Record::DumpDone { complete: true, netns: None }, &mut bench.outs);
    assert_eq!(bench.nfct.live(), 0);
}

#[test]
fn a_full_table_counts_each_flow_once_and_still_logs_its_end() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(1));
    for id in 1..=3 {
        bench.event(Kinds::NEW, 10, &flow(id, Status::empty()));
        bench.event(Kinds::UPDATE, 11, &flow(id, SEEN));
    }
    bench.lose(1);
    bench.dump(&[&flow(1, SEEN), &flow(2, SEEN), &flow(3, SEEN)]);
    assert_eq!(bench.stats.get(Counter::FlowsTableFull), 2);
    bench.take();
    bench.event(Kinds::DESTROY, 12, &flow(3, SEEN));
    assert_eq!(bench.take(), [Out::Flow(Kinds::DESTROY, None, Some(12))]);
}

#[test]
fn losses_within_a_second_are_one_report_and_none_is_forgotten() {
    let mut bench = Bench::new(Kinds::NEW, None);
    for _ in 0..3 {
        bench.lose(10);
    }
    bench.nfct.finish(&mut bench.outs);
    assert_eq!(bench.take(), [Out::Lost(10), Out::Lost(20)]);
    assert_eq!(bench.nfct.lost_total(), 30, "whatever the source counts");
}

#[test]
fn filters_hold_for_events_dumps_and_expectations() {
    let mut bench = Bench::new(Kinds::all(), Some(10));
    bench.nfct.settings.filter.sources = vec!["1.0.0.0/8".parse().unwrap()];
    bench.event(Kinds::DESTROY, 10, &flow(1, SEEN));
    bench.event(Kinds::DESTROY, 10, &flow(2, SEEN));
    assert_eq!(bench.take().len(), 1);
    assert_eq!(bench.stats.get(Counter::FlowsFiltered), 1);
    bench.nfct.record(Record::Known(&flow(2, SEEN), 1), &mut bench.outs);
    assert_eq!(bench.nfct.live(), 0);
}

#[test]
fn the_reset_of_counters_shows_every_live_flow() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &flow(1, SEEN));
    bench.nfct.dump_and_reset();
    bench.dump(&[&flow(1, SEEN), &flow(2, SEEN)]);
    assert_eq!(
        bench.take(),
        [Out::Flow(Kinds::UPDATE, Some(10), None), Out::Flow(Kinds::UPDATE, Some(77), None)]
    );
}
