use super::*;
use crate::flow::{Flow, HelperName};

fn bytes_of(text: &str) -> (Family, [u8; 16]) {
    let mut bytes = [0; 16];
    match text.parse().unwrap() {
        std::net::IpAddr::V4(v4) => {
            bytes[..4].copy_from_slice(&v4.octets());
            (Family::V4, bytes)
        }
        std::net::IpAddr::V6(v6) => (Family::V6, v6.octets()),
    }
}

fn entry(proto: u8, src: (&str, u16), dst: (&str, u16)) -> Entry {
    let (family, from) = bytes_of(src.0);
    let (_, to) = bytes_of(dst.0);
    let orig = Tuple { family, proto, src: from, dst: to, src_l4: src.1, dst_l4: dst.1 };
    let flow =
        Flow { orig, reply: orig.inverse(), timeout: Some(29), uses: Some(1), ..Flow::default() };
    Entry { flow, has_mark: true, ..Entry::default() }
}

fn line(entry: &Entry) -> String {
    Line { entry, now: 1_700_000_123_999_999_999 }.to_string()
}

#[test]
fn tcp_established_with_counters() {
    let mut e = entry(proto::TCP, ("192.168.1.2", 40000), ("192.0.2.1", 443));
    e.flow.status = Status::SEEN_REPLY | Status::ASSURED | Status::CONFIRMED;
    e.flow.timeout = Some(431_999);
    e.flow.l4_state = Some(3);
    e.flow.counters =
        Some([Counters { packets: 3, bytes: 180 }, Counters { packets: 2, bytes: 120 }]);
    assert_eq!(
        line(&e),
        "ipv4     2 tcp      6 431999 ESTABLISHED src=192.168.1.2 dst=192.0.2.1 sport=40000 \
         dport=443 packets=3 bytes=180 src=192.0.2.1 dst=192.168.1.2 sport=443 dport=40000 \
         packets=2 bytes=120 [ASSURED] mark=0 use=1"
    );
}

#[test]
fn udp_without_reply_and_without_mark() {
    let mut e = entry(proto::UDP, ("::1", 1000), ("::1", 53));
    e.has_mark = false;
    assert_eq!(
        line(&e),
        "ipv6     10 udp      17 29 src=::1 dst=::1 sport=1000 dport=53 [UNREPLIED] src=::1 \
         dst=::1 sport=53 dport=1000 use=1"
    );
}

#[test]
fn addresses_are_written_as_inet_ntop_does() {
    let e = entry(proto::UDP, ("::1.2.3.4", 1), ("2001:db8::1:0:0:1", 2));
    assert!(line(&e).contains(" src=::1.2.3.4 dst=2001:db8::1:0:0:1 "), "{}", line(&e));
}

#[test]
fn icmp_shows_type_code_and_id() {
    let mut e = entry(proto::ICMP, ("10.0.0.1", 77), ("10.0.0.2", 0x0800));
    e.flow.reply.src_l4 = 77;
    e.flow.reply.dst_l4 = 0;
    e.flow.status = Status::SEEN_REPLY;
    assert_eq!(
        line(&e),
        "ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=77 src=10.0.0.2 \
         dst=10.0.0.1 type=0 code=0 id=77 mark=0 use=1"
    );
}

#[test]
fn gre_shows_keys_and_other_protocols_nothing() {
    let e = entry(proto::GRE, ("10.0.0.1", 0x1f), ("10.0.0.2", 0));
    assert!(line(&e).contains("gre      47 29 src=10.0.0.1 dst=10.0.0.2 srckey=0x1f dstkey=0x0 ["));
    let e = entry(89, ("10.0.0.1", 0), ("10.0.0.2", 0));
    assert!(line(&e).starts_with(
        "ipv4     2 unknown  89 29 src=10.0.0.1 dst=10.0.0.2 [UNREPLIED] src=10.0.0.2"
    ));
}

#[test]
fn states_of_each_protocol_and_beyond() {
    assert_eq!(state(proto::TCP, 9), Some("SYN_SENT2"));
    assert_eq!(state(proto::TCP, 200), Some("NONE"));
    assert_eq!(state(proto::SCTP, 4), Some("ESTABLISHED"));
    assert_eq!(state(proto::DCCP, 4), Some("OPEN"));
    assert_eq!(state(proto::UDP, 1), None);
}

#[test]
fn the_rest_stands_in_order() {
    let mut e = entry(proto::TCP, ("10.0.0.1", 1), ("10.0.0.2", 21));
    e.flow.status = Status::SEEN_REPLY | Status::ASSURED;
    e.flow.mark = 5;
    e.flow.start = Some(1_700_000_000_000_000_000);
    e.flow.helper = Some(HelperName::new(b"ftp"));
    e.zone = Some(7);
    e.zones = [Some(1), Some(2)];
    e.flow.secctx = Some("system_u:object_r:x_t:s0".into());
    assert_eq!(
        line(&e),
        "ipv4     2 tcp      6 29 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=21 zone-orig=1 \
         src=10.0.0.2 dst=10.0.0.1 sport=21 dport=1 zone-reply=2 [ASSURED] mark=5 \
         secctx=system_u:object_r:x_t:s0 zone=7 delta-time=123 helper=ftp use=1"
    );
}

#[test]
fn offload_hides_assured() {
    let mut e = entry(proto::UDP, ("10.0.0.1", 1), ("10.0.0.2", 2));
    e.flow.status = Status::SEEN_REPLY | Status::ASSURED | Status::OFFLOAD;
    assert!(line(&e).ends_with("dport=1 [OFFLOAD] mark=0 use=1"));
    e.flow.status |= Status::HW_OFFLOAD;
    assert!(line(&e).ends_with("dport=1 [HW_OFFLOAD] mark=0 use=1"));
}
