//! The stable id of a record, computed here and nowhere else: whoever gets a
//! record twice, by a sink that sends again what nobody has confirmed, can tell.
//!
//! It has two halves of 64 bits. The first is the time of the record, so that
//! ids grow as records do, and an index of them is written at its end. The
//! second is FNV-1a (64 bits) over what tells records of the same nanosecond
//! apart, in this order, numbers little-endian, absent ones as 0:
//!
//! * the host: the text of /etc/machine-id, or the host's name where it has none
//! * a letter: `F` flow, `E` expectation, `L` loss
//! * of a flow: kinds (u32, as in `event_mask`), namespace, start (u64), the
//!   original and the reply tuple, zone (u16), `ct.id` (u32), status (u32), state
//!   of the protocol (u8), mark (u32)
//! * of an expectation: action (u8), namespace, expected tuple, master's tuple,
//!   zone (u16)
//! * of a loss: the source's name, number of events (u64)
//!
//! A namespace is its cookie (u64) and its inode number (u32); a tuple: family
//! (u8), protocol (u8), both addresses (16 bytes each), both ports (u16).
//!
//! Written as one it is 32 hexadecimal digits. It is no secret and no signature.

use std::fmt;

use super::{Body, Item};
use crate::event::Expectation;
use crate::flow::{Flow, Netns, Tuple};

/// FNV-1a's start and prime for 64 bits.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The id of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// When the record happened, nanoseconds since the epoch.
    pub time: u64,
    /// What tells it from others of that time.
    pub hash: u64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.time, self.hash)
    }
}

/// Gives the records of one host their ids.
#[derive(Clone, Copy, Debug)]
pub struct Identifier(Fnv);

impl Identifier {
    /// For the records of this host.
    pub fn of_this_host() -> Self {
        let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
        match machine.trim() {
            "" => {
                let name = nix::unistd::gethostname().unwrap_or_default();
                Self::of_host(&name.to_string_lossy())
            }
            machine => Self::of_host(machine),
        }
    }

    /// For the records of the host of that name.
    pub fn of_host(host: &str) -> Self {
        Self(Fnv(BASIS).bytes(host.as_bytes()))
    }

    /// For the records of a host whose ids begin with this hash.
    pub fn of_hash(hash: u64) -> Self {
        Self(Fnv(hash))
    }

    /// What the hash of each of its ids begins with.
    pub fn host(&self) -> u64 {
        let Self(Fnv(hash)) = *self;
        hash
    }

    /// The id of a record.
    #[inline]
    pub fn id(&self, item: &Item<'_>) -> RecordId {
        let Self(host) = *self;
        let Fnv(hash) = match item.body {
            Body::Flow { flow, start, .. } => host.bytes(b"F").flow(item, flow, start),
            Body::Expectation(expectation) => host.bytes(b"E").expectation(expectation),
            Body::Lost(lost) => {
                host.bytes(b"L").bytes(lost.source.as_bytes()).bytes(&lost.events.to_le_bytes())
            }
        };
        RecordId { time: item.at, hash }
    }
}

impl Identifier {
    /// The same for all records of a flow, and of the expectations that it makes: a
    /// hash of the host, the namespace, the zone and the original tuple.
    #[inline]
    pub fn flow(&self, item: &Item<'_>) -> u64 {
        let Self(host) = *self;
        let Fnv(hash) = match item.body {
            Body::Flow { flow, .. } => {
                host.netns(flow.netns).bytes(&flow.zone.to_le_bytes()).tuple(&flow.orig)
            }
            Body::Expectation(expectation) => host
                .netns(expectation.netns)
                .bytes(&expectation.zone.to_le_bytes())
                .tuple(&expectation.master),
            Body::Lost(lost) => host.bytes(lost.source.as_bytes()),
        };
        hash
    }
}

/// A hash that is being made.
#[derive(Clone, Copy, Debug)]
struct Fnv(u64);

impl Fnv {
    #[inline]
    fn bytes(self, bytes: &[u8]) -> Self {
        Self(bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
    }

    fn flow(self, item: &Item<'_>, flow: &Flow, start: Option<u64>) -> Self {
        self.bytes(&item.tag.bits().to_le_bytes())
            .netns(flow.netns)
            .bytes(&start.unwrap_or_default().to_le_bytes())
            .tuple(&flow.orig)
            .tuple(&flow.reply)
            .bytes(&flow.zone.to_le_bytes())
            .bytes(&flow.id.unwrap_or_default().to_le_bytes())
            .bytes(&flow.status.bits().to_le_bytes())
            .bytes(&[flow.l4_state.unwrap_or_default()])
            .bytes(&flow.mark.to_le_bytes())
    }

    fn expectation(self, expectation: &Expectation) -> Self {
        let Expectation { action, tuple, master, helper: _, zone, netns } = expectation;
        self.bytes(&[*action as u8])
            .netns(*netns)
            .tuple(tuple)
            .tuple(master)
            .bytes(&zone.to_le_bytes())
    }

    fn netns(self, netns: Option<Netns>) -> Self {
        let (cookie, inum) = netns.map_or((0, 0), |n| (n.cookie.unwrap_or_default(), n.inum));
        self.bytes(&cookie.to_le_bytes()).bytes(&inum.to_le_bytes())
    }

    fn tuple(self, tuple: &Tuple) -> Self {
        let Tuple { family, proto, src, dst, src_l4, dst_l4 } = tuple;
        self.bytes(&[*family as u8, *proto])
            .bytes(src)
            .bytes(dst)
            .bytes(&src_l4.to_le_bytes())
            .bytes(&dst_l4.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::event::{Kinds, Lost, Witness};
    use crate::flow::Status;

    fn id(tag: Kinds, at: u64, flow: &Flow, start: Option<u64>) -> RecordId {
        let body = Body::Flow {
            flow,
            start,
            end: None,
            how: None,
            counted: false,
            witness: Witness::Single,
        };
        Identifier::of_host("host").id(&Item { tag, at, body })
    }

    /// A change of it would make every record of a fleet a new one.
    #[test]
    fn ids_are_those_of_the_description() {
        let lost = Lost::noticed("ebpf", 7, 0);
        let item = Item { tag: Kinds::empty(), at: 0x17, body: Body::Lost(lost) };
        let id = Identifier::of_host("h").id(&item);
        let text = [&b"hLebpf"[..], &7_u64.to_le_bytes()].concat();
        let hash = text.iter().fold(BASIS, |h, b| (h ^ u64::from(*b)).wrapping_mul(PRIME));
        assert_eq!(id, RecordId { time: 0x17, hash });
        assert_eq!(id.to_string(), format!("0000000000000017{hash:016x}"));
        assert_eq!(Identifier::of_hash(Identifier::of_host("h").host()).id(&item), id);
        // The published values of FNV-1a.
        assert_eq!(Fnv(BASIS).bytes(b"a").0, 0xaf63_dc4c_8601_ec8c);
        assert_eq!(Fnv(BASIS).bytes(b"foobar").0, 0x8594_4171_f739_67e8);
    }

    #[test]
    fn records_of_a_flow_have_ids_of_their_own() {
        let flow = Flow::default();
        let mut seen = HashSet::new();
        for tag in Kinds::NAMES.map(|(kind, _)| kind) {
            assert!(seen.insert(id(tag, 5, &flow, None)), "{tag:?}");
            assert_eq!(id(tag, 5, &flow, None), id(tag, 5, &flow.clone(), None));
        }
        let status = Flow { status: Status::ASSURED, ..flow.clone() };
        let other = Flow { id: Some(3), ..flow.clone() };
        let netns = Some(Netns { cookie: Some(9), inum: 7 });
        let elsewhere = Flow { netns, ..flow.clone() };
        for flow in [&status, &other, &elsewhere] {
            assert!(seen.insert(id(Kinds::UPDATE, 5, flow, None)));
        }
        assert!(seen.insert(id(Kinds::UPDATE, 6, &flow, None)), "later");
        assert!(seen.insert(id(Kinds::UPDATE, 5, &flow, Some(1))), "another start");
        let body = Body::Lost(Lost::noticed("ebpf", 7, 5));
        let elsewhere = Identifier::of_host("other").id(&Item { tag: Kinds::empty(), at: 5, body });
        assert_ne!(
            elsewhere,
            Identifier::of_host("host").id(&Item { tag: Kinds::empty(), at: 5, body })
        );
    }
}
