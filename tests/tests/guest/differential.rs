//! Capture by eBPF against capture over netlink: both on the same traffic write the same lines,
//! whatever the order and the time, by each way of attaching and by each hook that stands in for
//! another. The traffic is known too, so that all being silent does not pass.

use std::net::UdpSocket;
use std::ops::RangeInclusive;

use anyhow::{Context, Result, ensure};
use tests::daemon::{Daemon, Finished};
use tests::lab::Lab;
use tests::lines::{Line, ensure_equal, multiset, tagged, uncounted};
use tests::packet::protocol;
use tests::sources;
use tests::traffic::{self, Flow, Reach, Tuple};

use super::{by_ebpf, ensure_total, launch, lines_of, start, stop};

/// Keys of each source of a daemon; the same ones in each.
const SOURCES: [&str; 12] = [
    "hash_enable=0\nevent_mask=5",
    "hash_enable=0\nevent_mask=1",
    "hash_enable=0\nevent_mask=4",
    "hash_enable=0\nevent_mask=7",
    "hash_enable=1\nevent_mask=5",
    "hash_enable=1\nevent_mask=1",
    "hash_enable=1\nevent_mask=4",
    "hash_enable=1\nevent_mask=7",
    "hash_enable=0\nevent_mask=0x20",
    "hash_enable=1\nevent_mask=0x20",
    "hash_enable=0\nevent_mask=0x40",
    "hash_enable=1\nevent_mask=0x40",
];
/// Sources, counted from 1, whose lines must be the same ones.
const EQUAL: RangeInclusive<usize> = 1..=10;
/// Those of flows whose helper is told. Netlink repeats it with each message.
const HELPERS: [usize; 2] = [11, 12];
/// Sources of which some lines must have this tag.
const TOLD: [(usize, &str); 3] = [(4, "UPDATE"), (9, "EXPECT"), (10, "EXPECT")];

/// Functions that other hooks stand in for where they are missing.
const HIDDEN: [&str; 2] = ["__nf_conntrack_hash_insert", "__nf_ct_delete_from_lists"];

/// In the section of each source that listens over netlink.
const NETLINK: &str = "capture=netlink";

/// In that of each source by eBPF.
fn ebpf(attach: &str) -> String {
    format!("capture=ebpf\nattach={attach}\nnetns=self\nring_buffer_size=1048576")
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn same_lines_as_over_netlink() -> Result<()> {
    by_ebpf(|| {
        let lab = various_lab()?;
        let netlink = start(lab.router(), NETLINK, &SOURCES, "")?;
        let kprobe = start(lab.router(), &ebpf("kprobe"), &SOURCES, "")?;
        let fentry = start(lab.router(), &ebpf("fentry"), &SOURCES, "")?;
        let flows = traffic(&lab, 30_000)?;
        compare(netlink, vec![("kprobe".to_owned(), kprobe), ("fentry".to_owned(), fentry)], &flows)
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn same_lines_without_accounting() -> Result<()> {
    by_ebpf(|| {
        let lab = various_lab()?;
        lab.set_accounting(false)?;
        let first = &SOURCES[..1];
        let netlink = start(lab.router(), NETLINK, first, "")?;
        let ebpf = start(lab.router(), &ebpf("auto"), first, "")?;
        ebpf.wait_log("runs by eBPF (fentry): ct1")?;
        let flows = traffic(&lab, 31_000)?;
        compare(netlink, vec![("auto".to_owned(), ebpf)], &flows)
    })
}

/// Where the best hook is missing, inlined by a compiler, another one tells the same.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn same_lines_by_hooks_that_stand_in() -> Result<()> {
    by_ebpf(|| {
        let lab = various_lab()?;
        let netlink = start(lab.router(), NETLINK, &SOURCES[..1], "")?;
        let mut others = Vec::new();
        for hidden in HIDDEN {
            for attach in ["kprobe", "fentry"] {
                let keys = [format!("{}\n{}", ebpf(attach), SOURCES[0])];
                let launch = launch(lab.router(), &sources::config(&keys, ""))?;
                let daemon = launch.environment("FLOWLOG_HIDE_FUNCTIONS", hidden).start()?;
                // It warns of what it costs to stand in.
                daemon
                    .wait_log("in place of a better hook")
                    .with_context(|| format!("without {hidden}, {attach}"))?;
                others.push((format!("{attach} without {hidden}"), daemon));
            }
        }
        let flows = traffic(&lab, 32_000)?;
        compare(netlink, others, &flows)
    })
}

fn various_lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    Ok(lab)
}

/// The mix, a flow made, changed and removed by `conntrack`, and one that is dropped before it is
/// tracked. All have ended when this returns.
fn traffic(lab: &Lab, base: u16) -> Result<Vec<Flow>> {
    let mut flows = traffic::mix(lab, base)?;
    let tuple = "-p udp -s 10.77.1.2 -d 10.77.2.2 --sport 5 --dport 6";
    let router = lab.router();
    router.run(&format!("conntrack -I {tuple} -t 60 -m 1"))?;
    router.run(&format!("conntrack -U {tuple} -m 2"))?;
    router.run(&format!("conntrack -D {tuple}"))?;
    let tuple = |from: [u8; 4], to: [u8; 4], detail| Tuple {
        source: from.into(),
        destination: to.into(),
        protocol: protocol::UDP,
        detail,
    };
    let (client, server) = ([10, 77, 1, 2], [10, 77, 2, 2]);
    flows.push(Flow {
        orig: tuple(client, server, (5, 6)),
        reply: tuple(server, client, (6, 5)),
        reach: Reach::Unreplied,
        helper: false,
    });
    lab.client().enter(|| {
        let socket = UdpSocket::bind("10.77.1.2:0")?;
        socket.send_to(b"x", "10.77.2.2:6").context("to the port that is dropped").map(drop)
    })?;
    router.expire_conntrack()?;
    Ok(flows)
}

fn is_there(finished: &Finished, source: usize) -> bool {
    finished.path(&sources::file(source)).exists()
}

/// Compares the lines of all sources that there are.
fn compare(netlink: Daemon, others: Vec<(String, Daemon)>, flows: &[Flow]) -> Result<()> {
    let netlink = netlink.stop()?;
    ensure_total(&netlink, "netlink.lost", 0)?;
    // The first source of each tells beginnings and ends. By it netlink is known to be right.
    let tags = ["NEW", "DESTROY"];
    let known = multiset(tags.iter().flat_map(|tag| flows.iter().map(|flow| flow.line(tag))));
    ensure_equal("netlink", &known, &uncounted(&lines_of(&netlink, 1)?))?;
    for (source, tag) in TOLD.into_iter().filter(|(source, _)| is_there(&netlink, *source)) {
        let told = tagged(&lines_of(&netlink, source)?, tag).len();
        ensure!(told > 1, "netlink told {told} [{tag}], so nothing was tested");
    }
    for (name, daemon) in others {
        let finished = stop(daemon)?;
        for source in EQUAL.filter(|source| is_there(&finished, *source)) {
            let what = format!("{name}, {}", SOURCES[source - 1].replace('\n', " "));
            let expected = multiset(lines_of(&netlink, source)?);
            ensure_equal(&what, &expected, &multiset(lines_of(&finished, source)?))?;
        }
        ensure_same_times(&name, &lines_of(&netlink, 1)?, &lines_of(&finished, 1)?)?;
        for source in HELPERS.into_iter().filter(|source| is_there(&finished, *source)) {
            let mut told = multiset(lines_of(&finished, source)?);
            if source == HELPERS[0] {
                // Once or more.
                told.values_mut().for_each(|count| *count = 1);
            }
            let helped = flows.iter().filter(|flow| flow.helper);
            let expected = multiset(helped.map(|flow| flow.line("HELPER")));
            ensure_equal(&format!("{name}, helpers"), &expected, &told)?;
        }
    }
    Ok(())
}

/// Each line has the time of the same line by netlink, but for a second. Lines that occur more
/// than once are left out.
fn ensure_same_times(name: &str, expected: &[Line], actual: &[Line]) -> Result<()> {
    let counts = multiset(expected);
    for line in expected.iter().filter(|line| counts.get(&line.text) == Some(&1)) {
        let same = actual.iter().find(|other| other.text == line.text).context("no such line")?;
        let late = seconds(&line.time)?.abs_diff(seconds(&same.time)?);
        // Midnight may lie between them.
        ensure!(late <= 1 || late == 86_399, "{name}: {} and {}: {line}", line.time, same.time);
    }
    Ok(())
}

/// Since midnight.
fn seconds(time: &str) -> Result<u32> {
    let clock = time.rsplit(' ').next().unwrap_or_default();
    let parts = clock.split(':').map(str::parse).collect::<Result<Vec<u32>, _>>();
    Ok(parts.with_context(|| time.to_owned())?.iter().fold(0, |sum, part| 60 * sum + part))
}
