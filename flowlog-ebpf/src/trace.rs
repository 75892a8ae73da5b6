//! What a connection lives through, and where → a record: the processor, the
//! current task and the functions that led there. Also what never becomes a
//! flow: entries that go unconfirmed, and allocations that fail. These programs
//! are attached only while somebody traces.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{
    bpf_get_current_comm, bpf_get_smp_processor_id, bpf_get_stack, bpf_ktime_get_boot_ns,
};
use aya_ebpf::macros::map;
use bytemuck::{Pod, Zeroable};
use flowlog_ebpf::task::TaskState;
use flowlog_ebpf::{
    ABSENT, RawContext, RawDetails, RawFlow, RawTrace, RawTraceExpect, VERSION, cause, kind,
    refusal, tuple,
};

use crate::SETTINGS;
use crate::activity;
use crate::emit::{fault, reserve};
use crate::expect;
use crate::filter::{wants_netns, wants_tuple};
use crate::flow::{self, Place, What};
use crate::kernel::{Entry, Fault, copy_tuple, known, namespace, read, read_into};
use crate::pending::{Calls, begin_in, current_in, end_in};

/// The highest number that is an error where a pointer could be (`MAX_ERRNO`,
/// include/linux/err.h, 6.12).
const MAX_ERRNO: i64 = 4095;

/// An allocation that is under way: what `__nf_conntrack_alloc` was given.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Allocation {
    pub(crate) net: u64,
    pub(crate) zone: u64,
    pub(crate) orig: u64,
    pub(crate) reply: u64,
    /// 1 once the table was found full, with nothing to be dropped.
    pub(crate) full: u64,
}

/// Allocations that can be under way at one time; the daemon sets it by the number
/// of processors, and makes it less where nothing is traced.
const ALLOCATIONS_MAX: u32 = 1024;

#[map]
static ALLOCATIONS: Calls<Allocation> = Calls::with_max_entries(ALLOCATIONS_MAX, 0);

/// Reports what happened to the entry at `address`.
#[inline(always)]
pub(crate) fn report(context: &impl EbpfContext, address: u64, what: What) {
    if try_report(context, address, what).is_err() {
        fault();
    }
}

#[inline(always)]
fn try_report(context: &impl EbpfContext, address: u64, what: What) -> Result<(), Fault> {
    let mut entry = Entry::room();
    entry.read(address)?;
    let net: u64 = entry.field(known(&SETTINGS.layout.net));
    let (cookie, inum) = namespace(net)?;
    if !wants_netns(inum) || !wants_tuple(entry.tuple(known(&SETTINGS.layout.orig))) {
        return Ok(());
    }
    let ends = what.kind == kind::DESTROY;
    let task = if ends { activity::current() } else { TaskState::default() };
    let extensions = flow::extensions(entry.field(known(&SETTINGS.layout.ext)))?;
    let master: u64 = entry.field(known(&SETTINGS.layout.master));
    let process = task.deletes();
    let Some(mut room) = reserve::<RawTrace>(what.kind) else { return Ok(()) };
    let record = room.as_mut_ptr();
    let why = if what.kind == kind::REFUSED { refusal::UNCONFIRMED } else { refusal::NONE };
    // SAFETY: the ring has room for a whole record, and the verifier checks
    // each write.
    unsafe {
        let place = Place { address, cookie, inum };
        flow::fill(&raw mut (*record).flow, &entry, &place, &what, task, &extensions);
        let details = &raw mut (*record).details;
        (*record).flow.flags |= flow::fill_details(details, &extensions, master, process);
        fill_context(&raw mut (*record).context, context, why, 0);
    }
    room.submit(0);
    Ok(())
}

/// Reports what happened to the expectation at `address`.
#[inline(always)]
pub(crate) fn expectation(context: &impl EbpfContext, event: u32, address: u64) {
    match expect::look(event, address) {
        Ok(Some(expected)) => {
            let Some(mut room) = reserve::<RawTraceExpect>(expected.kind) else { return };
            let record = room.as_mut_ptr();
            // SAFETY: as in `try_report`.
            unsafe {
                expect::fill(&raw mut (*record).expect, &expected);
                fill_context(&raw mut (*record).context, context, refusal::NONE, 0);
            }
            room.submit(0);
        }
        Ok(None) => {}
        Err(Fault) => fault(),
    }
}

/// `__nf_conntrack_alloc` begins.
#[inline(always)]
pub(crate) fn allocation_begins(allocation: Allocation) {
    begin_in(&ALLOCATIONS, allocation, true);
}

/// `early_drop` ends. The table is full, and if nothing was dropped the
/// allocation that asked for it fails for that reason and no other
/// (`__nf_conntrack_alloc`, net/netfilter/nf_conntrack_core.c, 6.12).
#[inline(always)]
pub(crate) fn early_drop_ends(dropped: bool) {
    if dropped {
        return;
    }
    if let Some(current) = current_in(&ALLOCATIONS) {
        current.put(&ALLOCATIONS, Allocation { full: 1, ..*current.call() });
    }
}

/// `__nf_conntrack_alloc` ends, with an entry or an error.
#[inline(always)]
pub(crate) fn allocation_ends(context: &impl EbpfContext, result: u64) {
    let Some(allocation) = end_in(&ALLOCATIONS) else { return };
    let error = result as i64;
    if (-MAX_ERRNO..0).contains(&error)
        && tell_unallocated(context, &allocation, error as i32).is_err()
    {
        fault();
    }
}

#[inline(always)]
fn tell_unallocated(
    context: &impl EbpfContext,
    allocation: &Allocation,
    error: i32,
) -> Result<(), Fault> {
    let (cookie, inum) = namespace(allocation.net)?;
    // With room behind it, for it is copied in words.
    let orig: Aligned = read(allocation.orig)?;
    if !wants_netns(inum) || !wants_tuple(&orig.0) {
        return Ok(());
    }
    let Some(mut room) = reserve::<RawTrace>(kind::UNALLOCATED) else { return Ok(()) };
    let record = room.as_mut_ptr();
    let why = if allocation.full == 1 { refusal::TABLE_FULL } else { refusal::NO_MEMORY };
    // SAFETY: as in `try_report`.
    let told = unsafe {
        let flow = &raw mut (*record).flow;
        flow::clear(flow.cast(), size_of::<RawFlow>() / size_of::<u64>());
        let details = &raw mut (*record).details;
        flow::clear(details.cast(), size_of::<RawDetails>() / size_of::<u64>());
        (*flow).version = VERSION;
        (*flow).kind = kind::UNALLOCATED;
        (*flow).cause = cause::NONE;
        (*flow).time = bpf_ktime_get_boot_ns();
        (*flow).netns_cookie = cookie;
        (*flow).netns_inum = inum;
        read_zone_of(flow, allocation.zone);
        copy_tuple(&raw mut (*flow).orig, &orig.0);
        fill_context(&raw mut (*record).context, context, why, error);
        read_into(&raw mut (*flow).reply, allocation.reply)
    };
    match told {
        Ok(()) => room.submit(0),
        Err(Fault) => {
            room.discard(0);
            fault();
        }
    }
    Ok(())
}

/// A tuple that can be copied in words.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(8))]
struct Aligned([u8; tuple::SIZE]);

/// The `struct nf_conntrack_zone` at `zone`; an entry has one within it, of
/// which the layout knows the places.
///
/// # Safety
/// `flow` can be written to.
#[inline(always)]
unsafe fn read_zone_of(flow: *mut RawFlow, zone: u64) {
    let id = known(&SETTINGS.layout.zone_id);
    if id == ABSENT {
        return;
    }
    let directions = u64::from(known(&SETTINGS.layout.zone_dir) - id);
    // SAFETY: by the caller.
    unsafe {
        let _ = read_into(&raw mut (*flow).zone, zone);
        let _ = read_into(&raw mut (*flow).zone_dir, zone + directions);
    }
}

/// # Safety
/// `into` points to room for it in the ring.
#[inline(always)]
unsafe fn fill_context(into: *mut RawContext, context: &impl EbpfContext, why: u8, error: i32) {
    let task = bpf_get_current_pid_tgid();
    // SAFETY: by the caller; the helpers are given room of the length that they
    // are told.
    unsafe {
        (*into).cpu = bpf_get_smp_processor_id();
        (*into).tid = task as u32;
        (*into).pid = (task >> 32) as u32;
        (*into).error = error;
        (*into).refusal = why;
        (*into).reserved = [0; 3];
        let comm = &raw mut (*into).comm;
        bpf_get_current_comm(comm.cast(), 16);
        let stack = &raw mut (*into).stack;
        let room = size_of_val(&(*into).stack) as u32;
        (*into).stack_bytes = bpf_get_stack(context.as_ptr(), stack.cast(), room, 0) as i32;
    }
}
