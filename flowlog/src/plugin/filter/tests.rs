//! What expressions mean, where mistakes are, and what the page says of both.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::event::{Cause, Comm, End, ExpectAction, Expectation, Kinds, Lost, Process, Witness};
use crate::flow::{Counters, Family, Flow, HelperName, Netns, Status, Tuple, proto};

mod oracle;
mod page;
mod pushed;
mod random;

/// 2023-11-14 22:13:20.123456789 UTC.
const AT: u64 = 1_700_000_000_123_456_789;

/// What an [`Item`] borrows.
#[derive(Clone, Debug)]
enum Made {
    Flow(Box<Flow>, Kinds, Option<End>),
    Expectation(Box<Expectation>),
}

impl Made {
    fn item(&self) -> Item<'_> {
        let (tag, body) = match self {
            Self::Flow(flow, tag, how) => (
                *tag,
                Body::Flow {
                    flow,
                    start: flow.start,
                    end: flow.stop,
                    how: how.as_ref(),
                    counted: true,
                    witness: Witness::Single,
                },
            ),
            Self::Expectation(expectation) => (Kinds::EXPECT, Body::Expectation(expectation)),
        };
        Item { tag, at: AT, body }
    }

    fn orig(&self) -> &Tuple {
        match self {
            Self::Flow(flow, ..) => &flow.orig,
            Self::Expectation(expectation) => &expectation.tuple,
        }
    }
}

fn tuple(proto: u8, from: (&str, u16), to: (&str, u16)) -> Tuple {
    let address = |text: &str| match literal::address(text) {
        Ok(value::Value::Address(family, bytes)) => (family, bytes),
        other => panic!("{text}: {other:?}"),
    };
    let ((family, src), (_, dst)) = (address(from.0), address(to.0));
    Tuple { family, proto, src, dst, src_l4: from.1, dst_l4: to.1 }
}

/// A connection that is translated, at its end after a minute.
fn tcp() -> Made {
    let flow = Flow {
        orig: tuple(proto::TCP, ("10.77.1.2", 40003), ("192.0.2.1", 443)),
        reply: tuple(proto::TCP, ("10.77.2.2", 8443), ("10.77.2.1", 40003)),
        status: Status::SEEN_REPLY | Status::ASSURED,
        counters: Some([Counters { packets: 6, bytes: 420 }, Counters { packets: 4, bytes: 580 }]),
        mark: 7,
        l4_state: Some(3),
        start: Some(AT - 60_000_000_000),
        stop: Some(AT),
        labels: Some([0xab; 16]),
        netns: Some(Netns { cookie: Some(9), inum: 4_026_532_210 }),
        ..Flow::default()
    };
    let end = End {
        cause: Cause::EarlyDrop,
        portid: None,
        process: Some(Process { pid: 1712, comm: Comm::new("künde".as_bytes()) }),
    };
    Made::Flow(Box::new(flow), Kinds::DESTROY | Kinds::ASSURED, Some(end))
}

/// Of which little is known.
fn ping6() -> Made {
    let orig = tuple(proto::ICMPV6, ("fd77::1", 5), ("2001:db8::1", 0x8000));
    let flow = Flow { orig, reply: orig.inverse(), ..Flow::default() };
    Made::Flow(Box::new(flow), Kinds::NEW, None)
}

fn expectation() -> Made {
    Made::Expectation(Box::new(Expectation {
        action: ExpectAction::New,
        tuple: tuple(proto::TCP, ("10.77.1.2", 0), ("10.77.2.2", 33033)),
        master: tuple(proto::TCP, ("10.77.1.2", 40010), ("10.77.2.2", 21)),
        zone: 3,
        helper: Some(HelperName::new(b"ftp")),
        netns: None,
    }))
}

fn answer(text: &str, made: &Made) -> Result<bool, Fault> {
    let program = Program::new(text).unwrap_or_else(|mistake| panic!("{text}: {mistake}"));
    program.holds(&made.item())
}

fn holds(text: &str, made: &Made) -> bool {
    answer(text, made).unwrap_or_else(|fault| panic!("{text}: {fault:?}"))
}

fn refused(text: &str) -> String {
    Program::new(text).err().map_or_else(|| panic!("{text} is taken"), |why| why.to_string())
}

#[test]
fn what_is_true_of_a_connection() {
    for text in [
        "true",
        "dst.port in [80, 443] && src.ip.is_private() && !dst.ip.is_private()",
        "cause == 'early_drop'",
        "cause in ['early_drop', 'deleted']",
        "'destroy' in kinds && 'assured' in kinds && !('new' in kinds)",
        "kind == 'destroy'",
        "type == 'flow' && family == 'ipv4' && !has(action)",
        "proto == 'tcp' && protocol.name == 'tcp' && protocol.number == 6",
        "orig.src == '10.77.1.2' && reply.src == '10.77.2.2' && reply.sport == 8443",
        "src.ip == orig.src && src.ip != reply.src",
        "src.ip in ['10.77.1.2', 'fd77::1']",
        "src.ip.in_net('10.76.0.0/16', '10.77.0.0/16') && !src.ip.is_v6() && src.ip.is_v4()",
        "packets == 10 && bytes == 1000 && orig.bytes == 420 && reply.packets == 4",
        "bytes / packets == 100 && bytes % 7 == 6 && bytes - packets * 2 + 1 == 981",
        "bytes > 999.5 && bytes < 1e4 && -1 < packets && mark == 7u && mark == 0x7",
        "duration == duration('1m') && duration > duration('59.9s') && end - start == duration",
        "start < timestamp('2023-11-14T22:12:30Z') && time == end && start + duration == end",
        "state == 'ESTABLISHED' && 'assured' in status && !('src_nat' in status)",
        "process.comm == 'künde' && process.comm.startsWith('kü') && size(process.comm) == 5",
        "process.comm.endsWith('de') && process.comm.contains('nd') && process.comm.size() > 4",
        "labels == 'abababababababababababababababab'",
        "netns.inum == 4026532210 && netns.cookie == 9 && zone == 0",
        "has(cause) && has(process.pid) && !has(portid) && !has(helper) && !has(orig.type)",
        "proto == 'udp' ? dst.port == 53 : dst.port == 443",
        "(dst.port == 443) == (proto == 'tcp') && (dst.port == 443) != false",
        "dst.port == 443 ? true : 1 / 0 == 1",
    ] {
        assert!(holds(text, &tcp()), "{text}");
    }
}

#[test]
fn a_test_of_what_is_absent_is_false() {
    for text in [
        "cause == 'early_drop'",
        "cause in ['early_drop', 'deleted']",
        "dst.port == 0",
        "dst.port < 1",
        "dst.port >= 0",
        "dst.port in [0, dst.port]",
        "helper.startsWith('')",
        "master.src.is_v6()",
        "bytes + 1 > 0",
        "size(helper) >= 0",
        "portid == portid",
        "'early_drop' == cause",
        "has(cause)",
    ] {
        assert!(!holds(text, &ping6()), "{text}");
        assert!(holds(&format!("!({text})"), &ping6()), "!({text})");
    }
    assert!(holds("cause != 'early_drop' && dst.port != 80", &ping6()));
    assert!(holds("orig.type == 128 && orig.code == 0 && orig.id == 5", &ping6()));
}

#[test]
fn expectations_are_asked_by_what_is_expected() {
    for text in [
        "type == 'expectation' && kind == 'expect' && action == 'new'",
        "dst.port == 33033 && master.dport == 21 && helper == 'ftp' && zone == 3",
        "proto == 'tcp' && dst.ip.is_private() && !has(status) && !has(reply.src)",
        "!('assured' in status) && !has(bytes)",
    ] {
        assert!(holds(text, &expectation()), "{text}");
    }
}

#[test]
fn what_decides_makes_good_for_what_has_no_answer() {
    let by_zero = "1 / (packets - 10) == 1";
    assert_eq!(answer(by_zero, &tcp()), Err(Fault::DivisionByZero));
    assert_eq!(answer("packets % 0 == 1", &tcp()), Err(Fault::DivisionByZero));
    assert_eq!(answer("9223372036854775807 + mark > 1", &tcp()), Err(Fault::Overflow));

    for (text, expected) in [
        (format!("{by_zero} && mark == 7"), Err(Fault::DivisionByZero)),
        (format!("{by_zero} && mark == 8"), Ok(false)),
        (format!("mark == 8 && {by_zero}"), Ok(false)),
        (format!("{by_zero} || mark == 7"), Ok(true)),
        (format!("{by_zero} || mark == 8"), Err(Fault::DivisionByZero)),
        (format!("!({by_zero})"), Err(Fault::DivisionByZero)),
    ] {
        assert_eq!(answer(&text, &tcp()), expected, "{text}");
    }
}

#[test]
fn mistakes_are_told_with_their_column() {
    for (text, column, what) in [
        ("dst.prot == 80", 1, "there is no field `dst.prot`; did you mean `dst.port`?"),
        ("'é' == helper && casue == 'lost'", 18, "did you mean `cause`?"),
        ("zone == 1 && dst == '10.0.0.1'", 14, "`dst` is no field; write one of dst.ip, dst.port"),
        ("dst.port == '80'", 13, "write the number without quotes"),
        ("dst.port == helper", 13, "an integer never equals a string"),
        ("cause == 'early-drop'", 10, "did you mean `early_drop`?"),
        ("cause in ['lost', 'lots']", 19, "did you mean `lost`?"),
        ("'assurde' in status", 1, "did you mean `assured`?"),
        ("proto == 'esp'", 10, "for others compare protocol.number"),
        ("src.ip == '10.0.0.0/8'", 11, "write ADDRESS.in_net('10.0.0.0/8')"),
        ("src.ip == 'localhost'", 11, "names are not looked up"),
        ("src.ip < '10.0.0.1'", 8, "an address has no order"),
        ("src.ip.in_net('10.0.0.0')", 15, "write `10.0.0.0/32` for one host"),
        ("src.ip.in_net(helper)", 15, "in single quotes"),
        ("src.ip.is_private", 1, "there is no field `src.ip.is_private`"),
        ("src.ip.is_privat()", 8, "there is no function `is_privat`; did you mean `is_private`?"),
        ("dst.port.is_private()", 1, "is asked of addresses, and this is an integer"),
        ("is_private(src.ip)", 1, "write ADDRESS.is_private()"),
        ("dst.port.startsWith('8')", 1, "is asked of strings"),
        ("duration > 60", 12, "write duration('10m')"),
        ("duration > duration('1 parsec')", 21, "is no length of time"),
        ("start > '2026-01-01T00:00:00Z'", 9, "write timestamp('2026-01-01T00:00:00Z')"),
        ("start > timestamp('yesterday')", 19, "is no moment"),
        ("kinds == 'new'", 10, "write 'new' in FIELD"),
        ("kinds == kinds", 10, "write 'WORD' in FIELD"),
        ("kind in kinds", 1, "in single quotes"),
        ("bytes", 1, "an integer, which is neither true nor false"),
        ("has(cause) && 'x'", 15, "a string, which is neither true nor false"),
        ("has(cause) == 1", 12, "equals nothing else"),
        ("has(cause) + 1 > 0", 1, "this is true or false, and has no other value"),
        ("bytes * 1.5 > 3", 7, "integers can"),
        ("start + start > start", 7, "cannot be reckoned"),
        ("labels == 'abc'", 11, "32 hexadecimal digits"),
        ("helper == null", 11, "ask has(FIELD)"),
        ("helper == b'x'", 11, "without the b"),
        ("mark == 18446744073709551615u", 9, "too large"),
        ("kinds.exists(k, k == 'new')", 7, "there is no function `exists`"),
        ("[1, 2] == [1]", 1, "may only stand behind `in`"),
        ("{'a': 1}.a == 1", 1, "only fields have members"),
        ("mark in mark", 9, "write a list"),
        ("has(1)", 5, "only fields have members"),
        ("dst.port = 80", 10, "token recognition error at: '= '"),
        ("dst.port ==", 12, "its end"),
        ("", 1, "its end"),
        ("(dst.port == 80", 16, "its end"),
    ] {
        let why = refused(text);
        let place = format!("column {column}: ");
        assert!(why.starts_with(&place) && why.contains(what), "{text}: {why}");
    }
}

/// What nests too deep is refused, not followed until the stack is full.
#[test]
fn depth_has_bounds() {
    let deep = |depth| format!("{}true{}", "!(".repeat(depth), ")".repeat(depth));
    let try_all = move || {
        assert!(Program::new(&deep(31)).is_ok());
        for depth in [33, 100, 5000] {
            assert!(refused(&deep(depth)).contains("more than 32 deep"), "{depth}");
        }
        let long = ["mark == 1"; 3000].join(" || ");
        assert!(Program::new(&long).is_ok());
    };
    // The stack of a main thread.
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(try_all);
    thread.unwrap().join().unwrap();
}

#[test]
fn losses_and_what_has_no_answer_are_handed_on() {
    let stats = Stats::default();
    let filter = |text: &str| {
        let program = Program::new(text).unwrap();
        Filter::new(&Settings { id: "f1".to_owned(), line: 3, program }, stats.clone())
    };
    let lost = Lost::noticed("ebpf", 3, AT);
    let lost = Item { tag: Kinds::empty(), at: AT, body: Body::Lost(lost) };
    let mut nothing = filter("false");
    assert!(nothing.passes(&lost) && !nothing.passes(&tcp().item()));
    assert!(filter("mark == 7").passes(&tcp().item()));
    assert!(filter("1 / (mark - 7) == 1").passes(&tcp().item()));
    assert!(filter("9223372036854775807 + mark > 1").passes(&tcp().item()));
    for (counter, count) in [
        (Counter::FilterSelected, 1),
        (Counter::FilterRefused, 1),
        (Counter::FilterDivisionsByZero, 1),
        (Counter::FilterOverflows, 1),
    ] {
        assert_eq!(stats.get(counter), count, "{}", counter.name());
    }
    assert!(stats.uses(Counter::FilterRefused));
}
