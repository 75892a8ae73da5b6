//! The line for people: compact, the same order for each event.

use std::fmt::{self, Display, Formatter};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::colour::Paint;
use super::filter::has_ports;
use super::names::Named;
use super::view::Shown;
use crate::event::{Cause, End, ExpectAction, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::names::{protocol, state};
use crate::flow::{Counters, Family, Flow, Status, Tuple, proto};
use crate::verb::list::extended::address;

/// How lines are made.
#[derive(Clone, Debug)]
pub(in crate::verb) struct Style {
    /// Colours.
    pub(in crate::verb) paint: Paint,
    /// Whose time is told.
    pub(in crate::verb) zone: TimeZone,
}

impl Style {
    /// The line of an event.
    pub(super) fn event(&self, shown: &Shown<'_>) -> String {
        let Shown { tag: kinds, event, netns, .. } = shown;
        let flow = &event.flow;
        let mut line = self.front(event.at, *kinds, &tag(*kinds));
        let mut put = |part: fmt::Arguments<'_>| line += &format!(" {part}");
        put(format_args!("{}", Direction(&flow.orig)));
        put(format_args!("{}", state_of(flow)));
        for (name, tuple) in translation(flow) {
            put(format_args!("{name}={tuple}"));
        }
        if shown.is_end() {
            if let Some([orig, reply]) = flow.counters {
                let Counters { packets, bytes } = orig;
                put(format_args!("packets={packets}/{}", reply.packets));
                put(format_args!("bytes={bytes}/{}", reply.bytes));
            }
            if let Some(duration) = shown.duration() {
                put(format_args!("duration={}", Seconds(duration)));
            }
        }
        if let Some(end) = &event.end {
            put(format_args!("{}", Why(end)));
        }
        if let Some(netns) = netns {
            put(format_args!("netns={netns}"));
        }
        if flow.zone != 0 {
            put(format_args!("zone={}", flow.zone));
        }
        if flow.mark != 0 {
            put(format_args!("mark={}", flow.mark));
        }
        if let Some(helper) = &flow.helper {
            put(format_args!("helper={}", escaped(helper.as_bytes())));
        }
        match event.witness {
            Witness::Healed => put(format_args!("healed")),
            Witness::Single | Witness::Both | Witness::Ebpf => {}
        }
        line
    }

    /// The line of an expectation: what is expected, by which flow.
    pub(in crate::verb) fn expectation(
        &self,
        expectation: &Expectation,
        at: u64,
        netns: Option<&Named>,
    ) -> String {
        let Expectation { action, tuple, master, zone, helper, netns: _ } = expectation;
        let mut line = self.front(at, Kinds::EXPECT, &tag(Kinds::EXPECT));
        line += &format!(
            " {} {} master={}→{}",
            Direction(tuple),
            action_name(*action),
            Endpoint::src(master),
            Endpoint::dst(master)
        );
        if let Some(netns) = netns {
            line += &format!(" netns={netns}");
        }
        if *zone != 0 {
            line += &format!(" zone={zone}");
        }
        if let Some(helper) = helper {
            line += &format!(" helper={}", escaped(helper.as_bytes()));
        }
        line
    }

    /// The line of a loss.
    pub(in crate::verb) fn loss(&self, lost: Lost) -> String {
        let Lost { source, events, at } = lost;
        let text = format!("{:<9} {events} events lost by {source}", "[LOST]");
        format!("{} {}", self.time(at), self.paint.loss(text))
    }

    /// Time and tag.
    fn front(&self, at: u64, kinds: Kinds, tag: &str) -> String {
        format!("{} {}", self.time(at), self.paint.tag(kinds, format_args!("{tag:<9}")))
    }

    /// Time of day.
    pub(in crate::verb) fn time(&self, at: u64) -> String {
        let time = Timestamp::from_nanosecond(at.into()).unwrap_or_default();
        time.to_zoned(self.zone.clone()).strftime("%H:%M:%S%.3f").to_string()
    }
}

/// `[NEW]`, `[DESTROY|GC]`
pub(in crate::verb) fn tag(kinds: Kinds) -> String {
    format!("[{}]", tag_names(kinds))
}

/// The same without brackets.
pub(in crate::verb) fn tag_names(kinds: Kinds) -> String {
    let names =
        Kinds::NAMES.iter().filter(|(kind, _)| kinds.contains(*kind)).map(|(_, name)| *name);
    names.collect::<Vec<_>>().join("|")
}

/// What happened to an expectation.
pub(in crate::verb) fn action_name(action: ExpectAction) -> &'static str {
    match action {
        ExpectAction::New => "new",
        ExpectAction::Update => "update",
        ExpectAction::Destroy => "destroy",
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
        ("snat", Endpoint::src(orig), Endpoint::dst(reply)),
        ("dnat", Endpoint::dst(orig), Endpoint::src(reply)),
    ];
    ends.into_iter().filter(|(_, before, after)| before != after).map(|(name, _, end)| (name, end))
}

/// `tcp  10.77.1.2:40003 → 10.77.2.2:9001`, or what the protocol has for ports.
pub(in crate::verb) struct Direction<'a>(pub(in crate::verb) &'a Tuple);

impl Display for Direction<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let tuple = self.0;
        match protocol(tuple.proto) {
            Some(name) => write!(f, "{name:<4}")?,
            None => write!(f, "{:<4}", tuple.proto)?,
        }
        write!(f, " {} → {}", Endpoint::src(tuple), Endpoint::dst(tuple))?;
        match tuple.proto {
            proto::ICMP | proto::ICMPV6 => {
                let (kind, code) = (tuple.icmp_type(), tuple.icmp_code());
                write!(f, " type={kind} code={code} id={}", tuple.src_l4)
            }
            proto::GRE => write!(f, " srckey=0x{:x} dstkey=0x{:x}", tuple.src_l4, tuple.dst_l4),
            _ => Ok(()),
        }
    }
}

/// An address, and its port where there are ports; one that may be any is `*`.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::verb) struct Endpoint<'a>(Family, &'a [u8; 16], Option<u16>);

impl<'a> Endpoint<'a> {
    pub(in crate::verb) fn src(tuple: &'a Tuple) -> Self {
        Self(tuple.family, &tuple.src, has_ports(tuple.proto).then_some(tuple.src_l4))
    }

    pub(in crate::verb) fn dst(tuple: &'a Tuple) -> Self {
        Self(tuple.family, &tuple.dst, has_ports(tuple.proto).then_some(tuple.dst_l4))
    }
}

impl Display for Endpoint<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(family, bytes, port) = self;
        let text = address(*family, bytes);
        match (family, port) {
            (_, None) => f.write_str(&text),
            (Family::V4, Some(0)) => write!(f, "{text}:*"),
            (Family::V6, Some(0)) => write!(f, "[{text}]:*"),
            (Family::V4, Some(port)) => write!(f, "{text}:{port}"),
            (Family::V6, Some(port)) => write!(f, "[{text}]:{port}"),
        }
    }
}

/// Nanoseconds as seconds, to the millisecond.
pub(in crate::verb) struct Seconds(pub(in crate::verb) u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0 / 1_000_000;
        write!(f, "{}.{:03}s", milliseconds / 1000, milliseconds % 1000)
    }
}

/// Why a flow has ended, and who has ended it.
pub(in crate::verb) struct Why<'a>(pub(in crate::verb) &'a End);

impl Display for Why<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "cause={}", self.0.cause.name())?;
        match deleted_by(self.0) {
            Some(Process { pid, comm }) => {
                write!(f, " pid={pid} comm={}", escaped(comm.as_bytes()))
            }
            None => Ok(()),
        }
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
    let mut text = String::new();
    for byte in name {
        if byte.is_ascii_graphic() && *byte != b'\\' {
            text.push(char::from(*byte));
        } else {
            text += &format!("\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AT, as_shown, ended, expectation, named, tcp, udp6};
    use super::*;
    use crate::event::Event;
    use crate::flow::HelperName;

    fn style(paint: bool) -> Style {
        Style { paint: Paint(paint), zone: TimeZone::UTC }
    }

    fn line(event: &Event) -> String {
        style(false).event(&as_shown(event))
    }

    #[test]
    fn a_beginning_with_nat() {
        assert_eq!(
            line(&tcp(Kinds::NEW)),
            "22:13:20.123 [NEW]     tcp  10.77.1.2:40003 → 10.77.1.1:8080 SYN_SENT \
             snat=10.77.2.1:40003 dnat=10.77.2.2:9000 netns=4026532210(blue)"
        );
    }

    #[test]
    fn an_end_tells_all() {
        let mut event = ended(Cause::Deleted);
        event.flow.zone = 7;
        event.flow.mark = 42;
        event.flow.helper = Some(HelperName::new(b"ftp"));
        event.witness = Witness::Healed;
        assert_eq!(
            line(&event),
            "22:13:20.123 [DESTROY] tcp  10.77.1.2:40003 → 10.77.1.1:8080 CLOSE \
             snat=10.77.2.1:40003 dnat=10.77.2.2:9000 packets=6/4 bytes=420/416 duration=61.500s \
             cause=deleted pid=1712 comm=my\\x20tool netns=4026532210(blue) zone=7 mark=42 \
             helper=ftp healed"
        );
        assert!(line(&ended(Cause::Reset)).ends_with("cause=reset netns=4026532210(blue)"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let event = udp6(Kinds::UPDATE);
        let shown = Shown { netns: None, ..as_shown(&event) };
        assert_eq!(
            style(false).event(&shown),
            "22:13:20.123 [UPDATE]  udp  [fd77:1::2]:40006 → [fd77:2::2]:9053 REPLIED"
        );
        let mut event = ended(Cause::Other);
        (event.flow.counters, event.end) = (None, None);
        let shown = Shown { start: None, netns: None, ..as_shown(&event) };
        assert!(style(false).event(&shown).ends_with(" dnat=10.77.2.2:9000"));
    }

    #[test]
    fn protocols_without_ports_tell_what_they_have() {
        let mut event = udp6(Kinds::NEW);
        (event.flow.orig.proto, event.flow.reply.proto) = (proto::ICMPV6, proto::ICMPV6);
        event.flow.orig.dst_l4 = 128 << 8;
        // An answer has another type, which is no translation.
        event.flow.reply.dst_l4 = 129 << 8;
        event.flow.status = Status::empty();
        assert!(line(&event).contains(
            "[NEW]     icmpv6 fd77:1::2 → fd77:2::2 type=128 code=0 id=40006 UNREPLIED netns="
        ));
        (event.flow.orig.proto, event.flow.reply.proto) = (89, 89);
        assert!(line(&event).contains(" 89   fd77:1::2 → fd77:2::2 UNREPLIED netns="));
        event.flow.orig.proto = proto::GRE;
        assert!(line(&event).contains(" gre  fd77:1::2 → fd77:2::2 srckey=0x9c46 dstkey=0x8000 "));
    }

    #[test]
    fn an_expectation_and_a_loss() {
        assert_eq!(
            style(false).expectation(&expectation(), AT, Some(&named())),
            "22:13:20.123 [EXPECT]  tcp  10.77.1.2:* → 10.77.2.2:33033 new \
             master=10.77.1.2:40010→10.77.2.2:21 netns=4026532210(blue) helper=ftp"
        );
        let lost = Lost { source: "ebpf", events: 1234, at: AT };
        assert_eq!(style(false).loss(lost), "22:13:20.123 [LOST]    1234 events lost by ebpf");
    }

    #[test]
    fn the_tag_is_coloured_and_the_loss() {
        let event = tcp(Kinds::NEW);
        let line = style(true).event(&as_shown(&event));
        assert!(line.starts_with("22:13:20.123 \x1b[32m[NEW]    \x1b[0m tcp "), "{line:?}");
        let lost = style(true).loss(Lost { source: "ebpf", events: 1, at: AT });
        assert!(lost.ends_with("[LOST]    1 events lost by ebpf\x1b[0m"), "{lost:?}");
    }

    #[test]
    fn time_is_that_of_the_zone() {
        let zone = TimeZone::fixed(jiff::tz::offset(-5));
        let style = Style { zone, ..style(false) };
        assert_eq!(style.time(AT), "17:13:20.123");
    }

    #[test]
    fn no_name_reaches_a_terminal_as_a_command() {
        assert_eq!(escaped(b"a\x1b[2J\\ b\xff"), r"a\x1b[2J\x5c\x20b\xff");
    }
}
