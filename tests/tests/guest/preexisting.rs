//! Flows that existed before the daemon started each have exactly one end, also where the kernel
//! tells netlink nothing of it: flows that began while nobody listened (`nf_conntrack_events=2`).

use anyhow::{Result, ensure};
use tests::burst::{burst_lines, udp_burst};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, uncounted};

use super::{by_ebpf, ensure_total, lines_of, start, stop};

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
