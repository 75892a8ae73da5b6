//! What is asked of the kernel, and that it never changes what is logged.

use proptest::prelude::*;

use super::random::{event, expression};
use super::*;
use crate::capture::Drained;
use crate::capture::filter::Filter as Accept;
use crate::verb::replay;

fn pushed(text: &str) -> String {
    Program::new(text).unwrap().bounds().to_string()
}

#[test]
fn addresses_protocols_and_ports_are_asked_of_the_kernel() {
    for (text, expected) in [
        ("src.ip.in_net('10.0.0.0/8')", "sources 10.0.0.0/8"),
        ("orig.dst == '192.0.2.1' && mark == 1", "destinations 192.0.2.1/32"),
        ("src.ip in ['10.0.0.1', 'fd00::1']", "sources 10.0.0.1/32, fd00::1/128"),
        (
            "src.ip.is_loopback() && dst.ip.is_v6()",
            "sources 127.0.0.0/8, ::1/128; destinations ::/0",
        ),
        ("src.ip.in_net('10.0.0.0/8') && src.ip.in_net('10.1.0.0/16')", "sources 10.1.0.0/16"),
        ("src.ip.in_net('10.0.0.0/8') || src.ip.in_net('10.1.0.0/16')", "sources 10.0.0.0/8"),
        ("src.ip.in_net('10.0.0.0/8') && src.ip.in_net('fd00::/8')", "nothing"),
        ("proto == 'tcp' || 'udp' == proto", "protocols tcp, udp"),
        ("protocol.number in [50, 51]", "protocols 50, 51"),
        (
            "dst.port in [80, 443] && !src.ip.is_private()",
            "protocols tcp, udp, udplite, sctp, dccp",
        ),
        ("dst.port > 1023 && proto in ['tcp', 'icmp']", "protocols tcp"),
        ("orig.type == 8", "protocols icmp, icmpv6"),
        ("proto == 'tcp' && false", "nothing"),
        // Of these nothing can be asked.
        ("cause == 'early_drop'", ""),
        ("!(proto == 'tcp')", ""),
        ("proto == 'tcp' || cause == 'lost'", ""),
        ("proto != 'tcp'", ""),
        ("reply.src == '10.0.0.1'", ""),
        ("1 / mark == dst.port", ""),
    ] {
        assert_eq!(pushed(text), expected, "{text}");
    }
}

#[test]
fn lists_that_are_too_long_are_left_to_us() {
    let list: Vec<String> = (0..100).map(|n| format!("'10.0.{n}.1'")).collect();
    let text = format!("src.ip in [{}] && proto == 'tcp'", list.join(", "));
    assert_eq!(Program::new(&text).unwrap().bounds().short().to_string(), "protocols tcp");
}

fn filter(text: &str) -> Accept {
    Program::new(text).unwrap().bounds().added_to(&Accept::default())
}

#[test]
fn one_family_does_not_let_the_other_pass() {
    let v4 = filter("src.ip.in_net('10.0.0.0/8')");
    assert!(v4.accepts(tcp().orig()) && !v4.accepts(ping6().orig()));
    let none = filter("false");
    assert!(!none.accepts(tcp().orig()) && !none.accepts(ping6().orig()));
    assert_eq!(filter("mark == 1"), Accept::default());
}

fn networks(list: &[&str]) -> Vec<crate::capture::filter::Network> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

/// Filters as they may stand in the section of a source.
fn accept() -> impl Strategy<Value = Accept> {
    let list = prop::sample::subsequence(
        vec!["10.0.0.0/8", "10.1.2.0/24", "8.8.8.8/32", "fd00::/8", "::1/128"],
        0..4,
    );
    let protocols = prop::sample::subsequence(vec![1, 6, 17, 58], 0..4);
    (list.clone(), list, protocols).prop_map(|(from, to, protocols)| Accept {
        sources: networks(&from),
        destinations: networks(&to),
        protocols,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// With two stacks, each with an expression, and filters of the source.
    #[test]
    fn what_is_refused_would_not_be_logged(
        first in expression(),
        second in expression(),
        accept in accept(),
        events in prop::collection::vec(event(), 8),
    ) {
        let programs = [first, second].map(|twin| Program::new(&twin.ours).unwrap());
        for stacks in [&programs[..1], &programs] {
            let bounds = stacks.iter().map(Program::bounds).reduce(Bounds::or).unwrap();
            let pushed = bounds.short().added_to(&accept);
            for made in &events {
                let logged = |program: &Program| program.holds(&made.item()).unwrap_or(true);
                let (before, after) = (accept.accepts(made.orig()), pushed.accepts(made.orig()));
                prop_assert!(before || !after, "more is let through");
                for program in stacks {
                    prop_assert_eq!(before && logged(program), after && logged(program));
                }
            }
        }
    }

    /// Two filters in one stack.
    #[test]
    fn filters_behind_each_other_are_one(
        first in expression(), second in expression(), made in event()
    ) {
        let programs = [first, second].map(|twin| Program::new(&twin.ours).unwrap());
        let bounds = programs.iter().map(Program::bounds).reduce(Bounds::and).unwrap();
        let logged = programs.iter().all(|program| program.holds(&made.item()).unwrap_or(true));
        prop_assert!(!logged || bounds.added_to(&Accept::default()).accepts(made.orig()));
    }
}

/// A recording through a stack with an expression, alone, which is pushed down,
/// and beside one without, which forbids it.
#[test]
fn a_recording_gives_the_same_lines_without() {
    let directory = tempfile::tempdir().unwrap();
    let recording = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mixed.nl");
    let run = |expression: &str, others: &str| {
        let log = directory.path().join("flow.log");
        let _ = fs::remove_file(&log);
        let file = directory.path().join("flowlog.conf");
        let text = format!(
            "[global]\nstack=ct1:NFCT,f1:FILTER,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n{others}\n\
             [ct1]\nevent_mask=7\nhash_enable=0\n[f1]\nexpr=\"{expression}\"\n[emu1]\nfile={}\n\
             [emu2]\nfile=/dev/null\n",
            log.display()
        );
        fs::write(&file, text).unwrap();
        let stats = Stats::default();
        let bytes = fs::read(&recording).unwrap();
        let mut source = replay::source(&file, bytes, &stats).unwrap();
        while source.drain(4096).unwrap().drained == Drained::More {}
        source.stacks.close();
        let lines = fs::read_to_string(&log).unwrap();
        // Without the time, which is that of receipt.
        let lines: Vec<String> = lines
            .lines()
            .map(|line| line.split_once("] ").unwrap_or(("", line)).1.to_owned())
            .collect();
        (lines, stats.get(Counter::FlowsFiltered), stats.get(Counter::FilterRefused))
    };
    const BESIDE: &str = "stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU";
    let all = run("true", "").0.len();
    for expression in [
        "proto == 'udp'",
        "dst.port in [80, 443, 9000, 9053] && !src.ip.is_v6()",
        "src.ip.is_v6()",
        "src.ip.in_net('127.0.0.0/8') && proto == 'tcp' && 'new' in kinds",
    ] {
        let (alone, refused_before, _) = run(expression, "");
        let (beside, none, refused) = run(expression, BESIDE);
        assert_eq!(alone, beside, "{expression}");
        assert!(refused_before > 0 && none == 0 && refused > 0, "{expression}");
        assert!(!alone.is_empty() && alone.len() < all, "{expression}: {}", alone.len());
    }
}
