//! What no log has: new connections that are refused by the ruleset or dropped elsewhere, and those
//! for which there is no room in the table.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::burst::destination;
use tests::lab::{Lab, SingleNs};
use tests::namespace::Namespace;
use tests::watch::Watch;

use super::super::by_ebpf;
use super::super::kernel::Sysctl;
use super::{calls, ends, events, word};

/// Drops at each hook after which a connection can still be refused, by port.
const GATE: &str = "
table inet gate {
    chain at_input {
        type filter hook input priority filter;
        udp dport 7001 drop
    }
    chain at_forward {
        type filter hook forward priority filter;
        udp dport 7002 drop
    }
    chain at_output {
        type filter hook output priority filter;
        udp dport 7003 drop
    }
    chain at_postrouting {
        type filter hook postrouting priority filter;
        udp dport 7004 drop
    }
    chain at_prerouting {
        type filter hook prerouting priority filter;
        udp dport 7005 drop
    }
}
";

/// Has no kprobes, so that everything goes by fentry.
const WITHOUT_KPROBES: [&str; 6] = [
    "unshare",
    "--mount",
    "sh",
    "-c",
    "mount -t tmpfs none /sys/bus/event_source/devices && exec \"$@\"",
    "sh",
];

/// Sends a datagram to each, from the same port.
fn send(from: &Namespace, to: &[&str]) -> Result<()> {
    from.enter(|| {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 7000))?;
        for address in to {
            let address: SocketAddr = address.parse().with_context(|| (*address).to_owned())?;
            let mapped = match address {
                SocketAddr::V4(v4) => SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port())),
                SocketAddr::V6(_) => address,
            };
            // What is dropped on its way out is told to the sender.
            let _ = socket.send_to(b"x", mapped);
        }
        Ok(())
    })
}

/// Destination and hook, or why else, of each.
const REFUSED: [(&str, u16, &str); 8] = [
    ("10.77.1.1", 7001, "input"),
    ("fd77:1::1", 7001, "input"),
    ("10.77.2.2", 7002, "forward"),
    ("fd77:2::2", 7002, "forward"),
    ("10.77.2.2", 7003, "output"),
    ("fd77:2::2", 7003, "output"),
    ("10.77.2.2", 7004, "postrouting"),
    ("10.77.1.1", 7005, "prerouting"),
];

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_the_ruleset_at_each_hook() -> Result<()> {
    by_ebpf(|| each_hook(&[]))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_the_ruleset_without_kprobes() -> Result<()> {
    by_ebpf(|| each_hook(&WITHOUT_KPROBES))
}

fn each_hook(wrapper: &[&str]) -> Result<()> {
    let lab = Lab::new()?;
    lab.router().nft(GATE)?;
    let args = "--netns self --event refused --proto udp --port 7000 -o json";
    let trace = Watch::trace(wrapper, lab.router(), args)?;
    for (host, port, hook) in REFUSED {
        let from = if hook == "output" { lab.router() } else { lab.client() };
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        send(from, &[&format!("{host}:{port}")])?;
    }
    // Nobody knows the way there.
    send(lab.client(), &["10.99.9.9:7009"])?;
    // One that nobody refuses, and one that is over at once.
    send(lab.client(), &["10.77.2.2:7008"])?;
    trace.wait_lines("the refusals", |lines| lines.len() > REFUSED.len())?;
    let watched = trace.end(Signal::SIGTERM)?;
    let events = events(&watched)?;
    ensure!(events.len() == REFUSED.len() + 1, "{events:#?}");
    for (host, port, hook) in REFUSED {
        let is = |e: &&Value| e["orig"]["dst"] == host && e["orig"]["dport"] == port;
        let found: Vec<_> = events.iter().filter(is).collect();
        ensure!(found.len() == 1, "{host}:{port}: {found:#?}");
        let event = found[0];
        let right = word(event, "/cause") == "ruleset"
            && word(event, "/hook") == hook
            && event["orig"]["sport"] == 7000
            && event["after"]["status"] == Value::Array(Vec::new())
            && calls(event, "nf_hook_slow")
            && word(event, "/function") == "nf_ct_destroy";
        ensure!(right, "not by {hook}: {event:#}");
    }
    let elsewhere: Vec<_> =
        events.iter().filter(|event| word(event, "/cause") == "elsewhere").collect();
    ensure!(elsewhere.len() == 1 && elsewhere[0]["orig"]["dport"] == 7009, "{elsewhere:#?}");
    // The sender is named where it was dropped by its own call.
    let by_sender = |e: &&Value| word(e, "/context") == "task" && word(e, "/hook") == "output";
    ensure!(events.iter().filter(by_sender).count() == 2, "{events:#?}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_a_full_table() -> Result<()> {
    by_ebpf(|| full_table(&[]))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_a_full_table_without_kprobes() -> Result<()> {
    by_ebpf(|| full_table(&WITHOUT_KPROBES))
}

/// More flows than the table may hold, and buckets so many that the kernel hardly finds one to drop
/// in the eight that it looks at. Its own counter says how many packets it dropped for that.
fn full_table(wrapper: &[&str]) -> Result<()> {
    const ROOM: u32 = 64;
    const MANY: u32 = 300;
    let single = SingleNs::new()?;
    let trace = Watch::trace(wrapper, single.namespace(), "--netns self --event new,full -o json")?;
    let _buckets = Sysctl::set("net/netfilter/nf_conntrack_buckets", 16_384)?;
    let _max = Sysctl::set("net/netfilter/nf_conntrack_max", ROOM)?;
    let before = dropped(single.namespace())?;
    single.namespace().enter(|| {
        let socket = UdpSocket::bind("198.18.0.1:4000")?;
        for number in 0..MANY {
            let _ = socket.send_to(b"x", destination(number));
        }
        Ok(())
    })?;
    let dropped = dropped(single.namespace())? - before;
    trace.wait_lines("all", |lines| lines.len() >= MANY as usize)?;
    let events = events(&trace.end(Signal::SIGTERM)?)?;
    let full: Vec<_> = events.iter().filter(|event| word(event, "/event") == "full").collect();
    ensure!(dropped > 0 && full.len() as u64 == dropped, "{dropped}, not {}", full.len());
    ensure!(events.len() == MANY as usize, "{} events, {MANY} packets", events.len());
    let mut tuples = BTreeMap::new();
    for event in &events {
        let orig = &event["orig"];
        ensure!(orig["src"] == "198.18.0.1" && orig["sport"] == 4000, "{event:#}");
        *tuples.entry(format!("{}:{}", word(orig, "/dst"), orig["dport"])).or_insert(0) += 1;
    }
    let each: BTreeMap<_, _> =
        (0..MANY).map(|number| (destination(number).to_string(), 1)).collect();
    ensure!(tuples == each, "{tuples:#?}");
    for event in full {
        let right = word(event, "/cause") == "table_full"
            && word(event, "/function") == "__nf_conntrack_alloc"
            && event["errno"] == libc_enomem()
            && event.get("after").is_none()
            && word(event, "/context") == "task"
            && calls(event, "nf_conntrack_in");
        ensure!(right, "{event:#}");
    }
    Ok(())
}

fn libc_enomem() -> i32 {
    nix::errno::Errno::ENOMEM as i32
}

/// Packets that were dropped because no entry could be had, by the kernel's own count.
fn dropped(namespace: &Namespace) -> Result<u64> {
    let stats = namespace.run("conntrack -S")?;
    let numbers = stats.split_whitespace().filter_map(|word| word.strip_prefix("drop="));
    numbers.map(|number| number.parse::<u64>().context(stats.clone())).sum()
}

/// Where the names are hidden it says so, and guesses no cause.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_names_of_functions() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        lab.router().nft(GATE)?;
        let _hidden = Sysctl::set("kernel/kptr_restrict", 2)?;
        let trace = Watch::trace(&[], lab.router(), "--netns self --event refused --proto udp")?;
        send(lab.client(), &["10.77.1.1:7001"])?;
        trace.wait_lines("the refusal", |lines| ends(lines, "[REFUSED]") == 1)?;
        let watched = trace.end(Signal::SIGTERM)?;
        let line = watched.with(&[" cause=unknown by=- ", " fn=nf_ct_destroy from -"]);
        ensure!(line.len() == 1, "{watched:#?}");
        let told = watched.stderr.matches("kernel.kptr_restrict=1").count();
        ensure!(told == 1, "{}", watched.stderr);
        Ok(())
    })
}
