//! Everything that is known of one event, as the formats show it.

use super::chain::{Chain, Context};
use super::kind::{Kind, Reason};
use super::life::{Known, State};
use crate::capture::ebpf::trace::Place;
use crate::event::{Event, Expectation};
use crate::verb::watch::names::Named;

/// `enum ip_conntrack_events` by bit
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const CHANGES: [&str; 12] = [
    "new",
    "related",
    "destroy",
    "reply",
    "assured",
    "protoinfo",
    "helper",
    "mark",
    "seqadj",
    "secmark",
    "label",
    "synproxy",
];

/// What it is about.
pub(super) enum Subject<'a> {
    /// A flow, or one that there would be.
    Flow(&'a Event),
    /// An expectation.
    Expectation(&'a Expectation),
}

/// An event.
pub(super) struct Told<'a> {
    pub(super) kind: Kind,
    /// When it happened, nanoseconds since the epoch.
    pub(super) at: u64,
    pub(super) subject: Subject<'a>,
    pub(super) known: Known,
    /// What has changed, as bits.
    pub(super) changes: u32,
    /// Netlink port of whoever asked for it.
    pub(super) portid: Option<u32>,
    /// Why a flow ended or did not begin.
    pub(super) reason: Option<Reason>,
    /// The netfilter hook that refused it.
    pub(super) hook: Option<&'static str>,
    /// The kernel's error for what could not be allocated.
    pub(super) error: Option<i32>,
    pub(super) place: &'a Place,
    pub(super) chain: &'a Chain<'a>,
    pub(super) netns: Option<Named>,
}

impl Told<'_> {
    /// State after the event; absent where there is no entry.
    pub(super) fn after(&self) -> Option<State> {
        match self.subject {
            Subject::Flow(event) if self.kind != Kind::Full => Some(State::of(event)),
            _ => None,
        }
    }

    /// What has changed, by name.
    pub(super) fn changes(&self) -> Vec<&'static str> {
        let set = CHANGES.iter().enumerate().filter(|(bit, _)| self.changes >> bit & 1 != 0);
        set.map(|(_, name)| *name).collect()
    }

    /// In whose context it happened.
    pub(super) fn context(&self) -> Context {
        self.chain.context()
    }
}
