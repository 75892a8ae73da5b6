//! Flows that existed before any listener: with `nf_conntrack_events=2` the kernel never tells
//! their end. flowlog finds it by dumping, and says which setting would spare that.

use anyhow::{Result, ensure};
use tests::burst::udp_burst;
use tests::lab::SingleNs;
use tests::lines::ensure_equal;

use super::{burst_lines, flowlog, uncounted};

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_dump_finds_their_end() -> Result<()> {
    let single = SingleNs::new()?;
    // Whether anybody listens is one flag for the whole system, and other tests do. 0 makes the
    // flows as 2 makes them when nobody listens: without events, for good.
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_events", 0)])?;
    udp_burst(&single, 4000, 0, 10)?;
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_events", 2)])?;
    let settings = "event_mask=5\nhash_enable=1\nredump_interval=1";
    let daemon = flowlog(single.namespace(), settings)?;
    daemon.wait_log("set_sysctls=1")?;
    single.namespace().flush_conntrack()?;
    let lines = daemon.wait_lines("their ends", |lines| lines.len() >= 10)?;
    ensure!(lines.iter().all(|line| line.numbers("PKTS") == [1, 0]), "counters: {lines:?}");
    udp_burst(&single, 4000, 10, 10)?;
    single.namespace().flush_conntrack()?;
    let lines = daemon.stop()?.lines;
    ensure_equal("all ends", &burst_lines("DESTROY", 4000, 0..20), &uncounted(&lines))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn set_sysctls_sets_them() -> Result<()> {
    let single = SingleNs::new()?;
    let keys =
        ["acct", "timestamp", "events"].map(|key| format!("net/netfilter/nf_conntrack_{key}"));
    let [acct, timestamp, events] = keys.each_ref();
    single.namespace().set_sysctls(&[(acct, 0), (timestamp, 0), (events, 2)])?;
    let daemon = flowlog(single.namespace(), "event_mask=5\nhash_enable=1\nset_sysctls=1")?;
    for key in &keys {
        ensure!(single.namespace().sysctl(key)? == "1", "{key} is not 1");
    }
    udp_burst(&single, 4000, 0, 10)?;
    single.namespace().flush_conntrack()?;
    let lines = daemon.stop()?.lines;
    ensure_equal("all ends", &burst_lines("DESTROY", 4000, 0..10), &uncounted(&lines))?;
    ensure!(lines.iter().all(|line| line.numbers("PKTS") == [1, 0]), "counters: {lines:?}");
    Ok(())
}
