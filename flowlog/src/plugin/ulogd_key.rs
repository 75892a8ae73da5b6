//! The keys of a flow as ulogd2 names them, for the sinks whose columns have these
//! names, with `_` in place of `.`.

/// A direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Orig,
    Reply,
}

/// An end of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Source,
    Destination,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Family,
    OobProtocol,
    Address(Direction, End),
    Protocol(Direction),
    Port(Direction, End),
    Bytes(Direction),
    Packets(Direction),
    IcmpCode,
    IcmpType,
    Mark,
    Id,
    Event,
    StartSeconds,
    StartMicroseconds,
    EndSeconds,
    EndMicroseconds,
    /// The address as text, IP2STR's.
    Text(Direction, End),
    /// The line of PRINTFLOW.
    Print,
}

use Direction::{Orig, Reply};
use End::{Destination, Source};

const KEYS: [(&str, Key); 30] = [
    ("oob.family", Key::Family),
    ("oob.protocol", Key::OobProtocol),
    ("orig.ip.saddr", Key::Address(Orig, Source)),
    ("orig.ip.daddr", Key::Address(Orig, Destination)),
    ("orig.ip.protocol", Key::Protocol(Orig)),
    ("orig.l4.sport", Key::Port(Orig, Source)),
    ("orig.l4.dport", Key::Port(Orig, Destination)),
    ("orig.raw.pktlen", Key::Bytes(Orig)),
    ("orig.raw.pktcount", Key::Packets(Orig)),
    ("reply.ip.saddr", Key::Address(Reply, Source)),
    ("reply.ip.daddr", Key::Address(Reply, Destination)),
    ("reply.ip.protocol", Key::Protocol(Reply)),
    ("reply.l4.sport", Key::Port(Reply, Source)),
    ("reply.l4.dport", Key::Port(Reply, Destination)),
    ("reply.raw.pktlen", Key::Bytes(Reply)),
    ("reply.raw.pktcount", Key::Packets(Reply)),
    ("icmp.code", Key::IcmpCode),
    ("icmp.type", Key::IcmpType),
    ("ct.mark", Key::Mark),
    ("ct.id", Key::Id),
    ("ct.event", Key::Event),
    ("flow.start.sec", Key::StartSeconds),
    ("flow.start.usec", Key::StartMicroseconds),
    ("flow.end.sec", Key::EndSeconds),
    ("flow.end.usec", Key::EndMicroseconds),
    ("orig.ip.saddr.str", Key::Text(Orig, Source)),
    ("orig.ip.daddr.str", Key::Text(Orig, Destination)),
    ("reply.ip.saddr.str", Key::Text(Reply, Source)),
    ("reply.ip.daddr.str", Key::Text(Reply, Destination)),
    ("print", Key::Print),
];

impl Key {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        KEYS.iter().map(|(_, key)| *key)
    }

    /// What a column of that name holds; none: it is no key that a flow has.
    pub(super) fn of_column(column: &str) -> Option<Self> {
        let name = column.replace('_', ".");
        KEYS.iter().find(|(known, _)| *known == name).map(|(_, key)| *key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::catalog;

    #[test]
    fn each_key_of_a_stack_may_be_a_column() {
        for plugin in ["NFCT", "IP2STR", "PRINTFLOW"] {
            for name in catalog::plugin(plugin).unwrap().provides {
                let column = name.replace('.', "_");
                assert!(Key::of_column(&column).is_some(), "{plugin} provides {name}");
            }
        }
        assert_eq!(Key::of_column("ct_label"), None);
    }
}
