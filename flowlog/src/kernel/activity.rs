//! Does the kernel track connections in this namespace at all? It does so only
//! while some rule needs it. What can be read is read first; a packet of our
//! own is sent only if that decides nothing, since other loggers would see it.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Protocol, Tuple,
};
use netlink_packet_netfilter::nftables::{NfTablesMessage, RuleMessage};

use super::conntrack_count;
use crate::capture::netlink::attr::{Attribute, Attributes, DecodeError, Message};
use crate::capture::netlink::exchange::{exchange, malformed, persistently};
use crate::capture::netlink::request::request;
use crate::capture::netlink::socket::NetfilterSocket;

/// Whether the kernel tracks connections in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It does.
    Active,
    /// No rule makes it do so.
    Inactive,
    /// It cannot be told, and why.
    Unknown(String),
}

/// Length of `struct nfgenmsg`.
const GENMSG: usize = 4;
/// `NFT_MSG_NEWRULE`, in the subsystem `NFNL_SUBSYS_NFTABLES`.
const NEWRULE: u16 = 10 << 8 | 6;
/// Expressions of nf_tables that take conntrack into use when they are set up
/// (`nf_ct_netns_get`, net/netfilter/nft_*.c, 6.18).
const EXPRESSIONS: &[&str] =
    &["ct", "nat", "masq", "redir", "connlimit", "flow_offload", "synproxy"];
/// The same for matches and targets of iptables (net/netfilter/xt_*.c, 6.18).
const EXTENSIONS: &[&str] = &[
    "conntrack",
    "state",
    "connbytes",
    "connlabel",
    "connlimit",
    "connmark",
    "helper",
    "CONNMARK",
    "CONNSECMARK",
    "CT",
    "SNAT",
    "DNAT",
    "MASQUERADE",
    "REDIRECT",
    "NETMAP",
    "SYNPROXY",
];

/// Whether the kernel tracks connections in the current namespace.
///
/// Evidence: rules of nf_tables that need conntrack (iptables-nft's are among
/// them); entries in the table, unless nothing can have made them of late; else
/// a probe over loopback. That iptables-legacy has a table `nat` is no evidence:
/// without a rule in it no hook is registered.
pub fn conntrack_active() -> Activity {
    let Some(entries) = conntrack_count() else { return Activity::Inactive };
    match (rules_need_conntrack(), entries) {
        (Ok(true), _) => Activity::Active,
        // Without nf_tables, or the right to read it, the probe decides.
        (_, 0) => probe(),
        (Ok(false), _) if !has_legacy_tables() => Activity::Unknown(format!(
            "the table has {entries} entries, but no rule of nf_tables or iptables needs it: \
             they may be left over, or come from tc, eBPF or Open vSwitch"
        )),
        _ => Activity::Active,
    }
}

/// Whether iptables-legacy has a table, whose rules cannot be read over netlink.
fn has_legacy_tables() -> bool {
    ["ip_tables_names", "ip6_tables_names"].iter().any(|name| {
        // `/proc/net` is that of the main thread.
        fs::read(format!("/proc/thread-self/net/{name}")).is_ok_and(|names| !names.is_empty())
    })
}

/// Whether a rule of nf_tables needs conntrack.
fn rules_need_conntrack() -> io::Result<bool> {
    let all = NfTablesMessage::GetRule(RuleMessage { attributes: vec![] });
    let dump = request(NetfilterProtoFamily::Unspec, 0, all, NLM_F_REQUEST | NLM_F_DUMP, 1);
    persistently(|| {
        let mut found = false;
        exchange(&NetfilterSocket::open()?, &dump, |message| {
            found |= message.kind == NEWRULE && rule_needs_conntrack(message).map_err(malformed)?;
            Ok(())
        })?;
        Ok(found)
    })
}

/// `NFTA_RULE_EXPRESSIONS` → `NFTA_LIST_ELEM` → `NFTA_EXPR_NAME`,
/// `NFTA_EXPR_DATA`.
fn rule_needs_conntrack(message: &Message<'_>) -> Result<bool, DecodeError> {
    for attribute in Attributes::new(message.payload.get(GENMSG..).unwrap_or_default()) {
        let attribute = attribute?;
        if attribute.kind != 4 {
            continue;
        }
        for expression in attribute.nested() {
            if expression_needs_conntrack(&expression?)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn expression_needs_conntrack(expression: &Attribute<'_>) -> Result<bool, DecodeError> {
    let mut name: &[u8] = &[];
    for part in expression.nested() {
        let part = part?;
        match part.kind {
            1 => name = text(part.value),
            2 if matches!(name, b"match" | b"target") => {
                // `NFTA_MATCH_NAME`, `NFTA_TARGET_NAME`
                for part in part.nested() {
                    let part = part?;
                    if part.kind == 1 && is_one_of(text(part.value), EXTENSIONS) {
                        return Ok(true);
                    }
                }
            }
            _ => {}
        }
    }
    Ok(is_one_of(name, EXPRESSIONS))
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|known| known.as_bytes() == name)
}

/// A string of the kernel, without its NUL.
fn text(value: &[u8]) -> &[u8] {
    value.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Sends a datagram over loopback and looks whether the empty table gets an
/// entry. A rule may concern one family only, so both are tried.
fn probe() -> Activity {
    let mut failure = None;
    let mut sent = false;
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        match send_to_ourselves(address) {
            Ok((_sender, _receiver, from, to)) => {
                sent = true;
                if conntrack_count().is_some_and(|count| count > 0) {
                    // Left alone it would expire by itself within 30 s.
                    let _ = delete(from, to);
                    return Activity::Active;
                }
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) if !sent => {
            Activity::Unknown(format!("a packet to try it cannot be sent over loopback: {error}"))
        }
        _ => Activity::Inactive,
    }
}

/// One byte from one socket of ours to another. Both stay open, so that no
/// other process gets their ports meanwhile.
fn send_to_ourselves(
    address: IpAddr,
) -> io::Result<(UdpSocket, UdpSocket, SocketAddr, SocketAddr)> {
    let receiver = UdpSocket::bind((address, 0))?;
    let sender = UdpSocket::bind((address, 0))?;
    let (from, to) = (sender.local_addr()?, receiver.local_addr()?);
    sender.send_to(&[0], to)?;
    Ok((sender, receiver, from, to))
}

/// Removes the entry of the probe.
fn delete(from: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let family = match from {
        SocketAddr::V4(_) => NetfilterProtoFamily::IPv4,
        SocketAddr::V6(_) => NetfilterProtoFamily::IPv6,
    };
    let tuple = vec![
        Tuple::Ip(vec![IPTuple::SourceAddress(from.ip()), IPTuple::DestinationAddress(to.ip())]),
        Tuple::Proto(vec![
            ProtoTuple::Protocol(Protocol::Udp),
            ProtoTuple::SourcePort(from.port()),
            ProtoTuple::DestinationPort(to.port()),
        ]),
    ];
    let message = ConntrackMessage::Delete(vec![ConntrackAttribute::CtaTupleOrig(tuple)]);
    let bytes = request(family, 0, message, NLM_F_REQUEST | NLM_F_ACK, 1);
    exchange(&NetfilterSocket::open()?, &bytes, |_| Ok(()))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DefaultNla, Emitable as _};

    use super::*;
    use crate::capture::netlink::attr::Messages;
    use crate::capture::netlink::request::{nested, plain};

    fn rule(expressions: &[DefaultNla]) -> bool {
        let mut bytes = request(
            NetfilterProtoFamily::Inet,
            0,
            NfTablesMessage::NewRule(RuleMessage { attributes: vec![] }),
            0,
            1,
        );
        let elements: Vec<_> =
            expressions.iter().map(|e| nested(1, std::slice::from_ref(e))).collect();
        let list = nested(4, &elements);
        let start = bytes.len();
        bytes.resize(start + list.buffer_len(), 0);
        list.emit(&mut bytes[start..]);
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let message = Messages::new(&bytes).next().unwrap().unwrap();
        assert_eq!(message.kind, NEWRULE);
        rule_needs_conntrack(&message).unwrap()
    }

    #[test]
    fn expressions_that_need_conntrack_are_known() {
        assert!(rule(&[plain(1, b"counter\0"), plain(1, b"ct\0")]));
        assert!(rule(&[plain(1, b"masq\0")]));
        assert!(!rule(&[plain(1, b"meta\0"), plain(1, b"cmp\0")]));
        assert!(!rule(&[]));
    }

    #[test]
    fn extensions_of_iptables_are_seen_through() {
        let compat = |kind: &[u8], name: &[u8]| {
            let parts = [plain(1, kind), nested(2, &[plain(1, name)])];
            let element = nested(1, &parts);
            let attribute = Attribute { kind: 1, value: &element_value(&element) };
            expression_needs_conntrack(&attribute).unwrap()
        };
        assert!(compat(b"match\0", b"state\0"));
        assert!(compat(b"target\0", b"MASQUERADE\0"));
        assert!(!compat(b"match\0", b"comment\0"));
        assert!(!compat(b"bitwise\0", b"state\0"));
    }

    fn element_value(element: &DefaultNla) -> Vec<u8> {
        let mut bytes = vec![0; element.buffer_len()];
        element.emit(&mut bytes);
        bytes[4..].to_vec()
    }
}
