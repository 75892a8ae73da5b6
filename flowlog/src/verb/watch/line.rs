//! The line for people: compact, the same order for each event.

use std::fmt::{self, Display, Formatter, Write as _};

use super::colour::Paint;
use super::names::Named;
use super::view::Shown;
use crate::event::{Cause, End, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::names::{protocol, state};
use crate::flow::{Counters, Family, Flow, HelperName, Status, Tuple, proto};
use crate::plugin::clock::{PerSecond, SECOND};
use crate::plugin::ip2str;
use crate::verb::live::text::Text;
use crate::zone::Zone;

/// Columns of a tag.
const TAG: usize = 9;
/// The tags that most lines have, as wide as that.
const USUAL: [(Kinds, &str); 3] =
    [(Kinds::NEW, "[NEW]    "), (Kinds::UPDATE, "[UPDATE] "), (Kinds::DESTROY, "[DESTROY]")];

/// How lines are made. Those of events by hand and into the text that is put
/// out, since they are what a watch costs.
#[derive(Debug)]
pub(in crate::verb) struct Style {
    /// Colours.
    pub(in crate::verb) paint: Paint,
    /// `HH:MM:SS`
    clock: PerSecond,
}

impl Style {
    pub(in crate::verb) fn new(paint: Paint, clock: PerSecond) -> Self {
        Self { paint, clock }
    }

    /// Writes the line of an event, without its end.
    pub(super) fn event(&mut self, shown: &Shown<'_>, line: &mut Text) {
        let Shown { tag: kinds, event, netns, .. } = shown;
        let flow = &event.flow;
        self.front(event.at, *kinds, line);
        line.push(b' ');
        connection(flow, line);
        if shown.is_end() {
            if let Some([orig, reply]) = flow.counters {
                let Counters { packets, bytes } = orig;
                line.number(" packets=", packets);
                line.number("/", reply.packets);
                line.number(" bytes=", bytes);
                line.number("/", reply.bytes);
            }
            if let Some(duration) = shown.duration() {
                line.push_str(" duration=");
                Seconds(duration).push(line);
            }
        }
        if let Some(end) = &event.end {
            line.push(b' ');
            Why(end).push(line);
        }
        if let Some(netns) = netns {
            line.push_str(" netns=");
            netns.push(line);
        }
        let zone = zones(flow, line);
        surroundings(zone, flow.mark, flow.helper.as_ref(), line);
        if let Some(context) = &flow.secctx {
            line.push_str(" secctx=");
            push_escaped(context.as_bytes(), line);
        }
        match event.witness {
            Witness::Healed => line.push_str(" healed"),
            Witness::Single | Witness::Both | Witness::Ebpf => {}
        }
    }

    /// Writes the line of an expectation: what is expected, by which flow.
    pub(in crate::verb) fn expectation(
        &mut self,
        expectation: &Expectation,
        at: u64,
        netns: Option<&Named>,
        line: &mut Text,
    ) {
        let Expectation { action, tuple, master, zone, helper, netns: _ } = expectation;
        self.front(at, Kinds::EXPECT, line);
        line.push(b' ');
        expected(tuple, line);
        line.push(b' ');
        line.push_str(action.name());
        line.push_str(" master=");
        Endpoint::src(master).push(line);
        line.push_str("→");
        Endpoint::dst(master).push(line);
        if let Some(netns) = netns {
            line.push_str(" netns=");
            netns.push(line);
        }
        surroundings(*zone, 0, helper.as_ref(), line);
    }

    /// Writes the line of a loss.
    pub(in crate::verb) fn loss(&mut self, lost: Lost, line: &mut Text) {
        let Lost { source, events, at, .. } = lost;
        self.time(at, line);
        line.push(b' ');
        let text = format_args!("{:<9} {events} events lost by {source}", "[LOST]");
        line.push_str(&self.paint.loss(text));
    }

    /// Time and tag.
    fn front(&mut self, at: u64, kinds: Kinds, line: &mut Text) {
        self.time(at, line);
        line.push(b' ');
        self.paint.tag_into(kinds, line, |line| {
            if let Some((_, tag)) = USUAL.iter().find(|(usual, _)| *usual == kinds) {
                return line.push_str(tag);
            }
            let begin = line.len();
            push_tag(kinds, line);
            for _ in line.len() - begin..TAG {
                line.push(b' ');
            }
        });
    }

    /// Writes the time of day.
    pub(in crate::verb) fn time(&mut self, at: u64, line: &mut Text) {
        line.push_bytes(self.clock.at(at, hours));
        line.push(b'.');
        line.thousandths(at / 1_000_000 % 1000);
    }
}

/// `22:46:33`
fn hours(zone: &Zone, second: u64, text: &mut Vec<u8>) {
    let (time, _) = zone.civil(second as i64);
    text.extend(time.strftime("%H:%M:%S").to_string().bytes());
}

/// Writes the zones of both directions where they differ; returns the one of
/// both that is still to be written, else 0.
pub(in crate::verb) fn zones(flow: &Flow, line: &mut Text) -> u16 {
    let Some(reply) = flow.reply_zone else { return flow.zone };
    for (name, zone) in [(" zone-orig=", flow.zone), (" zone-reply=", reply)] {
        if zone != 0 {
            line.number(name, zone.into());
        }
    }
    0
}

/// What an event has beside its flow's ends, where it is not 0.
pub(in crate::verb) fn surroundings(
    zone: u16,
    mark: u32,
    helper: Option<&HelperName>,
    line: &mut Text,
) {
    if zone != 0 {
        line.number(" zone=", zone.into());
    }
    if mark != 0 {
        line.number(" mark=", mark.into());
    }
    if let Some(helper) = helper {
        line.push_str(" helper=");
        push_escaped(helper.as_bytes(), line);
    }
}

/// `[NEW]`, `[DESTROY|GC]`
pub(in crate::verb) fn tag(kinds: Kinds) -> String {
    Text::string(|text| push_tag(kinds, text))
}

fn push_tag(kinds: Kinds, line: &mut Text) {
    line.push(b'[');
    push_names(kinds, line);
    line.push(b']');
}

/// The same without brackets.
pub(in crate::verb) fn tag_names(kinds: Kinds) -> String {
    Text::string(|text| push_names(kinds, text))
}

fn push_names(kinds: Kinds, line: &mut Text) {
    let mut bar = "";
    for (kind, name) in &Kinds::NAMES {
        if kinds.contains(*kind) {
            line.push_str(bar);
            line.push_str(name);
            bar = "|";
        }
    }
}

/// Who speaks with whom, the protocol's state, and what NAT has made of it.
pub(in crate::verb) fn connection(flow: &Flow, line: &mut Text) {
    direction(&flow.orig, line);
    line.push(b' ');
    line.push_str(state_of(flow));
    for (name, end) in translation(flow) {
        line.push_str(name);
        end.push(line);
    }
    translated_id(flow, line);
}

/// Writes the ICMP identifier that NAT has put in the place of the original.
pub(in crate::verb) fn translated_id(flow: &Flow, line: &mut Text) {
    let Flow { orig, reply, .. } = flow;
    let is_icmp = matches!(orig.proto, proto::ICMP | proto::ICMPV6);
    if is_icmp && orig.src_l4 != reply.src_l4 {
        line.number(" snat-id=", reply.src_l4.into());
    }
}

/// Of protocols without a state how far the flow has come.
pub(in crate::verb) fn state_of(flow: &Flow) -> &'static str {
    let told = flow.l4_state.and_then(|value| state(flow.orig.proto, value));
    told.unwrap_or(if flow.status.contains(Status::ASSURED) {
        "ASSURED"
    } else if flow.status.contains(Status::SEEN_REPLY) {
        "REPLIED"
    } else {
        "UNREPLIED"
    })
}

/// What NAT has put in the place of the source and of the destination.
pub(in crate::verb) fn translation(
    flow: &Flow,
) -> impl Iterator<Item = (&'static str, Endpoint<'_>)> {
    let Flow { orig, reply, .. } = flow;
    let ends = [
        (" snat=", Endpoint::src(orig), Endpoint::dst(reply)),
        (" dnat=", Endpoint::dst(orig), Endpoint::src(reply)),
    ];
    ends.into_iter().filter(|(_, before, after)| before != after).map(|(name, _, end)| (name, end))
}

/// `tcp  10.77.1.2:40003 → 10.77.2.2:9001`, or what the protocol has for ports.
pub(in crate::verb) fn direction(tuple: &Tuple, line: &mut Text) {
    between(tuple, [Endpoint::src(tuple), Endpoint::dst(tuple)], line);
}

/// The same of a tuple that is expected: a port of 0 may be any.
pub(in crate::verb) fn expected(tuple: &Tuple, line: &mut Text) {
    let ends = [Endpoint::src(tuple), Endpoint::dst(tuple)];
    between(tuple, ends.map(Endpoint::or_any), line);
}

fn between(tuple: &Tuple, [src, dst]: [Endpoint<'_>; 2], line: &mut Text) {
    // Writing to a string cannot fail.
    let _ = match protocol(tuple.proto) {
        Some(name) => {
            line.push_str(name);
            (name.len()..4).for_each(|_| line.push(b' '));
            Ok(())
        }
        None => write!(line, "{:<4}", tuple.proto),
    };
    line.push(b' ');
    src.push(line);
    line.push_str(" → ");
    dst.push(line);
    let _ = match tuple.proto {
        proto::ICMP | proto::ICMPV6 => {
            let (kind, code) = (tuple.icmp_type(), tuple.icmp_code());
            write!(line, " type={kind} code={code} id={}", tuple.src_l4)
        }
        proto::GRE => write!(line, " srckey=0x{:x} dstkey=0x{:x}", tuple.src_l4, tuple.dst_l4),
        _ => Ok(()),
    };
}

/// An address, and its port where there are ports; one that may be any is `*`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::verb) struct Endpoint<'a>(Family, &'a [u8; 16], Option<Port>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Is(u16),
    Any,
}

impl<'a> Endpoint<'a> {
    pub(in crate::verb) fn src(tuple: &'a Tuple) -> Self {
        Self(tuple.family, &tuple.src, tuple.has_ports().then_some(Port::Is(tuple.src_l4)))
    }

    pub(in crate::verb) fn dst(tuple: &'a Tuple) -> Self {
        Self(tuple.family, &tuple.dst, tuple.has_ports().then_some(Port::Is(tuple.dst_l4)))
    }

    /// Of an expectation, where 0 stands for a port that matters not.
    fn or_any(self) -> Self {
        match self {
            Self(family, address, Some(Port::Is(0))) => Self(family, address, Some(Port::Any)),
            other => other,
        }
    }
}

impl Endpoint<'_> {
    pub(in crate::verb) fn push(&self, line: &mut Text) {
        let Self(family, bytes, port) = self;
        let mut address = ip2str::Text::default();
        address.set(*family, bytes);
        let address = address.as_bytes();
        let Some(port) = port else { return line.push_bytes(address) };
        match family {
            Family::V4 => line.push_bytes(address),
            Family::V6 => {
                line.push(b'[');
                line.push_bytes(address);
                line.push(b']');
            }
        }
        match port {
            Port::Any => line.push_str(":*"),
            Port::Is(port) => line.number(":", (*port).into()),
        }
    }
}

/// Nanoseconds as seconds, to the millisecond.
pub(in crate::verb) struct Seconds(pub(in crate::verb) u64);

impl Seconds {
    pub(in crate::verb) fn push(&self, line: &mut Text) {
        line.number("", self.0 / SECOND);
        line.push(b'.');
        line.thousandths(self.0 / 1_000_000 % 1000);
        line.push(b's');
    }
}

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&Text::string(|text| self.push(text)))
    }
}

/// Why a flow has ended, and who has ended it.
pub(in crate::verb) struct Why<'a>(pub(in crate::verb) &'a End);

impl Why<'_> {
    pub(in crate::verb) fn push(&self, line: &mut Text) {
        line.push_str("cause=");
        line.push_str(self.0.cause.name());
        if let Some(Process { pid, comm }) = deleted_by(self.0) {
            line.number(" pid=", (*pid).into());
            line.push_str(" comm=");
            push_escaped(comm.as_bytes(), line);
        }
    }
}

impl Display for Why<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&Text::string(|text| self.push(text)))
    }
}

/// The process that has deleted a flow, if one has.
pub(in crate::verb) fn deleted_by(end: &End) -> Option<&Process> {
    let asked_for = matches!(end.cause, Cause::Deleted | Cause::Flushed);
    end.process.as_ref().filter(|_| asked_for)
}

/// A name that anybody may have chosen: whatever is not printable, and what
/// would end the field, is written as `\xNN`.
pub(in crate::verb) fn escaped(name: &[u8]) -> String {
    Text::string(|text| push_escaped(name, text))
}

pub(in crate::verb) fn push_escaped(name: &[u8], line: &mut Text) {
    for byte in name {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            line.push(*byte);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(line, "\\x{byte:02x}");
        }
    }
}

#[cfg(test)]
mod tests;
