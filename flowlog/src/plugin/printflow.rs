//! PRINTFLOW: a flow as one line of text, byte for byte as ulogd2 2.0.8 writes
//! it (util/printflow.c there), the trailing blank and the swapped ICMP labels
//! included. What ulogd2 does not know of stands behind all that, if it is
//! wanted at all.

use super::ip2str::{Addresses, Pair};
use super::line::Line;
use super::{Body, Item};
use crate::event::{Cause, End, ExpectAction, Expectation, Kinds, Lost, Witness};
use crate::flow::{Counters, Flow, Netns, Tuple, proto};

/// How PRINTFLOW is to write.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// ICMP type and code under their own labels.
    pub fixed_icmp_labels: bool,
    /// Ports and types for every protocol that has them.
    pub all_ports: bool,
    /// Losses stand in the log.
    pub loss_lines: bool,
    /// Lines go on with what ulogd2 does not know of: cause of the end, who
    /// asked for it, namespace, id, healed or not.
    pub extras: bool,
}

impl Settings {
    /// Writes `item` into `out`, which is emptied first. Leaves it empty when
    /// there is nothing to log. Not inlined, as [`Addresses::set`] is not.
    #[inline(never)]
    pub fn print(&self, item: &Item<'_>, addresses: &Addresses, out: &mut Line) {
        out.clear();
        match item.body {
            Body::Flow { flow, how, counted, witness, start: _, end: _ } => {
                self.flow(item.tag, flow, counted, addresses, out);
                if self.extras {
                    extras(how, flow.netns, out);
                    comparison(flow, witness, out);
                }
                out.text(b" \n");
            }
            Body::Expectation(expectation) => self.expectation(expectation, addresses, out),
            Body::Lost(lost) if self.loss_lines => loss(lost, out),
            Body::Lost(_) => {}
        }
    }

    /// All but the line feed.
    #[inline]
    fn flow(
        &self,
        kinds: Kinds,
        flow: &Flow,
        counted: bool,
        addresses: &Addresses,
        out: &mut Line,
    ) {
        let [orig, reply] = match flow.counters {
            Some(counters) if counted => counters,
            _ => [Counters::default(); 2],
        };
        tag(kinds, out);
        out.text(b"ORIG: SRC=");
        self.tuple(&flow.orig, &flow.orig, &addresses.orig, out);
        counters(orig, out);
        out.text(b" , REPLY: SRC=");
        // ulogd2 knows the ICMP type of the original direction only.
        let icmp = if self.fixed_icmp_labels { &flow.reply } else { &flow.orig };
        self.tuple(&flow.reply, icmp, &addresses.reply, out);
        counters(reply, out);
    }

    /// The expected flow, then the connection whose helper expects it. The
    /// part up to the second counters has the form of every other line.
    fn expectation(&self, expectation: &Expectation, addresses: &Addresses, out: &mut Line) {
        let Expectation { action, tuple, master, helper, zone: _, netns } = expectation;
        let none = Counters::default();
        let inverse = tuple.inverse();
        tag(Kinds::EXPECT, out);
        out.text(b"ORIG: SRC=");
        self.tuple(tuple, tuple, &addresses.orig, out);
        counters(none, out);
        out.text(b" , REPLY: SRC=");
        self.tuple(&inverse, tuple, &addresses.reply, out);
        counters(none, out);
        out.text(b" , MASTER: SRC=");
        self.tuple(master, master, &addresses.master, out);
        out.text(match action {
            ExpectAction::New => b" ACTION=new",
            ExpectAction::Update => b" ACTION=update",
            ExpectAction::Destroy => b" ACTION=destroy",
        });
        if let Some(helper) = helper {
            out.text(b" HELPER=");
            out.text(helper.as_bytes());
        }
        if self.extras {
            extras(None, *netns, out);
        }
        out.text(b" \n");
    }

    /// From behind `SRC=` to the last number, without a blank. `icmp` is the
    /// tuple whose ICMP type is told.
    #[inline]
    fn tuple(&self, tuple: &Tuple, icmp: &Tuple, pair: &Pair, out: &mut Line) {
        pair.src.write(out);
        out.text(b" DST=");
        pair.dst.write(out);
        match tuple.proto {
            proto::TCP => {
                out.text(b" PROTO=TCP SPT=");
                ports(tuple, out);
            }
            proto::UDP => {
                out.text(b" PROTO=UDP SPT=");
                ports(tuple, out);
            }
            proto::ICMP => {
                out.text(b" PROTO=ICMP TYPE=");
                self.icmp(icmp, out);
            }
            proto::ESP => out.text(b" PROTO=ESP"),
            proto::AH => out.text(b" PROTO=AH"),
            other => self.other(other, tuple, icmp, out),
        }
    }

    fn other(&self, protocol: u8, tuple: &Tuple, icmp: &Tuple, out: &mut Line) {
        out.text(b" PROTO=");
        out.number(protocol.into());
        match protocol {
            proto::SCTP | proto::DCCP | proto::UDPLITE if self.all_ports => {
                out.text(b" SPT=");
                ports(tuple, out);
            }
            proto::ICMPV6 if self.all_ports => {
                out.text(b" TYPE=");
                type_and_code(icmp.icmp_type(), icmp.icmp_code(), out);
            }
            _ => {}
        }
    }

    fn icmp(&self, tuple: &Tuple, out: &mut Line) {
        let (kind, code) = (tuple.icmp_type(), tuple.icmp_code());
        if self.fixed_icmp_labels {
            type_and_code(kind, code, out);
        } else {
            type_and_code(code, kind, out);
        }
    }
}

/// What only some sources tell, in the style of the rest of the line.
#[cold]
fn extras(how: Option<&End>, netns: Option<Netns>, out: &mut Line) {
    if let Some(End { cause, portid, process }) = how {
        out.text(b" CAUSE=");
        out.text(cause.name().as_bytes());
        if matches!(cause, Cause::Deleted | Cause::Flushed) {
            if let Some(portid) = portid {
                out.text(b" PORTID=");
                out.number((*portid).into());
            }
            if let Some(process) = process {
                out.text(b" PID=");
                out.number(process.pid.into());
                out.text(b" COMM=");
                escaped(process.comm.as_bytes(), out);
            }
        }
    }
    if let Some(netns) = netns {
        out.text(b" NETNS=");
        out.number(netns.inum.into());
    }
}

/// What is known because two sources, or two tables, were compared. Netlink
/// tells an id with each message: there it says nothing new, and lines stay what
/// they were.
#[cold]
fn comparison(flow: &Flow, witness: Witness, out: &mut Line) {
    if let (Some(id), Some(_)) = (flow.id, flow.netns) {
        out.text(b" ID=");
        out.number(id.into());
    }
    match witness {
        Witness::Healed => out.text(b" HEALED=1"),
        Witness::Single | Witness::Both | Witness::Ebpf => {}
    }
}

/// A process may call itself anything: whatever is not printable, and what
/// would end the field, is written as `\xNN`.
fn escaped(name: &[u8], out: &mut Line) {
    for byte in name {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            out.byte(*byte);
        } else {
            out.text(b"\\x");
            out.text(&[byte >> 4, byte & 0xf].map(|d| b"0123456789abcdef"[usize::from(d)]));
        }
    }
}

#[inline]
fn tag(kinds: Kinds, out: &mut Line) {
    // Nearly every line has one of these.
    if kinds == Kinds::DESTROY {
        out.text(b"[DESTROY] ");
        return;
    }
    if kinds == Kinds::NEW {
        out.text(b"[NEW] ");
        return;
    }
    let mut separator = b'[';
    for (kind, name) in Kinds::NAMES {
        if kinds.contains(kind) {
            out.byte(separator);
            out.text(name.as_bytes());
            separator = b'|';
        }
    }
    out.text(b"] ");
}

#[inline]
fn ports(tuple: &Tuple, out: &mut Line) {
    out.number(tuple.src_l4.into());
    out.text(b" DPT=");
    out.number(tuple.dst_l4.into());
}

fn type_and_code(kind: u8, code: u8, out: &mut Line) {
    out.number(kind.into());
    out.text(b" CODE=");
    out.number(code.into());
}

#[inline]
fn counters(counters: Counters, out: &mut Line) {
    // Each line that is not about an end has these.
    if counters == Counters::default() {
        out.text(b" PKTS=0 BYTES=0");
        return;
    }
    out.text(b" PKTS=");
    out.number(counters.packets);
    out.text(b" BYTES=");
    out.number(counters.bytes);
}

fn loss(lost: Lost, out: &mut Line) {
    out.text(b"[LOST] EVENTS=");
    out.number(lost.events);
    out.text(b" SOURCE=");
    out.text(lost.source.as_bytes());
    out.text(b" \n");
}

#[cfg(test)]
mod tests;
