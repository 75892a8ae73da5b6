//! Which of a few rare functions the current task is in, because that is why a
//! flow ends: the collector, an early drop, a deletion over netlink, a flush, a
//! namespace's end. Hooks at the entry and the exit of each keep a
//! [`TaskState`], so that nothing has to be asked of the stack.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use flowlog_ebpf::task::TaskState;

use crate::emit::fault;
use crate::kernel::read;

/// Tasks that can be in such a function at one time; the daemon sets it by the
/// number of processors. The oldest make room, so that tasks whose exit was
/// missed do not fill the map.
const TASKS_MAX: u32 = 1024;

#[map]
static TASKS: LruHashMap<u64, TaskState> = LruHashMap::with_max_entries(TASKS_MAX, 0);

/// What names the current task. The idle tasks of all processors have number 0,
/// and stay where they are.
#[inline(always)]
pub(crate) fn task() -> u64 {
    match bpf_get_current_pid_tgid() {
        // SAFETY: the helper has no preconditions.
        0 => 1 << 63 | u64::from(unsafe { bpf_get_smp_processor_id() }),
        task => task,
    }
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[inline(always)]
pub(crate) fn now() -> u64 {
    // SAFETY: the helper has no preconditions.
    unsafe { bpf_ktime_get_boot_ns() }
}

/// The address of a frame of fentry and fexit, the same for both in one call of
/// the function: it holds the arguments, to which the context points.
#[inline(always)]
pub(crate) fn frame(context: &impl EbpfContext) -> u64 {
    let pointer = context.as_ptr();
    // Read back as a number: the verifier forbids to compute with a pointer.
    read((&raw const pointer).expose_provenance() as u64).unwrap_or(0)
}

/// The current task enters `function`, whose frame is at `frame`, or 0.
#[inline(always)]
pub(crate) fn enter(function: u8, frame: u64, portid: u32) {
    let task = task();
    let state = state_of(task).entered(function, frame, portid, now());
    if TASKS.insert(task, state, 0).is_err() {
        fault();
    }
}

/// The current task leaves `function`.
#[inline(always)]
pub(crate) fn leave(function: u8, frame: u64) {
    let task = task();
    let state = state_of(task);
    if state.is_idle() {
        return;
    }
    let state = state.left(function, frame);
    if state.is_idle() {
        let _ = TASKS.remove(task);
    } else if TASKS.insert(task, state, 0).is_err() {
        fault();
    }
}

/// What the current task is in.
#[inline(always)]
pub(crate) fn current() -> TaskState {
    let state = state_of(task());
    if state.is_idle() { state } else { state.at(now()) }
}

/// A softirq that interrupts the task changes its value and changes it back
/// before the task goes on, so a copy that is changed and put back is right.
#[inline(always)]
fn state_of(task: u64) -> TaskState {
    // SAFETY: the value is copied at once.
    unsafe { TASKS.get(task) }.copied().unwrap_or_default()
}
