//! What the kernel knows of the programs at work: how often they were passed
//! over, and what they cost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::{Probes, bpf};
use crate::capture::HookCost;

impl Probes {
    /// How often each program was passed over because another was at work.
    pub fn misses(&self) -> Vec<(&str, u64)> {
        self.usage().into_iter().map(|(name, usage)| (name, usage.misses)).collect()
    }

    /// What each program has cost, where the kernel measures it.
    pub fn costs(&self) -> Vec<HookCost> {
        let mut costs = BTreeMap::<_, bpf::Usage>::new();
        // A program that was loaded for two functions is one here.
        for (name, usage) in self.usage() {
            let sum = costs.entry(name).or_default();
            sum.runs += usage.runs;
            sum.time += usage.time;
        }
        if costs.values().all(|cost| cost.runs == 0) {
            return Vec::new();
        }
        let cost = |(name, usage): (&str, bpf::Usage)| HookCost {
            hook: name.to_owned(),
            runs: usage.runs,
            time: usage.time,
        };
        costs.into_iter().map(cost).collect()
    }

    fn usage(&self) -> Vec<(&str, bpf::Usage)> {
        let of = |program: BorrowedFd<'_>| bpf::usage(program).unwrap_or_default();
        let traced =
            self.traced.iter().map(|traced| (traced.name.as_str(), of(traced.program.as_fd())));
        let probed = self.probed.keys().filter_map(|name| {
            let program = self.ebpf.program(name)?.fd().ok()?;
            Some((name.as_str(), of(program.as_fd())))
        });
        traced.chain(probed).collect()
    }
}
