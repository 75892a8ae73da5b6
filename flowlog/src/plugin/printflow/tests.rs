//! Golden lines: those of ulogd2 2.0.8, captured from the real one.

use super::*;
use crate::flow::Family;

const ULOGD: Settings = Settings { fixed_icmp_labels: false, all_ports: false, loss_lines: true };
const FIXED: Settings = Settings { fixed_icmp_labels: true, all_ports: true, loss_lines: true };

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
    let mut line = Vec::new();
    settings.print(&item, &addresses, &mut line);
    String::from_utf8(line).unwrap()
}

fn line(settings: Settings, tag: Kinds, flow: &Flow) -> String {
    print(settings, tag, Body::Flow { flow, start: None, end: None })
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
        helper: Some(crate::flow::HelperName::new(b"ftp\0")),
    };
    assert_eq!(
        print(ULOGD, Kinds::EXPECT, Body::Expectation(&expectation)),
        "[EXPECT] ORIG: SRC=10.0.0.2 DST=10.0.0.1 PROTO=TCP SPT=0 DPT=2121 PKTS=0 BYTES=0 , \
         REPLY: SRC=10.0.0.1 DST=10.0.0.2 PROTO=TCP SPT=2121 DPT=0 PKTS=0 BYTES=0 , \
         MASTER: SRC=10.0.0.1 DST=10.0.0.2 PROTO=TCP SPT=40000 DPT=21 ACTION=new HELPER=ftp \n"
    );
}

#[test]
fn a_loss_is_a_line_unless_it_is_not_wanted() {
    let lost = Lost { source: "netlink", events: 12, at: 0 };
    let text = print(ULOGD, Kinds::empty(), Body::Lost(lost));
    assert_eq!(text, "[LOST] EVENTS=12 SOURCE=netlink \n");
    let quiet = Settings { loss_lines: false, ..ULOGD };
    assert_eq!(print(quiet, Kinds::empty(), Body::Lost(lost)), "");
}
