//! The data model of one tracked connection: what conntrack knows of it, as
//! plain values. Filled by `capture/`, read by `plugin/`; neither netlink nor
//! eBPF shows through.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bitflags::bitflags;

pub mod names;

/// Protocol numbers that conntrack, PRINTFLOW and the filters treat by name.
pub mod proto {
    /// Internet Control Message Protocol.
    pub const ICMP: u8 = 1;
    /// Transmission Control Protocol.
    pub const TCP: u8 = 6;
    /// User Datagram Protocol.
    pub const UDP: u8 = 17;
    /// Datagram Congestion Control Protocol.
    pub const DCCP: u8 = 33;
    /// Generic Routing Encapsulation.
    pub const GRE: u8 = 47;
    /// Encapsulating Security Payload.
    pub const ESP: u8 = 50;
    /// Authentication Header.
    pub const AH: u8 = 51;
    /// ICMP for IPv6.
    pub const ICMPV6: u8 = 58;
    /// Stream Control Transmission Protocol.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;
}

/// Address family of a tuple. Conntrack tracks no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// `AF_INET`
    #[default]
    V4 = 2,
    /// `AF_INET6`
    V6 = 10,
}

/// One direction of a connection, as in the kernel's `nf_conntrack_tuple`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Family of both addresses.
    pub family: Family,
    /// IP protocol number.
    pub proto: u8,
    /// Source address in network order; IPv4 uses the first four bytes.
    pub src: [u8; 16],
    /// Destination address, as `src`.
    pub dst: [u8; 16],
    /// Source port, ICMP identifier or GRE key, host order; 0 when the
    /// protocol has none.
    pub src_l4: u16,
    /// Destination port, `type << 8 | code` for ICMP and ICMPv6, or GRE key,
    /// host order; 0 when the protocol has none.
    pub dst_l4: u16,
}

impl Tuple {
    /// Source address as the standard library's type.
    pub fn src_ip(&self) -> IpAddr {
        to_ip(self.family, &self.src)
    }

    /// Destination address as the standard library's type.
    pub fn dst_ip(&self) -> IpAddr {
        to_ip(self.family, &self.dst)
    }

    /// Both `_l4` fields are ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.proto, proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP)
    }

    /// ICMP or ICMPv6 type; meaningless for other protocols.
    pub fn icmp_type(&self) -> u8 {
        self.dst_l4.to_be_bytes()[0]
    }

    /// ICMP or ICMPv6 code; meaningless for other protocols.
    pub fn icmp_code(&self) -> u8 {
        self.dst_l4.to_be_bytes()[1]
    }

    /// The tuple of a packet going the other way, without NAT.
    pub fn inverse(&self) -> Self {
        Self { src: self.dst, dst: self.src, src_l4: self.dst_l4, dst_l4: self.src_l4, ..*self }
    }
}

/// An address as the standard library's type.
pub(crate) fn to_ip(family: Family, bytes: &[u8; 16]) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        Family::V6 => IpAddr::V6(Ipv6Addr::from(*bytes)),
    }
}

/// Packets and bytes of one direction since the flow began (or since its
/// counters were last reset). Bytes count from the IP header on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes, IP header included.
    pub bytes: u64,
}

bitflags! {
    /// `enum ip_conntrack_status`, include/uapi/linux/netfilter/nf_conntrack_common.h
    /// (6.18). Unknown bits are kept.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u32 {
        /// The connection was expected (RELATED).
        const EXPECTED = 1 << 0;
        /// Packets were seen in both directions.
        const SEEN_REPLY = 1 << 1;
        /// Not dropped early when the table is full.
        const ASSURED = 1 << 2;
        /// In the table.
        const CONFIRMED = 1 << 3;
        /// Source NAT in the original direction.
        const SRC_NAT = 1 << 4;
        /// Destination NAT in the original direction.
        const DST_NAT = 1 << 5;
        /// Being destroyed.
        const DYING = 1 << 9;
        /// Its timeout does not change.
        const FIXED_TIMEOUT = 1 << 10;
        /// It has lost a clash: two packets of one flow were translated in two
        /// ways at the same time, and this is the second one's entry, which the
        /// kernel keeps for the reply. Another entry has the same original tuple.
        /// Its end is reported and its beginning is not.
        const NAT_CLASH = 1 << 12;
        /// Handled by a flow table in software.
        const OFFLOAD = 1 << 14;
        /// Handled by a flow table in hardware.
        const HW_OFFLOAD = 1 << 15;
        const _ = !0;
    }
}

/// A short name that the kernel gives: at most 15 bytes and a NUL there, any
/// bytes but NUL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Name {
    bytes: [u8; 16],
    len: u8,
}

impl Name {
    /// Keeps the first 16 bytes up to a NUL.
    pub fn new(name: &[u8]) -> Self {
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len()).min(16);
        let mut bytes = [0; 16];
        bytes[..end].copy_from_slice(&name[..end]);
        Self { bytes, len: end as u8 }
    }

    /// The name's bytes, without NUL.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Name of a connection tracking helper ("ftp"): `NF_CT_HELPER_NAME_LEN` is 16
/// with its NUL (6.18).
pub type HelperName = Name;

/// A network namespace, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Netns {
    /// `net_cookie`, which is never used again while the host runs; absent on
    /// kernels that have none, and where only the number is kept.
    pub cookie: Option<u64>,
    /// Inode number of its file, as `ls -Li /run/netns/NAME` shows it; used
    /// again when the namespace is gone.
    pub inum: u32,
}

/// What conntrack tells of one connection. `None` means that the kernel did
/// not say, never zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Tuple of the packet that opened the connection, before NAT.
    pub orig: Tuple,
    /// Tuple that replies carry, after NAT.
    pub reply: Tuple,
    /// Status bits.
    pub status: Status,
    /// Counters of both directions; absent when `nf_conntrack_acct` was 0 when
    /// the flow began, and in netlink's NEW and UPDATE messages.
    pub counters: Option<[Counters; 2]>,
    /// Conntrack zone of the original direction; 0 is the default zone. A zone
    /// may hold for one direction only.
    pub zone: u16,
    /// Zone of the reply direction; absent where it is the same as `zone`, and
    /// where it is not kept.
    pub reply_zone: Option<u16>,
    /// Mark; the kernel tells 0 by leaving it out.
    pub mark: u32,
    /// The kernel's id of the entry, unique only while the entry lives.
    pub id: Option<u32>,
    /// Seconds until the entry expires; absent in DESTROY.
    pub timeout: Option<u32>,
    /// Start, nanoseconds since the epoch; absent unless
    /// `nf_conntrack_timestamp` was 1 when the flow began.
    pub start: Option<u64>,
    /// End, as `start`; the moment of expiry, not of the event.
    pub stop: Option<u64>,
    /// State of the protocol's own machine: `enum tcp_conntrack`,
    /// `sctp_conntrack` or `ct_dccp_states`; absent for other protocols.
    pub l4_state: Option<u8>,
    /// References held on the entry; only a table dump tells it.
    pub uses: Option<u32>,
    /// Helper attached to the connection.
    pub helper: Option<HelperName>,
    /// Connection labels, 128 bits as the kernel stores them.
    pub labels: Option<[u8; 16]>,
    /// Security context, in the security module's own notation; only netlink
    /// tells it.
    pub secctx: Option<Box<str>>,
    /// Original tuple of the connection that expected this one.
    pub master: Option<Tuple>,
    /// The network namespace whose table holds the entry; absent: that of the
    /// source, as with netlink.
    pub netns: Option<Netns>,
}

impl Flow {
    /// Whether NAT has changed the address or port of the source, and of the
    /// destination.
    pub fn translated(&self) -> (bool, bool) {
        let Self { orig, reply, .. } = self;
        match orig.proto {
            // Its identifier is in the source of both directions.
            proto::ICMP | proto::ICMPV6 => {
                (reply.dst != orig.src || reply.src_l4 != orig.src_l4, reply.src != orig.dst)
            }
            _ => (
                reply.dst != orig.src || reply.dst_l4 != orig.src_l4,
                reply.src != orig.dst || reply.src_l4 != orig.dst_l4,
            ),
        }
    }

    /// What tells this entry from others with the same tuple and zone; 0 when
    /// the source tells nothing of the kind.
    ///
    /// Netlink tells an id, which keeps a flow apart from its successor when
    /// the events between them are missing. eBPF's events are in order, so it
    /// needs no id; but they come from many namespaces, each with a table of
    /// its own, and the entries of a dump, which have both, must get the same
    /// answer as the events.
    #[inline]
    pub fn tie_breaker(&self) -> u32 {
        self.netns.map(|netns| netns.inum).or(self.id).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_at_its_nul_or_after_16_bytes() {
        assert_eq!(Name::new(b"ftp\0junk").as_bytes(), b"ftp");
        assert_eq!(Name::new(b"").as_bytes(), b"");
        assert_eq!(Name::new(&[b'x'; 20]).as_bytes(), [b'x'; 16]);
    }

    #[test]
    fn the_namespace_comes_before_the_id() {
        let netns = Some(Netns { cookie: Some(9), inum: 7 });
        assert_eq!(Flow::default().tie_breaker(), 0);
        assert_eq!(Flow { id: Some(3), ..Flow::default() }.tie_breaker(), 3);
        assert_eq!(Flow { id: Some(3), netns, ..Flow::default() }.tie_breaker(), 7);
    }
}
