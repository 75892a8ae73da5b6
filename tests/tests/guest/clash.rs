//! Two packets of one flow that are translated in two ways at the same time: the second one's
//! entry loses the clash and stays in the table for the reply alone (`IPS_NAT_CLASH`), as with two
//! DNS questions at once from one socket and two servers to choose from. The kernel tells its end
//! over netlink and no beginning; so does each hook.

use std::net::UdpSocket;
use std::sync::Barrier;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use tests::lab::SingleNs;
use tests::lines::{Line, ensure_equal, multiset, tagged};
use tests::{poll, sources};

use super::crosscheck::{BUFFER, RING, end, ensure_explained, keys};
use super::kernel::stay_on;
use super::{by_ebpf, ensure_total, launch, lines_of, lines_so_far, stop};

/// Keys of each source of a daemon.
const SOURCES: [&str; 3] =
    ["hash_enable=0\nevent_mask=5", "hash_enable=1\nevent_mask=5", "hash_enable=0\nevent_mask=7"];
/// How the events are captured: a name, keys, and functions that shall be missing.
const CAPTURES: [(&str, &str, &str); 6] = [
    ("netlink", "capture=netlink", ""),
    ("kprobe", "capture=ebpf\nattach=kprobe\nnetns=self", ""),
    ("fentry", "capture=ebpf\nattach=fentry\nnetns=self", ""),
    ("kprobes that stand in", "capture=ebpf\nattach=kprobe\nnetns=self", HIDDEN),
    ("fentry that stands in", "capture=ebpf\nattach=fentry\nnetns=self", HIDDEN),
    ("entries alone", "capture=ebpf\nattach=auto\nnetns=self", "__nf_conntrack_hash_insert"),
];
const HIDDEN: &str = "__nf_conntrack_hash_insert,__nf_ct_delete_from_lists";
/// Clashes to be made, and tries.
const CLASHES: u64 = 5;
const TRIES: u16 = 300;
/// The first question comes from here, each further one from the next port.
const PORT: u16 = 20_000;

/// The length of the datagram decides which server it goes to.
const TRANSLATION: &str = "
table ip clash {
    chain to_servers {
        type nat hook output priority -100;
        udp dport 53 udp length 9 dnat to 198.19.0.2
        udp dport 53 udp length 10 dnat to 198.19.0.3
    }
";
/// Rules between the translation and the insertion, as often as it takes for both packets to be
/// there at once: so many in each of three chains.
const RULES: usize = 24;

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn what_lost_a_clash_is_told_alike() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        single.namespace().nft(&rules())?;
        single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", 600)])?;
        let daemons = CAPTURES.map(|(name, capture, hidden)| {
            let keys = SOURCES.map(|keys| format!("{capture}\n{keys}"));
            let launch = launch(single.namespace(), &sources::config(&keys, ""))?;
            Ok((name, launch.environment("FLOWLOG_HIDE_FUNCTIONS", hidden).start()?))
        });
        let daemons = daemons.into_iter().collect::<Result<Vec<_>>>()?;
        let keys = keys(RING, BUFFER, "hash_enable=0");
        let both = launch(single.namespace(), &sources::config(&[keys], "extras=1"))?.start()?;
        let asked = ask(&single)?;
        single.namespace().flush_conntrack()?;
        let ends = |lines: &[Line]| tagged(lines, "DESTROY").len() as u64;
        poll::until("the ends", || {
            Ok((ends(&lines_so_far(&both, 1)?) >= asked + CLASHES).then_some(()))
        })
        .with_context(|| both.log())?;
        let both = end(both)?;
        ensure_explained(&both)?;
        ensure_total(&both, "crosscheck.lost", 0)?;
        let mut expected = Vec::new();
        for (name, daemon) in daemons {
            let finished = if name == "netlink" { end(daemon)? } else { stop(daemon)? };
            for (source, keys) in (1..).zip(SOURCES) {
                let lines = lines_of(&finished, source)?;
                if name == "netlink" {
                    let (begun, ended) = (tagged(&lines, "NEW").len() as u64, ends(&lines));
                    let all = keys.contains("hash_enable=0");
                    ensure!(!all || begun == asked, "{begun} of {asked} flows began");
                    ensure!(ended >= asked + CLASHES, "{ended} ends of {asked} flows");
                    expected.push(multiset(&lines));
                } else {
                    let what = format!("{name}, {}", keys.replace('\n', " "));
                    ensure_equal(&what, &expected[source - 1], &multiset(&lines))?;
                }
            }
        }
        Ok(())
    })
}

fn rules() -> String {
    let mut rules = TRANSLATION.to_owned();
    let chain = |name: &str, rule: &str| {
        format!("    chain {name} {{\n{}    }}\n", format!("        {rule}\n").repeat(RULES))
    };
    rules += &chain("inner", "udp sport 1 accept");
    rules += &chain("middle", "jump inner");
    rules += &chain("outer", "jump middle");
    rules += "    chain slow {\n        type filter hook output priority filter;\n        \
              udp dport 53 jump outer\n    }\n}\n";
    rules
}

/// Two questions at once from one socket, from one port after the other, until enough have clashed.
/// Returns how many sockets have asked.
fn ask(single: &SingleNs) -> Result<u64> {
    for number in 0..TRIES {
        single.namespace().enter(|| {
            let socket = UdpSocket::bind(("198.18.0.1", PORT + number))?;
            let both = Barrier::new(2);
            let question = |processor: usize, text: &[u8]| -> Result<()> {
                stay_on(processor)?;
                both.wait();
                socket.send_to(text, "198.19.0.1:53")?;
                Ok(())
            };
            thread::scope(|scope| {
                let other = scope.spawn(|| question(1, b"xx"));
                let one = question(0, b"x");
                other.join().map_err(|_panic| anyhow!("a thread panicked, see above"))?.and(one)
            })
        })?;
        if clashes(single)? >= CLASHES {
            return Ok(u64::from(number) + 1);
        }
    }
    Err(anyhow!("{} of {TRIES} questions clashed", clashes(single)?))
}

/// Clashes that the kernel has resolved in the namespace: the column of that name, of each
/// processor.
fn clashes(single: &SingleNs) -> Result<u64> {
    let path = "/proc/thread-self/net/stat/nf_conntrack";
    let table = single.namespace().enter(|| Ok(std::fs::read_to_string(path)?))?;
    let mut lines = table.lines().map(str::split_whitespace);
    let mut titles = lines.next().context("an empty table")?;
    let column = titles.position(|title| title == "clashres").context("no such column")?;
    lines.try_fold(0, |sum, mut line| {
        Ok(sum + u64::from_str_radix(line.nth(column).context("a short line")?, 16)?)
    })
}
