//! What the sources lost by their own counters, to explain what is missing: each
//! loss explains one event.

use crate::capture::ebpf::witness::Losses;
use crate::stats::CheckKind;

/// Losses that explain nothing yet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Budget {
    netlink: u64,
    ebpf: [u64; CheckKind::ALL.len()],
    /// Of a kind that is not known.
    missed: u64,
    /// What may have been events or not.
    faults: u64,
    notices: u64,
    /// All events that eBPF lost, since the beginning.
    total: u64,
}

/// What explains that eBPF has not told an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Explained {
    /// It is one of [`Budget::lost_by_ebpf`].
    Lost,
    /// Something could not be read.
    Fault,
}

fn spend(budget: &mut u64) -> bool {
    let some = *budget > 0;
    *budget -= u64::from(some);
    some
}

impl Budget {
    /// Former losses explain nothing that happens from now on.
    pub(super) fn begin(&mut self) {
        *self = Self { total: self.total, ..Self::default() };
    }

    pub(super) fn netlink_lost(&mut self, messages: u64) {
        self.netlink += messages;
    }

    pub(super) fn ebpf_lost(&mut self, losses: Losses) {
        // Refusals are told to traces only.
        let Losses { new, update, destroy, expect, refused: _, notices, missed, faults, malformed } =
            losses;
        for (kind, lost) in CheckKind::ALL.into_iter().zip([new, update, destroy, expect]) {
            self.ebpf[kind as usize] += lost;
            self.total += lost;
        }
        // A record that cannot be decoded is of an event, as far as is known.
        self.missed += missed + malformed;
        self.total += missed + malformed;
        self.faults += faults;
        self.notices += notices + faults + malformed;
    }

    /// Events that eBPF lost so far, as far as it is certain that they were
    /// events.
    pub(super) fn lost_by_ebpf(&self) -> u64 {
        self.total
    }

    /// Whether netlink lost a message more than is explained, which this was.
    pub(super) fn explain_netlink(&mut self) -> bool {
        spend(&mut self.netlink)
    }

    /// Whether eBPF lost an event of this kind more, which this was.
    pub(super) fn explain_ebpf(&mut self, kind: CheckKind) -> Option<Explained> {
        if spend(&mut self.ebpf[kind as usize]) || spend(&mut self.missed) {
            Some(Explained::Lost)
        } else {
            spend(&mut self.faults).then_some(Explained::Fault)
        }
    }

    /// The same for a notice.
    pub(super) fn explain_notice(&mut self) -> bool {
        spend(&mut self.notices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_explains_one_event() {
        let mut budget = Budget::default();
        budget.netlink_lost(1);
        budget.ebpf_lost(Losses { new: 1, missed: 1, notices: 1, ..Losses::default() });
        assert!(budget.explain_netlink() && !budget.explain_netlink());
        assert_eq!(budget.explain_ebpf(CheckKind::New), Some(Explained::Lost));
        assert_eq!(budget.explain_ebpf(CheckKind::New), Some(Explained::Lost));
        assert_eq!(budget.explain_ebpf(CheckKind::New), None);
        assert_eq!(budget.explain_ebpf(CheckKind::Update), None);
        assert!(budget.explain_notice() && !budget.explain_notice());
        assert_eq!(budget.lost_by_ebpf(), 2);
        budget.ebpf_lost(Losses { malformed: 1, ..Losses::default() });
        assert_eq!(budget.explain_ebpf(CheckKind::Destroy), Some(Explained::Lost));
        assert_eq!(budget.lost_by_ebpf(), 3, "what cannot be decoded is lost");
        assert!(budget.explain_notice());
        budget.netlink_lost(1);
        budget.begin();
        assert!(!budget.explain_netlink());
        assert_eq!(budget.lost_by_ebpf(), 3);
    }
}
