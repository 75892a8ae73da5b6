//! Flows that existed before the daemon started each have exactly one end, also where the kernel
//! tells netlink nothing of it: flows that began while nobody listened (`nf_conntrack_events=2`).

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::config;
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, tagged, uncounted};

use super::{by_ebpf, ensure_total, launch, lines_of, start, stop};

const FLOWS: u32 = 50;

/// With and without a table, which is filled by a dump at start.
const SOURCES: [&str; 3] = ["hash_enable=0", "hash_enable=1", "hash_enable=1\nnetns=self"];

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn each_has_one_end() -> Result<()> {
    by_ebpf(|| {
        for events in [1, 2] {
            // The namespace of the daemon, whose table it dumps.
            let single = SingleNs::new()?;
            single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_events", events)])?;
            udp_burst(&single, 4000, 0, FLOWS)?;
            let common = "capture=ebpf\nevent_mask=4";
            let daemon = start(single.namespace(), common, &SOURCES, "")?;
            udp_burst(&single, 4000, FLOWS, FLOWS)?;
            single.namespace().flush_conntrack()?;
            let finished = stop(daemon)?;
            for source in 1..=SOURCES.len() {
                let what = format!("nf_conntrack_events={events}, source {source}");
                let expected = burst_lines("DESTROY", 4000, 0..2 * FLOWS);
                ensure_equal(&what, &expected, &uncounted(&lines_of(&finished, source)?))?;
                // Those of the dump and those of the events are the same ones.
                let none = format!("[ct{source}] 0 flows are live");
                ensure!(finished.log.contains(&none), "{what}: not {none:?}\n{}", finished.log);
            }
            ensure_total(&finished, "flows.vanished", 0)?;
        }
        Ok(())
    })
}

/// Dumps of the table and events concern the same flows: those that live are told with their
/// counters, which start anew, and then their ends.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn usr2_tells_live_flows() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        let keys = "capture=ebpf\nnetns=self\nhash_enable=1\nevent_mask=5";
        let daemon = launch(single.namespace(), &config(keys, "sync=0"))?.start()?;
        udp_burst(&single, 4000, FLOWS, FLOWS)?;
        daemon.process.signal(Signal::SIGUSR2)?;
        daemon.wait_lines("the live flows", |lines| lines.len() >= 2 * FLOWS as usize)?;
        single.namespace().flush_conntrack()?;
        let finished = stop(daemon)?;
        for (tag, packets) in [("UPDATE", 1), ("DESTROY", 0)] {
            let told = tagged(&finished.lines, tag);
            let counted = told.iter().all(|line| line.numbers("PKTS") == [packets, 0]);
            ensure!(counted, "{tag} lines without PKTS={packets}: {told:?}");
            ensure_equal(tag, &burst_lines(tag, 4000, 0..2 * FLOWS), &uncounted(told))?;
        }
        ensure!(finished.log.contains("[ct1] 0 flows are live"), "{}", finished.log);
        Ok(())
    })
}
