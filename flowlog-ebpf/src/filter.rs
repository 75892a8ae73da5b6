//! What is not wanted: by namespace, addresses and protocol. The daemon's own
//! filter (`capture/filter.rs`) says the same; here it spares the way.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LpmTrie;
use aya_ebpf::maps::lpm_trie::Key;
use flowlog_ebpf::{NetworkKey, filter, tuple};

use crate::SETTINGS;
use crate::emit::{Count, count};
use crate::kernel::known;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// Bits of a key: the family and an address.
const KEY_BITS: u32 = 8 * size_of::<NetworkKey>() as u32;
/// Networks that a filter may name.
const NETWORKS: u32 = 1024;

#[map]
static SOURCES: LpmTrie<NetworkKey, u8> = LpmTrie::with_max_entries(NETWORKS, 0);

#[map]
static DESTINATIONS: LpmTrie<NetworkKey, u8> = LpmTrie::with_max_entries(NETWORKS, 0);

/// Whether events of this namespace are wanted; counts those that are not.
#[inline(always)]
pub(crate) fn wants_netns(inum: u32) -> bool {
    let wanted = known(&SETTINGS.netns);
    if wanted == 0 || wanted == inum {
        return true;
    }
    count(Count::FilteredNetns);
    false
}

/// Whether flows with this original tuple are wanted; counts those that are
/// not.
#[inline(always)]
pub(crate) fn wants_tuple(orig: &[u8; tuple::SIZE]) -> bool {
    if passes(orig) {
        return true;
    }
    count(Count::FilteredFlows);
    false
}

/// As [`wants_tuple`], for what is no event: nothing is counted.
#[inline(always)]
pub(crate) fn passes(orig: &[u8; tuple::SIZE]) -> bool {
    known(&SETTINGS.filters) == 0 || accepts(orig)
}

#[inline(always)]
fn accepts(orig: &[u8; tuple::SIZE]) -> bool {
    let filters = known(&SETTINGS.filters);
    if filters & filter::PROTO != 0 && !accepts_protocol(orig[tuple::PROTONUM]) {
        return false;
    }
    let (family, src, dst) = match u16::from_ne_bytes([orig[tuple::L3NUM], orig[tuple::L3NUM + 1]])
    {
        2 => (AF_INET, filter::SRC_V4, filter::DST_V4),
        _ => (AF_INET6, filter::SRC_V6, filter::DST_V6),
    };
    (filters & src == 0 || contains(&SOURCES, family, orig, tuple::SRC))
        && (filters & dst == 0 || contains(&DESTINATIONS, family, orig, tuple::DST))
}

#[inline(always)]
fn accepts_protocol(protocol: u8) -> bool {
    let word = match protocol / 32 {
        0 => known(&SETTINGS.protocols[0]),
        1 => known(&SETTINGS.protocols[1]),
        2 => known(&SETTINGS.protocols[2]),
        3 => known(&SETTINGS.protocols[3]),
        4 => known(&SETTINGS.protocols[4]),
        5 => known(&SETTINGS.protocols[5]),
        6 => known(&SETTINGS.protocols[6]),
        _ => known(&SETTINGS.protocols[7]),
    };
    word >> (protocol % 32) & 1 != 0
}

#[inline(always)]
fn contains(
    networks: &LpmTrie<NetworkKey, u8>,
    family: u8,
    orig: &[u8; tuple::SIZE],
    address: usize,
) -> bool {
    let mut key = Key::new(KEY_BITS, [0; size_of::<NetworkKey>()]);
    key.data[0] = family;
    let mut index = 0;
    while index < 16 {
        key.data[1 + index] = orig[address + index];
        index += 1;
    }
    networks.get(key).is_some()
}
