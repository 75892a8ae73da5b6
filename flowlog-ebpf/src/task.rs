//! What a task is in the middle of: which of a few rare functions it has entered,
//! and since when. The programs keep one value for each task; everything here is
//! computation, so that it can be tested outside of the kernel.
//!
//! Functions nest. A packet that is received while a task is within one, in a
//! softirq that interrupts the task or that the task runs itself as it turns
//! softirqs on again (`local_bh_enable`), can enter another or the same one, and
//! leaves it before the task goes on. So calls are kept in order, and what ends a
//! flow is the innermost of them.
//!
//! Neither an entry nor an exit is certain: the kernel passes programs over. So a
//! call is known by the address of its frame, where a program knows that: two
//! programs at one entry report one call, of which the kernel passes over one at
//! most, and an exit ends its own call and no other. What was entered inside a
//! call has ended when that call ends, and what began more than [`CALL_TIMEOUT`]
//! ago is ignored, whoever the task is by now.

use bytemuck::{AnyBitPattern, Pod, Zeroable};

/// Nanoseconds for which a call is believed to last, if no exit is seen.
pub const CALL_TIMEOUT: u64 = 60_000_000_000;

/// The functions. A value of 0 is none.
pub mod function {
    /// `gc_worker`
    pub const GC: u8 = 1;
    /// `early_drop`
    pub const EARLY_DROP: u8 = 2;
    /// `ctnetlink_del_conntrack`
    pub const DELETION: u8 = 3;
    /// `nf_ct_iterate_cleanup_net`
    pub const CLEANUP: u8 = 4;
    /// `nf_conntrack_cleanup_net_list`
    pub const NETNS_END: u8 = 5;
}

/// Bits of the function in a call.
const FUNCTION: u32 = 8;
/// Calls that are kept; the kernel nests at most three.
const DEPTH: usize = 4;

/// The calls that a task is within.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct TaskState {
    /// The calls, the innermost first: one of [`function`] in the lowest byte,
    /// above it the address of the frame, or 0.
    calls: [u64; DEPTH],
    /// When the outermost began, nanoseconds of `CLOCK_BOOTTIME`.
    since: u64,
    /// Netlink port that a deletion was asked for by.
    portid: u32,
    /// Zero.
    reserved: u32,
}

impl TaskState {
    /// It enters `function` with its frame at `frame`, 0 where that is not known;
    /// `portid` is for a deletion.
    #[inline(always)]
    #[must_use]
    pub fn entered(self, function: u8, frame: u64, portid: u32, now: u64) -> Self {
        let before = self.at(now);
        let call = call(function, frame);
        let [first, second, third, _] = before.calls;
        if frame != 0 && first == call {
            // Another program has reported it.
            return before;
        }
        let since = if before.is_idle() { now } else { before.since };
        let portid = if function == function::DELETION { portid } else { before.portid };
        // What is deeper than the kernel nests is pushed out.
        Self { calls: [call, first, second, third], since, portid, reserved: 0 }
    }

    /// It leaves `function`, and with it all that was entered since. An exit
    /// whose entry was not seen changes nothing.
    #[inline(always)]
    #[must_use]
    pub fn left(self, function: u8, frame: u64) -> Self {
        let call = call(function, frame);
        let [first, second, third, fourth] = self.calls;
        let calls = if first == call {
            [second, third, fourth, 0]
        } else if second == call {
            [third, fourth, 0, 0]
        } else if third == call {
            [fourth, 0, 0, 0]
        } else if fourth == call {
            [0; DEPTH]
        } else {
            self.calls
        };
        Self { calls, ..self }
    }

    /// What is to be believed of it at `now`.
    #[inline(always)]
    #[must_use]
    pub fn at(self, now: u64) -> Self {
        if now.wrapping_sub(self.since) > CALL_TIMEOUT { Self::default() } else { self }
    }

    /// It is in none of the functions.
    #[inline(always)]
    pub fn is_idle(self) -> bool {
        self.calls[0] == 0
    }

    /// The function that it is in, one of [`function`].
    #[inline(always)]
    pub fn innermost(self) -> u8 {
        self.calls[0] as u8
    }

    /// It removes what a process has asked for, one entry or many.
    #[inline(always)]
    pub fn deletes(self) -> bool {
        self.innermost() == function::DELETION || self.flushes()
    }

    /// It removes many because a process has asked for it.
    #[inline(always)]
    pub fn flushes(self) -> bool {
        self.innermost() == function::CLEANUP && self.calls[1] as u8 == function::DELETION
    }

    /// Netlink port of the process that has asked; 0: none has.
    #[inline(always)]
    pub fn portid(self) -> u32 {
        if self.deletes() { self.portid } else { 0 }
    }
}

/// A call as it is kept.
#[inline(always)]
fn call(function: u8, frame: u64) -> u64 {
    frame << FUNCTION | u64::from(function)
}

/// A call that is under way, for hooks at the end of a function that need what
/// they were given at its beginning, and when it began: a value whose end is
/// missed must not be taken for that of a later call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Pending<T> {
    /// Nanoseconds of `CLOCK_BOOTTIME`.
    since: u64,
    /// What is remembered.
    pub call: T,
}

impl<T> Pending<T> {
    /// It begins now.
    #[inline(always)]
    pub fn new(call: T, now: u64) -> Self {
        Self { since: now, call }
    }

    /// The same call with another value: it began when it began.
    #[inline(always)]
    #[must_use]
    pub fn with(&self, call: T) -> Self {
        Self { since: self.since, call }
    }

    /// Its end is still to be expected.
    #[inline(always)]
    pub fn is_live(&self, now: u64) -> bool {
        now.wrapping_sub(self.since) <= CALL_TIMEOUT
    }
}

/// A netlink message that is being built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, AnyBitPattern)]
#[repr(C)]
pub struct RawMessage {
    /// Address of the entry; 0: nothing is to be told of it, or all has been.
    pub entry: u64,
    /// As [`crate::RawNotice::events`].
    pub events: u32,
    /// As [`crate::RawFlow::portid`].
    pub portid: u32,
    /// One of [`mod@crate::group`].
    pub group: u32,
    /// 1 while the id of just this entry is being asked for.
    pub asked: u32,
}

const _: () = {
    assert!(size_of::<TaskState>() == 48);
    assert!(size_of::<Pending<RawMessage>>() == 32);
};

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::function::{CLEANUP, DELETION, EARLY_DROP, GC, NETNS_END};
    use super::*;

    fn within(functions: &[u8]) -> TaskState {
        functions.iter().fold(TaskState::default(), |state, f| state.entered(*f, 0, 7, 100))
    }

    #[test]
    fn the_same_function_in_a_softirq_leaves_the_outer_call() {
        let task = within(&[EARLY_DROP]);
        let softirq = task.entered(EARLY_DROP, 0, 0, 200);
        assert_eq!(softirq.innermost(), EARLY_DROP);
        assert_eq!(softirq.left(EARLY_DROP, 0), task);
        assert!(task.left(EARLY_DROP, 0).is_idle());
    }

    #[test]
    fn a_packet_during_a_flush_is_no_part_of_it() {
        let flush = within(&[DELETION, CLEANUP]);
        assert!(flush.flushes() && flush.deletes());
        assert_eq!(flush.portid(), 7);
        let packet = flush.entered(EARLY_DROP, 0, 0, 200);
        assert!(!packet.flushes() && !packet.deletes());
        assert_eq!((packet.innermost(), packet.portid()), (EARLY_DROP, 0));
        let after = packet.left(EARLY_DROP, 0);
        assert_eq!((after, after.portid()), (flush, 7));
        let deletion = after.left(CLEANUP, 0);
        assert!(deletion.deletes() && !deletion.flushes());
        assert!(deletion.left(DELETION, 0).is_idle());
        assert!(!within(&[CLEANUP]).deletes(), "the kernel's own");
        assert!(!within(&[NETNS_END, GC]).deletes());
    }

    #[test]
    fn an_exit_that_is_missed_ends_with_the_call_around_it() {
        let state = within(&[GC, EARLY_DROP]);
        assert!(state.left(GC, 0).is_idle());
        let state = within(&[DELETION, CLEANUP, EARLY_DROP]).left(CLEANUP, 0);
        assert_eq!(state, within(&[DELETION]));
    }

    #[test]
    fn an_exit_without_an_entry_changes_nothing() {
        let state = within(&[DELETION]);
        assert_eq!(state.left(EARLY_DROP, 0), state);
        assert!(TaskState::default().left(GC, 0).is_idle());
    }

    #[test]
    fn what_is_too_old_is_ignored_and_replaced() {
        let stuck = within(&[DELETION]);
        assert_eq!(stuck.at(100 + CALL_TIMEOUT), stuck);
        let later = 101 + CALL_TIMEOUT;
        assert!(stuck.at(later).is_idle(), "another task may have its number");
        let next = stuck.entered(EARLY_DROP, 0, 0, later);
        assert!(next.left(EARLY_DROP, 0).is_idle(), "nothing of the old one is left");
        assert_eq!(next.portid(), 0);
        // Calls that go on and on must not keep it young.
        let busy = stuck.entered(EARLY_DROP, 0, 0, 100 + CALL_TIMEOUT).left(EARLY_DROP, 0);
        assert_eq!(busy, stuck);
        assert!(busy.at(later).is_idle());
    }

    #[test]
    fn more_calls_than_are_kept_push_out_the_outermost() {
        let mut state = within(&[DELETION, CLEANUP]);
        for _ in 0..DEPTH {
            state = state.entered(EARLY_DROP, 0, 0, 100);
        }
        for _ in 0..DEPTH {
            assert_eq!(state.innermost(), EARLY_DROP);
            state = state.left(EARLY_DROP, 0);
        }
        assert!(state.is_idle());
    }

    /// Every sequence of up to nine balanced calls, three deep, against a list.
    #[test]
    fn calls_nest_as_in_a_list() {
        fn explore(state: TaskState, list: &mut Vec<u8>, steps: u32) {
            let last = list.last().copied().unwrap_or(0);
            assert_eq!((state.innermost(), state.is_idle()), (last, list.is_empty()));
            assert_eq!(state.flushes(), list.ends_with(&[DELETION, CLEANUP]));
            if steps == 0 {
                return;
            }
            if list.len() < 3 {
                for function in [EARLY_DROP, DELETION, CLEANUP] {
                    list.push(function);
                    explore(state.entered(function, 0, 1, 5), list, steps - 1);
                    list.pop();
                }
            }
            if let Some(function) = list.pop() {
                explore(state.left(function, 0), list, steps - 1);
                list.push(function);
            }
        }
        explore(TaskState::default(), &mut Vec::new(), 9);
    }

    /// Two programs report each entry and each exit; of one call within another
    /// the kernel passes over one of them.
    #[test]
    fn a_call_that_two_programs_report_is_one() {
        let (task, softirq) = (0xffff_c900_0010_3e00, 0xffff_c900_0000_0e00);
        let enter = |state: TaskState, frame| state.entered(EARLY_DROP, frame, 0, 100);
        let outer = enter(enter(TaskState::default(), task), task);
        assert!(outer.left(EARLY_DROP, task).is_idle());
        let inner = enter(outer, softirq);
        assert_eq!(inner.innermost(), EARLY_DROP);
        // Both exits, or either of them.
        let after = inner.left(EARLY_DROP, softirq);
        assert_eq!((after, after.left(EARLY_DROP, softirq)), (outer, outer));
        // The entry of the inner call was not reported.
        assert_eq!(outer.left(EARLY_DROP, softirq), outer);
        // Its exit was not.
        assert!(inner.left(EARLY_DROP, task).is_idle());
    }

    #[test]
    fn a_pending_call_is_not_believed_for_ever() {
        let call = Pending::new(1_u64, 100);
        assert!(call.is_live(100) && call.is_live(100 + CALL_TIMEOUT));
        assert!(!call.is_live(101 + CALL_TIMEOUT));
        let changed = call.with(2);
        assert_eq!(changed.call, 2);
        assert!(!changed.is_live(101 + CALL_TIMEOUT), "a change makes it no younger");
    }
}
