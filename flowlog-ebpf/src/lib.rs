//! What the kernel programs and the daemon say to each other: records, the
//! layout of the kernel's structures, and the settings of the programs.
//!
//! Everything is integers and byte arrays in native byte order, without hidden
//! padding (asserted below), so that bytes can be copied and no value is
//! invalid (`Pod`). Whoever changes a type changes [`VERSION`].
#![no_std]

use bytemuck::{Pod, Zeroable};

pub use self::ending::{Ending, TcpStates, lost_clash};
pub use self::traced::{RawContext, RawTrace, RawTraceExpect, STACK, refusal};

mod ending;
pub mod task;
mod traced;

/// Version of everything here; each record carries it.
pub const VERSION: u8 = 4;

/// Bytes of a `struct nf_conntrack_tuple`, and its fields, the same in every
/// kernel from 5.4 to 7.2; the daemon compares them with BTF before it starts.
pub mod tuple {
    /// Size of the structure.
    pub const SIZE: usize = 40;
    /// Source address, 16 bytes.
    pub const SRC: usize = 0;
    /// Source port or its like, 2 bytes in network order.
    pub const SRC_L4: usize = 16;
    /// Address family, 2 bytes in native order.
    pub const L3NUM: usize = 18;
    /// Destination address, 16 bytes.
    pub const DST: usize = 20;
    /// Destination port or its like, 2 bytes in network order.
    pub const DST_L4: usize = 36;
    /// IP protocol number, 1 byte.
    pub const PROTONUM: usize = 38;
    /// Direction, 1 byte.
    pub const DIR: usize = 39;
    /// Bytes of a `struct nf_conntrack_tuple_mask` that mean something: the
    /// source address and the source port.
    pub const MASK_SIZE: usize = 20;
}

/// What a record tells; the value of [`RawFlow::kind`].
pub mod kind {
    /// A connection entered the table.
    pub const NEW: u8 = 1;
    /// Something changed: [`super::RawFlow::events`] says what.
    pub const UPDATE: u8 = 2;
    /// A connection left the table.
    pub const DESTROY: u8 = 3;
    /// A helper expects a connection.
    pub const EXPECT_NEW: u8 = 4;
    /// It expects it no longer.
    pub const EXPECT_DESTROY: u8 = 5;
    /// A netlink message is due: see [`super::RawNotice`].
    pub const NOTICE: u8 = 6;
    /// A connection that was allocated goes, and was never in the table: see
    /// [`super::RawTrace`].
    pub const REFUSED: u8 = 7;
    /// None could be allocated: see [`super::RawTrace`].
    pub const UNALLOCATED: u8 = 8;
    /// How many numbers there are, 0 included.
    pub const COUNT: usize = 9;
}

/// Why a connection left the table; the value of [`RawFlow::cause`].
pub mod cause {
    /// The record is not about an end.
    pub const NONE: u8 = 0;
    /// Its time was over, found by the garbage collector.
    pub const EXPIRED_GC: u8 = 1;
    /// Its time was over, found by whoever came by: a look-up, a dump.
    pub const EXPIRED_LOOKUP: u8 = 2;
    /// The table was full, or nearly.
    pub const EARLY_DROP: u8 = 3;
    /// A process deleted it over netlink.
    pub const DELETED: u8 = 4;
    /// A process emptied the table over netlink.
    pub const FLUSHED: u8 = 5;
    /// Its network namespace was removed.
    pub const NETNS_GONE: u8 = 6;
    /// A SYN opened a closed connection anew.
    pub const TCP_REOPENED: u8 = 7;
    /// A reset was the answer to its first packet.
    pub const RESET: u8 = 8;
    /// It stood for a lost race between two packets of one flow.
    pub const NAT_CLASH: u8 = 9;
    /// None of these.
    pub const OTHER: u8 = 10;
    /// How many numbers there are.
    pub const COUNT: usize = 11;
}

/// Bits of [`RawFlow::flags`].
pub mod flag {
    /// The counters are told: `nf_conntrack_acct` was 1 when the flow began.
    pub const COUNTERS: u8 = 1 << 0;
    /// Start and stop are told: `nf_conntrack_timestamp` was 1 then.
    pub const TIMES: u8 = 1 << 1;
    /// The record is a [`super::RawFlowDetails`], whose helper is told.
    pub const HELPER: u8 = 1 << 2;
    /// As `HELPER`; the labels are told.
    pub const LABELS: u8 = 1 << 3;
    /// As `HELPER`; the master's tuple is told.
    pub const MASTER: u8 = 1 << 4;
    /// As `HELPER`; the process is told.
    pub const PROCESS: u8 = 1 << 5;
    /// The garbage collector was at work.
    pub const GC: u8 = 1 << 6;
    /// The kernel gathers events for the entry (`NF_CT_EXT_ECACHE`), so that
    /// netlink can tell of it.
    pub const ARMED: u8 = 1 << 7;
    /// Any that needs the details.
    pub const DETAILS: u8 = HELPER | LABELS | MASTER | PROCESS;
}

/// A connection event.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawFlow {
    /// [`VERSION`].
    pub version: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`cause`].
    pub cause: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// `enum ip_conntrack_events` as bits, for an update.
    pub events: u32,
    /// When it happened, nanoseconds of `CLOCK_BOOTTIME`.
    pub time: u64,
    /// Address of the entry: unique while it lives.
    pub entry: u64,
    /// `net_cookie`: never used again; 0 where the kernel has none.
    pub netns_cookie: u64,
    /// Inode number of the namespace.
    pub netns_inum: u32,
    /// Status bits, the lower 32.
    pub status: u32,
    /// Mark.
    pub mark: u32,
    /// Jiffies until the entry expires; negative when it has.
    pub timeout: i32,
    /// Conntrack zone.
    pub zone: u16,
    /// Directions for which the zone holds (`NF_CT_ZONE_DIR_*`).
    pub zone_dir: u8,
    /// State of TCP, SCTP or DCCP; 0 for other protocols.
    pub l4_state: u8,
    /// Netlink port of whoever asked for the change; 0: nobody did.
    pub portid: u32,
    /// Original tuple, as in the kernel ([`mod@tuple`]).
    pub orig: [u8; tuple::SIZE],
    /// Reply tuple.
    pub reply: [u8; tuple::SIZE],
    /// Packets and bytes of the original direction, then of the reply.
    pub counters: [u64; 4],
    /// Start, nanoseconds since the epoch.
    pub start: u64,
    /// End, as `start`; 0 while the flow lives.
    pub stop: u64,
}

/// What only some events have.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawDetails {
    /// Name of the helper, ended by a NUL.
    pub helper: [u8; 16],
    /// Labels as the kernel stores them.
    pub labels: [u8; 16],
    /// Original tuple of the connection that expected this one.
    pub master: [u8; tuple::SIZE],
    /// Address of that connection's entry.
    pub master_entry: u64,
    /// Name of the process (its thread), ended by a NUL.
    pub comm: [u8; 16],
    /// Its process id, in the initial PID namespace.
    pub pid: u32,
    /// Zero.
    pub reserved: u32,
}

/// A connection event with details; told from a [`RawFlow`] by its length.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawFlowDetails {
    /// What every event has.
    pub flow: RawFlow,
    /// What only some have.
    pub details: RawDetails,
}

/// An expectation event.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawExpect {
    /// [`VERSION`].
    pub version: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// 1 if the helper is told.
    pub has_helper: u8,
    /// 1 if the kernel gathers events for the master, so that netlink can tell
    /// of the expectation.
    pub armed: u8,
    /// Zero.
    pub reserved: [u8; 4],
    /// As [`RawFlow::time`].
    pub time: u64,
    /// As [`RawFlow::netns_cookie`].
    pub netns_cookie: u64,
    /// As [`RawFlow::netns_inum`].
    pub netns_inum: u32,
    /// Zone of the master.
    pub zone: u16,
    /// As [`RawFlow::zone_dir`], of the master.
    pub zone_dir: u8,
    /// Zero.
    pub reserved2: u8,
    /// What is expected.
    pub tuple: [u8; tuple::SIZE],
    /// Which bits of its source count.
    pub mask: [u8; tuple::MASK_SIZE],
    /// Zero.
    pub reserved3: [u8; 4],
    /// Original tuple of the connection whose helper expects it.
    pub master: [u8; tuple::SIZE],
    /// Name of the helper.
    pub helper: [u8; 16],
}

/// A netlink message is due: the kernel has called ctnetlink for a change of an
/// entry. Made only while two sources are compared.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawNotice {
    /// [`VERSION`].
    pub version: u8,
    /// [`kind::NOTICE`].
    pub kind: u8,
    /// The multicast group that it goes to, one of [`group`].
    pub group: u8,
    /// 1 if the id is told.
    pub has_id: u8,
    /// `enum ip_conntrack_events` as bits.
    pub events: u32,
    /// As [`RawFlow::time`].
    pub time: u64,
    /// As [`RawFlow::entry`].
    pub entry: u64,
    /// As [`RawFlow::netns_inum`].
    pub netns_inum: u32,
    /// The entry's id as the message has it: the number whose big-endian bytes
    /// are the attribute `CTA_ID`.
    pub id: u32,
    /// As [`RawFlow::portid`].
    pub portid: u32,
    /// As [`RawFlow::zone`].
    pub zone: u16,
    /// As [`RawFlow::zone_dir`].
    pub zone_dir: u8,
    /// Zero.
    pub reserved: u8,
    /// As [`RawFlow::orig`].
    pub orig: [u8; tuple::SIZE],
}

/// The multicast groups of conntrack events (`enum nfnetlink_groups`,
/// include/uapi/linux/netfilter/nfnetlink.h, 6.12).
pub mod group {
    /// `NFNLGRP_CONNTRACK_NEW`
    pub const NEW: u8 = 1;
    /// `NFNLGRP_CONNTRACK_UPDATE`
    pub const UPDATE: u8 = 2;
    /// `NFNLGRP_CONNTRACK_DESTROY`
    pub const DESTROY: u8 = 3;
    /// How many numbers there are, 0 included.
    pub const COUNT: usize = 4;
}

/// Messages that were due in a namespace, for each processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RawLedger {
    /// By [`mod@group`].
    pub due: [u64; group::COUNT],
}

/// An offset or a number that this kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// Most bytes of a `struct nf_conn` that are read. From the first field that is
/// wanted to the last it is 217 in every kernel known so far; what stands before
/// is a lock, larger with PREEMPT_RT or lockdep.
pub const ENTRY_MAX: usize = 240;

/// Where things are in this kernel: byte offsets, and numbers of extensions.
/// Taken from BTF at start; [`ABSENT`] where there is no such thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Layout {
    /// Where in a `nf_conn` the piece begins that is read: at the first field
    /// below, rounded down to a multiple of 8.
    pub entry_start: u32,
    /// Bytes of that piece, up to the last field below; at most [`ENTRY_MAX`].
    pub entry_size: u32,
    /// `nf_conn.timeout`
    pub timeout: u32,
    /// `nf_conn.zone.id`
    pub zone_id: u32,
    /// `nf_conn.zone.dir`
    pub zone_dir: u32,
    /// `nf_conn.tuplehash[0].tuple`
    pub orig: u32,
    /// `nf_conn.tuplehash[1].tuple`
    pub reply: u32,
    /// `nf_conn.status`
    pub status: u32,
    /// `nf_conn.ct_net.net`
    pub net: u32,
    /// `nf_conn.master`
    pub master: u32,
    /// `nf_conn.mark`
    pub mark: u32,
    /// `nf_conn.ext`
    pub ext: u32,
    /// `nf_conn.proto.tcp.state`, one byte
    pub tcp_state: u32,
    /// `nf_conn.proto.sctp.state`, an enum
    pub sctp_state: u32,
    /// `nf_conn.proto.dccp.state`, one byte; gone in 6.18
    pub dccp_state: u32,
    /// `net.net_cookie`
    pub net_cookie: u32,
    /// `net.ns.inum`
    pub net_inum: u32,
    /// `nf_ct_ext.offset`
    pub ext_offsets: u32,
    /// `NF_CT_EXT_HELPER`
    pub ext_helper: u32,
    /// `NF_CT_EXT_ACCT`
    pub ext_acct: u32,
    /// `NF_CT_EXT_ECACHE`
    pub ext_ecache: u32,
    /// `NF_CT_EXT_TSTAMP`
    pub ext_tstamp: u32,
    /// `NF_CT_EXT_LABELS`
    pub ext_labels: u32,
    /// `nf_conn_help.helper`
    pub help_helper: u32,
    /// `nf_conntrack_helper.name`
    pub helper_name: u32,
    /// `nf_conn_tstamp.start`
    pub tstamp_start: u32,
    /// `nf_conn_tstamp.stop`
    pub tstamp_stop: u32,
    /// `nf_ct_event.ct`
    pub event_entry: u32,
    /// `nf_ct_event.portid`
    pub event_portid: u32,
    /// `nf_conntrack_expect.tuple`
    pub expect_tuple: u32,
    /// `nf_conntrack_expect.mask`
    pub expect_mask: u32,
    /// `nf_conntrack_expect.master`
    pub expect_master: u32,
    /// `nf_conntrack_expect.helper`
    pub expect_helper: u32,
    /// `sk_buff._nfct`
    pub skb_nfct: u32,
    /// `sk_buff.cb` plus `netlink_skb_parms.portid`
    pub skb_portid: u32,
    /// `TCP_CONNTRACK_TIME_WAIT`
    pub tcp_time_wait: u32,
    /// `TCP_CONNTRACK_CLOSE`
    pub tcp_close: u32,
}

/// Bits of [`Settings::filters`]: which filters there are.
pub mod filter {
    /// Networks of IPv4 sources.
    pub const SRC_V4: u32 = 1 << 0;
    /// Networks of IPv6 sources.
    pub const SRC_V6: u32 = 1 << 1;
    /// Networks of IPv4 destinations.
    pub const DST_V4: u32 = 1 << 2;
    /// Networks of IPv6 destinations.
    pub const DST_V6: u32 = 1 << 3;
    /// Protocols.
    pub const PROTO: u32 = 1 << 4;
}

/// Key of the maps of networks: the family (`AF_INET`, `AF_INET6`) and the
/// address, IPv4 in the first four bytes. Prefix lengths count from the family.
pub type NetworkKey = [u8; 17];

/// What the programs are to do; read-only for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// The kernel's layout.
    pub layout: Layout,
    /// Inode number of the one namespace that is wanted; 0: all.
    pub netns: u32,
    /// Inode number of the namespace whose flows are counted for comparison
    /// with the kernel's own count.
    pub counted_netns: u32,
    /// Bits of [`filter`].
    pub filters: u32,
    /// Which kinds go into the ring: bit n for [`kind`] n.
    pub kinds: u32,
    /// Which changes make an update, as bits of `enum ip_conntrack_events`.
    pub updates: u32,
    /// Protocols that pass, a bit for each number.
    pub protocols: [u32; 8],
}

/// What the programs count, for each processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct RawCounts {
    /// Records that found no room in the ring, by kind.
    pub lost: [u64; kind::COUNT],
    /// Events of namespaces that are not wanted.
    pub filtered_netns: u64,
    /// Events of flows that a filter refuses.
    pub filtered_flows: u64,
    /// Changes that are not wanted.
    pub filtered_kinds: u64,
    /// Times that something could not be read or remembered.
    pub faults: u64,
    /// Flows that entered the table of the counted namespace.
    pub counted_new: u64,
    /// Flows that left it.
    pub counted_destroyed: u64,
}

const _: () = {
    assert!(size_of::<RawFlow>() == 184 && align_of::<RawFlow>() == 8);
    assert!(core::mem::offset_of!(RawFlow, orig) == 56);
    assert!(core::mem::offset_of!(RawFlow, counters) == 136);
    assert!(size_of::<RawDetails>() == 104);
    assert!(size_of::<RawFlowDetails>() == 288);
    assert!(size_of::<RawExpect>() == 152);
    assert!(size_of::<RawNotice>() == 80);
    assert!(core::mem::offset_of!(RawNotice, orig) == 40);
    assert!(size_of::<RawLedger>() == 32);
    assert!(size_of::<Layout>() == 37 * 4);
    assert!(size_of::<Settings>() == size_of::<Layout>() + 13 * 4);
    assert!(size_of::<RawCounts>() == 15 * 8);
};
