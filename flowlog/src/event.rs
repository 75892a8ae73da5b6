//! What a capture reports: records, in the order in which they happened.

use bitflags::bitflags;

use crate::flow::{Flow, HelperName, Name, Netns, Tuple};

bitflags! {
    /// Event kinds; the bits are those of `event_mask`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Kinds: u32 {
        /// A connection entered the table.
        const NEW = 0x01;
        /// Its state changed.
        const UPDATE = 0x02;
        /// It left the table.
        const DESTROY = 0x04;
        /// It was marked as assured.
        const ASSURED = 0x08;
        /// It was seen in both directions.
        const CONFIRMED = 0x10;
        /// An expectation was created, updated or destroyed.
        const EXPECT = 0x20;
        /// A helper was attached.
        const HELPER = 0x40;
        /// It was destroyed by garbage collection.
        const GC = 0x80;
    }
}

impl Kinds {
    /// Each with its name in outputs, in the order in which a line has them.
    pub const NAMES: [(Self, &'static str); 8] = [
        (Self::NEW, "NEW"),
        (Self::UPDATE, "UPDATE"),
        (Self::DESTROY, "DESTROY"),
        (Self::CONFIRMED, "CONFIRMED"),
        (Self::ASSURED, "ASSURED"),
        (Self::EXPECT, "EXPECT"),
        (Self::HELPER, "HELPER"),
        (Self::GC, "GC"),
    ];
}

/// What happened to an expectation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectAction {
    /// Created.
    New,
    /// Refreshed.
    Update,
    /// Fulfilled, expired or removed.
    Destroy,
}

impl ExpectAction {
    /// Its name in outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Update => "update",
            Self::Destroy => "destroy",
        }
    }
}

/// An expectation: a connection that a helper foresees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// What happened to it.
    pub action: ExpectAction,
    /// Tuple that is expected; a field whose mask is zero matches anything and
    /// is 0 here.
    pub tuple: Tuple,
    /// Original tuple of the connection whose helper expects it.
    pub master: Tuple,
    /// Conntrack zone.
    pub zone: u16,
    /// Helper that expects it, when the kernel names it.
    pub helper: Option<HelperName>,
    /// As [`Flow::netns`].
    pub netns: Option<Netns>,
}

/// Why a connection left the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its time was over; the garbage collector found it.
    ExpiredGc,
    /// Its time was over; whoever came by found it: a look-up for a packet, a
    /// dump of the table.
    ExpiredLookup,
    /// It had to make room: the table was full, or nearly.
    EarlyDrop,
    /// A process deleted it over netlink (`conntrack -D`).
    Deleted,
    /// A process emptied the table over netlink (`conntrack -F`).
    Flushed,
    /// Its network namespace was removed. Netlink tells no such end; NFCT does
    /// where it has entered another one of the same name.
    NetnsGone,
    /// A SYN opened a closed TCP connection anew; the new one follows.
    TcpReopened,
    /// A reset was the answer to its first packet.
    Reset,
    /// It stood for a race that two packets of one flow had lost.
    NatClash,
    /// Nobody knows: every source lost its end, which was found by comparing
    /// the table of live flows with the kernel's.
    Lost,
    /// None of these: NAT's addresses went away, a GRE sibling ended, and the
    /// like.
    Other,
}

impl Cause {
    /// All of them, in order.
    pub const ALL: [Self; 11] = [
        Self::ExpiredGc,
        Self::ExpiredLookup,
        Self::EarlyDrop,
        Self::Deleted,
        Self::Flushed,
        Self::NetnsGone,
        Self::TcpReopened,
        Self::Reset,
        Self::NatClash,
        Self::Lost,
        Self::Other,
    ];

    /// Its name in outputs.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExpiredGc => "expired_gc",
            Self::ExpiredLookup => "expired_lookup",
            Self::EarlyDrop => "early_drop",
            Self::Deleted => "deleted",
            Self::Flushed => "flushed",
            Self::NetnsGone => "netns_gone",
            Self::TcpReopened => "tcp_reopened",
            Self::Reset => "reset",
            Self::NatClash => "nat_clash",
            Self::Lost => "lost",
            Self::Other => "other",
        }
    }
}

/// Name of a process: `TASK_COMM_LEN` is 16 with its NUL (6.18).
pub type Comm = Name;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Process {
    /// Its id, in the initial PID namespace.
    pub pid: u32,
    /// Its name, as the thread that acted has set it.
    pub comm: Comm,
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub cause: Cause,
    /// Netlink port of the socket over which it was asked for; absent when
    /// nobody asked.
    pub portid: Option<u32>,
    /// The process that asked; absent when none did.
    pub process: Option<Process>,
}

/// Which sources told an event, where two are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Witness {
    /// The one there is, or nobody has compared it.
    #[default]
    Single,
    /// eBPF, and netlink confirmed it.
    Both,
    /// eBPF; netlink should have told it and did not.
    Ebpf,
    /// Netlink only: what eBPF had missed is healed.
    Healed,
}

impl Witness {
    /// Its name in outputs; none where nothing was compared.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Single => None,
            Self::Both => Some("both"),
            Self::Ebpf => Some("ebpf"),
            Self::Healed => Some("healed"),
        }
    }
}

/// One conntrack event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The kind told by the source: NEW, UPDATE or DESTROY, the last with GC
    /// if the source knows that the garbage collector was at work.
    pub kinds: Kinds,
    /// Which of ASSURED, CONFIRMED and HELPER became true with this event, and
    /// no other; absent when the source tells only the state after it, as
    /// netlink does.
    pub transitions: Option<Kinds>,
    /// When it happened, nanoseconds since the epoch: the kernel's own event
    /// time where it tells one (`CTA_TIMESTAMP_EVENT`, Linux ≥ 6.14 with
    /// `nf_conntrack_timestamp=1`), else the time of receipt.
    pub at: u64,
    /// The connection.
    pub flow: Flow,
    /// How it ended; absent unless it did, and where the source does not tell:
    /// only eBPF does.
    pub end: Option<End>,
    /// Who told it.
    pub witness: Witness,
}

/// Events that a source had to drop before anybody could read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Which source lost them.
    pub source: &'static str,
    /// How many; 1 where the source had to be opened anew, as the number is not
    /// known then.
    pub events: u64,
    /// None of them happened before that time, nanoseconds since the epoch: then the
    /// source was read until it was empty, and had lost nothing.
    pub since: u64,
    /// When the loss was noticed, nanoseconds since the epoch.
    pub at: u64,
}

impl Lost {
    /// As a source reports it, which knows only when it noticed it. NFCT adds since when
    /// ([`Nfct::caught_up`]).
    ///
    /// [`Nfct::caught_up`]: crate::plugin::nfct::Nfct::caught_up
    pub fn noticed(source: &'static str, events: u64, at: u64) -> Self {
        Self { source, events, since: at, at }
    }
}

/// What a capture hands on. Borrowed: the hot path copies nothing.
#[derive(Clone, Copy, Debug)]
pub enum Record<'a> {
    /// A connection event.
    Event(&'a Event),
    /// An expectation event, and when it happened.
    Expectation(&'a Expectation, u64),
    /// A loss, placed where it happened in the stream.
    Lost(Lost),
    /// An entry of the table, told by a dump or a query.
    Known(&'a Flow, u64),
    /// The dump that was asked for has ended; `complete` unless it failed.
    DumpDone {
        /// Every entry was told.
        complete: bool,
        /// The one namespace whose table was dumped, as [`Netns::inum`]: of
        /// the entries of others nothing is known. Absent: the source knows
        /// no other namespace.
        netns: Option<u32>,
    },
    /// The queries that were asked for have ended; entries that still exist were
    /// told as `Known`.
    QueryDone {
        /// Every query was answered: what was not told exists no more.
        complete: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_causes_stand_at_their_index() {
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(index, cause as usize, "{}", cause.name());
        }
        assert_eq!(Cause::Other as usize + 1, Cause::ALL.len(), "the last one is the last");
    }

    /// In the first column of a table there.
    #[test]
    fn docs_debugging_explains_each_cause() {
        let page = include_str!("../../docs/debugging.md");
        let first = |line: &'static str| line.strip_prefix("| ")?.split(" | ").next();
        for name in Cause::ALL.map(Cause::name) {
            let explained = page
                .lines()
                .filter_map(first)
                .any(|cell| cell.split(", ").any(|word| word.trim_matches('`') == name));
            assert!(explained, "docs/debugging.md has no row for {name}: say what to do about it");
        }
    }
}
