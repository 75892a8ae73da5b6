//! Filters of addresses and protocols, which the programs apply in the kernel: only what is wanted
//! is logged, and what is not is counted.

use anyhow::Result;
use tests::filters::FILTERS;
use tests::lab::Lab;
use tests::lines::{ensure_equal, multiset, uncounted};
use tests::traffic;

use super::{by_ebpf, ensure_total, lines_of, start, stop};

/// Beginning and end of each flow.
const EVENTS: u64 = 2;
const COMMON: &str = "capture=ebpf\nhash_enable=0\nevent_mask=5";

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn of_addresses_and_protocols() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        let common = format!("{COMMON}\nnetns=self\nring_buffer_size=1048576");
        let keys = FILTERS.map(|(filter, _)| filter);
        let daemon = start(lab.router(), &common, &keys, "")?;
        let flows = traffic::mix(&lab, 33_000)?;
        lab.router().expire_conntrack()?;
        let finished = stop(daemon)?;
        let mut refused = 0;
        for (source, (filter, accepts)) in (1..).zip(FILTERS) {
            let accepted: Vec<_> = flows.iter().filter(|flow| accepts(flow)).collect();
            refused += EVENTS * (flows.len() - accepted.len()) as u64;
            let tags = ["NEW", "DESTROY"].iter();
            let expected = tags.flat_map(|tag| accepted.iter().map(|flow| flow.line(tag)));
            let found = uncounted(&lines_of(&finished, source)?);
            ensure_equal(filter, &multiset(expected), &found)?;
        }
        // All sources count together. The daemon's own filter has nothing left to refuse.
        ensure_total(&finished, "ebpf.filtered_flows", refused)?;
        ensure_total(&finished, "ebpf.filtered_netns", 0)?;
        ensure_total(&finished, "flows.filtered", 0)
    })
}
