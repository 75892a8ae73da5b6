//! What only eBPF and a comparison have numbers of.

use std::fs;

use anyhow::{Result, ensure};
use tests::burst::udp_burst;
use tests::lab::SingleNs;
use tests::metrics::{ADDRESS, get, scrape, sum};
use tests::{poll, sources};

use super::crosscheck::{BUFFER, RING, end, keys};
use super::{by_ebpf, launch};

/// Keeps account of the time that programs take; stops at the end.
struct BpfStats;

impl BpfStats {
    const PATH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    fn on() -> Result<Self> {
        fs::write(Self::PATH, "1")?;
        Ok(Self)
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        let _ = fs::write(Self::PATH, "0");
    }
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn causes_checks_and_hooks_have_numbers() -> Result<()> {
    const FLOWS: u32 = 300;
    by_ebpf(|| {
        let _stats = BpfStats::on()?;
        let single = SingleNs::new()?;
        let more = "hash_enable=0\naccept_proto_filter=udp";
        let text = sources::config(&[keys(RING, BUFFER, more)], "extras=1").replacen(
            "[global]",
            &format!("[global]\nmetrics=\"{ADDRESS}\""),
            1,
        );
        let daemon = launch(single.namespace(), &text)?.start()?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        single.namespace().flush_conntrack()?;
        let flows = f64::from(FLOWS);
        let page = poll::until("all ends", || {
            let page = scrape(single.namespace())?;
            let ends = sum(&page, "flowlog_events_total", "cause=\"flushed\"")?;
            Ok((ends == flows).then_some(page))
        })?;
        let sum = |metric, label: &str| sum(&page, metric, label);
        for kind in ["new", "destroy"] {
            let label = format!("check=\"matched\",kind=\"{kind}\"");
            let matched = sum("flowlog_crosscheck_events_total", &label)?;
            ensure!(matched == flows, "{matched} matched of {kind}: {page}");
        }
        ensure!(sum("flowlog_lost_events_total", "")? == 0., "lost: {page}");
        for hook in ["flow_inserted", "flow_removed"] {
            let runs = sum("flowlog_hook_runs_total", hook)?;
            ensure!(runs >= flows, "{hook} ran {runs} times: {page}");
            ensure!(sum("flowlog_hook_seconds_total", hook)? > 0., "{hook} took no time: {page}");
        }
        let (status, _) = get(single.namespace(), ADDRESS, "/healthz")?;
        ensure!(status == "HTTP/1.1 200 OK", "{status}");
        end(daemon).map(drop)
    })
}
