//! What the kernel knows of the programs at work: how often they were passed
//! over, and what they cost.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use super::kprobes::KprobeLink;
use super::{Probes, bpf};
use crate::capture::HookCost;

impl Probes {
    /// How often each program was passed over because another was at work: by
    /// what the kernel knows of the program, and of the kprobes that call it.
    pub fn misses(&self) -> Vec<(&str, u64)> {
        let of_programs = self.usage().into_iter().map(|(name, usage)| (name, usage.misses));
        let of_kprobes = self.probed.iter().map(|(name, links)| {
            let now: u64 = links.iter().filter_map(KprobeLink::misses).sum();
            let before = self.missed_before.get(name).copied().unwrap_or(0);
            (name.as_str(), now + before)
        });
        of_programs.chain(of_kprobes).collect()
    }

    /// Whether the kernel does not count the misses of a kprobe by which one of
    /// these programs is called.
    pub fn has_uncounted_kprobe(&self, is_asked: impl Fn(&str) -> bool) -> bool {
        let asked = self.probed.iter().filter(|(name, _)| is_asked(name));
        asked.flat_map(|(_, links)| links).any(|link| link.misses().is_none())
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
