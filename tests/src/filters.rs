//! `accept_*_filter`s of `[ct1]`, and which flows of the mix each accepts.

use std::net::IpAddr;

use crate::packet::protocol;
use crate::traffic::Flow;

/// Whether a flow passes.
pub type Accepts = fn(&Flow) -> bool;

/// Filters and the flows they accept: one family's list lets the other family pass, and what
/// counts is the original direction, before NAT.
pub const FILTERS: [(&str, Accepts); 8] = [
    ("accept_src_filter=10.77.1.2/32", |_| true),
    ("accept_src_filter=10.99.0.0/16", is_v6),
    ("accept_src_filter=10.99.0.0/16,fd99::/16", |_| false),
    ("accept_src_filter=fd99::/16,fd98::/16", |flow| !is_v6(flow)),
    ("accept_dst_filter=10.77.1.1/32", |flow| is_v6(flow) || is_redirected(flow)),
    ("accept_dst_filter=10.77.0.0/16,fd77:2::2/128", |_| true),
    ("accept_proto_filter=udp,ipv6-icmp", |flow| {
        [protocol::UDP, protocol::ICMPV6].contains(&flow.orig.protocol)
    }),
    ("accept_proto_filter=tcp\naccept_dst_filter=10.77.1.1/32,fd99::/16", is_redirected),
];

fn is_v6(flow: &Flow) -> bool {
    flow.orig.source.is_ipv6()
}

fn is_redirected(flow: &Flow) -> bool {
    flow.orig.destination == IpAddr::from([10, 77, 1, 1])
}
