//! What is told besides while connections are traced: records with the place where
//! each thing happened, and refusals.

use bytemuck::{Pod, Zeroable};

use crate::{RawDetails, RawExpect, RawFlow};

/// What is known of a refusal; the value of [`RawContext::refusal`].
pub mod refusal {
    /// The record is about none.
    pub const NONE: u8 = 0;
    /// The entry goes without having been confirmed.
    pub const UNCONFIRMED: u8 = 1;
    /// The table is full, and nothing could be dropped early.
    pub const TABLE_FULL: u8 = 2;
    /// The table has room, and there is no memory for an entry.
    pub const NO_MEMORY: u8 = 3;
}

/// Callers that are told.
pub const STACK: usize = 24;

/// Where something happened. Only while connections are traced.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawContext {
    /// Processor.
    pub cpu: u32,
    /// Current thread, in the initial PID namespace; 0: the idle task.
    pub tid: u32,
    /// Its process.
    pub pid: u32,
    /// The kernel's error where nothing could be allocated, else 0.
    pub error: i32,
    /// Name of the thread, ended by a NUL.
    pub comm: [u8; 16],
    /// One of [`refusal`].
    pub refusal: u8,
    /// Zero.
    pub reserved: [u8; 3],
    /// Bytes of the stack that are filled; negative: it cannot be had.
    pub stack_bytes: i32,
    /// Return addresses, the innermost first, some of the programs' own before.
    pub stack: [u64; STACK],
}

/// A connection event with details, and where it happened.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawTrace {
    /// What every event has.
    pub flow: RawFlow,
    /// What only some have; [`RawFlow::flags`] say what.
    pub details: RawDetails,
    /// Where.
    pub context: RawContext,
}

/// An expectation event, and where it happened.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct RawTraceExpect {
    /// The event.
    pub expect: RawExpect,
    /// Where.
    pub context: RawContext,
}

const _: () = {
    assert!(size_of::<RawContext>() == 232);
    assert!(size_of::<RawTrace>() == 520);
    assert!(size_of::<RawTraceExpect>() == 384);
};
