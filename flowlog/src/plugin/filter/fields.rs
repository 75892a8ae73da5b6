//! The one list of fields that an expression may name: those of JSON with
//! schema=full, and short names for what is asked most. The checker, the page
//! docs/filter.md and the test against docs/flow.schema.json read it.

use self::get::*;
use super::value::{Type, Value, Words};
use crate::flow::{Tuple, names, proto};
use crate::plugin::{Body, Item};

mod get;

/// A field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name, with dots.
    pub name: String,
    /// What it is.
    pub kind: Type,
    /// What it means.
    pub help: &'static str,
    /// Where it stands in an event.
    pub get: Get,
}

/// Where a value stands in an event.
#[derive(Clone, Copy, Debug)]
pub enum Get {
    /// In a tuple.
    Tuple(Direction, Member),
    /// The protocol's number, of the original tuple.
    Protocol,
    /// The protocol's name.
    ProtocolName,
    /// Elsewhere.
    Item(for<'a> fn(&Item<'a>) -> Option<Value<'a>>),
}

/// A tuple of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Of the original direction; of an expectation what is expected.
    Orig,
    /// Of the reply direction.
    Reply,
    /// Of the connection that expected this one.
    Master,
}

/// What stands in a tuple.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// Source address.
    Src,
    /// Destination address.
    Dst,
    /// Source port.
    SourcePort,
    /// Destination port.
    DestinationPort,
    /// GRE key of the source.
    SourceKey,
    /// GRE key of the destination.
    DestinationKey,
    /// ICMP type.
    IcmpType,
    /// ICMP code.
    IcmpCode,
    /// ICMP identifier.
    IcmpId,
}

const DIRECTIONS: [(&str, Direction); 3] =
    [("orig", Direction::Orig), ("reply", Direction::Reply), ("master", Direction::Master)];

const MEMBERS: [(&str, Member, &str); 9] = [
    ("src", Member::Src, "source address"),
    ("dst", Member::Dst, "destination address"),
    ("sport", Member::SourcePort, "source port: TCP, UDP, UDP-Lite, SCTP, DCCP"),
    ("dport", Member::DestinationPort, "destination port"),
    ("srckey", Member::SourceKey, "GRE key of the source"),
    ("dstkey", Member::DestinationKey, "GRE key of the destination"),
    ("type", Member::IcmpType, "type of ICMP and ICMPv6"),
    ("code", Member::IcmpCode, "code of ICMP and ICMPv6"),
    ("id", Member::IcmpId, "identifier of ICMP and ICMPv6"),
];

const WITH_PORTS: &[u8] = &[proto::TCP, proto::UDP, proto::UDPLITE, proto::SCTP, proto::DCCP];
const WITH_KEYS: &[u8] = &[proto::GRE];
const WITH_TYPES: &[u8] = &[proto::ICMP, proto::ICMPV6];

impl Member {
    /// The protocols whose tuples have it; absent: all.
    pub(super) fn protocols(self) -> Option<&'static [u8]> {
        match self {
            Self::Src | Self::Dst => None,
            Self::SourcePort | Self::DestinationPort => Some(WITH_PORTS),
            Self::SourceKey | Self::DestinationKey => Some(WITH_KEYS),
            Self::IcmpType | Self::IcmpCode | Self::IcmpId => Some(WITH_TYPES),
        }
    }

    fn kind(self) -> Type {
        match self {
            Self::Src | Self::Dst => Type::Address,
            _ => Type::Int,
        }
    }

    #[inline]
    fn of(self, tuple: &Tuple) -> Option<Value<'static>> {
        if !self.protocols().is_none_or(|protocols| protocols.contains(&tuple.proto)) {
            return None;
        }
        Some(match self {
            Self::Src => Value::Address(tuple.family, tuple.src),
            Self::Dst => Value::Address(tuple.family, tuple.dst),
            Self::SourcePort | Self::SourceKey | Self::IcmpId => Value::Int(tuple.src_l4.into()),
            Self::DestinationPort | Self::DestinationKey => Value::Int(tuple.dst_l4.into()),
            Self::IcmpType => Value::Int(tuple.icmp_type().into()),
            Self::IcmpCode => Value::Int(tuple.icmp_code().into()),
        })
    }
}

impl Direction {
    #[inline]
    fn of<'a>(self, item: &Item<'a>) -> Option<&'a Tuple> {
        match (self, item.body) {
            (Self::Orig, Body::Flow { flow, .. }) => Some(&flow.orig),
            (Self::Reply, Body::Flow { flow, .. }) => Some(&flow.reply),
            (Self::Master, Body::Flow { flow, .. }) => flow.master.as_ref(),
            (Self::Orig, Body::Expectation(expectation)) => Some(&expectation.tuple),
            (Self::Master, Body::Expectation(expectation)) => Some(&expectation.master),
            (Self::Reply, Body::Expectation(_)) | (_, Body::Lost(_)) => None,
        }
    }
}

impl Get {
    /// The value in `item`; absent where nobody knows it.
    #[inline]
    pub(super) fn of<'a>(&self, item: &Item<'a>) -> Option<Value<'a>> {
        match self {
            Self::Tuple(direction, member) => member.of(direction.of(item)?),
            Self::Protocol => Some(Value::Int(Direction::Orig.of(item)?.proto.into())),
            Self::ProtocolName => names::protocol(Direction::Orig.of(item)?.proto).map(text),
            Self::Item(get) => get(item),
        }
    }
}

/// A name, what it is, what it means and where it stands.
type Row = (&'static str, Type, &'static str, Get);

/// Fields that are in no tuple.
const ROWS: &[Row] = &[
    ("src.ip", Type::Address, "`orig.src`", Get::Tuple(Direction::Orig, Member::Src)),
    ("src.port", Type::Int, "`orig.sport`", Get::Tuple(Direction::Orig, Member::SourcePort)),
    ("dst.ip", Type::Address, "`orig.dst`", Get::Tuple(Direction::Orig, Member::Dst)),
    ("dst.port", Type::Int, "`orig.dport`", Get::Tuple(Direction::Orig, Member::DestinationPort)),
    ("proto", Type::Word(Words::Protocols), "`protocol.name`", Get::ProtocolName),
    (
        "protocol.name",
        Type::Word(Words::Protocols),
        "the protocol, if it has one of these names",
        Get::ProtocolName,
    ),
    ("protocol.number", Type::Int, "the protocol's number", Get::Protocol),
    (
        "kind",
        Type::Word(Words::Kinds),
        "the first of `kinds`, in the order of this list",
        Get::Item(|item| kind(item.tag)),
    ),
    (
        "kinds",
        Type::Set(Words::Kinds),
        "what happened; by one kernel event several things may happen",
        Get::Item(|item| Some(Value::Set(item.tag.bits()))),
    ),
    ("type", Type::Word(Words::Records), "what it is about", Get::Item(|item| type_of(item))),
    (
        "action",
        Type::Word(Words::Actions),
        "what happened to an expectation",
        Get::Item(|item| action(item)),
    ),
    ("time", Type::Time, "when it happened", Get::Item(|item| Some(time(item.at)))),
    ("start", Type::Time, "when the flow began", Get::Item(|item| times(item)[0].map(time))),
    ("end", Type::Time, "when it ended, or expired", Get::Item(|item| times(item)[1].map(time))),
    ("duration", Type::Duration, "from `start` to `end`", Get::Item(|item| duration(item))),
    (
        "family",
        Type::Word(Words::Families),
        "the family of the addresses",
        Get::Item(|item| family(item).map(|family| text(names::family(family)))),
    ),
    (
        "state",
        Type::Word(Words::States),
        "the protocol's own state: TCP, SCTP, DCCP",
        Get::Item(|item| state(item)),
    ),
    (
        "status",
        Type::Set(Words::Status),
        "status bits that are set",
        Get::Item(|item| flow(item).map(|flow| Value::Set(flow.status.bits()))),
    ),
    (
        "cause",
        Type::Word(Words::Causes),
        "why the flow ended; by eBPF, over netlink `lost` and `netns_gone` at most",
        Get::Item(|item| how(item).map(|how| text(how.cause.name()))),
    ),
    (
        "portid",
        Type::Int,
        "netlink port of the socket over which its end was asked for",
        Get::Item(|item| how(item)?.portid.map(|portid| int(portid.into()))),
    ),
    (
        "process.pid",
        Type::Int,
        "the process that asked for its end",
        Get::Item(|item| how(item)?.process.map(|process| int(process.pid.into()))),
    ),
    (
        "process.comm",
        Type::Text,
        "its name",
        Get::Item(|item| {
            how(item)?.process.as_ref().map(|process| Value::Text(process.comm.as_bytes()))
        }),
    ),
    (
        "witness",
        Type::Word(Words::Witnesses),
        "who told it, where two sources are compared",
        Get::Item(|item| witness(item)),
    ),
    ("mark", Type::Int, "the mark", Get::Item(|item| flow(item).map(|flow| int(flow.mark.into())))),
    (
        "zone",
        Type::Int,
        "the conntrack zone, 0 by default",
        Get::Item(|item| zone(item).map(|zone| int(zone.into()))),
    ),
    (
        "reply_zone",
        Type::Int,
        "that of the reply direction, where it is another",
        Get::Item(|item| flow(item)?.reply_zone.map(|zone| int(zone.into()))),
    ),
    (
        "secctx",
        Type::Text,
        "the security context; over netlink",
        Get::Item(|item| flow(item)?.secctx.as_ref().map(|text| Value::Text(text.as_bytes()))),
    ),
    (
        "timeout",
        Type::Int,
        "seconds until the entry expires",
        Get::Item(|item| flow(item)?.timeout.map(|timeout| int(timeout.into()))),
    ),
    (
        "id",
        Type::Int,
        "the kernel's id of the entry; over netlink",
        Get::Item(|item| flow(item)?.id.map(|id| int(id.into()))),
    ),
    (
        "use",
        Type::Int,
        "references held on it; in dumps",
        Get::Item(|item| flow(item)?.uses.map(|uses| int(uses.into()))),
    ),
    ("helper", Type::Text, "the helper, such as ftp", Get::Item(helper)),
    (
        "labels",
        Type::Labels,
        "connection labels, 32 hexadecimal digits",
        Get::Item(|item| flow(item)?.labels.map(Value::Labels)),
    ),
    (
        "netns.inum",
        Type::Int,
        "inode number of the network namespace; by eBPF",
        Get::Item(|item| netns(item).map(|netns| int(netns.inum.into()))),
    ),
    (
        "netns.cookie",
        Type::Int,
        "its cookie, never used again; by eBPF",
        Get::Item(|item| netns(item)?.cookie.map(int)),
    ),
    (
        "packets",
        Type::Int,
        "packets of both directions",
        Get::Item(|item| sum(item, |counters| counters.packets)),
    ),
    (
        "bytes",
        Type::Int,
        "bytes of both directions, from the IP header on",
        Get::Item(|item| sum(item, |counters| counters.bytes)),
    ),
    (
        "orig.packets",
        Type::Int,
        "packets of the original direction",
        Get::Item(|item| counters(item).map(|[sent, _]| int(sent.packets))),
    ),
    (
        "orig.bytes",
        Type::Int,
        "its bytes",
        Get::Item(|item| counters(item).map(|[sent, _]| int(sent.bytes))),
    ),
    (
        "reply.packets",
        Type::Int,
        "packets of the reply direction",
        Get::Item(|item| counters(item).map(|[_, answered]| int(answered.packets))),
    ),
    (
        "reply.bytes",
        Type::Int,
        "its bytes",
        Get::Item(|item| counters(item).map(|[_, answered]| int(answered.bytes))),
    ),
];

/// All fields.
pub fn all() -> Vec<Field> {
    let rows = ROWS.iter().map(|(name, kind, help, get)| Field {
        name: (*name).to_owned(),
        kind: *kind,
        help,
        get: *get,
    });
    let tuples = DIRECTIONS.into_iter().flat_map(|(prefix, direction)| {
        MEMBERS.into_iter().map(move |(name, member, help)| Field {
            name: format!("{prefix}.{name}"),
            kind: member.kind(),
            help,
            get: Get::Tuple(direction, member),
        })
    });
    rows.chain(tuples).collect()
}
