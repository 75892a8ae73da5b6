//! Several network namespaces: one of them, or all, which are told apart even if their flows are
//! the same.

use anyhow::{Result, ensure};
use tests::burst::{burst_lines, udp_burst};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, uncounted};
use tests::namespace::Namespace;

use super::{answered, by_ebpf, ensure_total, extra, lines_of, start, stop};

const FLOWS: u32 = 50;
/// Beginning and end of each flow.
const EVENTS: u64 = 2;

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn only_those_wanted() -> Result<()> {
    by_ebpf(|| {
        let (own, other) = (SingleNs::new()?, SingleNs::new()?);
        let scopes = [
            ("self".to_owned(), 4000),
            (own.namespace().path().display().to_string(), 4000),
            (other.namespace().name().to_owned(), 4001),
        ];
        let keys = scopes.each_ref().map(|(scope, _)| format!("netns={scope}"));
        let common = "capture=ebpf\nhash_enable=0\nevent_mask=5";
        let daemon = start(own.namespace(), common, &keys, "")?;
        udp_burst(&own, 4000, 0, FLOWS)?;
        udp_burst(&other, 4001, 0, 2 * FLOWS)?;
        for single in [&own, &other] {
            single.namespace().flush_conntrack()?;
        }
        let finished = stop(daemon)?;
        for (source, (scope, port)) in (1..).zip(&scopes) {
            let flows = if *port == 4000 { FLOWS } else { 2 * FLOWS };
            let mut expected = burst_lines("NEW", *port, 0..flows);
            expected.extend(burst_lines("DESTROY", *port, 0..flows));
            let found = uncounted(&lines_of(&finished, source)?);
            ensure_equal(&format!("netns={scope}"), &expected, &found)?;
        }
        // Two sources refuse the other's flows, the third refuses this one's.
        let refused = EVENTS * u64::from(2 * 2 * FLOWS + FLOWS);
        ensure_total(&finished, "ebpf.filtered_netns", refused)?;
        ensure_total(&finished, "ebpf.filtered_flows", 0)
    })
}

/// With a table a flow becomes `[CONFIRMED]` once. Two flows in two namespaces are two, though
/// their addresses and ports are the same.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn the_same_flow_in_two() -> Result<()> {
    by_ebpf(|| {
        let elsewhere = Namespace::new("elsewhere")?;
        let both = [SingleNs::new()?, SingleNs::new()?];
        let keys = ["hash_enable=1\nevent_mask=0x14"];
        let daemon = start(&elsewhere, "capture=ebpf", &keys, "extras=1")?;
        // Both live at the same time.
        for single in &both {
            answered(single)?;
        }
        for single in &both {
            single.namespace().flush_conntrack()?;
        }
        let finished = stop(daemon)?;
        let lines = lines_of(&finished, 1)?;
        for single in &both {
            let netns = single.namespace().inode()?.to_string();
            for tag in ["CONFIRMED", "DESTROY"] {
                let ours = |line: &&_| extra(line, "NETNS") == Some(&netns) && line.tag() == tag;
                let told = lines.iter().filter(ours).count();
                ensure!(told == 1, "[{tag}] {told} times in namespace {netns}: {lines:#?}");
            }
        }
        ensure!(lines.len() == 4, "{lines:#?}");
        ensure!(finished.log.contains("[ct1] 0 flows are live"), "{}", finished.log);
        Ok(())
    })
}
