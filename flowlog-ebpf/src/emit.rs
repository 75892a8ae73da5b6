//! Records into the ring, and what is counted instead where there is no room.

use aya_ebpf::macros::map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use flowlog_ebpf::RawCounts;

/// The daemon sets the size. A reader is woken up only when it has read all
/// there was (the kernel's way without flags): once for many records.
#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(1 << 24, 0);

#[map]
static COUNTS: PerCpuArray<RawCounts> = PerCpuArray::with_max_entries(1, 0);

/// Changes this processor's counts. A program that interrupts another between
/// its read and its write could hide one; hooks that count run with bottom
/// halves off, except those that stand in for a hook that is missing.
#[inline(always)]
pub(crate) fn count(change: impl FnOnce(&mut RawCounts)) {
    if let Some(counts) = COUNTS.get_ptr_mut(0) {
        // SAFETY: the map has the entry as long as the program lives, and it is
        // this processor's own.
        change(unsafe { &mut *counts });
    }
}

/// Room for a record of this kind, or else a loss that is counted.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(kind: u8) -> Option<RingBufEntry<T>> {
    let room = RECORDS.reserve::<T>(0);
    if room.is_none() {
        count(|counts| {
            if let Some(lost) = counts.lost.get_mut(usize::from(kind)) {
                *lost += 1;
            }
        });
    }
    room
}
