//! Which of a few rare functions the current task is in, because that is why a
//! flow ends: the collector, an early drop, a deletion over netlink, a flush, a
//! namespace's end. Each sets a bit when it is entered and clears it when it is
//! left, so that nothing has to be asked of the stack.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::bpf_get_smp_processor_id;
use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;

use crate::emit::count;

/// `gc_worker` runs.
pub(crate) const GC: u32 = 1 << 0;
/// `early_drop` runs.
pub(crate) const EARLY_DROP: u32 = 1 << 1;
/// `ctnetlink_del_conntrack` runs.
pub(crate) const DELETION: u32 = 1 << 2;
/// `nf_ct_iterate_cleanup_net` runs.
pub(crate) const CLEANUP: u32 = 1 << 3;
/// `nf_conntrack_cleanup_net_list` runs.
pub(crate) const NETNS_END: u32 = 1 << 4;

/// What a task does.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Activity {
    /// Bits of the functions that it is in.
    pub(crate) functions: u32,
    /// Netlink port that a deletion was asked for by.
    pub(crate) portid: u32,
}

/// Tasks that can be in such a function at one time.
const TASKS: u32 = 1024;

#[map]
static ACTIVITIES: HashMap<u64, Activity> = HashMap::with_max_entries(TASKS, 0);

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

/// The current task enters `function`.
#[inline(always)]
pub(crate) fn enter(function: u32, portid: u32) {
    let task = task();
    if let Some(activity) = ACTIVITIES.get_ptr_mut(task) {
        // SAFETY: the entry is the current task's, so nobody else changes it;
        // if it is removed meanwhile its memory stays valid until the program
        // has ended.
        let activity = unsafe { &mut *activity };
        activity.functions |= function;
        if portid != 0 {
            activity.portid = portid;
        }
        return;
    }
    let activity = Activity { functions: function, portid };
    if ACTIVITIES.insert(task, activity, 0).is_err() {
        count(|counts| counts.faults += 1);
    }
}

/// The current task leaves `function`.
#[inline(always)]
pub(crate) fn leave(function: u32) {
    let task = task();
    let Some(activity) = ACTIVITIES.get_ptr_mut(task) else { return };
    // SAFETY: as above.
    let activity = unsafe { &mut *activity };
    activity.functions &= !function;
    if activity.functions == 0 {
        let _ = ACTIVITIES.remove(task);
    }
}

/// What the current task does.
#[inline(always)]
pub(crate) fn current() -> Activity {
    let task = task();
    // SAFETY: the value is copied at once.
    unsafe { ACTIVITIES.get(task) }.copied().unwrap_or_default()
}
