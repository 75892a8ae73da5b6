//! Golden lines: those of ulogd2 2.0.8, captured from the real one.

use super::*;
use crate::event::Process;
use crate::flow::{Family, Name};

const ULOGD: Settings =
    Settings { fixed_icmp_labels: false, all_ports: false, loss_lines: true, extras: false };
const FIXED: Settings = Settings { fixed_icmp_labels: true, all_ports: true, ..ULOGD };
const EXTRAS: Settings = Settings { extras: true, ..ULOGD };

fn address(text: &str) -> (Family, [u8; 16]) {
    let mut bytes = [0; 16];
    match text.parse().unwrap() {
        std::net::IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            (Family::V4, bytes)
        }
        std::net::IpAddr::V6(v6) => (Family::V6, v6.octets()),
    }
}

fn tuple(proto: u8, src: &str, dst: &str, src_l4: u16, dst_l4: u16) -> Tuple {
    let (family, src) = address(src);
    Tuple { family, proto, src, dst: address(dst).1, src_l4, dst_l4 }
}

fn flow(orig: Tuple, reply: Tuple, counters: [u64; 4]) -> Flow {
    let [packets, bytes, reply_packets, reply_bytes] = counters;
    Flow {
        orig,
        reply,
        counters: Some([
            Counters { packets, bytes },
            Counters { packets: reply_packets, bytes: reply_bytes },
        ]),
        ..Flow::default()
    }
}

fn print(settings: Settings, tag: Kinds, body: Body<'_>) -> String {
    let item = Item { tag, at: 0, body };
    let mut addresses = Addresses::default();
    addresses.set(&item);
    let mut line = Line::default();
    settings.print(&item, &addresses, &mut line);
    String::from_utf8(line.as_bytes().to_vec()).unwrap()
}

fn line(settings: Settings, tag: Kinds, flow: &Flow) -> String {
    ended(settings, tag, flow, None)
}

fn ended(settings: Settings, tag: Kinds, flow: &Flow, how: Option<&End>) -> String {
    witnessed(settings, tag, flow, how, Witness::Single)
}

fn witnessed(
    settings: Settings,
    tag: Kinds,
    flow: &Flow,
    how: Option<&End>,
    witness: Witness,
) -> String {
    let counted = tag.intersects(Kinds::DESTROY | Kinds::GC);
    print(settings, tag, Body::Flow { flow, start: None, end: None, how, counted, witness })
}

#[test]
fn tcp_with_masquerading() {
    let flow = flow(
        tuple(proto::TCP, "10.77.1.2", "10.77.2.2", 40003, 9001),
        tuple(proto::TCP, "10.77.2.2", "10.77.2.1", 9001, 40003),
        [6, 420, 4, 416],
    );
    assert_eq!(
        line(ULOGD, Kinds::DESTROY, &flow),
        "[DESTROY] ORIG: SRC=10.77.1.2 DST=10.77.2.2 PROTO=TCP SPT=40003 DPT=9001 PKTS=6 \
         BYTES=420 , REPLY: SRC=10.77.2.2 DST=10.77.2.1 PROTO=TCP SPT=9001 DPT=40003 PKTS=4 \
         BYTES=416 \n"
    );
}

#[test]
fn udp_over_ipv6_and_no_counters() {
    let orig = tuple(proto::UDP, "fd77:1::2", "fd77:2::2", 40007, 9053);
    let flow = Flow { orig, reply: orig.inverse(), ..Flow::default() };
    assert_eq!(
        line(ULOGD, Kinds::NEW, &flow),
        "[NEW] ORIG: SRC=fd77:1::2 DST=fd77:2::2 PROTO=UDP SPT=40007 DPT=9053 PKTS=0 BYTES=0 , \
         REPLY: SRC=fd77:2::2 DST=fd77:1::2 PROTO=UDP SPT=9053 DPT=40007 PKTS=0 BYTES=0 \n"
    );
}

#[test]
fn icmp_labels_are_swapped_unless_told_otherwise() {
    let orig = tuple(proto::ICMP, "10.77.1.2", "10.77.2.2", 77, 8 << 8 | 5);
    let reply = tuple(proto::ICMP, "10.77.2.2", "10.77.1.2", 77, 0);
    let flow = flow(orig, reply, [1, 60, 1, 60]);
    let swapped = line(ULOGD, Kinds::DESTROY, &flow);
    assert_eq!(swapped.matches("PROTO=ICMP TYPE=5 CODE=8 PKTS=1 BYTES=60 ").count(), 2);
    let fixed = line(FIXED, Kinds::DESTROY, &flow);
    assert!(fixed.contains("PROTO=ICMP TYPE=8 CODE=5 PKTS=1"), "{fixed}");
    assert!(fixed.contains("PROTO=ICMP TYPE=0 CODE=0 PKTS=1"), "{fixed}");
}

#[test]
fn other_protocols_have_their_number_and_ports_only_on_request() {
    let numbers = [
        (proto::ESP, "PROTO=ESP PKTS"),
        (proto::AH, "PROTO=AH PKTS"),
        (proto::GRE, "PROTO=47 PKTS"),
        (proto::SCTP, "PROTO=132 PKTS"),
        (proto::DCCP, "PROTO=33 PKTS"),
        (proto::UDPLITE, "PROTO=136 PKTS"),
        (proto::ICMPV6, "PROTO=58 PKTS"),
        (89, "PROTO=89 PKTS"),
    ];
    for (number, text) in numbers {
        let orig = tuple(number, "10.77.1.2", "10.77.2.2", 40009, 9899);
        let flow = Flow { orig, reply: orig.inverse(), ..Flow::default() };
        let line = line(ULOGD, Kinds::DESTROY, &flow);
        assert_eq!(line.matches(text).count(), 2, "{line}");
    }
    let orig = tuple(proto::SCTP, "10.77.1.2", "10.77.2.2", 40009, 9899);
    let sctp = Flow { orig, reply: orig.inverse(), ..Flow::default() };
    let text = line(FIXED, Kinds::DESTROY, &sctp);
    assert!(text.contains("PROTO=132 SPT=40009 DPT=9899 PKTS"), "{text}");
    let orig = tuple(proto::ICMPV6, "fd77:1::2", "fd77:2::2", 7, 128 << 8);
    let echo = Flow { orig, reply: orig.inverse(), ..Flow::default() };
    let text = line(FIXED, Kinds::DESTROY, &echo);
    assert!(text.contains("PROTO=58 TYPE=128 CODE=0 PKTS"), "{text}");
}

#[test]
fn tags_name_what_was_selected() {
    let flow = Flow::default();
    let tag = |kinds| {
        let line = line(ULOGD, kinds, &flow);
        line.split(" ORIG").next().unwrap().to_owned()
    };
    assert_eq!(tag(Kinds::UPDATE), "[UPDATE]");
    assert_eq!(tag(Kinds::CONFIRMED), "[CONFIRMED]");
    assert_eq!(tag(Kinds::CONFIRMED | Kinds::ASSURED), "[CONFIRMED|ASSURED]");
    assert_eq!(tag(Kinds::NEW | Kinds::HELPER), "[NEW|HELPER]");
    assert_eq!(tag(Kinds::DESTROY | Kinds::GC), "[DESTROY|GC]");
}

#[test]
fn an_expectation_names_its_master() {
    let expectation = Expectation {
        action: ExpectAction::New,
        tuple: tuple(proto::TCP, "10.0.0.2", "10.0.0.1", 0, 2121),
        master: tuple(proto::TCP, "10.0.0.1", "10.0.0.2", 40000, 21),
        zone: 0,
        helper: Some(Name::new(b"ftp\0")),
        netns: Some(NETNS),
    };
    let line = "[EXPECT] ORIG: SRC=10.0.0.2 DST=10.0.0.1 PROTO=TCP SPT=0 DPT=2121 PKTS=0 BYTES=0 , \
         REPLY: SRC=10.0.0.1 DST=10.0.0.2 PROTO=TCP SPT=2121 DPT=0 PKTS=0 BYTES=0 , \
         MASTER: SRC=10.0.0.1 DST=10.0.0.2 PROTO=TCP SPT=40000 DPT=21 ACTION=new HELPER=ftp \n";
    let print = |settings| print(settings, Kinds::EXPECT, Body::Expectation(&expectation));
    assert_eq!(print(ULOGD), line);
    assert_eq!(print(EXTRAS), line.replace('\n', "NETNS=4026531840 \n"));
}

#[test]
fn a_loss_is_a_line_unless_it_is_not_wanted() {
    let lost = Lost::noticed("netlink", 12, 0);
    let text = print(ULOGD, Kinds::empty(), Body::Lost(lost));
    assert_eq!(text, "[LOST] EVENTS=12 SOURCE=netlink \n");
    let quiet = Settings { loss_lines: false, ..ULOGD };
    assert_eq!(print(quiet, Kinds::empty(), Body::Lost(lost)), "");
}

const NETNS: Netns = Netns { cookie: Some(1), inum: 4_026_531_840 };

/// The line of a flow that ended so, with and without what eBPF adds.
fn both(how: Option<End>) -> [String; 2] {
    let orig = tuple(proto::TCP, "10.77.1.2", "10.77.2.2", 40003, 9001);
    let flow = Flow { netns: Some(NETNS), ..flow(orig, orig.inverse(), [6, 420, 4, 416]) };
    [ULOGD, EXTRAS].map(|settings| ended(settings, Kinds::DESTROY, &flow, how.as_ref()))
}

#[test]
fn extras_stand_behind_the_line_of_ulogd2() {
    let end = |cause| End { cause, portid: None, process: None };
    let [classic, line] = both(Some(end(Cause::ExpiredGc)));
    assert_eq!(
        classic,
        "[DESTROY] ORIG: SRC=10.77.1.2 DST=10.77.2.2 PROTO=TCP SPT=40003 DPT=9001 PKTS=6 \
         BYTES=420 , REPLY: SRC=10.77.2.2 DST=10.77.1.2 PROTO=TCP SPT=9001 DPT=40003 PKTS=4 \
         BYTES=416 \n"
    );
    assert_eq!(line, classic.replace('\n', "CAUSE=expired_gc NETNS=4026531840 \n"));
    let [_, line] = both(None);
    assert_eq!(line, classic.replace('\n', "NETNS=4026531840 \n"));
    let plain = Flow::default();
    assert_eq!(line_of(EXTRAS, &plain), line_of(ULOGD, &plain), "nothing is told, nothing added");
}

fn line_of(settings: Settings, flow: &Flow) -> String {
    line(settings, Kinds::DESTROY, flow)
}

#[test]
fn id_and_healing_stand_last() {
    let tail = |settings, flow: &Flow, witness| {
        let how = Some(End { cause: Cause::Lost, portid: None, process: None });
        let line = witnessed(settings, Kinds::DESTROY, flow, how.as_ref(), witness);
        line.rsplit("BYTES=0 ").next().unwrap().to_owned()
    };
    let paired = Flow { id: Some(4_294_967_295), netns: Some(NETNS), ..Flow::default() };
    let netlink = Flow { netns: None, ..paired.clone() };
    let ebpf = Flow { id: None, ..paired.clone() };
    let all = "CAUSE=lost NETNS=4026531840 ID=4294967295 ";
    for witness in [Witness::Single, Witness::Both, Witness::Ebpf] {
        assert_eq!(tail(EXTRAS, &paired, witness), format!("{all}\n"));
        assert_eq!(tail(EXTRAS, &ebpf, witness), "CAUSE=lost NETNS=4026531840 \n");
        assert_eq!(tail(EXTRAS, &netlink, witness), "CAUSE=lost \n");
    }
    assert_eq!(tail(EXTRAS, &paired, Witness::Healed), format!("{all}HEALED=1 \n"));
    assert_eq!(tail(EXTRAS, &netlink, Witness::Healed), "CAUSE=lost HEALED=1 \n");
    assert_eq!(tail(ULOGD, &paired, Witness::Healed), "\n");
}

/// Nothing is cut: [`Line`] says how much room the longest may take.
#[test]
fn the_longest_lines_fit() {
    let long = "1111:2222:3333:4444:5555:6666:7777:8888";
    let orig = tuple(proto::UDPLITE, long, long, u16::MAX, u16::MAX);
    let paired = Flow {
        id: Some(u32::MAX),
        netns: Some(Netns { cookie: None, inum: u32::MAX }),
        ..flow(orig, orig.inverse(), [u64::MAX; 4])
    };
    let comm = Name::new(&[0xff; 16]);
    let process = Some(Process { pid: u32::MAX, comm });
    let how = End { cause: Cause::Flushed, portid: Some(u32::MAX), process };
    let settings = Settings { extras: true, ..FIXED };
    let line = witnessed(settings, Kinds::all(), &paired, Some(&how), Witness::Healed);
    assert!(line.ends_with(" HEALED=1 \n") && line.len() < 800, "{}: {line}", line.len());
    let expectation = Expectation {
        action: ExpectAction::Destroy,
        tuple: orig,
        master: orig,
        zone: 0,
        helper: Some(comm),
        netns: paired.netns,
    };
    let body = Body::Expectation(&expectation);
    let item = Item { tag: Kinds::EXPECT, at: 0, body };
    let (mut addresses, mut line) = (Addresses::default(), Line::default());
    addresses.set(&item);
    settings.print(&item, &addresses, &mut line);
    assert!(line.as_bytes().ends_with(b" \n") && line.as_bytes().len() < 800);
}

#[test]
fn who_deleted_a_flow_is_told_and_cannot_spoil_the_line() {
    let comm = Name::new(b"a b\\c\n=\xc3\xa4~");
    let process = Some(Process { pid: 4711, comm });
    let by = |cause| both(Some(End { cause, portid: Some(12), process }))[1].clone();
    let tail = r"PORTID=12 PID=4711 COMM=a\x20b\x5cc\x0a=\xc3\xa4~ NETNS=4026531840 ";
    assert!(
        by(Cause::Deleted).ends_with(&format!("CAUSE=deleted {tail}\n")),
        "{}",
        by(Cause::Deleted)
    );
    assert!(by(Cause::Flushed).ends_with(&format!("CAUSE=flushed {tail}\n")));
    assert!(by(Cause::Other).ends_with("BYTES=416 CAUSE=other NETNS=4026531840 \n"));
    assert_eq!(by(Cause::Deleted).lines().count(), 1);
    let unknown = both(Some(End { cause: Cause::Deleted, portid: None, process: None }));
    assert!(unknown[1].ends_with("CAUSE=deleted NETNS=4026531840 \n"));
}

#[test]
fn counters_are_left_out_where_netlink_tells_none() {
    let orig = tuple(proto::UDP, "10.77.1.2", "10.77.2.2", 40003, 53);
    let flow = flow(orig, orig.inverse(), [1, 60, 0, 0]);
    let silent = Flow { counters: None, ..flow.clone() };
    assert_eq!(line(EXTRAS, Kinds::NEW, &flow), line(ULOGD, Kinds::NEW, &silent));
    assert!(line(ULOGD, Kinds::GC, &flow).starts_with("[GC] ORIG: "));
    assert!(line(ULOGD, Kinds::GC, &flow).contains("PKTS=1 BYTES=60"));
}
