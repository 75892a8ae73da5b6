//! Requests to ctnetlink: dump the table, look entries up. Replies are read
//! from a socket of their own, so that they never compete with events.

use netlink_packet_core::{
    DefaultNla, Emitable as _, NLA_F_NESTED, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{ConntrackAttribute, ConntrackMessage};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};

use crate::capture::{DumpKind, FlowKey};
use crate::flow::{Family, Tuple, proto};

/// `IPCTNL_MSG_CT_GET_CTRZERO`: a dump that also resets the counters.
const GET_CTRZERO: u8 = 3;
/// `CTA_TUPLE_ORIG`
const CTA_TUPLE_ORIG: u16 = 1;
/// `CTA_ZONE`
const CTA_ZONE: u16 = 18;

/// A request for the whole table.
pub(super) fn dump(kind: DumpKind, seq: u32) -> Vec<u8> {
    let inner = match kind {
        DumpKind::Read => ConntrackMessage::Get(vec![]),
        DumpKind::ReadAndReset => {
            ConntrackMessage::Other { message_type: GET_CTRZERO, attributes: vec![] }
        }
    };
    request(NetfilterProtoFamily::Unspec, 0, inner, NLM_F_REQUEST | NLM_F_DUMP, seq)
}

/// A request for one entry.
pub(in crate::capture) fn get(key: &FlowKey, seq: u32) -> Vec<u8> {
    let family = match key.orig.family {
        Family::V4 => NetfilterProtoFamily::IPv4,
        Family::V6 => NetfilterProtoFamily::IPv6,
    };
    let mut attributes = vec![ConntrackAttribute::Other(tuple(&key.orig))];
    if key.zone != 0 {
        attributes.push(ConntrackAttribute::Other(plain(CTA_ZONE, &key.zone.to_be_bytes())));
    }
    request(family, 0, ConntrackMessage::Get(attributes), NLM_F_REQUEST, seq)
}

/// `CTA_TUPLE_ORIG`. The attributes differ by protocol as in the kernel's
/// `nlattr_to_tuple` functions.
fn tuple(tuple: &Tuple) -> DefaultNla {
    let ip = match tuple.family {
        Family::V4 => [plain(1, &tuple.src[..4]), plain(2, &tuple.dst[..4])],
        Family::V6 => [plain(3, &tuple.src), plain(4, &tuple.dst)],
    };
    let mut l4 = vec![plain(1, &[tuple.proto])];
    let (id, kind, code) = if tuple.proto == proto::ICMPV6 { (7, 8, 9) } else { (4, 5, 6) };
    match tuple.proto {
        proto::ICMP | proto::ICMPV6 => l4.extend([
            plain(id, &tuple.src_l4.to_be_bytes()),
            plain(kind, &[tuple.icmp_type()]),
            plain(code, &[tuple.icmp_code()]),
        ]),
        _ => l4
            .extend([plain(2, &tuple.src_l4.to_be_bytes()), plain(3, &tuple.dst_l4.to_be_bytes())]),
    }
    nested(CTA_TUPLE_ORIG, &[nested(1, &ip), nested(2, &l4)])
}

/// An attribute that holds a value.
pub(crate) fn plain(kind: u16, value: &[u8]) -> DefaultNla {
    DefaultNla::new(kind, value.to_vec())
}

/// An attribute that holds attributes.
pub(crate) fn nested(kind: u16, parts: &[DefaultNla]) -> DefaultNla {
    let mut bytes = vec![0; parts.buffer_len()];
    parts.emit(&mut bytes);
    DefaultNla::new(kind | NLA_F_NESTED, bytes)
}

/// The bytes of a request.
pub(crate) fn request(
    family: NetfilterProtoFamily,
    resource: u16,
    inner: impl Into<NetfilterMessageInner>,
    flags: u16,
    seq: u32,
) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = seq;
    let payload = NetfilterMessage::new(NetfilterHeader::new(family, 0, resource), inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(payload));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}
