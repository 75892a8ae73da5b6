//! Real messages, recorded on Linux 6.18 from all six groups (TCP, UDP, ICMP
//! and others over IPv4 and IPv6, with NAT, marks, a FTP helper, accounting
//! and timestamps), and what remains of them when bytes change.

use netlink_packet_core::{DefaultNla, Emitable as _};
use proptest::prelude::*;

use super::attr::{Attributes, Message, Messages};
use super::request::{nested, plain};
use super::*;
use crate::event::{Event, ExpectAction, Expectation, Kinds, Lost, Record};
use crate::flow::{Family, Flow, Status, proto};
use crate::stats::Counter;

const RECORDED: &[u8] = include_bytes!("../../../tests/data/mixed.nl");
const NOW: u64 = 42;

#[derive(Default)]
struct Seen {
    events: Vec<Event>,
    expectations: Vec<Expectation>,
    /// Losses, each with how many events came before.
    lost: Vec<(Lost, usize)>,
}

impl RecordSink for Seen {
    fn record(&mut self, record: Record<'_>) {
        match record {
            Record::Event(event) => self.events.push(event.clone()),
            Record::Expectation(expectation, _) => self.expectations.push(expectation.clone()),
            Record::Lost(lost) => self.lost.push((lost, self.events.len())),
            _ => {}
        }
    }
}

fn decode(bytes: &[u8]) -> (Seen, Stats) {
    let stats = Stats::default();
    let mut seen = Seen::default();
    Decoder::new(stats.clone()).messages(bytes, NOW, &mut seen);
    (seen, stats)
}

#[test]
fn every_recorded_message_is_understood() {
    let (seen, stats) = decode(RECORDED);
    assert_eq!(stats.get(Counter::NetlinkMalformed), 0);
    assert_eq!(stats.get(Counter::NetlinkIgnored), 0);
    let count = |kind| seen.events.iter().filter(|event| event.kinds == kind).count();
    assert_eq!((count(Kinds::NEW), count(Kinds::UPDATE), count(Kinds::DESTROY)), (36, 65, 36));
    assert_eq!(seen.expectations.len(), 4);
    // nf_conntrack_timestamp was on, so each event carries its own time.
    assert!(seen.events.iter().all(|event| event.at > NOW));
}

#[test]
fn a_connection_with_nat_is_told_in_full() {
    let (seen, _) = decode(RECORDED);
    let end = |event: &&Event| event.kinds == Kinds::DESTROY && event.flow.orig.dst_l4 == 8080;
    let Some(event) = seen.events.iter().find(end) else { panic!("no DNAT was recorded") };
    let flow = &event.flow;
    assert_eq!(flow.orig.family, Family::V4);
    assert_eq!(flow.orig.proto, proto::TCP);
    assert_eq!(flow.orig.src_ip().to_string(), "127.0.0.1");
    assert_eq!(flow.reply.src_l4, 9000, "translated");
    assert_eq!(flow.reply.dst_l4, flow.orig.src_l4);
    assert!(flow.status.contains(Status::DST_NAT | Status::ASSURED | Status::SEEN_REPLY));
    let Some([orig, reply]) = flow.counters else { panic!("accounting was on") };
    assert!(orig.packets >= 4 && reply.packets >= 3 && orig.bytes > reply.packets * 40);
    let (Some(start), Some(stop)) = (flow.start, flow.stop) else { panic!("timestamps were on") };
    assert!(start < stop && stop <= event.at);
    assert!(flow.id.is_some() && flow.l4_state.is_some());
    assert_eq!(flow.timeout, None, "a dead flow has no timeout");
}

#[test]
fn icmp_marks_helpers_and_related_flows_are_told() {
    let (seen, _) = decode(RECORDED);
    let has = |what: &dyn Fn(&Event) -> bool| seen.events.iter().any(what);
    let icmp = |e: &Event, id, kind| e.flow.orig.src_l4 == id && e.flow.orig.icmp_type() == kind;
    assert!(has(&|e| e.flow.orig.proto == proto::ICMP && icmp(e, 77, 8)));
    assert!(has(&|e| e.flow.orig.proto == proto::ICMPV6 && icmp(e, 78, 128)));
    assert!(has(&|e| e.flow.mark == 7 && e.flow.orig.dst_l4 == 9000));
    assert!(has(&|e| e.flow.helper.is_some_and(|helper| helper.as_bytes() == b"ftp")));
    assert!(has(&|e| e.flow.master.is_some_and(|master| master.dst_l4 == 21)));
}

#[test]
fn an_expectation_knows_its_master_and_its_fate() {
    let (seen, _) = decode(RECORDED);
    let first = &seen.expectations[0];
    assert_eq!(first.action, ExpectAction::New);
    assert_eq!(first.tuple.dst_l4, 2121);
    assert_eq!(first.master.dst_l4, 21);
    assert_eq!(first.helper.map(|helper| helper.as_bytes().to_vec()), Some(b"ftp".to_vec()));
    assert!(seen.expectations.iter().any(|e| e.action == ExpectAction::Destroy));
}

#[test]
fn a_wrong_message_is_counted_and_the_next_datagram_read() {
    let (_, stats) = decode(&RECORDED[..40]);
    assert_eq!(stats.get(Counter::NetlinkMalformed), 1, "truncated");
    let first = Messages::new(RECORDED).next().unwrap().unwrap().bytes;
    // The first attribute's length, beyond the message.
    let mut wrong = first.to_vec();
    wrong[20..22].copy_from_slice(&u16::MAX.to_ne_bytes());
    let (seen, stats) = decode(&wrong);
    assert_eq!((seen.events.len(), stats.get(Counter::NetlinkMalformed)), (0, 1));
    // No attributes at all.
    let mut empty = first[..20].to_vec();
    empty[..4].copy_from_slice(&20u32.to_ne_bytes());
    assert_eq!(decode(&empty).1.get(Counter::NetlinkMalformed), 1);
}

/// Of an event that cannot be decoded nobody learns anything else.
#[test]
fn what_cannot_be_decoded_is_a_loss_behind_what_can() {
    let first = Messages::new(RECORDED).next().unwrap().unwrap().bytes;
    let mut wrong = first.to_vec();
    wrong[20..22].copy_from_slice(&u16::MAX.to_ne_bytes());
    let (seen, _) = decode(&[first, &wrong, first, &wrong].concat());
    let lost = Lost::noticed("netlink_malformed", 2, NOW);
    assert_eq!((seen.events.len(), seen.lost), (2, vec![(lost, 2)]));
    let (mut seen, mut decoder) = (Seen::default(), Decoder::new(Stats::default()));
    let whole = socket::Datagram { bytes: first, cut: false };
    let cut = socket::Datagram { bytes: &first[..30], cut: true };
    decoder.datagrams([cut, whole].into_iter(), NOW, &mut seen);
    let lost = Lost::noticed("netlink_malformed", 1, NOW);
    assert_eq!((seen.events.len(), seen.lost), (1, vec![(lost, 1)]));
    // Once only; an entry of a dump that cannot be decoded is no event.
    let mut seen = Seen::default();
    decoder.malformed(attr::DecodeError::Cut);
    decoder.messages(first, NOW, &mut seen);
    assert_eq!((seen.events.len(), seen.lost), (1, vec![]));
}

#[test]
fn queries_name_the_flow_as_the_kernel_does() {
    // What is asked for must decode to the tuple that was meant.
    let (seen, _) = decode(RECORDED);
    for event in &seen.events {
        let key = FlowKey { zone: 0, ..FlowKey::from(&event.flow) };
        let bytes = request::get(&key, 1);
        let mut messages = Messages::new(&bytes);
        let message = messages.next().unwrap().unwrap();
        assert!(messages.next().is_none());
        let asked = Attributes::new(&message.payload[4..]).next().unwrap().unwrap();
        // As a NEW message with both tuples it can be decoded.
        let mut payload = message.payload[..4].to_vec();
        for kind in [1u16, 2] {
            payload.extend_from_slice(&((asked.value.len() + 4) as u16).to_ne_bytes());
            payload.extend_from_slice(&kind.to_ne_bytes());
            payload.extend_from_slice(asked.value);
        }
        let message = Message { payload: &payload, ..message };
        let mut decoded = Event::default();
        decode::flow(&message, Kinds::NEW, NOW, &mut decoded).unwrap();
        assert_eq!(decoded.flow.orig, event.flow.orig);
    }
}

/// A NEW message with these attributes behind a tuple for each direction, which
/// may have a zone of its own.
fn with_zones(zones: [Option<u16>; 2], rest: &[DefaultNla]) -> Flow {
    let direction = |kind, zone: Option<u16>| {
        let ip = nested(1, &[plain(1, &[10, 0, 0, 1]), plain(2, &[10, 0, 0, 2])]);
        let l4 = nested(2, &[plain(1, &[proto::UDP])]);
        let zone = zone.map(|zone| plain(3, &zone.to_be_bytes()));
        nested(kind, &[ip, l4].into_iter().chain(zone).collect::<Vec<_>>())
    };
    let mut all = vec![direction(1, zones[0]), direction(2, zones[1])];
    all.extend_from_slice(rest);
    let mut payload = vec![0; 4];
    let mut bytes = vec![0; all.as_slice().buffer_len()];
    all.as_slice().emit(&mut bytes);
    payload.extend(bytes);
    let first = Messages::new(RECORDED).next().unwrap().unwrap();
    let mut event = Event::default();
    let message = Message { payload: &payload, ..first };
    decode::flow(&message, Kinds::NEW, NOW, &mut event).unwrap();
    event.flow
}

#[test]
fn zones_of_each_direction_and_the_security_context_are_decoded() {
    let zones = |flow: Flow| (flow.zone, flow.reply_zone);
    assert_eq!(zones(with_zones([None, None], &[])), (0, None));
    assert_eq!(zones(with_zones([Some(7), None], &[])), (7, Some(0)));
    assert_eq!(zones(with_zones([None, Some(9)], &[])), (0, Some(9)));
    let both = [plain(18, &7u16.to_be_bytes()), nested(19, &[plain(1, b"a:b\0")])];
    let flow = with_zones([None, None], &both);
    assert_eq!(flow.secctx.as_deref(), Some("a:b"));
    assert_eq!(zones(flow), (7, None));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the bytes, nothing crashes, and nothing goes unaccounted.
    #[test]
    fn changed_bytes_never_crash(
        start in 0usize..RECORDED.len(),
        length in 0usize..2000,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
    ) {
        let mut bytes = RECORDED[start..(start + length).min(RECORDED.len())].to_vec();
        for (place, value) in &changes {
            if !bytes.is_empty() {
                let place = place.index(bytes.len());
                bytes[place] = *value;
            }
        }
        decode(&bytes);
    }

    /// Damage inside one whole message: either it is understood or it is
    /// counted as malformed or ignored, never neither.
    #[test]
    fn a_damaged_message_is_understood_or_counted(
        which in 0usize..141,
        changes in prop::collection::vec((16usize..300, any::<u8>()), 1..8),
    ) {
        let message = Messages::new(RECORDED).nth(which).unwrap().unwrap().bytes;
        let mut bytes = message.to_vec();
        for (place, value) in changes {
            if place < bytes.len() {
                bytes[place] = value;
            }
        }
        let (seen, stats) = decode(&bytes);
        let counted = stats.get(Counter::NetlinkMalformed) + stats.get(Counter::NetlinkIgnored);
        prop_assert_eq!(seen.events.len() + seen.expectations.len() + counted as usize, 1);
        let lost = seen.lost.iter().map(|(lost, _)| lost.events).sum::<u64>();
        prop_assert_eq!(lost, stats.get(Counter::NetlinkMalformed));
    }

    /// Bytes that never were a message.
    #[test]
    fn noise_never_crashes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        decode(&bytes);
    }
}
