//! A call that is under way, for hooks at the end of a function that need what
//! they were given at its beginning. A task is in such a function once, and a
//! packet that interrupts it there in a bottom half a second time: not more,
//! because bottom halves do not interrupt each other. The inner call ends first.

use aya_ebpf::macros::map;
use aya_ebpf::maps::HashMap;

use crate::activity::task;
use crate::emit::count;

/// What the function was given.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Call {
    /// The packet; 0: there is none.
    pub(crate) packet: u64,
    /// The entry.
    pub(crate) entry: u64,
}

/// Calls that can be under way at one time.
const CALLS: u32 = 4096;

/// In a key: the inner call.
pub(crate) const INNER: u64 = 1 << 62;

#[map]
static CALLS_UNDER_WAY: HashMap<u64, Call> = HashMap::with_max_entries(CALLS, 0);

/// Remembers a call that begins.
#[inline(always)]
pub(crate) fn begin(call: Call) {
    begin_in(&CALLS_UNDER_WAY, call);
}

/// The call that ends now.
#[inline(always)]
pub(crate) fn end() -> Option<Call> {
    end_in(&CALLS_UNDER_WAY)
}

/// As [`begin`], of another function, whose calls have a map of their own.
#[inline(always)]
pub(crate) fn begin_in<T: Copy>(calls: &HashMap<u64, T>, call: T) {
    let outer = task();
    // SAFETY: only whether it is there is asked.
    let inner = unsafe { calls.get(outer) }.is_some();
    let key = if inner { outer | INNER } else { outer };
    if calls.insert(key, call, 0).is_err() {
        count(|counts| counts.faults += 1);
    }
}

/// As [`end`], of another function.
#[inline(always)]
pub(crate) fn end_in<T: Copy>(calls: &HashMap<u64, T>) -> Option<T> {
    let outer = task();
    let inner = outer | INNER;
    take(calls, inner).or_else(|| take(calls, outer))
}

#[inline(always)]
fn take<T: Copy>(calls: &HashMap<u64, T>, key: u64) -> Option<T> {
    // SAFETY: the value is copied at once.
    let call = unsafe { calls.get(key) }.copied()?;
    let _ = calls.remove(key);
    Some(call)
}
