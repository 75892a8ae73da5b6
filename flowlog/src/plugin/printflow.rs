//! PRINTFLOW: a flow as one line of text, byte for byte as ulogd2 2.0.8 writes
//! it (util/printflow.c there), the trailing blank and the swapped ICMP labels
//! included.

use super::ip2str::{Addresses, Pair};
use super::{Body, Item};
use crate::event::{ExpectAction, Expectation, Kinds, Lost};
use crate::flow::{Counters, Flow, Tuple, proto};

/// How PRINTFLOW is to write.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// ICMP type and code under their own labels.
    pub fixed_icmp_labels: bool,
    /// Ports and types for every protocol that has them.
    pub all_ports: bool,
    /// Losses stand in the log.
    pub loss_lines: bool,
}

/// Names of the kinds in a tag, in the order in which they are written.
const TAGS: [(Kinds, &str); 8] = [
    (Kinds::NEW, "NEW"),
    (Kinds::UPDATE, "UPDATE"),
    (Kinds::DESTROY, "DESTROY"),
    (Kinds::CONFIRMED, "CONFIRMED"),
    (Kinds::ASSURED, "ASSURED"),
    (Kinds::EXPECT, "EXPECT"),
    (Kinds::HELPER, "HELPER"),
    (Kinds::GC, "GC"),
];

impl Settings {
    /// Writes `item` into `out`, which is emptied first. Leaves it empty when
    /// there is nothing to log.
    #[inline]
    pub fn print(&self, item: &Item<'_>, addresses: &Addresses, out: &mut Vec<u8>) {
        out.clear();
        match item.body {
            Body::Flow { flow, .. } => self.flow(item.tag, flow, addresses, out),
            Body::Expectation(expectation) => self.expectation(expectation, addresses, out),
            Body::Lost(lost) if self.loss_lines => loss(lost, out),
            Body::Lost(_) => {}
        }
    }

    #[inline]
    fn flow(&self, kinds: Kinds, flow: &Flow, addresses: &Addresses, out: &mut Vec<u8>) {
        let [orig, reply] = flow.counters.unwrap_or_default();
        tag(kinds, out);
        out.extend_from_slice(b"ORIG: ");
        self.tuple(&flow.orig, &flow.orig, &addresses.orig, out);
        counters(orig, out);
        out.extend_from_slice(b", REPLY: ");
        // ulogd2 knows the ICMP type of the original direction only.
        let icmp = if self.fixed_icmp_labels { &flow.reply } else { &flow.orig };
        self.tuple(&flow.reply, icmp, &addresses.reply, out);
        counters(reply, out);
        out.push(b'\n');
    }

    /// The expected flow, then the connection whose helper expects it. The
    /// part up to the second counters has the form of every other line.
    fn expectation(&self, expectation: &Expectation, addresses: &Addresses, out: &mut Vec<u8>) {
        let Expectation { action, tuple, master, helper, zone: _ } = expectation;
        let none = Counters::default();
        let inverse = tuple.inverse();
        tag(Kinds::EXPECT, out);
        out.extend_from_slice(b"ORIG: ");
        self.tuple(tuple, tuple, &addresses.orig, out);
        counters(none, out);
        out.extend_from_slice(b", REPLY: ");
        self.tuple(&inverse, tuple, &addresses.reply, out);
        counters(none, out);
        out.extend_from_slice(b", MASTER: ");
        self.tuple(master, master, &addresses.master, out);
        out.extend_from_slice(match action {
            ExpectAction::New => b"ACTION=new ",
            ExpectAction::Update => b"ACTION=update ",
            ExpectAction::Destroy => b"ACTION=destroy ",
        });
        if let Some(helper) = helper {
            out.extend_from_slice(b"HELPER=");
            out.extend_from_slice(helper.as_bytes());
            out.push(b' ');
        }
        out.push(b'\n');
    }

    /// `icmp` is the tuple whose ICMP type is told.
    #[inline]
    fn tuple(&self, tuple: &Tuple, icmp: &Tuple, pair: &Pair, out: &mut Vec<u8>) {
        out.extend_from_slice(b"SRC=");
        out.extend_from_slice(pair.src.as_bytes());
        out.extend_from_slice(b" DST=");
        out.extend_from_slice(pair.dst.as_bytes());
        match tuple.proto {
            proto::TCP => {
                out.extend_from_slice(b" PROTO=TCP ");
                ports(tuple, out);
            }
            proto::UDP => {
                out.extend_from_slice(b" PROTO=UDP ");
                ports(tuple, out);
            }
            proto::ICMP => {
                out.extend_from_slice(b" PROTO=ICMP ");
                self.icmp(icmp, out);
            }
            proto::ESP => out.extend_from_slice(b" PROTO=ESP "),
            proto::AH => out.extend_from_slice(b" PROTO=AH "),
            other => self.other(other, tuple, icmp, out),
        }
    }

    fn other(&self, protocol: u8, tuple: &Tuple, icmp: &Tuple, out: &mut Vec<u8>) {
        out.extend_from_slice(b" PROTO=");
        number(protocol.into(), out);
        out.push(b' ');
        match protocol {
            proto::SCTP | proto::DCCP | proto::UDPLITE if self.all_ports => ports(tuple, out),
            proto::ICMPV6 if self.all_ports => {
                type_and_code(icmp.icmp_type(), icmp.icmp_code(), out)
            }
            _ => {}
        }
    }

    fn icmp(&self, tuple: &Tuple, out: &mut Vec<u8>) {
        let (kind, code) = (tuple.icmp_type(), tuple.icmp_code());
        if self.fixed_icmp_labels {
            type_and_code(kind, code, out);
        } else {
            type_and_code(code, kind, out);
        }
    }
}

#[inline]
fn tag(kinds: Kinds, out: &mut Vec<u8>) {
    // Nearly every line has one of these.
    if kinds == Kinds::DESTROY {
        out.extend_from_slice(b"[DESTROY] ");
        return;
    }
    if kinds == Kinds::NEW {
        out.extend_from_slice(b"[NEW] ");
        return;
    }
    let mut separator = b'[';
    for (kind, name) in TAGS {
        if kinds.contains(kind) {
            out.push(separator);
            out.extend_from_slice(name.as_bytes());
            separator = b'|';
        }
    }
    out.extend_from_slice(b"] ");
}

#[inline]
fn ports(tuple: &Tuple, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SPT=");
    number(tuple.src_l4.into(), out);
    out.extend_from_slice(b" DPT=");
    number(tuple.dst_l4.into(), out);
    out.push(b' ');
}

fn type_and_code(kind: u8, code: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"TYPE=");
    number(kind.into(), out);
    out.extend_from_slice(b" CODE=");
    number(code.into(), out);
    out.push(b' ');
}

#[inline]
fn counters(counters: Counters, out: &mut Vec<u8>) {
    out.extend_from_slice(b"PKTS=");
    number(counters.packets, out);
    out.extend_from_slice(b" BYTES=");
    number(counters.bytes, out);
    out.push(b' ');
}

fn loss(lost: Lost, out: &mut Vec<u8>) {
    out.extend_from_slice(b"[LOST] EVENTS=");
    number(lost.events, out);
    out.extend_from_slice(b" SOURCE=");
    out.extend_from_slice(lost.source.as_bytes());
    out.extend_from_slice(b" \n");
}

#[inline]
fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests;
