//! Golden bytes → what is told, and bytes that make no sense.

use bytemuck::{Zeroable as _, bytes_of};
use flowlog_ebpf::{RawDetails, RawExpect, RawFlow, VERSION, cause, tuple};

use super::*;
use crate::capture::ebpf::decode::Decoder;
use crate::capture::ebpf::reader::Reader;
use crate::event::{Cause, ExpectAction, Kinds};
use crate::stats::Stats;

/// What was told: its kind, and more of it in words.
#[derive(Default)]
struct Heard(Vec<(String, Place)>);

impl TraceSink for Heard {
    fn traced(&mut self, what: &What<'_>, place: &Place) {
        let words = match what {
            What::Event { event, entry, changes, portid } => {
                let cause = event.end.as_ref().map(|end| end.cause);
                format!("{:?} {entry} {changes} {portid:?} {cause:?}", event.kinds)
            }
            What::Unconfirmed(event) => format!("unconfirmed {}", event.flow.orig.dst_l4),
            What::Unallocated { event, full, error } => {
                format!("unallocated {} {full} {error}", event.flow.orig.dst_l4)
            }
            What::Expectation(expectation, at) => format!("{:?} {at}", expectation.action),
        };
        self.0.push((words, place.clone()));
    }

    fn lost(&mut self, _: Losses) {}
}

fn orig() -> [u8; tuple::SIZE] {
    let mut raw = [0; tuple::SIZE];
    raw[tuple::L3NUM..][..2].copy_from_slice(&2_u16.to_ne_bytes());
    raw[tuple::DST_L4..][..2].copy_from_slice(&80_u16.to_be_bytes());
    raw[tuple::PROTONUM] = 6;
    raw
}

fn context() -> RawContext {
    let mut context =
        RawContext { cpu: 3, tid: 12, pid: 11, stack_bytes: 16, ..RawContext::zeroed() };
    context.comm[..4].copy_from_slice(b"curl");
    context.stack[..2].copy_from_slice(&[0xa0, 0xb0]);
    context
}

fn record(kind: u8) -> RawTrace {
    let flow = RawFlow {
        version: VERSION,
        kind,
        time: 5,
        entry: 7,
        orig: orig(),
        reply: orig(),
        ..RawFlow::zeroed()
    };
    RawTrace { flow, details: RawDetails::zeroed(), context: context() }
}

/// What a reader tells of a record, and how many it could not make sense of.
fn heard(record: &[u8]) -> (Vec<(String, Place)>, u64) {
    let mut functions = Functions::default();
    functions.set(&[kind::NEW, kind::REFUSED], "hooked");
    let mut reader = Reader::new(Decoder { hz: 250 }, Stats::default());
    let mut heard = Heard::default();
    reader.trace(record, Clock::at(1_000), &functions, &mut heard);
    (heard.0, reader.take_malformed())
}

fn words(record: &RawTrace) -> String {
    let (heard, malformed) = heard(bytes_of(record));
    assert_eq!((heard.len(), malformed), (1, 0));
    heard[0].0.clone()
}

#[test]
fn a_place_is_told_with_each_event() {
    let (heard, _) = heard(bytes_of(&record(kind::NEW)));
    let task = Some(Process { pid: 11, comm: Comm::new(b"curl") });
    let place = Place { function: "hooked", cpu: 3, tid: 12, task, stack: vec![0xa0, 0xb0] };
    assert_eq!(heard, [(format!("{:?} 7 0 None None", Kinds::NEW), place)]);
}

#[test]
fn changes_and_ends_have_their_reason() {
    let mut update = record(kind::UPDATE);
    (update.flow.events, update.flow.portid) = (8, 99);
    assert_eq!(words(&update), format!("{:?} 7 8 Some(99) None", Kinds::UPDATE));
    let mut end = record(kind::DESTROY);
    end.flow.cause = cause::RESET;
    assert_eq!(words(&end), format!("{:?} 7 0 None {:?}", Kinds::DESTROY, Some(Cause::Reset)));
}

#[test]
fn refusals_are_no_events() {
    let mut refused = record(kind::REFUSED);
    refused.context.refusal = refusal::UNCONFIRMED;
    assert_eq!(words(&refused), "unconfirmed 80");
    let mut none = record(kind::UNALLOCATED);
    (none.context.refusal, none.context.error) = (refusal::TABLE_FULL, -12);
    assert_eq!(words(&none), "unallocated 80 true 12");
    none.context.refusal = refusal::NO_MEMORY;
    assert_eq!(words(&none), "unallocated 80 false 12");
}

#[test]
fn an_expectation_has_its_place_too() {
    let expect = RawExpect {
        version: VERSION,
        kind: kind::EXPECT_DESTROY,
        time: 5,
        tuple: orig(),
        master: orig(),
        ..RawExpect::zeroed()
    };
    let (heard, _) = heard(bytes_of(&RawTraceExpect { expect, context: context() }));
    assert_eq!(heard[0].0, format!("{:?} 1005", ExpectAction::Destroy));
    assert_eq!(heard[0].1.stack, [0xa0, 0xb0]);
}

#[test]
fn a_stack_that_cannot_be_had_is_none() {
    let mut new = record(kind::NEW);
    for (bytes, depth) in [(-14, 0), (0, 0), (7, 0), (i32::MAX, STACK)] {
        new.context.stack_bytes = bytes;
        assert_eq!(heard(bytes_of(&new)).0[0].1.stack.len(), depth, "{bytes}");
    }
    // The idle task is no process.
    new.context.tid = 0;
    assert_eq!(heard(bytes_of(&new)).0[0].1.task, None);
}

#[test]
fn what_makes_no_sense_is_counted() {
    let mut other = record(kind::NEW);
    other.flow.version += 1;
    assert_eq!(heard(bytes_of(&other)), (Vec::new(), 1));
    // A refusal without a reason, and a kind that is none.
    assert_eq!(heard(bytes_of(&record(kind::REFUSED))), (Vec::new(), 1));
    assert_eq!(heard(bytes_of(&record(kind::UNALLOCATED))), (Vec::new(), 1));
    assert_eq!(heard(bytes_of(&record(kind::COUNT as u8))), (Vec::new(), 1));
    assert_eq!(heard(&bytes_of(&record(kind::NEW))[1..]), (Vec::new(), 1));
    // An event that was not traced.
    assert_eq!(heard(bytes_of(&record(kind::NEW).flow)), (Vec::new(), 1));
}
