//! Lines of made-up events.

use jiff::tz::TimeZone;

use super::*;
use crate::event::Event;
use crate::flow::HelperName;
use crate::verb::watch::tests::{AT, as_shown, ended, expectation, named, tcp, udp6};

fn style(paint: bool) -> Style {
    Style::new(Paint(paint), PerSecond::fixed(TimeZone::UTC.into()))
}

fn shown(shown: &Shown<'_>) -> String {
    Text::string(|line| style(false).event(shown, line))
}

fn line(event: &Event) -> String {
    shown(&as_shown(event))
}

fn loss(paint: bool, events: u64) -> String {
    let lost = Lost::noticed("ebpf", events, AT);
    Text::string(|line| style(paint).loss(lost, line))
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
    assert_eq!(
        shown(&Shown { netns: None, ..as_shown(&event) }),
        "22:13:20.123 [UPDATE]  udp  [fd77:1::2]:40006 → [fd77:2::2]:9053 REPLIED"
    );
    let mut event = ended(Cause::Other);
    (event.flow.counters, event.end) = (None, None);
    let bare = Shown { start: None, netns: None, ..as_shown(&event) };
    assert!(shown(&bare).ends_with(" dnat=10.77.2.2:9000"));
}

#[test]
fn protocols_without_ports_tell_what_they_have() {
    let mut event = udp6(Kinds::NEW);
    (event.flow.orig.proto, event.flow.reply.proto) = (proto::ICMPV6, proto::ICMPV6);
    event.flow.orig.dst_l4 = 128 << 8;
    event.flow.reply.src_l4 = event.flow.orig.src_l4;
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
fn a_port_of_0_is_a_port() {
    let mut event = udp6(Kinds::NEW);
    (event.flow.orig.dst_l4, event.flow.reply.src_l4) = (0, 0);
    assert!(line(&event).contains("[fd77:1::2]:40006 → [fd77:2::2]:0 "), "{}", line(&event));
}

#[test]
fn nat_may_change_the_identifier_of_icmp() {
    let mut event = udp6(Kinds::NEW);
    (event.flow.orig.proto, event.flow.reply.proto) = (proto::ICMP, proto::ICMP);
    (event.flow.orig.src_l4, event.flow.reply.src_l4) = (7, 7);
    assert!(!line(&event).contains("snat-id"), "{}", line(&event));
    event.flow.reply.src_l4 = 4711;
    assert!(line(&event).contains(" id=7 ") && line(&event).contains(" snat-id=4711 "));
}

#[test]
fn zones_of_both_directions_and_the_security_context_are_told() {
    let mut event = udp6(Kinds::NEW);
    event.flow.zone = 7;
    assert!(line(&event).ends_with(" zone=7"), "{}", line(&event));
    (event.flow.zone, event.flow.reply_zone) = (0, Some(9));
    event.flow.secctx = Some("a:b c".into());
    assert!(line(&event).ends_with(" zone-reply=9 secctx=a:b\\x20c"), "{}", line(&event));
    (event.flow.zone, event.flow.reply_zone) = (7, Some(9));
    assert!(line(&event).contains(" zone-orig=7 zone-reply=9 "), "{}", line(&event));
}

#[test]
fn an_expectation_and_a_loss() {
    assert_eq!(
        Text::string(|line| style(false).expectation(&expectation(), AT, Some(&named()), line)),
        "22:13:20.123 [EXPECT]  tcp  10.77.1.2:* → 10.77.2.2:33033 new \
         master=10.77.1.2:40010→10.77.2.2:21 netns=4026532210(blue) helper=ftp"
    );
    assert_eq!(loss(false, 1234), "22:13:20.123 [LOST]    1234 events lost by ebpf");
}

#[test]
fn usual_tags_are_as_the_others() {
    for (kinds, text) in USUAL {
        assert_eq!(format!("{:<TAG$}", tag(kinds)), text);
    }
    let mut event = tcp(Kinds::NEW);
    event.kinds |= Kinds::HELPER;
    assert!(line(&event).contains(" [NEW|HELPER] tcp "));
    event.kinds = Kinds::GC;
    assert!(line(&event).contains(" [GC]      tcp "));
}

#[test]
fn the_tag_is_coloured_and_the_loss() {
    let event = tcp(Kinds::NEW);
    let line = Text::string(|line| style(true).event(&as_shown(&event), line));
    assert!(line.starts_with("22:13:20.123 \x1b[32m[NEW]    \x1b[0m tcp "), "{line:?}");
    let lost = loss(true, 1);
    assert!(lost.ends_with("[LOST]    1 events lost by ebpf\x1b[0m"), "{lost:?}");
}

#[test]
fn time_is_that_of_the_zone() {
    let zone = TimeZone::fixed(jiff::tz::offset(-5));
    let mut style = Style::new(Paint(false), PerSecond::fixed(zone.into()));
    let mut time = |at| Text::string(|line| style.time(at, line));
    assert_eq!(time(AT), "17:13:20.123");
    assert_eq!([time(AT + SECOND), time(AT - SECOND)], ["17:13:21.123", "17:13:19.123"]);
    assert_eq!([time(0), time(5_000_000)], ["19:00:00.000", "19:00:00.005"]);
}

#[test]
fn no_name_reaches_a_terminal_as_a_command() {
    assert_eq!(escaped(b"a\x1b[2J\\ b\xff"), r"a\x1b[2J\x5c\x20b\xff");
}
