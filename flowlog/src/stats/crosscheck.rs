//! What the cross-check of two sources counts, by kind of event.

use super::count::Count;

/// What an event is about, as far as the cross-check tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CheckKind {
    /// A connection entered the table.
    New,
    /// It changed.
    Update,
    /// It left the table.
    Destroy,
    /// An expectation came or went.
    Expect,
}

impl CheckKind {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 4] = [Self::New, Self::Update, Self::Destroy, Self::Expect];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::Destroy => "destroy",
            Self::Expect => "expect",
        }
    }
}

/// What is counted of the events of a kind. Each event of the checked namespace
/// is counted once among those from `Matched` to `Unseen`, `Differing` and
/// `Healed` aside, which say more of some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Check {
    /// Events that eBPF told.
    Ebpf,
    /// Messages that netlink delivered.
    Netlink,
    /// Messages that the kernel called ctnetlink for, so that netlink should have
    /// delivered them; not known of expectations.
    Due,
    /// Told by both.
    Matched,
    /// Told by both, but not the same: one of `Matched`.
    Differing,
    /// Told by eBPF only, although a message was due: netlink lost it.
    OnlyEbpf,
    /// Those of `OnlyEbpf` that netlink's own loss counter does not explain.
    OnlyEbpfUnexplained,
    /// Told by netlink only: eBPF lost it.
    OnlyNetlink,
    /// Those of `OnlyNetlink` that eBPF's own loss counters do not explain.
    OnlyNetlinkUnexplained,
    /// Those of `OnlyNetlink` that were logged from netlink.
    Healed,
    /// Told by eBPF only, because netlink by its nature tells nothing of it.
    Silent,
    /// Told by netlink once more, because another listener had asked for it.
    Redelivered,
    /// Logged as one source told it, without waiting for the other: too many
    /// waited already.
    Unchecked,
    /// At the beginning or the end of a check, where one source was not yet or
    /// no longer listened to.
    Boundary,
    /// Neither told it; only its message was seen to be due.
    Unseen,
    /// Those of `Unseen` that eBPF's own loss counters do not explain.
    UnseenUnexplained,
}

impl Check {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 16] = [
        Self::Ebpf,
        Self::Netlink,
        Self::Due,
        Self::Matched,
        Self::Differing,
        Self::OnlyEbpf,
        Self::OnlyEbpfUnexplained,
        Self::OnlyNetlink,
        Self::OnlyNetlinkUnexplained,
        Self::Healed,
        Self::Silent,
        Self::Redelivered,
        Self::Unchecked,
        Self::Boundary,
        Self::Unseen,
        Self::UnseenUnexplained,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Netlink => "netlink",
            Self::Due => "due",
            Self::Matched => "matched",
            Self::Differing => "differing",
            Self::OnlyEbpf => "only_ebpf",
            Self::OnlyEbpfUnexplained => "only_ebpf_unexplained",
            Self::OnlyNetlink => "only_netlink",
            Self::OnlyNetlinkUnexplained => "only_netlink_unexplained",
            Self::Healed => "healed",
            Self::Silent => "silent",
            Self::Redelivered => "redelivered",
            Self::Unchecked => "unchecked",
            Self::Boundary => "boundary",
            Self::Unseen => "unseen",
            Self::UnseenUnexplained => "unseen_unexplained",
        }
    }
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Checks([[Count; CheckKind::ALL.len()]; Check::ALL.len()]);

impl Checks {
    pub(super) fn count(&self, check: Check, kind: CheckKind) -> &Count {
        &self.0[check as usize][kind as usize]
    }

    /// Report lines, `total crosscheck.NAME: SUM events (KIND N, …)`.
    pub(super) fn totals(&self) -> impl Iterator<Item = String> + '_ {
        Check::ALL.into_iter().map(|check| {
            let counts = CheckKind::ALL.map(|kind| (kind, self.count(check, kind).get()));
            let sum: u64 = counts.iter().map(|(_, count)| count).sum();
            let each = counts.map(|(kind, count)| format!("{} {count}", kind.name()));
            format!("total crosscheck.{}: {sum} events ({})", check.name(), each.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_lists_each_at_its_index() {
        for (index, check) in Check::ALL.into_iter().enumerate() {
            assert_eq!(index, check as usize, "{}", check.name());
        }
        for (index, kind) in CheckKind::ALL.into_iter().enumerate() {
            assert_eq!(index, kind as usize, "{}", kind.name());
        }
    }

    #[test]
    fn a_line_tells_the_sum_and_its_parts() {
        let checks = Checks::default();
        checks.count(Check::Healed, CheckKind::New).add(2);
        checks.count(Check::Healed, CheckKind::Expect).add(1);
        let line = "total crosscheck.healed: 3 events (new 2, update 0, destroy 0, expect 1)";
        assert!(checks.totals().any(|l| l == line));
    }
}
