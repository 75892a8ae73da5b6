//! The mass of flows that loads are made of: conntrack sees each of them as it was meant, and
//! flowlog tells each beginning and each end once.

use anyhow::{Result, ensure};
use tests::daemon::Program;
use tests::lab::Lab;
use tests::lines::totals;
use tests::mass::kind::{Kind, flow};
use tests::mass::tally::Tally;
use tests::mass::{Mass, mass};

use super::flowlog;

const FLOWS: u32 = 20_000;
/// Nothing is lost in it, however slow the log is.
const LARGE: &str = "netlink_socket_buffer_size=67108864\nnetlink_socket_buffer_maxsize=67108864";

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn each_flow_begins_and_ends_once() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_mass_rules()?;
    let daemon = flowlog(lab.router(), &format!("event_mask=5\nhash_enable=0\n{LARGE}"))?;
    let mass = mass(&lab, FLOWS)?;
    lab.router().expire_conntrack()?;
    let finished = daemon.stop()?;
    let totals = totals(&finished.log);
    ensure!(totals.get("netlink.lost") == Some(&0), "{totals:?}");
    let tally = Tally::read(&mass, &finished.path("flows.log"))?;
    tally.ensure_each_once("NEW")?;
    tally.ensure_each_once("DESTROY")?;
    tally.ensure_no_others()
}

/// What the table keeps with them, as another program reads it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn conntrack_keeps_what_was_meant() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_mass_rules()?;
    // So that all are there yet.
    lab.set_flow_timeout(300)?;
    let mass = mass(&lab, 2_000)?;
    let list = ["ipv4", "ipv6"]
        .map(|family| lab.router().run(&format!("conntrack -L -f {family} -o extended")));
    let [v4, v6] = list;
    let list = v4? + &v6?;
    let kinds = mass.kinds();
    for (kind, words) in MEANT {
        let ours: Vec<_> = lines_of(&list, *kind, &mass);
        ensure!(ours.len() as u64 == kinds[kind], "{} of {kind:?}\n{ours:#?}", ours.len());
        for (line, word) in ours.iter().flat_map(|line| words.iter().map(move |word| (line, word)))
        {
            ensure!(line.contains(word), "no {word:?} in {kind:?}: {line}");
        }
    }
    let refused = lines_of(&list, Kind::TcpRefused, &mass);
    ensure!(refused.is_empty(), "a reset leaves an entry: {refused:#?}");
    ensure_labels(&lab, kinds[&Kind::UdpMarked])
}

/// `conntrack` tells labels only where somebody gave them names.
fn ensure_labels(lab: &Lab, expected: u64) -> Result<()> {
    let flowlog = Program::Flowlog.path()?;
    let list = lab.router().run(&format!("{} list -o json", flowlog.display()))?;
    let labelled = list.matches(r#""labels":"08000000000000000000000000000000""#).count();
    ensure!(labelled as u64 == expected, "{labelled} entries have label 3, not {expected}");
    Ok(())
}

/// What `conntrack -L` says of each flow of a kind.
const MEANT: &[(Kind, &[&str])] = &[
    (Kind::TcpComplete, &["TIME_WAIT", "[ASSURED]", "mark=0 "]),
    (Kind::TcpAborted, &["CLOSE", "[ASSURED]"]),
    (Kind::TcpUnreplied, &["SYN_SENT", "[UNREPLIED]"]),
    (Kind::UdpAnswered, &["dport=9110", "mark=0 "]),
    (Kind::UdpUnanswered, &["[UNREPLIED]"]),
    (Kind::Icmp, &["type=8", "type=0"]),
    (Kind::Icmpv6, &["type=128", "type=129"]),
    (Kind::Tcp6, &["TIME_WAIT", "[ASSURED]"]),
    (Kind::Udp6, &["dport=9110"]),
    (Kind::Snat, &["TIME_WAIT", "[ASSURED]", "dst=10.77.2.1 sport=9120 dport=20000"]),
    (Kind::Dnat, &["TIME_WAIT", "[ASSURED]", "src=10.77.2.3", "sport=9131 dport=20000"]),
    (Kind::UdpInZone, &["zone=7"]),
    (Kind::TcpInZone, &["zone=8", "TIME_WAIT", "[ASSURED]"]),
    (Kind::UdpMarked, &["mark=43 "]),
];

/// The entries of the flows of a kind.
fn lines_of<'l>(list: &'l str, kind: Kind, mass: &Mass) -> Vec<&'l str> {
    let ours = mass.numbers.clone().filter(|number| Kind::of(*number) == kind);
    let addresses: std::collections::BTreeSet<_> =
        ours.map(|number| flow(number).orig.source.to_string()).collect();
    let first_source = |line: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix("src="));
        word.is_some_and(|address| addresses.contains(address))
    };
    list.lines().filter(|line| first_source(line)).collect()
}
