//! A row of an archive → what it was made of. Archives differ in where they have
//! a value, and in how they tell the reply tuple.

use std::net::IpAddr;

use crate::event::{Cause, Comm, End, Kinds, Process, Witness};
use crate::flow::{
    Counters, Family, Flow, HelperName, Netns, Status, Tuple, names, proto as protocol,
};
use crate::plugin::record_id::{Identifier, RecordId};
use crate::plugin::{Body, Item};

/// A row: its values by the names of their columns, which are those of SQLITE3.
pub(super) trait Row {
    /// A number that is not null.
    fn number(&self, column: &str) -> Option<u64>;
    /// A text that is not null.
    fn text(&self, column: &str) -> Option<&str>;
    /// The connection's labels.
    fn labels(&self) -> Option<[u8; 16]>;
    /// The tuple of answers to `orig`.
    fn reply(&self, orig: &Tuple) -> Option<Tuple>;
    /// What tells the record from others.
    fn id(&self, record: &Record) -> RecordId;
}

/// An event of a connection.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Record {
    /// What tells it from others; its time is when it happened.
    pub(super) id: RecordId,
    pub(super) kinds: Kinds,
    /// With its start, where that is known.
    pub(super) flow: Flow,
    /// When the connection ended, if it did.
    pub(super) end: Option<u64>,
    pub(super) how: Option<End>,
    pub(super) witness: Witness,
}

impl Record {
    /// Reads a row of a connection; nothing if it makes no sense.
    pub(super) fn read(row: &impl Row) -> Option<Self> {
        let orig = end_to_end(row, ["orig_src", "orig_sport", "orig_dst", "orig_dport"])?;
        let flow = Flow { reply: row.reply(&orig)?, ..flow(row, orig) };
        let how = row.text("cause").and_then(cause).map(|cause| End {
            cause,
            portid: small(row, "portid"),
            process: small(row, "pid").map(|pid| Process {
                pid,
                comm: Comm::new(row.text("comm").unwrap_or_default().as_bytes()),
            }),
        });
        let mut record = Self {
            id: RecordId { time: row.number("time")?, hash: 0 },
            kinds: kinds(row.text("kind")?),
            flow,
            end: row.number("stop"),
            how,
            witness: witness(row.text("witness")),
        };
        record.id = row.id(&record);
        Some(record)
    }

    /// The record id, of a host whose ids are given by `identifier`.
    pub(super) fn identified_by(&self, identifier: &Identifier) -> RecordId {
        let Self { id, kinds, flow, end, how, witness } = self;
        let body = Body::Flow {
            flow,
            start: flow.start,
            end: *end,
            how: how.as_ref(),
            counted: false,
            witness: *witness,
        };
        identifier.id(&Item { tag: *kinds, at: id.time, body })
    }

    /// It tells the end of its connection.
    pub(super) fn is_end(&self) -> bool {
        self.kinds.intersects(Kinds::DESTROY | Kinds::GC)
    }
}

fn flow(row: &impl Row, orig: Tuple) -> Flow {
    let counters = |packets, bytes| {
        Some(Counters { packets: row.number(packets)?, bytes: row.number(bytes)? })
    };
    let sent = counters("orig_packets", "orig_bytes");
    let answered = counters("reply_packets", "reply_bytes");
    let master = ["master_src", "master_sport", "master_dst", "master_dport"];
    Flow {
        orig,
        status: Status::from_bits_retain(small(row, "status").unwrap_or_default()),
        counters: sent.zip(answered).map(|(sent, answered)| [sent, answered]),
        zone: small(row, "zone").unwrap_or_default(),
        mark: small(row, "mark").unwrap_or_default(),
        id: small(row, "ct_id"),
        start: row.number("start"),
        l4_state: row.text("state").and_then(|state| names::state_number(orig.proto, state)),
        helper: row.text("helper").map(|name| HelperName::new(name.as_bytes())),
        labels: row.labels(),
        master: end_to_end(row, master).map(|tuple| Tuple {
            proto: small(row, "master_protocol").unwrap_or(orig.proto),
            ..tuple
        }),
        netns: small(row, "netns_inode")
            .map(|inum| Netns { cookie: row.number("netns_cookie"), inum }),
        ..Flow::default()
    }
}

/// The tuple in four columns. Of ICMP type and code are those of the message
/// that opened the connection.
pub(super) fn end_to_end(row: &impl Row, columns: [&str; 4]) -> Option<Tuple> {
    let [src, src_l4, dst, dst_l4] = columns;
    let (family, src) = address(row.text(src)?)?;
    let (_, dst) = address(row.text(dst)?)?;
    let proto = small(row, "protocol")?;
    let port = |column| small(row, column).unwrap_or_default();
    let dst_l4 = if is_icmp(proto) {
        let part = |column| small::<u8>(row, column).unwrap_or_default();
        u16::from_be_bytes([part("icmp_type"), part("icmp_code")])
    } else {
        port(dst_l4)
    };
    Some(Tuple { family, proto, src, dst, src_l4: port(src_l4), dst_l4 })
}

pub(super) fn is_icmp(proto: u8) -> bool {
    matches!(proto, protocol::ICMP | protocol::ICMPV6)
}

/// Type and code of the message that answers: `icmp_invert_tuple`,
/// net/netfilter/nf_conntrack_proto_icmp.c and nf_conntrack_proto_icmpv6.c (6.12).
pub(super) fn icmp_answer(proto: u8, type_and_code: u16) -> u16 {
    let [kind, code] = type_and_code.to_be_bytes();
    let answer = match (proto, kind) {
        (protocol::ICMP, 0) => 8,
        (protocol::ICMP, 8) => 0,
        // Timestamp, information and address mask: each request is odd.
        (protocol::ICMP, 13 | 15 | 17) | (protocol::ICMPV6, 139) => kind + 1,
        (protocol::ICMP, 14 | 16 | 18) | (protocol::ICMPV6, 129 | 140) => kind - 1,
        (protocol::ICMPV6, 128) => 129,
        _ => kind,
    };
    u16::from_be_bytes([answer, code])
}

pub(super) fn address(text: &str) -> Option<(Family, [u8; 16])> {
    match text.parse().ok()? {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            Some((Family::V4, bytes))
        }
        IpAddr::V6(address) => Some((Family::V6, address.octets())),
    }
}

/// A number that fits.
pub(super) fn small<T: TryFrom<u64>>(row: &impl Row, column: &str) -> Option<T> {
    T::try_from(row.number(column)?).ok()
}

pub(super) fn kinds(text: &str) -> Kinds {
    let one = |word: &str| {
        let named = Kinds::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(word));
        named.map_or(Kinds::empty(), |(kind, _)| *kind)
    };
    text.split(',').map(one).collect()
}

fn cause(name: &str) -> Option<Cause> {
    Cause::ALL.into_iter().find(|cause| cause.name() == name)
}

fn witness(name: Option<&str>) -> Witness {
    let all = [Witness::Both, Witness::Ebpf, Witness::Healed];
    all.into_iter().find(|witness| witness.name() == name).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert_eq!(kinds("update,assured"), Kinds::UPDATE | Kinds::ASSURED);
        assert_eq!(kinds("lost"), Kinds::empty());
        for cause in Cause::ALL {
            assert_eq!(super::cause(cause.name()), Some(cause));
        }
        for witness in [Witness::Single, Witness::Both, Witness::Ebpf, Witness::Healed] {
            assert_eq!(super::witness(witness.name()), witness);
        }
    }

    #[test]
    fn pings_are_answered_and_answers_asked() {
        for (proto, request, answer) in [(1, 8, 0), (1, 13, 14), (1, 17, 18), (58, 128, 129)] {
            let (request, answer) = (request << 8 | 5, answer << 8 | 5);
            assert_eq!(icmp_answer(proto, request), answer);
            assert_eq!(icmp_answer(proto, answer), request);
        }
        assert_eq!((icmp_answer(1, 3 << 8), icmp_answer(58, 8 << 8)), (3 << 8, 8 << 8));
    }
}
