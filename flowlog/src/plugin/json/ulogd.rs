//! The record of ulogd2 2.0.8 (output/ulogd_output_JSON.c and the keys of NFCT
//! and IP2STR there): flat, the same names in the same order.

use super::text::Text;
use crate::event::{Expectation, Kinds, Lost};
use crate::flow::{Counters, Flow, Tuple, proto};
use crate::plugin::clock::SECOND;
use crate::plugin::ip2str::Addresses;
use crate::plugin::{Body, Item};

/// Writes the members of `item` behind those that there are.
pub(super) fn members(item: &Item<'_>, addresses: &Addresses, out: &mut Text) {
    match item.body {
        Body::Flow { flow, start, end, counted, how: _, witness: _ } => {
            let counters = flow.counters.filter(|_| counted).unwrap_or_default();
            direction(&ORIG, &flow.orig, Some(counters[0]), out);
            direction(&REPLY, &flow.reply, Some(counters[1]), out);
            icmp(&flow.orig, out);
            out.number("ct.mark", flow.mark);
            // Netlink always tells it; eBPF does not, and 0 would be an id.
            if let Some(id) = flow.id {
                out.number("ct.id", id);
            }
            event(item.tag, out);
            time("flow.start.sec", "flow.start.usec", start, out);
            time("flow.end.sec", "flow.end.usec", end, out);
            family(flow, out);
            texts(addresses, out);
        }
        Body::Expectation(expectation) => expected(expectation, item.tag, addresses, out),
        Body::Lost(Lost { source, events, .. }) => {
            out.number("lost.events", events);
            out.string("lost.source", source.as_bytes());
        }
    }
}

/// Names of the members of one direction.
struct Names {
    protocol: &'static str,
    sport: &'static str,
    dport: &'static str,
    bytes: &'static str,
    packets: &'static str,
}

const ORIG: Names = Names {
    protocol: "orig.ip.protocol",
    sport: "orig.l4.sport",
    dport: "orig.l4.dport",
    bytes: "orig.raw.pktlen",
    packets: "orig.raw.pktcount",
};
const REPLY: Names = Names {
    protocol: "reply.ip.protocol",
    sport: "reply.l4.sport",
    dport: "reply.l4.dport",
    bytes: "reply.raw.pktlen",
    packets: "reply.raw.pktcount",
};

fn direction(names: &Names, tuple: &Tuple, counters: Option<Counters>, out: &mut Text) {
    out.number(names.protocol, tuple.proto);
    if tuple.has_ports() {
        out.number(names.sport, tuple.src_l4);
        out.number(names.dport, tuple.dst_l4);
    }
    if let Some(Counters { packets, bytes }) = counters {
        out.number(names.bytes, bytes);
        out.number(names.packets, packets);
    }
}

/// Those of the original direction, and not those of ICMPv6.
fn icmp(orig: &Tuple, out: &mut Text) {
    if orig.proto == proto::ICMP {
        out.number("icmp.code", orig.icmp_code());
        out.number("icmp.type", orig.icmp_type());
    }
}

/// ulogd2 knows 1, 2 and 4; further events have the bits of `event_mask`.
fn event(tag: Kinds, out: &mut Text) {
    out.number("ct.event", tag.bits());
}

fn time(seconds: &str, microseconds: &str, at: Option<u64>, out: &mut Text) {
    if let Some(at) = at.filter(|at| *at >= SECOND) {
        out.number(seconds, at / SECOND);
        out.number(microseconds, at % SECOND / 1000);
    }
}

fn family(flow: &Flow, out: &mut Text) {
    out.number("oob.family", flow.orig.family as u8);
    out.number("oob.protocol", 0_u8);
}

/// What IP2STR has written, if it stands before; two of its keys have another
/// name in JSON.
fn texts(addresses: &Addresses, out: &mut Text) {
    let Addresses { orig, reply, master: _ } = addresses;
    for (name, text) in [
        ("src_ip", &orig.src),
        ("dest_ip", &orig.dst),
        ("reply.ip.saddr.str", &reply.src),
        ("reply.ip.daddr.str", &reply.dst),
    ] {
        if !text.as_bytes().is_empty() {
            out.string(name, text.as_bytes());
        }
    }
}

/// ulogd2 has none: the members that a flow has too, then its action.
fn expected(expectation: &Expectation, tag: Kinds, addresses: &Addresses, out: &mut Text) {
    let Expectation { action, tuple, master: _, helper, zone: _, netns: _ } = expectation;
    direction(&ORIG, tuple, None, out);
    direction(&REPLY, &tuple.inverse(), None, out);
    event(tag, out);
    out.number("oob.family", tuple.family as u8);
    out.number("oob.protocol", 0_u8);
    texts(addresses, out);
    out.string("expect.action", action.name().as_bytes());
    if let Some(helper) = helper {
        out.string("expect.helper", helper.as_bytes());
    }
}
