//! Calls that are under way, for hooks at the end of a function that need what
//! they were given at its beginning. A task is in such a function once, and a
//! packet that is received meanwhile, in a softirq on the same processor, a
//! second time: not more, because softirqs do not interrupt each other. The inner
//! call ends first. With PREEMPT_RT softirqs are tasks, and the same holds for
//! those that a task runs itself.
//!
//! Each beginning must have its end in the map, also where nothing is to be told
//! of the call: its end would be taken for that of the outer one. What is older
//! than `CALL_TIMEOUT` is one whose end was missed.
//!
//! The maps drop their least used entries, so that missed ends do not fill them,
//! and the memory of a dropped entry is given to another call at once. So an
//! entry is copied, changed and put back, and never held by reference. The daemon
//! sizes the maps by the number of processors, so that none in use is dropped.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use flowlog_ebpf::task::Pending;

use crate::activity::{now, task};
use crate::emit::fault;

/// Calls of one function, by task.
pub(crate) type Calls<T> = LruHashMap<u64, Pending<T>>;

/// What the function was given.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(crate) struct Call {
    /// The packet; 0: there is none.
    pub(crate) packet: u64,
    /// The entry; 0: nothing is to be told.
    pub(crate) entry: u64,
}

/// Calls that can be under way at one time; the daemon sets it by the number of
/// processors.
const CALLS_MAX: u32 = 1024;

/// In a key: the inner call.
const INNER: u64 = 1 << 62;
/// `BPF_EXIST`: an entry is replaced, never added.
const EXIST: u64 = 2;

#[map]
static CALLS_UNDER_WAY: Calls<Call> = Calls::with_max_entries(CALLS_MAX, 0);

/// Remembers a call that begins; the default: nothing is to be reported of it.
#[inline(always)]
pub(crate) fn begin(call: Call) {
    begin_in(&CALLS_UNDER_WAY, call, call.entry != 0);
}

/// The call that ends now, if something is to be told of it.
#[inline(always)]
pub(crate) fn end() -> Option<Call> {
    end_in(&CALLS_UNDER_WAY).filter(|call| call.entry != 0)
}

/// As [`begin`], of another function, whose calls have a map of their own.
/// `told`: the call is to be reported.
///
/// No `Option`: of one that is empty the compiler copies what it does not hold,
/// which the verifier refuses.
#[inline(always)]
pub(crate) fn begin_in<T>(calls: &Calls<T>, call: T, told: bool) {
    let (outer, now) = (task(), now());
    // SAFETY: as in `copy`; only its age is read.
    let inner = unsafe { calls.get(outer) }.is_some_and(|outer| outer.is_live(now));
    // The end of an inner call must not be taken for that of the outer one.
    if !told && !inner {
        return;
    }
    let key = if inner {
        outer | INNER
    } else {
        // An inner call whose end was missed would be taken for this one.
        let _ = calls.remove(outer | INNER);
        outer
    };
    if calls.insert(key, Pending::new(call, now), 0).is_err() {
        fault();
    }
}

/// As [`end`], of another function.
#[inline(always)]
pub(crate) fn end_in<T: Copy>(calls: &Calls<T>) -> Option<T> {
    let (outer, now) = (task(), now());
    take(calls, outer | INNER, now).or_else(|| take(calls, outer, now))
}

/// A copy of the call that the current task is in.
pub(crate) struct Current<T> {
    key: u64,
    pending: Pending<T>,
}

/// The call of this map that the current task is in.
#[inline(always)]
pub(crate) fn current_in<T: Copy>(calls: &Calls<T>) -> Option<Current<T>> {
    let (outer, now) = (task(), now());
    current(calls, outer | INNER, now).or_else(|| current(calls, outer, now))
}

#[inline(always)]
fn current<T: Copy>(calls: &Calls<T>, key: u64, now: u64) -> Option<Current<T>> {
    let pending = copy(calls, key)?;
    pending.is_live(now).then_some(Current { key, pending })
}

impl<T: Copy> Current<T> {
    /// The call.
    #[inline(always)]
    pub(crate) fn call(&self) -> &T {
        &self.pending.call
    }

    /// Puts another value in the place of the call. A fault where the map has
    /// dropped it meanwhile.
    #[inline(always)]
    pub(crate) fn put(&self, calls: &Calls<T>, call: T) {
        if calls.insert(self.key, self.pending.with(call), EXIST).is_err() {
            fault();
        }
    }
}

#[inline(always)]
fn take<T: Copy>(calls: &Calls<T>, key: u64, now: u64) -> Option<T> {
    let pending = copy(calls, key)?;
    let _ = calls.remove(key);
    pending.is_live(now).then_some(pending.call)
}

#[inline(always)]
fn copy<T: Copy>(calls: &Calls<T>, key: u64) -> Option<Pending<T>> {
    // SAFETY: the memory belongs to the map as long as the program runs, whether or
    // not the entry is dropped meanwhile, and the reference ends with the copy.
    unsafe { calls.get(key) }.copied()
}
