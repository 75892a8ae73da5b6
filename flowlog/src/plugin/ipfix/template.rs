//! Which fields a record has, in which order, and the template that says so.
//!
//! IPFIX has no word for "unknown" in a field, so a record has the fields that
//! are known, and each combination is a template of its own. A combination is a
//! [`Shape`], and its bits are the template's number: the same in each session, on
//! each host, and in a record that waited on disk for another start of flowlog.

use bitflags::bitflags;

bitflags! {
    /// What a record of a flow has besides that which all have.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub(super) struct Shape: u16 {
        /// Addresses of IPv6, in place of IPv4.
        const V6 = 1 << 0;
        /// Addresses, and ports if there are any, behind NAT.
        const NAT = 1 << 1;
        /// The record is a NAT event of RFC 8158.
        const NAT_EVENT = 1 << 2;
        /// Ports.
        const PORTS = 1 << 3;
        /// Type and code of ICMP or ICMPv6.
        const ICMP = 1 << 4;
        /// The flow's start.
        const START = 1 << 5;
        /// Counters of both directions.
        const COUNTERS = 1 << 6;
        /// Why it ended.
        const REASON = 1 << 7;
        /// The network namespace.
        const NETNS = 1 << 8;
        /// The mark, which is not 0.
        const MARK = 1 << 9;
        /// The kernel's id.
        const ID = 1 << 10;
    }
}

/// Template of the options that tell losses.
pub(super) const LOSSES: u16 = 256;
/// Template of the shape without bits; those of others follow.
const FLOWS: u16 = 257;

impl Shape {
    /// Number of its template.
    pub(super) fn template(self) -> u16 {
        FLOWS + self.bits()
    }

    /// Its fields, in order.
    #[inline]
    pub(super) fn fields(self) -> impl Iterator<Item = Field> {
        LAYOUT
            .iter()
            .filter(move |(_, with, without)| self.contains(*with) && !self.intersects(*without))
            .map(|(field, _, _)| *field)
    }
}

/// An information element, as a field of a record of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Field {
    SourceIpv4,
    DestinationIpv4,
    SourceIpv6,
    DestinationIpv6,
    Protocol,
    SourcePort,
    DestinationPort,
    IcmpIpv4,
    IcmpIpv6,
    FlowStart,
    FlowEnd,
    Octets,
    Packets,
    ReverseOctets,
    ReversePackets,
    FirewallEvent,
    FlowEndReason,
    PostNatSourceIpv4,
    PostNatDestinationIpv4,
    PostNatSourceIpv6,
    PostNatDestinationIpv6,
    PostNaptSourcePort,
    PostNaptDestinationPort,
    NatEvent,
    ObservationTime,
    IngressVrf,
    Mark,
    ConntrackId,
}

const NONE: Shape = Shape::empty();

/// All fields in their order, each with what a shape must and must not have.
const LAYOUT: [(Field, Shape, Shape); 28] = [
    (Field::SourceIpv4, NONE, Shape::V6),
    (Field::DestinationIpv4, NONE, Shape::V6),
    (Field::SourceIpv6, Shape::V6, NONE),
    (Field::DestinationIpv6, Shape::V6, NONE),
    (Field::Protocol, NONE, NONE),
    (Field::SourcePort, Shape::PORTS, NONE),
    (Field::DestinationPort, Shape::PORTS, NONE),
    (Field::IcmpIpv4, Shape::ICMP, Shape::V6),
    (Field::IcmpIpv6, Shape::ICMP.union(Shape::V6), NONE),
    (Field::FlowStart, Shape::START, NONE),
    (Field::FlowEnd, NONE, NONE),
    (Field::Octets, Shape::COUNTERS, NONE),
    (Field::Packets, Shape::COUNTERS, NONE),
    (Field::ReverseOctets, Shape::COUNTERS, NONE),
    (Field::ReversePackets, Shape::COUNTERS, NONE),
    (Field::FirewallEvent, NONE, NONE),
    (Field::FlowEndReason, Shape::REASON, NONE),
    (Field::PostNatSourceIpv4, Shape::NAT, Shape::V6),
    (Field::PostNatDestinationIpv4, Shape::NAT, Shape::V6),
    (Field::PostNatSourceIpv6, Shape::NAT.union(Shape::V6), NONE),
    (Field::PostNatDestinationIpv6, Shape::NAT.union(Shape::V6), NONE),
    (Field::PostNaptSourcePort, Shape::NAT.union(Shape::PORTS), NONE),
    (Field::PostNaptDestinationPort, Shape::NAT.union(Shape::PORTS), NONE),
    (Field::NatEvent, Shape::NAT_EVENT, NONE),
    (Field::ObservationTime, Shape::NAT_EVENT, NONE),
    (Field::IngressVrf, Shape::NETNS, NONE),
    (Field::Mark, Shape::MARK, NONE),
    (Field::ConntrackId, Shape::ID, NONE),
];

/// How a template names a field: element, length in bytes, and the enterprise
/// that has defined it, 0 for IANA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Specifier {
    element: u16,
    length: u16,
    enterprise: u32,
}

/// RFC 5103: the element is that of the reverse direction.
const REVERSE: u32 = 29305;
/// The Netfilter project, whose elements ulogd2 defines (ipfix_protocol.h).
const NETFILTER: u32 = 21373;

const fn iana(element: u16, length: u16) -> Specifier {
    Specifier { element, length, enterprise: 0 }
}

impl Field {
    const fn specifier(self) -> Specifier {
        match self {
            Self::SourceIpv4 => iana(8, 4),
            Self::DestinationIpv4 => iana(12, 4),
            Self::SourceIpv6 => iana(27, 16),
            Self::DestinationIpv6 => iana(28, 16),
            Self::Protocol => iana(4, 1),
            Self::SourcePort => iana(7, 2),
            Self::DestinationPort => iana(11, 2),
            Self::IcmpIpv4 => iana(32, 2),
            Self::IcmpIpv6 => iana(139, 2),
            // Milliseconds: nfdump 1.7.1 and pmacct 1.7.7 do not read
            // flowStartNanoseconds.
            Self::FlowStart => iana(152, 8),
            Self::FlowEnd => iana(153, 8),
            // Deltas: a flow has one record with counters, that of its end.
            Self::Octets => iana(1, 8),
            Self::Packets => iana(2, 8),
            Self::ReverseOctets => Specifier { element: 1, length: 8, enterprise: REVERSE },
            Self::ReversePackets => Specifier { element: 2, length: 8, enterprise: REVERSE },
            Self::FirewallEvent => iana(233, 1),
            Self::FlowEndReason => iana(136, 1),
            Self::PostNatSourceIpv4 => iana(225, 4),
            Self::PostNatDestinationIpv4 => iana(226, 4),
            Self::PostNatSourceIpv6 => iana(281, 16),
            Self::PostNatDestinationIpv6 => iana(282, 16),
            Self::PostNaptSourcePort => iana(227, 2),
            Self::PostNaptDestinationPort => iana(228, 2),
            Self::NatEvent => iana(230, 1),
            Self::ObservationTime => OBSERVATION_TIME,
            Self::IngressVrf => iana(234, 4),
            Self::Mark => Specifier { element: 4, length: 4, enterprise: NETFILTER },
            Self::ConntrackId => Specifier { element: 6, length: 4, enterprise: NETFILTER },
        }
    }
}

/// `flowId`, the last field of a flow: the hash that the spool has of it too.
const FLOW_ID: Specifier = iana(148, 8);

/// `observationTimeMilliseconds`
const OBSERVATION_TIME: Specifier = iana(323, 8);

/// The fields of losses (RFC 7011, 4.3), the first being their scope: the
/// exporting process, how many records it has not sent, and when the first and
/// the last of them were due.
const LOSS: [Specifier; 4] = [iana(144, 4), iana(166, 8), OBSERVATION_TIME, OBSERVATION_TIME];
const LOSS_SCOPES: u16 = 1;

/// A template.
#[derive(Debug)]
pub(super) struct Template {
    /// Its number, which is that of the sets of its records.
    pub(super) id: u16,
    /// The set that announces it.
    pub(super) set: Vec<u8>,
    /// How long its records are, without `flowId`.
    pub(super) length: usize,
    /// They have a `flowId` at their end.
    pub(super) flow_id: bool,
}

/// Sets that announce templates.
const TEMPLATE_SET: u16 = 2;
const OPTIONS_TEMPLATE_SET: u16 = 3;

impl Template {
    /// That of the number, if flowlog has one.
    pub(super) fn of(id: u16) -> Option<Self> {
        if id == LOSSES {
            let length = length(&LOSS);
            let set = set(OPTIONS_TEMPLATE_SET, id, &LOSS);
            return Some(Self { id, set, length, flow_id: false });
        }
        let shape = Shape::from_bits(id.checked_sub(FLOWS)?)?;
        let mut fields: Vec<_> = shape.fields().map(Field::specifier).collect();
        let length = length(&fields);
        fields.push(FLOW_ID);
        Some(Self { id, set: set(TEMPLATE_SET, id, &fields), length, flow_id: true })
    }

    /// How long its records are.
    pub(super) fn whole(&self) -> usize {
        self.length + if self.flow_id { usize::from(FLOW_ID.length) } else { 0 }
    }
}

fn length(fields: &[Specifier]) -> usize {
    fields.iter().map(|field| usize::from(field.length)).sum()
}

/// The set that announces a template of those fields.
fn set(kind: u16, id: u16, fields: &[Specifier]) -> Vec<u8> {
    let mut set = Vec::new();
    put(kind, &mut set);
    put(0, &mut set);
    put(id, &mut set);
    put(fields.len() as u16, &mut set);
    if kind == OPTIONS_TEMPLATE_SET {
        put(LOSS_SCOPES, &mut set);
    }
    for Specifier { element, length, enterprise } in fields {
        let foreign = u16::from(*enterprise != 0) << 15;
        put(element | foreign, &mut set);
        put(*length, &mut set);
        if foreign != 0 {
            set.extend_from_slice(&enterprise.to_be_bytes());
        }
    }
    let whole = set.len() as u16;
    set[2..4].copy_from_slice(&whole.to_be_bytes());
    set
}

fn put(number: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&number.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fields_stand_in_the_layout_once() {
        for (index, (field, _, _)) in LAYOUT.iter().enumerate() {
            assert_eq!(*field as usize, index, "{field:?}");
        }
        assert_eq!(Field::ConntrackId as usize + 1, LAYOUT.len(), "the last one is the last");
    }

    #[test]
    fn a_template_is_announced_as_rfc_7011_has_it() {
        let shape = Shape::PORTS | Shape::COUNTERS;
        let template = Template::of(shape.template()).expect("a shape has a template");
        assert_eq!(template.length, 4 + 4 + 1 + 2 + 2 + 8 + 4 * 8 + 1);
        assert_eq!(template.whole(), template.length + 8);
        #[rustfmt::skip]
        let expected = [
            2, 64,
            257 + 0b100_1000, 12,
            8, 4, 12, 4, 4, 1, 7, 2, 11, 2, 153, 8, 1, 8, 2, 8,
            0x8001, 8, 0, 29305,
            0x8002, 8, 0, 29305,
            233, 1, 148, 8,
        ];
        let words: Vec<_> =
            template.set.chunks(2).map(|word| u16::from_be_bytes([word[0], word[1]])).collect();
        assert_eq!(words, expected);
    }

    #[test]
    fn the_number_of_a_template_says_what_it_has() {
        for bits in 0..=Shape::all().bits() {
            let id = FLOWS + bits;
            assert_eq!(Template::of(id).map(|template| template.id), Some(id));
        }
    }

    #[test]
    fn losses_are_options_of_the_exporting_process() {
        let template = Template::of(LOSSES).expect("it is there");
        #[rustfmt::skip]
        let expected = [
            0, 3, 0, 26, 1, 0, 0, 4, 0, 1, 0, 144, 0, 4, 0, 166, 0, 8, 1, 67, 0, 8, 1, 67, 0, 8,
        ];
        assert_eq!(template.set, expected);
        assert_eq!((template.length, template.whole()), (28, 28));
    }

    #[test]
    fn a_number_that_flowlog_does_not_give_has_no_template() {
        assert!(Template::of(255).is_none());
        assert!(Template::of(FLOWS + Shape::all().bits() + 1).is_none());
        assert!(Template::of(u16::MAX).is_none());
    }
}
