//! What only eBPF tells: transitions, causes, counters with each event, many
//! namespaces and no ids.

use super::*;
use crate::event::{Cause, End, Witness};
use crate::flow::{Counters, Netns};

const COUNTERS: [Counters; 2] =
    [Counters { packets: 3, bytes: 180 }, Counters { packets: 2, bytes: 120 }];

/// A flow of the namespace with this number.
fn within(inum: u32, status: Status) -> Flow {
    let netns = Some(Netns { cookie: Some(1), inum });
    Flow { id: None, netns, counters: Some(COUNTERS), ..flow(1, status) }
}

fn destroy(cause: Cause, at: u64, flow: Flow) -> Event {
    let gc = if cause == Cause::ExpiredGc { Kinds::GC } else { Kinds::empty() };
    let end = Some(End { cause, portid: None, process: None });
    Event {
        kinds: Kinds::DESTROY | gc,
        transitions: Some(Kinds::empty()),
        at,
        flow,
        end,
        witness: Witness::Single,
    }
}

fn update(transitions: Kinds, flow: Flow) -> Event {
    let transitions = Some(transitions);
    Event { kinds: Kinds::UPDATE, transitions, at: 11, flow, end: None, witness: Witness::Single }
}

/// What lines in the form of ulogd2 may show of each item.
#[derive(Default)]
struct Shown(Vec<(Kinds, bool, Option<Cause>)>);

impl Downstream for Shown {
    fn push(&mut self, item: &Item<'_>) {
        if let Body::Flow { flow, how, counted, .. } = item.body {
            assert!(flow.counters.is_some(), "they are told, whether shown or not");
            self.0.push((item.tag, counted, how.map(|how| how.cause)));
        }
    }
}

#[test]
fn transitions_that_are_told_are_not_guessed_from_the_state() {
    let mut bench = Bench::new(Kinds::all(), None);
    bench.tell(&update(Kinds::CONFIRMED, within(7, SEEN)));
    bench.tell(&update(Kinds::ASSURED, within(7, BOTH)));
    bench.tell(&update(Kinds::empty(), within(7, BOTH)));
    let new = Event { kinds: Kinds::NEW, ..update(Kinds::HELPER, within(7, BOTH)) };
    bench.tell(&new);
    let tag = |kinds| Out::Flow(kinds, None, None);
    assert_eq!(
        bench.take(),
        [
            tag(Kinds::CONFIRMED),
            tag(Kinds::ASSURED),
            tag(Kinds::UPDATE),
            Out::Flow(Kinds::NEW | Kinds::HELPER, Some(11), None),
        ]
    );
}

#[test]
fn garbage_collection_is_told_if_the_mask_asks_for_it() {
    let cases = [
        (0x84, Some(Kinds::DESTROY | Kinds::GC), Some(Kinds::DESTROY)),
        (0x80, Some(Kinds::GC), None),
        (0x05, Some(Kinds::DESTROY), Some(Kinds::DESTROY)),
    ];
    for (mask, by_gc, else_) in cases {
        for hash in [None, Some(10)] {
            let mut bench = Bench::new(Kinds::from_bits_retain(mask), hash);
            bench.tell(&destroy(Cause::ExpiredGc, 20, within(7, BOTH)));
            bench.tell(&destroy(Cause::Deleted, 30, within(7, BOTH)));
            let line = |tag, at| Some(Out::Flow(tag?, None, Some(at)));
            let expected: Vec<Out> =
                [line(by_gc, 20), line(else_, 30)].into_iter().flatten().collect();
            assert_eq!(bench.take(), expected, "{mask:#x} {hash:?}");
        }
    }
}

#[test]
fn counters_are_shown_at_the_end_and_in_dumps_only() {
    for hash in [None, Some(10)] {
        let mut bench = Bench::new(Kinds::all(), hash);
        let mut shown = Shown::default();
        let new = Event { kinds: Kinds::NEW, ..update(Kinds::empty(), within(7, SEEN)) };
        let events = [
            new,
            update(Kinds::ASSURED, within(7, BOTH)),
            destroy(Cause::TcpReopened, 20, within(7, BOTH)),
        ];
        for event in &events {
            bench.nfct.record(Record::Event(event), &mut shown);
        }
        let (end, events) = shown.0.split_last().unwrap();
        assert_eq!(*end, (Kinds::DESTROY, true, Some(Cause::TcpReopened)), "{hash:?}");
        assert_eq!(events.len(), 2, "{hash:?}");
        assert!(events.iter().all(|event| *event == (event.0, false, None)), "{hash:?}");
    }
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    let mut shown = Shown::default();
    bench.nfct.dump_and_reset();
    bench.nfct.tick(Instant::now(), &mut shown);
    bench.nfct.record(Record::Known(&within(7, SEEN), 1), &mut shown);
    assert_eq!(shown.0, [(Kinds::UPDATE, true, None)]);
}

#[test]
fn equal_flows_of_two_namespaces_are_two() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &within(7, SEEN));
    bench.event(Kinds::NEW, 11, &within(8, SEEN));
    assert_eq!(bench.nfct.live(), 2);
    bench.event(Kinds::DESTROY, 20, &within(8, SEEN));
    bench.event(Kinds::DESTROY, 21, &within(7, SEEN));
    assert_eq!(
        bench.take(),
        [
            Out::Flow(Kinds::DESTROY, Some(11), Some(20)),
            Out::Flow(Kinds::DESTROY, Some(10), Some(21))
        ]
    );
}

#[test]
fn a_dump_says_nothing_of_other_namespaces() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &within(7, SEEN));
    bench.event(Kinds::NEW, 11, &within(8, SEEN));
    bench.lose(1);
    bench.dump_of(Some(7), &[]);
    assert_eq!(bench.queries(&[]), 1);
    assert_eq!(bench.stats.get(Counter::FlowsVanished), 1);
    assert_eq!(bench.nfct.live(), 1, "that of namespace 8");
}

#[test]
fn a_dumped_entry_is_the_flow_of_the_events_whatever_its_id() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &within(7, SEEN));
    bench.lose(1);
    let dumped = Flow { id: Some(0x1234), ..within(7, SEEN) };
    bench.dump_of(Some(7), &[&dumped]);
    assert_eq!((bench.nfct.live(), bench.queries(&[])), (1, 0));
}

#[test]
fn a_successor_ends_the_flow_whose_end_was_lost() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &within(7, SEEN));
    bench.event(Kinds::NEW, 20, &within(7, Status::empty()));
    bench.event(Kinds::DESTROY, 30, &within(7, SEEN));
    assert_eq!(
        bench.take(),
        [
            Out::Flow(Kinds::DESTROY, Some(10), Some(20)),
            Out::Flow(Kinds::DESTROY, Some(20), Some(30))
        ]
    );
    assert_eq!(bench.stats.get(Counter::FlowsVanished), 1);
}

#[test]
fn a_successor_of_a_flow_from_before_the_start_is_reported_by_the_kernel() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.nfct = Nfct::new(bench.nfct.settings.clone(), bench.stats.clone());
    bench.dump_of(Some(7), &[&within(7, SEEN)]);
    assert_eq!(bench.nfct.preexisting(), 1);
    bench.event(Kinds::NEW, 100, &within(7, SEEN));
    assert_eq!((bench.nfct.live(), bench.nfct.preexisting()), (1, 0));
    assert_eq!(bench.take(), [Out::Flow(Kinds::DESTROY, Some(77), Some(100))]);
}

#[test]
fn a_dump_may_tell_a_flow_before_its_own_event_does() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.lose(1);
    // Taken up at 77, begun just before.
    bench.dump_of(Some(7), &[&within(7, SEEN)]);
    bench.event(Kinds::NEW, 76, &within(7, SEEN));
    assert_eq!(bench.stats.get(Counter::FlowsVanished), 0);
    assert_eq!(bench.nfct.live(), 1);
}

#[test]
fn a_successor_that_begins_during_a_dump_is_known_by_it() {
    let mut bench = Bench::new(Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &within(7, SEEN));
    bench.lose(1);
    assert!(bench.nfct.tick(Instant::now(), &mut bench.outs).is_some());
    bench.event(Kinds::DESTROY, 20, &within(7, SEEN));
    bench.event(Kinds::NEW, 21, &within(7, SEEN));
    bench.nfct.record(Record::Known(&within(7, SEEN), 22), &mut bench.outs);
    let done = Record::DumpDone { complete: true, netns: Some(7) };
    bench.nfct.record(done, &mut bench.outs);
    assert_eq!((bench.nfct.live(), bench.queries(&[])), (1, 0));
}

/// Both have one original tuple; by eBPF there is no id that tells them apart.
#[test]
fn the_end_of_what_lost_a_clash_is_not_that_of_the_winner() {
    let mut bench = Bench::new(Kinds::NEW | Kinds::UPDATE | Kinds::DESTROY, Some(10));
    bench.event(Kinds::NEW, 10, &within(7, Status::CONFIRMED));
    let loser = within(7, Status::CONFIRMED | Status::NAT_CLASH);
    bench.tell(&update(Kinds::empty(), loser.clone()));
    bench.tell(&destroy(Cause::NatClash, 20, loser));
    assert_eq!(bench.nfct.live(), 1, "the winner goes on");
    bench.tell(&destroy(Cause::ExpiredGc, 30, within(7, Status::CONFIRMED)));
    let ended = |start, at| Out::Flow(Kinds::DESTROY, start, Some(at));
    assert_eq!(bench.take(), [ended(None, 20), ended(Some(10), 30)]);
    assert_eq!(bench.nfct.live(), 0);
}
