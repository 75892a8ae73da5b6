//! Events come from a namespace where nobody listens, whatever `nf_conntrack_events` is there, and
//! the kernel builds no netlink message for them.

use std::process::Stdio;

use anyhow::{Result, ensure};
use tests::burst::{burst_lines, udp_burst};
use tests::lab::SingleNs;
use tests::lines::{Line, Multiset, ensure_equal, multiset, totals};
use tests::namespace::Namespace;
use tests::poll;
use tests::process::Guarded;

use super::kernel::{CallCounter, has_function};
use super::{answered, bare, by_ebpf, extra, lines_of, start, stop, total};

const FLOWS: u32 = 50;

/// What the kernel calls for each message that goes to listeners, the first that it has.
const SENDERS: [&str; 2] = ["nfnetlink_send", "nfnetlink_broadcast"];

/// Without changes nothing need be gathered; with them the kernel is made to gather them.
const SOURCES: [&str; 2] = ["event_mask=5", "event_mask=7"];

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_a_listener_or_a_message() -> Result<()> {
    by_ebpf(|| {
        let elsewhere = Namespace::new("elsewhere")?;
        let (auto, off) = (SingleNs::new()?, SingleNs::new()?);
        for (single, events) in [(&auto, 2), (&off, 0)] {
            let events = [("net/netfilter/nf_conntrack_events", events)];
            single.namespace().set_sysctls(&events)?;
        }
        let messages = CallCounter::new(sender()?)?;
        let daemon = start(&elsewhere, "capture=ebpf\nhash_enable=0", &SOURCES, "extras=1")?;
        for (single, port) in [(&auto, 4000), (&off, 4001)] {
            udp_burst(single, port, 0, FLOWS)?;
            answered(single)?;
            single.namespace().flush_conntrack()?;
        }
        let built = messages.calls()?;
        ensure!(built == 0, "{built} netlink messages were built");
        ensure_counted(&messages, &auto)?;
        let finished = stop(daemon)?;
        let received = total(&finished, "netlink.messages")?;
        ensure!(received == 0, "{received} messages over netlink: {:?}", totals(&finished.log));
        for (single, port) in [(&auto, 4000), (&off, 4001)] {
            let netns = single.namespace().inode()?.to_string();
            for source in 1..=SOURCES.len() {
                let mut lines = lines_of(&finished, source)?;
                lines.retain(|line| extra(line, "NETNS") == Some(&netns));
                for tag in ["NEW", "DESTROY"] {
                    let what = format!("[{tag}] in namespace {netns}, source {source}");
                    let expected = burst_lines(tag, port, 0..FLOWS);
                    ensure_equal(&what, &expected, &burst(&lines, tag, port))?;
                }
                // Changes of flows are told where the kernel can be made to gather them.
                let updates = lines.iter().filter(|line| line.tag() == "UPDATE").count();
                let expected = source == 2 && port == 4000;
                ensure!((updates > 0) == expected, "{updates} updates from port {port}, {source}");
            }
        }
        Ok(())
    })
}

fn sender() -> Result<&'static str> {
    for name in SENDERS {
        if has_function(name)? {
            return Ok(name);
        }
    }
    anyhow::bail!("this kernel has none of {SENDERS:?}")
}

/// The counter works: it counts as soon as somebody listens.
fn ensure_counted(messages: &CallCounter, single: &SingleNs) -> Result<()> {
    let mut command = single.namespace().command("conntrack");
    let listener = Guarded::spawn(command.arg("-E").stdout(Stdio::null()).stderr(Stdio::null()))?;
    poll::until("conntrack to listen", || {
        let sockets = listener.netlink_sockets(single.namespace())?;
        Ok(sockets.iter().any(|socket| socket.groups != 0).then_some(()))
    })?;
    udp_burst(single, 4002, 0, FLOWS)?;
    let built = messages.calls()?;
    ensure!(built >= FLOWS.into(), "{built} messages counted for {FLOWS} flows");
    Ok(())
}

/// The lines of a burst as [`burst_lines`] has them.
fn burst(lines: &[Line], tag: &str, port: u16) -> Multiset {
    let from = format!(" SPT={port} ");
    let ours = lines.iter().filter(|line| line.tag() == tag && line.has(&from));
    multiset(ours.map(|line| bare(line).without_counters()))
}
