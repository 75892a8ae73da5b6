//! Golden bytes → event, and bytes that make no sense.

use bytemuck::{Zeroable as _, bytes_of};
use proptest::prelude::*;

use super::*;
use crate::capture::ebpf::reader::Reader;
use crate::capture::ebpf::replay::{MAGIC, Replay};
use crate::capture::ebpf::witness::{Losses, WitnessSink};
use crate::capture::{Capture as _, RecordSink};
use crate::event::Record;
use crate::stats::{Counter, Stats};

const DECODER: Decoder = Decoder { hz: 250 };

fn clock() -> Clock {
    Clock::at(1_000)
}

/// A tuple as the kernel has it.
fn tuple(src: [u8; 4], dst: [u8; 4], ports: (u16, u16), protocol: u8) -> [u8; tuple::SIZE] {
    let mut raw = [0; tuple::SIZE];
    raw[..4].copy_from_slice(&src);
    raw[tuple::SRC_L4..][..2].copy_from_slice(&ports.0.to_be_bytes());
    raw[tuple::L3NUM..][..2].copy_from_slice(&2_u16.to_ne_bytes());
    raw[tuple::DST..][..4].copy_from_slice(&dst);
    raw[tuple::DST_L4..][..2].copy_from_slice(&ports.1.to_be_bytes());
    raw[tuple::PROTONUM] = protocol;
    raw
}

fn raw(kind: u8) -> RawFlow {
    RawFlow {
        version: VERSION,
        kind,
        time: 5,
        netns_cookie: 7,
        netns_inum: 4_026_531_840,
        status: 0x0a,
        mark: 3,
        timeout: 1_000,
        zone: 9,
        zone_dir: 3,
        l4_state: 3,
        orig: tuple([10, 0, 0, 1], [10, 0, 0, 2], (1234, 80), proto::TCP),
        reply: tuple([10, 0, 0, 2], [192, 0, 2, 1], (80, 1234), proto::TCP),
        ..RawFlow::zeroed()
    }
}

fn decode(bytes: &[u8]) -> Result<Event, Malformed> {
    let mut event = Event::default();
    match DECODER.decode(bytes, clock(), &mut event)? {
        Told::Event(_) => Ok(event),
        Told::Expectation(..) | Told::Notice(_) => panic!("no event"),
    }
}

#[test]
fn every_field_of_a_flow_is_told() {
    let mut raw = raw(kind::UPDATE);
    raw.flags = flag::COUNTERS | flag::TIMES;
    raw.counters = [1, 2, 3, 4];
    raw.start = 11;
    raw.events = IPCT_ASSURED | IPCT_REPLY;
    let event = decode(bytes_of(&raw)).unwrap();
    assert_eq!(event.kinds, Kinds::UPDATE);
    assert_eq!(event.transitions, Some(Kinds::ASSURED | Kinds::CONFIRMED));
    assert_eq!((event.at, event.end), (1_005, None));
    let flow = event.flow;
    assert_eq!(flow.orig.src_ip().to_string(), "10.0.0.1");
    assert_eq!((flow.orig.src_l4, flow.orig.dst_l4), (1234, 80));
    assert_eq!(flow.reply.dst_ip().to_string(), "192.0.2.1");
    assert_eq!(flow.netns, Some(Netns { cookie: Some(7), inum: 4_026_531_840 }));
    assert_eq!((flow.zone, flow.mark, flow.timeout), (9, 3, Some(4)));
    assert_eq!((flow.start, flow.stop, flow.l4_state), (Some(11), None, Some(3)));
    let counters = [Counters { packets: 1, bytes: 2 }, Counters { packets: 3, bytes: 4 }];
    assert_eq!(flow.counters, Some(counters));
    assert_eq!(flow.status, Status::SEEN_REPLY | Status::CONFIRMED);
    assert_eq!((flow.helper, flow.labels, flow.master), (None, None, None));
}

#[test]
fn an_end_has_its_cause_and_who_asked_for_it() {
    let mut flow = raw(kind::DESTROY);
    flow.cause = cause::DELETED;
    flow.portid = 99;
    flow.flags = flag::PROCESS | flag::HELPER | flag::GC;
    let mut details = RawDetails::zeroed();
    details.comm[..9].copy_from_slice(b"conntrack");
    details.helper[..3].copy_from_slice(b"ftp");
    details.pid = 42;
    let event = decode(bytes_of(&RawFlowDetails { flow, details })).unwrap();
    assert_eq!(event.kinds, Kinds::DESTROY | Kinds::GC);
    let process = Some(Process { pid: 42, comm: Comm::new(b"conntrack") });
    assert_eq!(event.end, Some(End { cause: Cause::Deleted, portid: Some(99), process }));
    assert_eq!(event.flow.timeout, None, "it is over");
    assert_eq!(event.flow.helper, Some(HelperName::new(b"ftp")));
    assert_eq!((event.flow.labels, event.flow.master), (None, None), "not told");
}

#[test]
fn a_new_flow_is_confirmed_and_a_request_begins_nothing() {
    let mut new = raw(kind::NEW);
    new.status = 0;
    assert_eq!(decode(bytes_of(&new)).unwrap().flow.status, Status::CONFIRMED);
    let mut request = raw(kind::UPDATE);
    request.events = u32::MAX;
    request.portid = 1;
    assert_eq!(decode(bytes_of(&request)).unwrap().transitions, Some(Kinds::empty()));
}

/// The bit is set before the entry is inserted, or after it: 6.16, 6.12.40 and
/// 6.1.147 changed that. The hook is at the insertion.
#[test]
fn when_an_entry_is_confirmed_changes_nothing() {
    for (kind, cause) in [(kind::NEW, cause::NONE), (kind::DESTROY, cause::EXPIRED_GC)] {
        for status in [0, 1 << 5, 1 << 12] {
            let record =
                |confirmed: u32| RawFlow { status: status | confirmed, cause, ..raw(kind) };
            let after = decode(bytes_of(&record(1 << 3))).unwrap();
            assert!(after.flow.status.contains(Status::CONFIRMED));
            if kind == kind::NEW {
                assert_eq!(decode(bytes_of(&record(0))).unwrap(), after);
            }
        }
    }
}

/// Only its end is reported: by every hook as over netlink.
#[test]
fn what_lost_a_clash_says_so() {
    let status = 1 << 3 | 1 << 5 | 1 << 10 | 1 << 12;
    let loser = RawFlow { status, cause: cause::NAT_CLASH, ..raw(kind::DESTROY) };
    assert!(flowlog_ebpf::lost_clash(loser.status));
    let event = decode(bytes_of(&loser)).unwrap();
    assert!(event.flow.status.contains(Status::NAT_CLASH));
    assert_eq!(event.end.map(|end| end.cause), Some(Cause::NatClash));
    assert_eq!(Status::NAT_CLASH.bits(), status & !(1 << 3 | 1 << 5 | 1 << 10));
}

#[test]
fn what_makes_no_sense_is_named() {
    let wrong = |change: &dyn Fn(&mut RawFlow)| {
        let mut raw = raw(kind::DESTROY);
        raw.cause = cause::OTHER;
        change(&mut raw);
        decode(bytes_of(&raw)).unwrap_err()
    };
    assert_eq!(wrong(&|raw| raw.version = 1), Malformed::Version(1));
    assert_eq!(wrong(&|raw| raw.kind = 77), Malformed::Number("the kind", 77));
    assert_eq!(wrong(&|raw| raw.cause = 200), Malformed::Number("the cause", 200));
    let family = wrong(&|raw| raw.orig[tuple::L3NUM] = 9);
    assert!(matches!(family, Malformed::Number("the address family", _)));
    assert_eq!(decode(&[0; 191]).unwrap_err(), Malformed::Length(191));
}

#[test]
fn each_cause_has_its_name() {
    let names: Vec<_> = (1..cause::COUNT as u8).map(|n| cause_of(n).unwrap().name()).collect();
    assert_eq!(
        names,
        [
            "expired_gc",
            "expired_lookup",
            "early_drop",
            "deleted",
            "flushed",
            "netns_gone",
            "tcp_reopened",
            "reset",
            "nat_clash",
            "other"
        ]
    );
    assert!(cause_of(cause::NONE).is_err(), "an end has a cause");
}

#[test]
fn what_an_expectation_leaves_open_is_zero() {
    let mut raw = RawExpect::zeroed();
    raw.version = VERSION;
    raw.kind = kind::EXPECT_NEW;
    raw.tuple = tuple([10, 0, 0, 1], [10, 0, 0, 2], (1234, 80), proto::TCP);
    raw.master = tuple([10, 0, 0, 1], [10, 0, 0, 2], (40_000, 21), proto::TCP);
    raw.mask[..4].fill(0xff);
    raw.armed = 1;
    (raw.zone, raw.zone_dir) = (5, 2);
    let mut event = Event::default();
    let told = DECODER.decode(bytes_of(&raw), clock(), &mut event).unwrap();
    let Told::Expectation(expectation, _, origin) = told else { panic!("no expectation") };
    assert_eq!(origin, Origin { entry: 0, armed: true, boot: raw.time });
    assert_eq!((expectation.action, expectation.zone), (ExpectAction::New, 0));
    assert_eq!((expectation.tuple.src_l4, expectation.tuple.dst_l4), (0, 80));
    assert_eq!(expectation.tuple.src_ip().to_string(), "10.0.0.1");
    assert_eq!((expectation.master.dst_l4, expectation.helper), (21, None));
}

#[test]
fn a_zone_is_told_if_it_holds_for_the_original_direction() {
    for (directions, zone) in [(3, 9), (1, 9), (2, 0), (0, 0)] {
        let flow = decode(bytes_of(&RawFlow { zone_dir: directions, ..raw(kind::NEW) }));
        assert_eq!(flow.unwrap().flow.zone, zone, "{directions}");
    }
}

#[test]
fn an_event_says_where_it_comes_from() {
    let mut raw = raw(kind::DESTROY);
    (raw.entry, raw.cause) = (0xffff_8880_0000_0100, cause::OTHER);
    for armed in [false, true] {
        raw.flags = if armed { flag::ARMED } else { 0 };
        let details = RawFlowDetails { flow: raw, details: RawDetails::zeroed() };
        for bytes in [bytes_of(&raw), bytes_of(&details)] {
            let told = DECODER.decode(bytes, clock(), &mut Event::default()).unwrap();
            let Told::Event(origin) = told else { panic!("no event") };
            assert_eq!(origin, Origin { entry: raw.entry, armed, boot: raw.time });
        }
    }
}

fn raw_notice() -> RawNotice {
    RawNotice {
        version: VERSION,
        kind: kind::NOTICE,
        group: group::UPDATE,
        has_id: 1,
        events: IPCT_REPLY,
        time: 5,
        entry: 0x100,
        id: 0x1234_5678,
        zone: 9,
        zone_dir: 1,
        orig: tuple([10, 0, 0, 1], [10, 0, 0, 2], (1234, 80), proto::TCP),
        ..RawNotice::zeroed()
    }
}

#[test]
fn a_notice_tells_which_message_is_due() {
    let notice = |raw: &RawNotice| -> Result<Notice, Malformed> {
        match DECODER.decode(bytes_of(raw), clock(), &mut Event::default())? {
            Told::Notice(notice) => Ok(notice),
            Told::Event(_) | Told::Expectation(..) => panic!("no notice"),
        }
    };
    let raw = raw_notice();
    let told = notice(&raw).unwrap();
    assert_eq!((told.kind, told.entry, told.id), (CheckKind::Update, 0x100, Some(0x1234_5678)));
    assert_eq!((told.orig.dst_l4, told.zone, told.at), (80, 9, 1_005));
    assert_eq!(told.boot, 5);
    let without = RawNotice { has_id: 0, zone_dir: 2, group: group::DESTROY, ..raw };
    let told = notice(&without).unwrap();
    assert_eq!((told.kind, told.id, told.zone), (CheckKind::Destroy, None, 0));
    let wrong = |raw: RawNotice| notice(&raw).unwrap_err();
    assert_eq!(wrong(RawNotice { version: 1, ..raw }), Malformed::Version(1));
    assert_eq!(wrong(RawNotice { kind: 1, ..raw }), Malformed::Number("the kind", 1));
    assert_eq!(wrong(RawNotice { group: 4, ..raw }), Malformed::Number("the group", 4));
}

#[test]
fn records_are_told_apart_by_their_length() {
    let lengths = [
        size_of::<RawFlow>(),
        size_of::<RawFlowDetails>(),
        size_of::<RawExpect>(),
        size_of::<RawNotice>(),
    ];
    let different: std::collections::HashSet<_> = lengths.into_iter().collect();
    assert_eq!(different.len(), lengths.len());
}

#[test]
fn the_mask_says_which_changes_make_an_update() {
    assert_eq!(updates(Kinds::NEW | Kinds::DESTROY | Kinds::EXPECT | Kinds::GC), 0);
    assert_eq!(updates(Kinds::UPDATE | Kinds::ASSURED), u32::MAX);
    assert_eq!(updates(Kinds::CONFIRMED | Kinds::HELPER), IPCT_REPLY | IPCT_HELPER);
}

#[derive(Default)]
struct Count {
    announced: usize,
    events: usize,
}

impl RecordSink for Count {
    fn announce(&mut self, events: &[Event]) {
        self.announced += events.len();
    }

    fn record(&mut self, record: Record<'_>) {
        self.events += usize::from(matches!(record, Record::Event(_)));
    }
}

#[test]
fn a_recording_is_replayed_and_what_is_damaged_counted() {
    let mut recording = MAGIC.to_vec();
    for number in 0..100_u8 {
        let mut record = raw(kind::NEW);
        record.version = if number == 50 { 0 } else { VERSION };
        recording.extend((size_of::<RawFlow>() as u64).to_ne_bytes());
        recording.extend(bytes_of(&record));
    }
    let stats = Stats::default();
    let mut replay = Replay::new(recording, stats.clone());
    let mut count = Count::default();
    replay.drain(1000, &mut count).unwrap();
    assert_eq!((count.announced, count.events), (99, 99));
    assert_eq!(stats.get(Counter::EbpfRecords), 100);
    assert_eq!(stats.get(Counter::EbpfMalformed), 1);
}

/// What a cross-check is told, in order.
#[derive(Default)]
struct Witnessed(Vec<String>);

impl WitnessSink for Witnessed {
    fn event(&mut self, event: &mut Event, origin: Origin) {
        self.0.push(format!("event of {:#x}", origin.entry));
        // Its content may be taken.
        std::mem::take(event);
    }

    fn expectation(&mut self, _: &Expectation, _: u64, origin: Origin) {
        self.0.push(format!("expectation, {}", origin.armed));
    }

    fn notice(&mut self, notice: &Notice) {
        self.0.push(format!("notice of {:#x}", notice.entry));
    }

    fn lost(&mut self, _: Losses) {}
}

#[test]
fn a_cross_check_is_told_all_and_others_no_notices() {
    let stats = Stats::default();
    let mut reader = Reader::new(DECODER, stats.clone());
    let event = RawFlow { entry: 0x200, ..raw(kind::NEW) };
    let notice = raw_notice();
    let mut told = Witnessed::default();
    for record in [bytes_of(&event), bytes_of(&notice), &[0; 3], bytes_of(&event)] {
        reader.tell(record, clock(), None, &mut told);
    }
    assert_eq!(told.0, ["event of 0x200", "notice of 0x100", "event of 0x200"]);
    assert_eq!((reader.take_malformed(), reader.take_malformed()), (1, 0));
    let mut count = Count::default();
    for record in [bytes_of(&event), bytes_of(&notice)] {
        reader.take(record, clock(), &mut count);
    }
    reader.hand_on(&mut count);
    assert_eq!((count.events, stats.get(Counter::EbpfMalformed)), (1, 1));
}

proptest! {
    /// Whatever comes is understood or refused.
    #[test]
    fn no_record_crashes_the_decoder(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        length in prop_oneof![Just(80_usize), Just(152), Just(192), Just(296), 0_usize..300],
    ) {
        let mut bytes = bytes;
        bytes.resize(length, 0);
        if let Some(version) = bytes.first_mut() {
            *version = VERSION;
        }
        let _ = DECODER.decode(&bytes, clock(), &mut Event::default());
    }
}
