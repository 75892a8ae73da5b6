//! The three `accept_*_filter`s, on events, on the dump at start and when polling.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::filters::FILTERS;
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, lost, multiset, tagged, totals};
use tests::traffic;

use super::{burst_lines, flowlog, uncounted};

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn on_events() -> Result<()> {
    let lab = Lab::new()?;
    let mut daemons = Vec::new();
    for (filter, accepts) in FILTERS {
        let settings = format!("event_mask=1\nhash_enable=0\n{filter}");
        daemons.push((filter, accepts, flowlog(lab.router(), &settings)?));
    }
    let flows = traffic::mix(&lab, 32_000)?;
    for (filter, accepts, daemon) in daemons {
        let accepted = flows.iter().filter(|flow| accepts(flow)).map(|flow| flow.line("NEW"));
        let accepted = multiset(accepted);
        let finished = daemon.stop()?;
        ensure_equal(filter, &accepted, &multiset(&finished.lines))?;
        // The kernel filters: what is refused takes no room in the queue.
        let received = totals(&finished.log)["netlink.messages"];
        ensure!(received == accepted.values().sum::<usize>() as u64, "{filter}: {received}");
    }
    Ok(())
}

/// Flows that existed at start, seen through SIGUSR2 and their end.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn on_the_dump_at_start() -> Result<()> {
    let single = SingleNs::new()?;
    udp_burst(&single, 4000, 0, 20)?;
    let settings = "event_mask=5\nhash_enable=1\naccept_dst_filter=198.19.0.0/30";
    let daemon = flowlog(single.namespace(), settings)?;
    daemon.process.signal(Signal::SIGUSR2)?;
    daemon.wait_lines("the flows accepted", |lines| lines.len() >= 4)?;
    single.namespace().flush_conntrack()?;
    let lines = daemon.stop()?.lines;
    let updates = uncounted(tagged(&lines, "UPDATE"));
    ensure_equal("the dump at start", &burst_lines("UPDATE", 4000, 0..4), &updates)?;
    let ends = uncounted(tagged(&lines, "DESTROY"));
    ensure_equal("their end", &burst_lines("DESTROY", 4000, 0..4), &ends)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn on_polling() -> Result<()> {
    let single = SingleNs::new()?;
    udp_burst(&single, 4000, 0, 10)?;
    let settings = "pollinterval=1\nhash_enable=1\naccept_dst_filter=198.19.0.0/30";
    let daemon = flowlog(single.namespace(), settings)?;
    let sockets = daemon.process.netlink_sockets(single.namespace())?;
    ensure!(sockets.iter().all(|socket| socket.groups == 0), "polling joined {sockets:?}");
    single.namespace().flush_conntrack()?;
    let lines = daemon.wait_lines("the ends polled", |lines| lines.len() >= 4)?;
    ensure_equal("polling", &burst_lines("DESTROY", 4000, 0..4), &uncounted(&lines))?;
    let counted = lines.iter().all(|line| line.numbers("PKTS") == [1, 0]);
    ensure!(counted && lost(&lines) == 0, "not the last polled counters: {lines:?}");
    daemon.stop().map(drop)
}
