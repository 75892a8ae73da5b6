//! One small function per hook: takes the arguments out of the context and says
//! what has happened. Each hook exists twice, for a kprobe and for fentry or
//! fexit; the daemon loads one of the two. Which hook is for which function of
//! the kernel, and why, is in the daemon's table (`capture/ebpf/hooks.rs`).

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use flowlog_ebpf::task::function;
use flowlog_ebpf::{kind, lost_clash};

use crate::SETTINGS;
use crate::activity::{enter, frame, leave};
use crate::emit::{Count, count, fault};
use crate::flow::What;
use crate::kernel::{known, read};
use crate::pending::{self, Call};
use crate::{expect, flow, notice};

/// `NF_ACCEPT` (include/uapi/linux/netfilter.h, 6.12).
const NF_ACCEPT: u32 = 1;
/// `IPS_CONFIRMED`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
pub(crate) const CONFIRMED: u64 = 1 << 3;
/// The lower bits of `sk_buff._nfct`: how the packet belongs to the entry. From
/// 3 on it is a reply, for which nothing is inserted.
const CTINFO: u64 = 7;
const REPLY: u64 = 3;
/// Bits of `enum ip_conntrack_events` that make a netlink message about a new
/// connection or its end, and so no update.
pub(crate) const NEW_RELATED_DESTROY: u32 = 0b111;

#[inline(always)]
fn inserted(entry: u64) {
    flow::report(entry, What { kind: kind::NEW, events: 0, portid: 0 });
}

#[inline(always)]
fn removed(entry: u64) {
    flow::report(entry, What { kind: kind::DESTROY, events: 0, portid: 0 });
}

/// The last reference goes: of entries that were in the table, and of others.
#[inline(always)]
fn freed(entry: u64) {
    match read::<u64>(entry + u64::from(known(&SETTINGS.layout.status))) {
        Ok(status) if status & CONFIRMED != 0 => removed(entry),
        Ok(_) => {}
        Err(_) => fault(),
    }
}

/// `ctnetlink_conntrack_event(events, item)`: just where netlink would build a
/// message. The table's own hooks tell of new connections and of ends.
#[inline(always)]
fn changed(events: u32, item: u64) {
    if events & NEW_RELATED_DESTROY != 0 {
        return;
    }
    if events & known(&SETTINGS.updates) == 0 {
        count(Count::FilteredKinds);
        return;
    }
    let entry = read(item + u64::from(known(&SETTINGS.layout.event_entry)));
    let portid = read(item + u64::from(known(&SETTINGS.layout.event_portid)));
    match (entry, portid) {
        (Ok(entry), Ok(portid)) => flow::report(entry, What { kind: kind::UPDATE, events, portid }),
        _ => fault(),
    }
}

/// `__nf_conntrack_confirm(skb)` begins: with which entry?
#[inline(always)]
fn confirming(packet: u64) {
    let nfct = read::<u64>(packet + u64::from(known(&SETTINGS.layout.skb_nfct)));
    if nfct.is_err() {
        fault();
    }
    let call = match nfct {
        Ok(nfct) if nfct & CTINFO < REPLY => Call { packet, entry: nfct & !CTINFO },
        _ => Call::default(),
    };
    // In any case: its end is seen too.
    pending::begin(call);
}

/// It ends. Where another packet of the flow has won, the packet has the other
/// entry now, which has been told already; or its own, of which netlink tells no
/// beginning ([`lost_clash`]), and which never enters the table by the function
/// that this hook stands in for.
#[inline(always)]
fn confirmed(verdict: u32) {
    let Some(call) = pending::end() else { return };
    if verdict != NF_ACCEPT {
        return;
    }
    let nfct = read::<u64>(call.packet + u64::from(known(&SETTINGS.layout.skb_nfct)));
    let status = read::<u64>(call.entry + u64::from(known(&SETTINGS.layout.status)));
    match (nfct, status) {
        (Ok(nfct), Ok(status)) if nfct & !CTINFO == call.entry && !lost_clash(status as u32) => {
            inserted(call.entry);
        }
        (Ok(_), Ok(_)) => {}
        _ => fault(),
    }
}

/// `nf_conntrack_hash_check_insert(ct)` ends.
#[inline(always)]
fn checked(result: i32) {
    if let Some(call) = pending::end()
        && result == 0
    {
        inserted(call.entry);
    }
}

/// `ctnetlink_del_conntrack(skb, …)` begins: for whom?
#[inline(always)]
#[cfg_attr(not(feature = "log"), expect(unused_variables, reason = "only messages need it"))]
fn deleting(context: &impl EbpfContext, message: u64, frame: u64) {
    let portid = match known(&SETTINGS.layout.skb_portid) {
        flowlog_ebpf::ABSENT => 0,
        offset => read(message + u64::from(offset)).unwrap_or(0),
    };
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(context, "a deletion for netlink port {}", portid);
    enter(function::DELETION, frame, portid);
}

#[inline(always)]
pub(crate) fn arg(context: &ProbeContext, index: usize) -> u64 {
    context.arg(index).unwrap_or(0)
}

#[kprobe]
fn kprobe_flow_inserted(context: ProbeContext) -> u32 {
    inserted(arg(&context, 0));
    0
}

#[fentry]
fn fentry_flow_inserted(context: FEntryContext) -> i32 {
    inserted(context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_flow_removed(context: ProbeContext) -> u32 {
    removed(arg(&context, 0));
    0
}

#[fentry]
fn fentry_flow_removed(context: FEntryContext) -> i32 {
    removed(context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_flow_freed(context: ProbeContext) -> u32 {
    freed(arg(&context, 0));
    0
}

#[fentry]
fn fentry_flow_freed(context: FEntryContext) -> i32 {
    freed(context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_flow_changed(context: ProbeContext) -> u32 {
    changed(arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_flow_changed(context: FEntryContext) -> i32 {
    changed(context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

#[kprobe]
fn kprobe_message_due(context: ProbeContext) -> u32 {
    notice::due(arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_message_due(context: FEntryContext) -> i32 {
    notice::due(context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

#[kprobe]
fn kprobe_message_due_unpaired(context: ProbeContext) -> u32 {
    notice::due_unpaired(arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_message_due_unpaired(context: FEntryContext) -> i32 {
    notice::due_unpaired(context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

/// The exit is not told of the entry; fexit is.
#[kprobe]
fn kprobe_id_begins(context: ProbeContext) -> u32 {
    notice::id_begins(arg(&context, 0));
    0
}

#[kprobe]
fn kprobe_expectation(context: ProbeContext) -> u32 {
    expect::report(arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_expectation(context: FEntryContext) -> i32 {
    expect::report(context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

#[kprobe]
fn kprobe_confirm_begins(context: ProbeContext) -> u32 {
    confirming(arg(&context, 0));
    0
}

#[fentry]
fn fentry_confirm_begins(context: FEntryContext) -> i32 {
    confirming(context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_check_begins(context: ProbeContext) -> u32 {
    pending::begin(Call { packet: 0, entry: arg(&context, 0) });
    0
}

#[fentry]
fn fentry_check_begins(context: FEntryContext) -> i32 {
    pending::begin(Call { packet: 0, entry: context.arg::<u64>(0) });
    0
}

#[kprobe]
fn kprobe_gc_begins(_: ProbeContext) -> u32 {
    enter(function::GC, 0, 0);
    0
}

#[fentry]
fn fentry_gc_begins(context: FEntryContext) -> i32 {
    enter(function::GC, frame(&context), 0);
    0
}

#[kprobe]
fn kprobe_early_drop_begins(_: ProbeContext) -> u32 {
    enter(function::EARLY_DROP, 0, 0);
    0
}

#[fentry]
fn fentry_early_drop_begins(context: FEntryContext) -> i32 {
    enter(function::EARLY_DROP, frame(&context), 0);
    0
}

/// The same once more: a softirq that interrupts one of the two programs can call
/// the function too, and the kernel passes over only the one that is at work.
#[fentry]
fn fentry_early_drop_begins_again(context: FEntryContext) -> i32 {
    enter(function::EARLY_DROP, frame(&context), 0);
    0
}

#[kprobe]
fn kprobe_deletion_begins(context: ProbeContext) -> u32 {
    deleting(&context, arg(&context, 0), 0);
    0
}

#[fentry]
fn fentry_deletion_begins(context: FEntryContext) -> i32 {
    deleting(&context, context.arg::<u64>(0), frame(&context));
    0
}

#[kprobe]
fn kprobe_cleanup_begins(_: ProbeContext) -> u32 {
    enter(function::CLEANUP, 0, 0);
    0
}

#[fentry]
fn fentry_cleanup_begins(context: FEntryContext) -> i32 {
    enter(function::CLEANUP, frame(&context), 0);
    0
}

#[kprobe]
fn kprobe_netns_end_begins(_: ProbeContext) -> u32 {
    enter(function::NETNS_END, 0, 0);
    0
}

#[fentry]
fn fentry_netns_end_begins(context: FEntryContext) -> i32 {
    enter(function::NETNS_END, frame(&context), 0);
    0
}

#[kretprobe]
fn kprobe_message_done(_: RetProbeContext) -> u32 {
    notice::done();
    0
}

#[fexit]
fn fentry_message_done(_: FExitContext) -> i32 {
    notice::done();
    0
}

#[kretprobe]
fn kprobe_id_ends(context: RetProbeContext) -> u32 {
    notice::id_ends(context.ret());
    0
}

#[fexit]
fn fentry_id_ends(context: FExitContext) -> i32 {
    notice::id_made(context.arg::<u64>(0), context.arg::<u64>(1) as u32);
    0
}

#[kretprobe]
fn kprobe_confirm_ends(context: RetProbeContext) -> u32 {
    confirmed(context.ret());
    0
}

#[fexit]
fn fentry_confirm_ends(context: FExitContext) -> i32 {
    confirmed(context.arg(1));
    0
}

#[kretprobe]
fn kprobe_check_ends(context: RetProbeContext) -> u32 {
    checked(context.ret());
    0
}

#[fexit]
fn fentry_check_ends(context: FExitContext) -> i32 {
    checked(context.arg(1));
    0
}

#[kretprobe]
fn kprobe_gc_ends(_: RetProbeContext) -> u32 {
    leave(function::GC, 0);
    0
}

#[fexit]
fn fentry_gc_ends(context: FExitContext) -> i32 {
    leave(function::GC, frame(&context));
    0
}

#[kretprobe]
fn kprobe_early_drop_ends(_: RetProbeContext) -> u32 {
    leave(function::EARLY_DROP, 0);
    0
}

#[fexit]
fn fentry_early_drop_ends(context: FExitContext) -> i32 {
    leave(function::EARLY_DROP, frame(&context));
    0
}

#[fexit]
fn fentry_early_drop_ends_again(context: FExitContext) -> i32 {
    leave(function::EARLY_DROP, frame(&context));
    0
}

#[kretprobe]
fn kprobe_deletion_ends(_: RetProbeContext) -> u32 {
    leave(function::DELETION, 0);
    0
}

#[fexit]
fn fentry_deletion_ends(context: FExitContext) -> i32 {
    leave(function::DELETION, frame(&context));
    0
}

#[kretprobe]
fn kprobe_cleanup_ends(_: RetProbeContext) -> u32 {
    leave(function::CLEANUP, 0);
    0
}

#[fexit]
fn fentry_cleanup_ends(context: FExitContext) -> i32 {
    leave(function::CLEANUP, frame(&context));
    0
}

#[kretprobe]
fn kprobe_netns_end_ends(_: RetProbeContext) -> u32 {
    leave(function::NETNS_END, 0);
    0
}

#[fexit]
fn fentry_netns_end_ends(context: FExitContext) -> i32 {
    leave(function::NETNS_END, frame(&context));
    0
}
