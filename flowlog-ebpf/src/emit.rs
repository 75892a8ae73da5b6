//! Records into the ring, and what is counted instead where there is no room.

use core::arch::asm;
use core::mem::offset_of;

use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use flowlog_ebpf::{RawCounts, kind};

/// The daemon sets the size. A reader is woken up only when it has read all
/// there was (the kernel's way without flags): once for many records.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

#[map]
static COUNTS: PerCpuArray<RawCounts> = PerCpuArray::with_max_entries(1, 0);

/// A number of [`RawCounts`].
#[derive(Clone, Copy)]
pub(crate) enum Count {
    /// `lost`, by kind
    Lost(u8),
    FilteredNetns,
    FilteredFlows,
    FilteredKinds,
    Faults,
    New,
    Destroyed,
}

impl Count {
    /// Where it stands, if there is such a number.
    #[inline(always)]
    fn offset(self) -> Option<usize> {
        Some(match self {
            Self::Lost(kind) if usize::from(kind) < kind::COUNT => {
                offset_of!(RawCounts, lost) + usize::from(kind) * size_of::<u64>()
            }
            Self::Lost(_) => return None,
            Self::FilteredNetns => offset_of!(RawCounts, filtered_netns),
            Self::FilteredFlows => offset_of!(RawCounts, filtered_flows),
            Self::FilteredKinds => offset_of!(RawCounts, filtered_kinds),
            Self::Faults => offset_of!(RawCounts, faults),
            Self::New => offset_of!(RawCounts, counted_new),
            Self::Destroyed => offset_of!(RawCounts, counted_destroyed),
        })
    }
}

/// Adds one to a number of this processor.
#[inline(always)]
pub(crate) fn count(count: Count) {
    let (Some(counts), Some(offset)) = (COUNTS.get_ptr_mut(0), count.offset()) else { return };
    // SAFETY: the map has the entry as long as the program lives, and each offset
    // is that of an aligned `u64` within it.
    unsafe { add_one(counts.cast::<u8>().add(offset).cast()) };
}

/// Something could not be read or remembered.
#[inline(always)]
pub(crate) fn fault() {
    count(Count::Faults);
}

/// Adds one to a number of this processor. In one instruction, because a program
/// that runs in a task may be interrupted by one that counts the same, or be
/// preempted by another task's with PREEMPT_RT.
///
/// # Safety
/// `number` can be read and written, and is aligned.
#[inline(always)]
pub(crate) unsafe fn add_one(number: *mut u64) {
    // Rust has no atomic addition for this target, of which not all processors
    // can compare and exchange.
    // SAFETY: by the caller; nothing else is changed.
    unsafe {
        asm!(
            "lock *(u64 *)({number} + 0) += {one}",
            number = in(reg) number,
            one = in(reg) 1_u64,
            options(nostack, preserves_flags)
        );
    }
}

/// Room for a record of this kind, or else a loss that is counted.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(kind: u8) -> Option<RingBufEntry<T>> {
    let room = RECORDS.reserve::<T>(0);
    if room.is_none() {
        count(Count::Lost(kind));
    }
    room
}
