//! The line of `conntrack -E -o extended`, and behind it what conntrack does
//! not know, in brackets.

use std::fmt::Write as _;

use super::colour::Paint;
use super::line::{Seconds, Why, deleted_by, escaped, tag};
use super::names::Named;
use super::view::Shown;
use crate::event::{ExpectAction, Expectation, Kinds, Lost};
use crate::flow::{Flow, Tuple};
use crate::verb::list::entry::Entry;
use crate::verb::list::extended::{Line, address};

/// The line of an event.
pub(super) fn event(shown: &Shown<'_>, paint: Paint) -> String {
    let Shown { tag: kinds, event, netns, .. } = shown;
    let entry = as_told(&event.flow, shown.is_end());
    let now = event.flow.stop.unwrap_or(event.at);
    let mut line =
        format!("{} {}", front(*kinds, &tag(*kinds), paint), Line { entry: &entry, now });
    let end = event.end.as_ref();
    if let Some(portid) = end.and_then(|end| end.portid) {
        let _ = write!(line, " [USERSPACE] portid={portid}");
    }
    if let Some(process) = end.and_then(deleted_by) {
        let _ = write!(line, " progname={}", escaped(process.comm.as_bytes()));
    }
    let mut extras = Vec::new();
    extras.extend(end.map(|end| Why(end).to_string()));
    extras.extend(shown.duration().map(|time| format!("duration={}", Seconds(time))));
    extras.extend(netns.as_ref().map(|netns| format!("netns={netns}")));
    line + &bracketed(&extras)
}

/// The line of an expectation. Its masks and its timeout are not known here.
pub(super) fn expectation(
    expectation: &Expectation,
    netns: Option<&Named>,
    paint: Paint,
) -> String {
    let Expectation { action, tuple, master, zone: _, helper, netns: _ } = expectation;
    let kinds = match action {
        ExpectAction::New => Kinds::NEW,
        ExpectAction::Update => Kinds::UPDATE,
        ExpectAction::Destroy => Kinds::DESTROY,
    };
    let mut line = format!(
        "{} proto={} {} {}",
        front(Kinds::EXPECT, &tag(kinds), paint),
        tuple.proto,
        ends(tuple, ""),
        ends(master, "master-")
    );
    if let Some(helper) = helper {
        let _ = write!(line, " helper={}", escaped(helper.as_bytes()));
    }
    let extras: Vec<_> = netns.map(|netns| format!("netns={netns}")).into_iter().collect();
    line + &bracketed(&extras)
}

/// The line of a loss.
pub(super) fn loss(lost: Lost, paint: Paint) -> String {
    let Lost { source, events, .. } = lost;
    paint.loss(format_args!("{:>9} events={events} source={source}", "[LOST]"))
}

fn front(kinds: Kinds, tag: &str, paint: Paint) -> String {
    paint.tag(kinds, format_args!("{tag:>9}"))
}

fn ends(tuple: &Tuple, prefix: &str) -> String {
    let Tuple { family, src, dst, src_l4, dst_l4, proto: _ } = tuple;
    let (src, dst) = (address(*family, src), address(*family, dst));
    format!("{prefix}src={src} {prefix}dst={dst} sport={src_l4} dport={dst_l4}")
}

fn bracketed(extras: &[String]) -> String {
    if extras.is_empty() { String::new() } else { format!(" [{}]", extras.join(" ")) }
}

/// What ctnetlink tells with an event, whoever told it: counters and times at
/// the end only, the helper until then (`ctnetlink_conntrack_event`, 6.12).
fn as_told(flow: &Flow, is_end: bool) -> Entry {
    let mut flow = flow.clone();
    if is_end {
        flow.helper = None;
    } else {
        (flow.counters, flow.start) = (None, None);
    }
    // It does not tell a mark of 0, except when that is what has changed.
    let has_mark = flow.mark != 0;
    let told = |zone: u16| (zone != 0).then_some(zone);
    // `CTA_ZONE`, or a zone in the tuple of one direction (`ctnetlink_dump_zone_id`).
    let (zone, zones) = match flow.reply_zone {
        None => (told(flow.zone), [None, None]),
        Some(reply) => (None, [told(flow.zone), told(reply)]),
    };
    Entry { flow, has_mark, zone, zones }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{AT, as_shown, ended, named, tcp, udp6};
    use super::*;
    use crate::event::Cause;
    use crate::flow::{Counters, HelperName};

    const PLAIN: Paint = Paint(false);

    #[test]
    fn a_beginning_is_that_of_conntrack() {
        let mut event = tcp(Kinds::NEW);
        event.flow.helper = Some(HelperName::new(b"ftp"));
        // eBPF knows them; conntrack would not show them.
        event.flow.counters = Some([Counters { packets: 1, bytes: 60 }; 2]);
        event.flow.start = Some(AT);
        let shown = Shown { netns: None, ..as_shown(&event) };
        assert_eq!(
            super::event(&shown, PLAIN),
            "    [NEW] ipv4     2 tcp      6 120 SYN_SENT src=10.77.1.2 dst=10.77.1.1 sport=40003 \
             dport=8080 [UNREPLIED] src=10.77.2.2 dst=10.77.2.1 sport=9000 dport=40003 helper=ftp"
        );
        let event = udp6(Kinds::UPDATE);
        let line = super::event(&as_shown(&event), PLAIN);
        assert!(line.starts_with(" [UPDATE] ipv6     10 udp      17 30 src=fd77:1::2 "), "{line}");
        assert!(line.ends_with(" dport=40006 [netns=4026532210(blue)]"), "{line}");
    }

    #[test]
    fn an_end_has_extras() {
        let mut event = ended(Cause::Flushed);
        (event.flow.zone, event.flow.mark) = (7, 42);
        event.flow.helper = Some(HelperName::new(b"ftp"));
        assert_eq!(
            super::event(&as_shown(&event), PLAIN),
            "[DESTROY] ipv4     2 tcp      6 CLOSE src=10.77.1.2 dst=10.77.1.1 sport=40003 \
             dport=8080 packets=6 bytes=420 src=10.77.2.2 dst=10.77.2.1 sport=9000 dport=40003 \
             packets=4 bytes=416 [ASSURED] mark=42 zone=7 delta-time=62 [USERSPACE] portid=99 \
             progname=my\\x20tool [cause=flushed pid=1712 comm=my\\x20tool duration=61.500s \
             netns=4026532210(blue)]"
        );
    }

    #[test]
    fn a_zone_of_one_direction_stands_in_that_direction() {
        let mut event = tcp(Kinds::NEW);
        event.flow.secctx = Some("a_t".into());
        event.flow.reply_zone = Some(9);
        let line = super::event(&as_shown(&event), PLAIN);
        assert!(line.contains(" dport=40003 zone-reply=9 secctx=a_t "), "{line}");
        (event.flow.zone, event.flow.reply_zone) = (7, Some(0));
        let line = super::event(&as_shown(&event), PLAIN);
        assert!(line.contains(" dport=8080 zone-orig=7 [UNREPLIED]"), "{line}");
        assert!(!line.contains(" zone="), "{line}");
    }

    #[test]
    fn expectations_and_losses() {
        assert_eq!(
            expectation(&super::super::tests::expectation(), Some(&named()), PLAIN),
            "    [NEW] proto=6 src=10.77.1.2 dst=10.77.2.2 sport=0 dport=33033 \
             master-src=10.77.1.2 master-dst=10.77.2.2 sport=40010 dport=21 helper=ftp \
             [netns=4026532210(blue)]"
        );
        let lost = Lost::noticed("netlink", 5, AT);
        assert_eq!(loss(lost, PLAIN), "   [LOST] events=5 source=netlink");
        assert_eq!(loss(lost, Paint(true)).find("[LOST]"), Some("\x1b[1m\x1b[31m   ".len()));
    }
}
