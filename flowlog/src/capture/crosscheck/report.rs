//! What a cross-check has found out, as plain numbers for whoever shows them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::flow::Tuple;
use crate::stats::{Check, CheckKind, Counter, Stats};

/// Lost events that are remembered with their tuples; all are counted.
pub const MOST_LOST: usize = 100;

/// How much later the second source told of an event than the first, as the
/// daemon received it. Absent while nothing has been matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lag {
    /// Half of all events were faster.
    pub median: Duration,
    /// 99 of 100 events were faster.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

/// Messages that netlink should have delivered in one namespace, as the
/// kernel's calls of ctnetlink were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// `NFNLGRP_CONNTRACK_NEW`
    pub new: u64,
    /// `NFNLGRP_CONNTRACK_UPDATE`
    pub update: u64,
    /// `NFNLGRP_CONNTRACK_DESTROY`
    pub destroy: u64,
}

/// Who has not told an event that it should have told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loser {
    /// eBPF; netlink told it.
    Ebpf,
    /// Netlink; eBPF told it.
    Netlink,
    /// Both; only its message was seen to be due.
    Both,
}

impl Loser {
    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Netlink => "netlink",
            Self::Both => "both",
        }
    }
}

/// An event that a source lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostEvent {
    /// Which of them.
    pub by: Loser,
    /// What it is about.
    pub kind: CheckKind,
    /// Original tuple; of an expectation, what is expected.
    pub tuple: Tuple,
    /// Conntrack zone; 0 for expectations.
    pub zone: u16,
}

/// The report of a cross-check. Counts by kind and losses by name are in the
/// counters that it is made from.
#[derive(Clone, Debug)]
pub struct Report {
    /// How long the sources were compared.
    pub lasted: Duration,
    /// Inode number of the namespace that was checked.
    pub netns: u32,
    /// How eBPF was attached: `kprobe`, `fentry`.
    pub method: &'static str,
    /// The entry's pointer was paired with its id: matches are exact.
    pub paired: bool,
    /// Fields in which the sources differed, and how often.
    pub fields: BTreeMap<&'static str, u64>,
    /// The last events that were lost, [`MOST_LOST`] at most.
    pub lost: Vec<LostEvent>,
    /// Of all namespaces, by inode number.
    pub due: BTreeMap<u32, Due>,
    /// Of matched events.
    pub lag: Option<Lag>,
    /// The counters.
    pub stats: Stats,
}

impl Report {
    /// A count of one kind.
    pub fn count(&self, check: Check, kind: CheckKind) -> u64 {
        self.stats.check(check, kind)
    }

    /// A count of all kinds.
    pub fn sum(&self, check: Check) -> u64 {
        CheckKind::ALL.into_iter().map(|kind| self.count(check, kind)).sum()
    }

    /// Findings that no loss counter explains: told by one source only, by none,
    /// or differently.
    pub fn unexplained(&self) -> u64 {
        [
            Check::OnlyEbpfUnexplained,
            Check::OnlyNetlinkUnexplained,
            Check::UnseenUnexplained,
            Check::Differing,
        ]
        .into_iter()
        .map(|check| self.sum(check))
        .sum()
    }

    /// What each source has lost by its own counters, by the counter's name.
    pub fn losses(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        [
            Counter::NetlinkLost,
            Counter::NetlinkOverruns,
            Counter::NetlinkMalformed,
            Counter::EbpfLostNew,
            Counter::EbpfLostUpdate,
            Counter::EbpfLostDestroy,
            Counter::EbpfLostExpect,
            Counter::EbpfLostNotices,
            Counter::EbpfMissed,
            Counter::EbpfMalformed,
            Counter::EbpfFaults,
            Counter::CrosscheckLost,
        ]
        .into_iter()
        .map(|counter| (counter.name(), self.stats.get(counter)))
    }
}
