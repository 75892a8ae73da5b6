//! As [`crate::hooks`], for programs that are attached only while somebody
//! traces.

use aya_ebpf::EbpfContext;
use aya_ebpf::macros::{fentry, fexit, kprobe, kretprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext, RetProbeContext};
use flowlog_ebpf::kind;

use crate::SETTINGS;
use crate::emit::fault;
use crate::flow::What;
use crate::hooks::{CONFIRMED, NEW_RELATED_DESTROY, arg};
use crate::kernel::{known, read};
use crate::trace::{self, Allocation};

/// `IPCT_NEW`, `IPCT_RELATED`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const NEW_RELATED: u32 = 0b011;
/// `IPS_TEMPLATE`: no connection, but a rule's pattern for some.
const TEMPLATE: u64 = 1 << 11;

#[inline(always)]
fn inserted(context: &impl EbpfContext, entry: u64) {
    trace::report(context, entry, What { kind: kind::NEW, events: 0, portid: 0 });
}

#[inline(always)]
fn removed(context: &impl EbpfContext, entry: u64) {
    trace::report(context, entry, What { kind: kind::DESTROY, events: 0, portid: 0 });
}

/// The last reference to an entry goes.
#[inline(always)]
fn freed(context: &impl EbpfContext, entry: u64) {
    match read::<u64>(entry + u64::from(known(&SETTINGS.layout.status))) {
        Ok(status) if status & CONFIRMED != 0 => removed(context, entry),
        Ok(_) => {}
        Err(_) => fault(),
    }
}

/// The last reference goes, of one that nobody has seen in the table?
#[inline(always)]
fn refused(context: &impl EbpfContext, entry: u64) {
    match read::<u64>(entry + u64::from(known(&SETTINGS.layout.status))) {
        Ok(status) if status & (CONFIRMED | TEMPLATE) == 0 => {
            trace::report(context, entry, What { kind: kind::REFUSED, events: 0, portid: 0 });
        }
        Ok(_) => {}
        Err(_) => fault(),
    }
}

/// `ctnetlink_conntrack_event(events, item)`, for a beginning.
#[inline(always)]
fn begun(context: &impl EbpfContext, events: u32, item: u64) {
    if events & NEW_RELATED != 0 {
        of_item(context, kind::NEW, 0, item);
    }
}

/// The same, for a change.
#[inline(always)]
fn changed(context: &impl EbpfContext, events: u32, item: u64) {
    if events & NEW_RELATED_DESTROY == 0 {
        of_item(context, kind::UPDATE, events, item);
    }
}

#[inline(always)]
fn of_item(context: &impl EbpfContext, kind: u8, events: u32, item: u64) {
    let entry = read(item + u64::from(known(&SETTINGS.layout.event_entry)));
    let portid = read(item + u64::from(known(&SETTINGS.layout.event_portid)));
    match (entry, portid) {
        (Ok(entry), Ok(portid)) => trace::report(context, entry, What { kind, events, portid }),
        _ => fault(),
    }
}

#[kprobe]
fn kprobe_trace_inserted(context: ProbeContext) -> u32 {
    inserted(&context, arg(&context, 0));
    0
}

#[fentry]
fn fentry_trace_inserted(context: FEntryContext) -> i32 {
    inserted(&context, context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_trace_removed(context: ProbeContext) -> u32 {
    removed(&context, arg(&context, 0));
    0
}

#[fentry]
fn fentry_trace_removed(context: FEntryContext) -> i32 {
    removed(&context, context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_trace_freed(context: ProbeContext) -> u32 {
    freed(&context, arg(&context, 0));
    0
}

#[fentry]
fn fentry_trace_freed(context: FEntryContext) -> i32 {
    freed(&context, context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_trace_refused(context: ProbeContext) -> u32 {
    refused(&context, arg(&context, 0));
    0
}

#[fentry]
fn fentry_trace_refused(context: FEntryContext) -> i32 {
    refused(&context, context.arg::<u64>(0));
    0
}

#[kprobe]
fn kprobe_trace_begun(context: ProbeContext) -> u32 {
    begun(&context, arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_trace_begun(context: FEntryContext) -> i32 {
    begun(&context, context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

#[kprobe]
fn kprobe_trace_changed(context: ProbeContext) -> u32 {
    changed(&context, arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_trace_changed(context: FEntryContext) -> i32 {
    changed(&context, context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

#[kprobe]
fn kprobe_trace_expectation(context: ProbeContext) -> u32 {
    trace::expectation(&context, arg(&context, 0) as u32, arg(&context, 1));
    0
}

#[fentry]
fn fentry_trace_expectation(context: FEntryContext) -> i32 {
    trace::expectation(&context, context.arg::<u64>(0) as u32, context.arg::<u64>(1));
    0
}

#[kprobe]
fn kprobe_trace_alloc_begins(context: ProbeContext) -> u32 {
    let [net, zone, orig, reply] = [0, 1, 2, 3].map(|index| arg(&context, index));
    trace::allocation_begins(Allocation { net, zone, orig, reply, full: 0 });
    0
}

#[fentry]
fn fentry_trace_alloc_begins(context: FEntryContext) -> i32 {
    let net = context.arg::<u64>(0);
    let zone = context.arg::<u64>(1);
    let orig = context.arg::<u64>(2);
    let reply = context.arg::<u64>(3);
    trace::allocation_begins(Allocation { net, zone, orig, reply, full: 0 });
    0
}

#[kretprobe]
fn kprobe_trace_alloc_ends(context: RetProbeContext) -> u32 {
    trace::allocation_ends(&context, context.ret());
    0
}

/// The result stands behind the six arguments.
#[fexit]
fn fentry_trace_alloc_ends(context: FExitContext) -> i32 {
    trace::allocation_ends(&context, context.arg::<u64>(6));
    0
}

/// A `bool` is the lowest byte of the register.
#[kretprobe]
fn kprobe_trace_drop_ends(context: RetProbeContext) -> u32 {
    trace::early_drop_ends(context.ret::<u64>() & 0xff != 0);
    0
}

#[fexit]
fn fentry_trace_drop_ends(context: FExitContext) -> i32 {
    trace::early_drop_ends(context.arg::<u64>(2) & 0xff != 0);
    0
}
