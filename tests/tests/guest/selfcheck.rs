//! Once a minute what the hooks saw is compared with the kernel's number of entries, in the
//! namespace of the source and in no other.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::burst::udp_burst;
use tests::lab::SingleNs;
use tests::lines::tagged;
use tests::{poll, sources};

use super::kernel::KprobesOff;
use super::{by_ebpf, launch, lines_so_far, stop};

/// More than the comparison allows for, by far.
const FLOWS: u32 = 500;
/// Seconds between two comparisons.
const PERIOD: &str = "2";

/// The daemon's own namespace has another number of entries than that of its sources. The one by
/// fentry sees everything there and warns of nothing; the kprobes of the other fail for a while.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_hook_that_fails_in_another_namespace_is_named() -> Result<()> {
    by_ebpf(|| {
        let (own, watched) = (SingleNs::new()?, SingleNs::new()?);
        udp_burst(&own, 4000, 0, FLOWS)?;
        let path = watched.namespace().path();
        let source = |attach: &str| {
            let common = "capture=ebpf\nhash_enable=0\nevent_mask=5";
            format!("{common}\nnetns={}\nattach={attach}", path.display())
        };
        let keys = [source("fentry"), source("kprobe")];
        let daemon = launch(own.namespace(), &sources::config(&keys, ""))?
            .environment("FLOWLOG_SELFCHECK_PERIOD", PERIOD)
            .start()?;
        let warnings = || daemon.log().matches("by what the hooks saw").count();
        // Four comparisons of both.
        sleep(Duration::from_secs(9));
        ensure!(warnings() == 0, "nothing has failed\n{}", daemon.log());
        let off = KprobesOff::now()?;
        udp_burst(&watched, 4001, 0, FLOWS)?;
        drop(off);
        udp_burst(&watched, 4002, 0, FLOWS)?;
        poll::until("the warning", || Ok((warnings() > 0).then_some(())))
            .with_context(|| daemon.log())?;
        // It is said once.
        sleep(Duration::from_secs(5));
        ensure!(warnings() == 1, "{} warnings\n{}", warnings(), daemon.log());
        let named = "the hook on __nf_conntrack_hash_insert misses new connections: the kernel has \
                     1000 entries, and by what the hooks saw it should have 500";
        ensure!(daemon.log().contains(named), "not named\n{}", daemon.log());
        for (source, expected) in [(1, 2 * FLOWS), (2, FLOWS)] {
            let begun = tagged(&lines_so_far(&daemon, source)?, "NEW").len();
            ensure!(begun == expected as usize, "source {source} has {begun} [NEW]");
        }
        stop(daemon).map(drop)
    })
}
