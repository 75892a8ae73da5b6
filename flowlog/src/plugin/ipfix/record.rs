//! An item → a data record: the number of its template, and its fields. So it
//! waits on disk, and so it stands in a message.

use super::template::{Field, LOSSES, Shape};
use crate::event::{Cause, End, Kinds};
use crate::flow::{Counters, Family, Flow, names, proto};

/// An event of a flow.
#[derive(Clone, Copy, Debug)]
pub(super) struct FlowRecord<'a> {
    pub(super) flow: &'a Flow,
    pub(super) tag: Kinds,
    /// When it happened, nanoseconds since the epoch, as both others.
    pub(super) at: u64,
    pub(super) start: Option<u64>,
    pub(super) end: Option<u64>,
    pub(super) how: Option<&'a End>,
    /// Beginning and end of a translated flow are NAT events.
    pub(super) nat_events: bool,
}

/// Values of `firewallEvent`.
mod firewall_event {
    pub(super) const CREATED: u8 = 1;
    pub(super) const DELETED: u8 = 2;
    pub(super) const UPDATE: u8 = 5;
}

/// Values of `natEvent`.
mod nat_event {
    pub(super) const NAT44_SESSION_CREATE: u8 = 4;
    pub(super) const NAT44_SESSION_DELETE: u8 = 5;
}

/// Values of `flowEndReason`.
mod end_reason {
    pub(super) const IDLE_TIMEOUT: u8 = 1;
    pub(super) const END_OF_FLOW: u8 = 3;
    pub(super) const FORCED: u8 = 4;
    pub(super) const LACK_OF_RESOURCES: u8 = 5;
}

impl FlowRecord<'_> {
    /// Appends it.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let shape = self.shape();
        out.extend_from_slice(&shape.template().to_be_bytes());
        for field in shape.fields() {
            self.field(field, out);
        }
    }

    fn shape(&self) -> Shape {
        let Flow { orig, counters, mark, id, netns, .. } = self.flow;
        let v6 = orig.family == Family::V6;
        let (source, destination) = self.flow.translated();
        let nat = source || destination;
        let mut shape = Shape::empty();
        shape.set(Shape::V6, v6);
        shape.set(Shape::NAT, nat);
        // RFC 8158 has no event for the translation of IPv6 to IPv6.
        let bound = self.firewall_event() != firewall_event::UPDATE;
        shape.set(Shape::NAT_EVENT, self.nat_events && nat && !v6 && bound);
        shape.set(Shape::PORTS, orig.has_ports());
        shape.set(Shape::ICMP, matches!(orig.proto, proto::ICMP | proto::ICMPV6));
        shape.set(Shape::START, self.start().is_some());
        // Those of its end are the only ones of a flow, so they are deltas.
        shape.set(Shape::COUNTERS, self.end.is_some() && counters.is_some());
        shape.set(Shape::REASON, self.reason().is_some());
        shape.set(Shape::NETNS, netns.is_some());
        shape.set(Shape::MARK, *mark != 0);
        shape.set(Shape::ID, id.is_some());
        shape
    }

    #[inline]
    fn field(&self, field: Field, out: &mut Vec<u8>) {
        let Flow { orig, reply, counters, mark, id, netns, .. } = self.flow;
        let [sent, answered] = counters.unwrap_or_default();
        let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
        match field {
            Field::SourceIpv4 => put(&orig.src[..4]),
            Field::DestinationIpv4 => put(&orig.dst[..4]),
            Field::SourceIpv6 => put(&orig.src),
            Field::DestinationIpv6 => put(&orig.dst),
            Field::Protocol => put(&[orig.proto]),
            Field::SourcePort => put(&orig.src_l4.to_be_bytes()),
            // Of ICMP its type and code.
            Field::DestinationPort | Field::IcmpIpv4 | Field::IcmpIpv6 => {
                put(&orig.dst_l4.to_be_bytes());
            }
            Field::FlowStart => put(&milliseconds(self.start().unwrap_or_default())),
            // Of a flow that goes on: when it was seen last.
            Field::FlowEnd => put(&milliseconds(self.end.unwrap_or(self.at))),
            Field::Octets => put(&octets(sent)),
            Field::Packets => put(&packets(sent)),
            Field::ReverseOctets => put(&octets(answered)),
            Field::ReversePackets => put(&packets(answered)),
            Field::FirewallEvent => put(&[self.firewall_event()]),
            Field::FlowEndReason => put(&[self.reason().unwrap_or_default()]),
            Field::PostNatSourceIpv4 => put(&reply.dst[..4]),
            Field::PostNatDestinationIpv4 => put(&reply.src[..4]),
            Field::PostNatSourceIpv6 => put(&reply.dst),
            Field::PostNatDestinationIpv6 => put(&reply.src),
            Field::PostNaptSourcePort => put(&reply.dst_l4.to_be_bytes()),
            Field::PostNaptDestinationPort => put(&reply.src_l4.to_be_bytes()),
            Field::NatEvent => put(&[self.nat_event()]),
            Field::ObservationTime => put(&milliseconds(self.at)),
            Field::IngressVrf => put(&netns.map_or(0, |netns| netns.inum).to_be_bytes()),
            Field::Mark => put(&mark.to_be_bytes()),
            Field::ConntrackId => put(&id.unwrap_or_default().to_be_bytes()),
        }
    }

    /// When the flow began. Netlink does not tell it with the beginning itself.
    fn start(&self) -> Option<u64> {
        self.start.or(self.tag.contains(Kinds::NEW).then_some(self.at))
    }

    fn firewall_event(&self) -> u8 {
        if self.end.is_some() {
            firewall_event::DELETED
        } else if self.tag.contains(Kinds::NEW) {
            firewall_event::CREATED
        } else {
            firewall_event::UPDATE
        }
    }

    fn nat_event(&self) -> u8 {
        match self.end {
            Some(_) => nat_event::NAT44_SESSION_DELETE,
            None => nat_event::NAT44_SESSION_CREATE,
        }
    }

    /// Why the flow ended, where it is known. Netlink tells it of TCP only, by
    /// the last state.
    fn reason(&self) -> Option<u8> {
        self.end?;
        let Flow { orig, l4_state, .. } = self.flow;
        let state = l4_state.and_then(|state| names::state(orig.proto, state));
        let closed = orig.proto == proto::TCP && matches!(state, Some("TIME_WAIT" | "CLOSE"));
        let expired = if closed { end_reason::END_OF_FLOW } else { end_reason::IDLE_TIMEOUT };
        match self.how.map(|how| how.cause) {
            Some(Cause::ExpiredGc | Cause::ExpiredLookup) => Some(expired),
            Some(Cause::EarlyDrop) => Some(end_reason::LACK_OF_RESOURCES),
            Some(Cause::Deleted | Cause::Flushed | Cause::NetnsGone) => Some(end_reason::FORCED),
            Some(Cause::TcpReopened | Cause::Reset) => Some(end_reason::END_OF_FLOW),
            Some(Cause::NatClash | Cause::Lost | Cause::Other) | None => {
                closed.then_some(end_reason::END_OF_FLOW)
            }
        }
    }
}

fn milliseconds(nanoseconds: u64) -> [u8; 8] {
    (nanoseconds / 1_000_000).to_be_bytes()
}

fn octets(counters: Counters) -> [u8; 8] {
    counters.bytes.to_be_bytes()
}

fn packets(counters: Counters) -> [u8; 8] {
    counters.packets.to_be_bytes()
}

/// All losses so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    events: u64,
    /// When the first and the last were told, nanoseconds since the epoch.
    first: Option<u64>,
    last: u64,
}

impl Losses {
    /// Adds a loss.
    pub(super) fn add(&mut self, events: u64, at: u64) {
        self.events = self.events.saturating_add(events);
        self.first.get_or_insert(at);
        self.last = at;
    }

    /// Appends the record of them, of the exporting process with that number.
    pub(super) fn write(&self, process: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&LOSSES.to_be_bytes());
        out.extend_from_slice(&process.to_be_bytes());
        out.extend_from_slice(&self.events.to_be_bytes());
        out.extend_from_slice(&milliseconds(self.first.unwrap_or_default()));
        out.extend_from_slice(&milliseconds(self.last));
    }
}
