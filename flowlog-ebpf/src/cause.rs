//! Why a flow ends, from what the current task does and what the entry says.

use flowlog_ebpf::cause;

use crate::SETTINGS;
use crate::activity::{self, Activity};
use crate::kernel::known;

const TCP: u8 = 6;
/// `IPS_SEEN_REPLY`, `IPS_NAT_CLASH`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const SEEN_REPLY: u32 = 1 << 1;
const NAT_CLASH: u32 = 1 << 12;

/// What an entry says that matters here.
pub(crate) struct Ending {
    pub(crate) status: u32,
    /// Jiffies until it expires.
    pub(crate) timeout: i32,
    pub(crate) protocol: u8,
    pub(crate) l4_state: u8,
}

/// One of [`cause`].
///
/// A bulk removal comes before expiry, because it takes expired entries too. A
/// packet that interrupts a task is told by that task's activity; the entry's
/// own state settles most of it.
#[inline(always)]
pub(crate) fn of(ending: &Ending, activity: &Activity) -> u8 {
    let within = |functions: u32| activity.functions & functions != 0;
    if within(activity::NETNS_END) {
        return cause::NETNS_GONE;
    }
    if within(activity::CLEANUP) {
        return if within(activity::DELETION) { cause::FLUSHED } else { cause::OTHER };
    }
    if ending.status & NAT_CLASH != 0 {
        return cause::NAT_CLASH;
    }
    if ending.timeout <= 0 {
        let collector = within(activity::GC) && !within(activity::EARLY_DROP);
        return if collector { cause::EXPIRED_GC } else { cause::EXPIRED_LOOKUP };
    }
    // The collector drops early too, when the table is nearly full.
    if within(activity::EARLY_DROP | activity::GC) {
        return cause::EARLY_DROP;
    }
    if within(activity::DELETION) {
        return cause::DELETED;
    }
    if ending.protocol == TCP {
        return of_tcp(ending);
    }
    cause::OTHER
}

#[inline(always)]
fn of_tcp(ending: &Ending) -> u8 {
    let state = u32::from(ending.l4_state);
    if state == known(&SETTINGS.layout.tcp_close) && ending.status & SEEN_REPLY == 0 {
        return cause::RESET;
    }
    if state >= known(&SETTINGS.layout.tcp_time_wait) {
        return cause::TCP_REOPENED;
    }
    cause::OTHER
}
