//! Records as a decoder reads them that is not ours.

use std::collections::BTreeMap;

use netflow_parser::variable_versions::field_value::FieldValue;
use netflow_parser::variable_versions::ipfix::lookup::IPFixField;
use netflow_parser::variable_versions::ipfix::{FlowSetBody, IPFix};
use netflow_parser::{NetflowPacket, NetflowParser};
use serde_json::Value;

use super::Encoder;
use super::message::{Added, Messages, SHORTEST};
use super::record::{FlowRecord, Losses};
use crate::event::{Cause, End, ExpectAction, Expectation, Kinds, Lost, Witness};
use crate::flow::{Counters, Family, Flow, Netns, Tuple, proto};
use crate::plugin::record_id::RecordId;
use crate::plugin::ship::{Encode as _, Record};
use crate::plugin::{Body, Item, Scratch};

mod any_flow;

pub(super) const MS: u64 = 1_000_000;
pub(super) const AT: u64 = 1_795_301_298_647_593_001;

/// Fields by name, each with its value as text.
pub(super) type Fields = BTreeMap<String, String>;

/// What a collector has understood.
#[derive(Default)]
pub(super) struct Collector {
    parser: NetflowParser,
    pub(super) records: Vec<Fields>,
    pub(super) options: Vec<Fields>,
    /// Templates, as often as they were told.
    pub(super) templates: Vec<u16>,
    /// Sequence numbers and the number of records behind them.
    pub(super) sequence: Vec<(u32, u32)>,
    pub(super) domains: Vec<u32>,
}

impl Collector {
    pub(super) fn take(&mut self, message: &[u8]) {
        let result = self.parser.parse_bytes(message);
        assert!(result.error.is_none(), "{:?}", result.error);
        let [NetflowPacket::IPFix(IPFix { header, flowsets })] = &result.packets[..] else {
            panic!("not one message: {:?}", result.packets);
        };
        assert_eq!(usize::from(header.length), message.len());
        let before = self.records.len() + self.options.len();
        for set in flowsets {
            match &set.body {
                FlowSetBody::Template(template) => self.templates.push(template.template_id),
                FlowSetBody::OptionsTemplate(template) => self.templates.push(template.template_id),
                FlowSetBody::Data(data) => {
                    assert!(data.padding.is_empty(), "{:?}", data.padding);
                    self.records.extend(data.fields.iter().map(|fields| texts(fields)));
                }
                FlowSetBody::OptionsData(data) => {
                    self.options.extend(data.fields.iter().map(|fields| texts(fields)));
                }
                other => panic!("{other:?}"),
            }
        }
        let records = self.records.len() + self.options.len() - before;
        self.sequence.push((header.sequence_number, records as u32));
        self.domains.push(header.observation_domain_id);
    }
}

fn texts(fields: &[(IPFixField, FieldValue)]) -> Fields {
    let text = |value: &FieldValue| plain(&serde_json::to_value(value).unwrap());
    fields.iter().map(|(field, value)| (format!("{field:?}"), text(value))).collect()
}

/// A value without the names of its types: times in milliseconds, bytes as a number.
fn plain(value: &Value) -> String {
    match value {
        Value::Object(members) if members.contains_key("secs") => {
            let part = |name: &str| members[name].as_u64().unwrap();
            (part("secs") * 1000 + part("nanos") / MS).to_string()
        }
        Value::Object(members) => plain(members.values().next().unwrap()),
        Value::Array(bytes) => {
            bytes.iter().fold(0, |sum, byte| sum << 8 | byte.as_u64().unwrap()).to_string()
        }
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The hash of each flow here.
const FLOW: u64 = 0x0102_0304_0506_0708;

/// A record as it comes from the spool.
pub(super) fn spooled(body: &[u8]) -> Record<'_> {
    Record { id: RecordId { time: AT, hash: 1 }, flow: FLOW, body }
}

/// The message of one record, as it was understood.
fn understood(write: impl Fn(&mut Vec<u8>)) -> Collector {
    let mut body = Vec::new();
    write(&mut body);
    let mut messages = Messages::new(7, SHORTEST, None);
    assert_eq!(messages.add(&spooled(&body)), Added::Yes);
    let mut collector = Collector::default();
    collector.take(messages.finish());
    assert_eq!(collector.domains, [7]);
    collector
}

/// The last record of a connection that has gone through NAT, to the byte.
#[test]
fn a_record_has_these_bytes() {
    let mut flow = tcp(40_001);
    flow.netns = Some(Netns { cookie: Some(1), inum: 0xf000_0001 });
    let how = End { cause: Cause::ExpiredGc, portid: None, process: None };
    let record = ended(&flow, Some(&how));
    let mut out = Vec::new();
    record.write(&mut out);
    #[rustfmt::skip]
    let expected = [
        0x02, 0xef, // 257 and NAT, NAT_EVENT, PORTS, START, COUNTERS, REASON, NETNS
        10, 77, 1, 2, 10, 77, 2, 2, 6, 0x9c, 0x41, 0x23, 0x28,
        0, 0, 0x01, 0xa2, 0x00, 0x4b, 0xc6, 0x1f, 0, 0, 0x01, 0xa2, 0x00, 0x4b, 0xd1, 0xd7,
        0, 0, 0, 0, 0, 0, 1, 0xa4, 0, 0, 0, 0, 0, 0, 0, 6,
        0, 0, 0, 0, 0, 0, 1, 0xa0, 0, 0, 0, 0, 0, 0, 0, 4,
        2, 3,
        10, 77, 2, 1, 10, 77, 2, 2, 0x04, 0, 0x23, 0x28,
        5, 0, 0, 0x01, 0xa2, 0x00, 0x4b, 0xd1, 0xd7,
        0xf0, 0, 0, 1,
    ];
    assert_eq!(out, expected);
}

/// A connection from 10.77.1.2 that has left as 10.77.2.1, and is closed.
pub(super) fn tcp(port: u16) -> Flow {
    let mut orig = Tuple { proto: proto::TCP, src_l4: port, dst_l4: 9000, ..Tuple::default() };
    orig.src[..4].copy_from_slice(&[10, 77, 1, 2]);
    orig.dst[..4].copy_from_slice(&[10, 77, 2, 2]);
    let mut reply = Tuple { dst_l4: 1024, ..orig.inverse() };
    reply.dst[..4].copy_from_slice(&[10, 77, 2, 1]);
    let counters = [Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 416 }];
    let time_wait = 7;
    let counters = Some(counters);
    Flow { orig, reply, counters, l4_state: Some(time_wait), ..Flow::default() }
}

pub(super) fn ended<'a>(flow: &'a Flow, how: Option<&'a End>) -> FlowRecord<'a> {
    FlowRecord {
        flow,
        tag: Kinds::DESTROY,
        at: AT,
        start: Some(AT - 3000 * MS),
        end: Some(AT),
        how,
        nat_events: true,
    }
}

#[test]
fn over_netlink_the_last_state_tells_that_a_connection_was_closed() {
    let reason = |flow: &Flow, how: Option<Cause>| {
        let how = how.map(|cause| End { cause, portid: None, process: None });
        let collector = understood(|out| ended(flow, how.as_ref()).write(out));
        collector.records[0].get("IANA(FlowEndReason)").cloned()
    };
    let closed = tcp(1);
    let idle = Flow { l4_state: Some(3), ..tcp(1) };
    let mut udp = tcp(1);
    udp.orig.proto = proto::UDP;
    for (flow, how, expected) in [
        (&closed, None, Some("EndOfFlow")),
        (&closed, Some(Cause::ExpiredGc), Some("EndOfFlow")),
        (&closed, Some(Cause::Deleted), Some("ForcedEnd")),
        (&closed, Some(Cause::Lost), Some("EndOfFlow")),
        (&idle, None, None),
        (&idle, Some(Cause::ExpiredLookup), Some("IdleTimeout")),
        (&udp, None, None),
    ] {
        assert_eq!(reason(flow, how).as_deref(), expected, "{how:?} {:?}", flow.l4_state);
    }
}

/// What the sink makes of an item; nothing: it is not sent.
fn encoded(encoder: &mut Encoder, tag: Kinds, body: Body<'_>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let item = Item { tag, at: AT, body };
    let id = RecordId { time: AT, hash: 1 };
    encoder.encode(&item, id, &Scratch::default(), &mut out).then_some(out)
}

#[test]
fn flows_and_losses_are_sent_and_expectations_are_not() {
    let flow = tcp(40_001);
    let mut encoder = Encoder { nat_events: true, losses: Losses::default(), process: 5 };
    let (start, end) = (Some(AT - 3000 * MS), Some(AT));
    let body =
        Body::Flow { flow: &flow, start, end, how: None, counted: true, witness: Witness::Single };
    let mut expected = Vec::new();
    ended(&flow, None).write(&mut expected);
    assert_eq!(encoded(&mut encoder, Kinds::DESTROY, body), Some(expected));
    for sum in [3, 6] {
        let lost = Body::Lost(Lost::noticed("netlink", 3, AT));
        let body = encoded(&mut encoder, Kinds::empty(), lost).unwrap();
        assert_eq!(body[..6], [1, 0, 0, 0, 0, 5]);
        assert_eq!(body[6..14], u64::to_be_bytes(sum));
    }
    let expectation = Expectation {
        action: ExpectAction::New,
        tuple: flow.orig,
        master: flow.orig,
        zone: 0,
        helper: None,
        netns: None,
    };
    assert_eq!(encoded(&mut encoder, Kinds::EXPECT, Body::Expectation(&expectation)), None);
}

#[test]
fn losses_add_up_in_options() {
    let mut losses = Losses::default();
    losses.add(3, AT);
    losses.add(4, AT + 5 * MS);
    let mut body = Vec::new();
    losses.write(77, &mut body);
    // Both times are the same element, of which the decoder keeps the last.
    assert_eq!(body[14..22], (AT / MS).to_be_bytes());
    let collector = understood(|out| out.extend_from_slice(&body));
    let expected = [
        ("IANA(ExportingProcessId)", "77".to_owned()),
        ("IANA(NotSentFlowTotalCount)", "7".to_owned()),
        ("IANA(ObservationTimeMilliseconds)", (AT / MS + 5).to_string()),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value));
    assert_eq!(collector.options, [Fields::from(expected)]);
}
