//! Why a flow ends, from what the current task is in and what the entry says.

use crate::cause;
use crate::task::{TaskState, function};

const TCP: u8 = 6;
/// `IPS_SEEN_REPLY`, `IPS_NAT_CLASH`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const SEEN_REPLY: u32 = 1 << 1;
/// See [`lost_clash`].
const NAT_CLASH: u32 = 1 << 12;

/// Whether an entry with this status has lost a clash: two packets of one flow
/// were translated in two ways, and the second stays in the table by its reply
/// tuple only (`nf_ct_resolve_clash_harder`,
/// net/netfilter/nf_conntrack_core.c, 6.12). The kernel reports its end over
/// netlink and never its beginning.
#[inline(always)]
pub fn lost_clash(status: u32) -> bool {
    status & NAT_CLASH != 0
}

/// What an entry says that matters here.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// Status bits, the lower 32.
    pub status: u32,
    /// Jiffies until it expires.
    pub timeout: i32,
    /// IP protocol number.
    pub protocol: u8,
    /// State of TCP, SCTP or DCCP.
    pub l4_state: u8,
}

/// States of TCP, as this kernel numbers them.
#[derive(Clone, Copy, Debug)]
pub struct TcpStates {
    /// `TCP_CONNTRACK_TIME_WAIT`
    pub time_wait: u32,
    /// `TCP_CONNTRACK_CLOSE`
    pub close: u32,
}

impl Ending {
    /// One of [`cause`].
    ///
    /// A bulk removal comes before expiry, because it takes expired entries too.
    #[inline(always)]
    pub fn cause(&self, task: TaskState, tcp: impl FnOnce() -> TcpStates) -> u8 {
        let function = task.innermost();
        if function == function::NETNS_END {
            return cause::NETNS_GONE;
        }
        if function == function::CLEANUP {
            return if task.flushes() { cause::FLUSHED } else { cause::OTHER };
        }
        if lost_clash(self.status) {
            return cause::NAT_CLASH;
        }
        let collector = function == function::GC;
        if self.timeout <= 0 {
            return if collector { cause::EXPIRED_GC } else { cause::EXPIRED_LOOKUP };
        }
        // The collector drops early too, when the table is nearly full.
        if collector || function == function::EARLY_DROP {
            return cause::EARLY_DROP;
        }
        if function == function::DELETION {
            return cause::DELETED;
        }
        if self.protocol == TCP {
            return self.of_tcp(tcp());
        }
        cause::OTHER
    }

    #[inline(always)]
    fn of_tcp(&self, tcp: TcpStates) -> u8 {
        let state = u32::from(self.l4_state);
        if state == tcp.close && self.status & SEEN_REPLY == 0 {
            return cause::RESET;
        }
        if state >= tcp.time_wait {
            return cause::TCP_REOPENED;
        }
        cause::OTHER
    }
}

#[cfg(test)]
mod tests {
    use super::function::{CLEANUP, DELETION, EARLY_DROP, GC, NETNS_END};
    use super::*;

    const LIVE: Ending = Ending { status: 8, timeout: 100, protocol: 17, l4_state: 0 };

    fn tcp() -> TcpStates {
        TcpStates { time_wait: 7, close: 8 }
    }

    fn cause(ending: Ending, functions: &[u8]) -> u8 {
        let task = functions.iter().fold(TaskState::default(), |task, f| task.entered(*f, 0, 1, 5));
        ending.cause(task, tcp)
    }

    #[test]
    fn the_innermost_function_decides() {
        for (functions, expected) in [
            (&[][..], cause::OTHER),
            (&[GC], cause::EARLY_DROP),
            (&[EARLY_DROP], cause::EARLY_DROP),
            (&[DELETION], cause::DELETED),
            (&[CLEANUP], cause::OTHER),
            (&[DELETION, CLEANUP], cause::FLUSHED),
            (&[NETNS_END], cause::NETNS_GONE),
            (&[EARLY_DROP, EARLY_DROP], cause::EARLY_DROP),
            (&[DELETION, EARLY_DROP], cause::EARLY_DROP),
            (&[DELETION, CLEANUP, EARLY_DROP], cause::EARLY_DROP),
            (&[NETNS_END, EARLY_DROP], cause::EARLY_DROP),
            (&[GC, EARLY_DROP], cause::EARLY_DROP),
        ] {
            assert_eq!(cause(LIVE, functions), expected, "{functions:?}");
        }
    }

    #[test]
    fn an_expired_entry_says_so_but_to_a_bulk_removal() {
        let expired = Ending { timeout: 0, ..LIVE };
        for (functions, expected) in [
            (&[][..], cause::EXPIRED_LOOKUP),
            (&[GC], cause::EXPIRED_GC),
            (&[EARLY_DROP], cause::EXPIRED_LOOKUP),
            (&[GC, EARLY_DROP], cause::EXPIRED_LOOKUP),
            (&[DELETION], cause::EXPIRED_LOOKUP),
            (&[DELETION, CLEANUP], cause::FLUSHED),
            (&[NETNS_END], cause::NETNS_GONE),
        ] {
            assert_eq!(cause(expired, functions), expected, "{functions:?}");
        }
    }

    #[test]
    fn what_lost_a_clash_is_known_by_its_status() {
        let loser = Ending { status: 8 | NAT_CLASH, ..LIVE };
        assert!(lost_clash(loser.status) && !lost_clash(LIVE.status));
        let expired = Ending { timeout: -5, ..loser };
        assert_eq!(cause(loser, &[]), cause::NAT_CLASH);
        assert_eq!(cause(expired, &[GC]), cause::NAT_CLASH);
        assert_eq!(cause(loser, &[DELETION, CLEANUP]), cause::FLUSHED);
    }

    #[test]
    fn tcp_tells_by_its_state() {
        let state = |l4_state, status| Ending { l4_state, status, protocol: TCP, ..LIVE };
        assert_eq!(cause(state(8, 8), &[]), cause::RESET);
        assert_eq!(cause(state(8, 8 | SEEN_REPLY), &[]), cause::TCP_REOPENED);
        assert_eq!(cause(state(7, 8), &[]), cause::TCP_REOPENED);
        assert_eq!(cause(state(3, 8), &[]), cause::OTHER);
    }
}
