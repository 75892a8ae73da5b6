//! The only reads of the kernel's memory: settings, a copy of an entry, values
//! behind pointers. Nothing here trusts a pointer: a bad one is an error.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel as probe_read;
use bytemuck::AnyBitPattern;
use flowlog_ebpf::{ABSENT, ENTRY_MAX, tuple};

use crate::SETTINGS;

/// A read failed; it has been given up.
pub(crate) struct Fault;

/// A setting: a field of [`SETTINGS`]. Volatile, so that rustc does not
/// fold the zero in the source.
#[inline(always)]
pub(crate) fn known(field: &'static u32) -> u32 {
    // SAFETY: a reference can be read.
    unsafe { ptr::read_volatile(field) }
}

/// A value at `address`.
#[inline(always)]
pub(crate) fn read<T: AnyBitPattern>(address: u64) -> Result<T, Fault> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the value is writable. The helper has filled it where it has not
    // failed, and any bytes make a value.
    unsafe {
        read_into(value.as_mut_ptr(), address)?;
        Ok(value.assume_init())
    }
}

/// A value at `address`, put to `into`.
///
/// # Safety
/// `into` can be written to. It need not hold a value yet, and holds one
/// afterwards only if nothing failed before.
#[inline(always)]
pub(crate) unsafe fn read_into<T: AnyBitPattern>(into: *mut T, address: u64) -> Result<(), Fault> {
    // SAFETY: by the caller.
    unsafe { read_bytes(into.cast(), size_of::<T>() as u32, address) }
}

/// # Safety
/// `length` bytes can be written from `into` on.
#[inline(always)]
unsafe fn read_bytes(into: *mut u8, length: u32, address: u64) -> Result<(), Fault> {
    // SAFETY: `into` by the caller, which the verifier checks as well; the helper
    // checks the address.
    match unsafe { probe_read(into.cast(), length, address as *const _) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

/// A copy of an entry, made by one read: the fields are spread over it, and a
/// read costs more than the bytes between them.
#[repr(C, align(8))]
pub(crate) struct Entry {
    bytes: [MaybeUninit<u8>; ENTRY_MAX],
    /// Offset of the first byte within the entry. As a word, for the verifier
    /// forgets the value of anything smaller that is put on the stack.
    start: u64,
}

impl Entry {
    /// Room for a copy.
    #[inline(always)]
    pub(crate) fn room() -> Self {
        let start = u64::from(known(&SETTINGS.layout.entry_start));
        Self { bytes: [MaybeUninit::uninit(); ENTRY_MAX], start }
    }

    /// Copies the entry at `address`.
    #[inline(always)]
    pub(crate) fn read(&mut self, address: u64) -> Result<(), Fault> {
        let size = known(&SETTINGS.layout.entry_size);
        // Never so; for the verifier.
        if size == 0 || size > ENTRY_MAX as u32 {
            return Err(Fault);
        }
        // SAFETY: `bytes` has that much room.
        unsafe { read_bytes(self.bytes.as_mut_ptr().cast(), size, address + self.start) }
    }

    /// The field at `offset`, or the default where this kernel has none.
    #[inline(always)]
    pub(crate) fn field<T: AnyBitPattern + Default>(&self, offset: u32) -> T {
        if offset == ABSENT {
            return T::default();
        }
        // SAFETY: the offset is one of the layout, within what was copied and
        // aligned; the verifier knows it as a constant and checks just that.
        unsafe { ptr::read(self.at(offset).cast()) }
    }

    /// Where the field at `offset` has been copied to.
    #[inline(always)]
    fn at(&self, offset: u32) -> *const u8 {
        let offset = u64::from(offset) - self.start;
        self.bytes.as_ptr().wrapping_byte_add(offset as usize).cast()
    }

    /// The tuple at `offset`. Every kernel has both.
    #[inline(always)]
    pub(crate) fn tuple(&self, offset: u32) -> &[u8; tuple::SIZE] {
        // SAFETY: as above, and bytes need no alignment.
        unsafe { &*self.at(offset).cast() }
    }
}

/// Copies a tuple word by word; as bytes it would go over the stack, of which
/// there is little.
///
/// # Safety
/// `into` has room for it, and both are aligned to 8. Those of an [`Entry`] are:
/// its piece begins at a multiple of 8, and a layout whose tuples do not is
/// refused.
#[inline(always)]
pub(crate) unsafe fn copy_tuple(into: *mut [u8; tuple::SIZE], from: &[u8; tuple::SIZE]) {
    let (into, from) = (into.cast::<u64>(), from.as_ptr().cast::<u64>());
    // SAFETY: by the caller.
    unsafe {
        into.write(from.read());
        into.add(1).write(from.add(1).read());
        into.add(2).write(from.add(2).read());
        into.add(3).write(from.add(3).read());
        into.add(4).write(from.add(4).read());
    }
}

/// Namespace of an entry: cookie, which is 0 where there is none, and inode
/// number.
#[inline(always)]
pub(crate) fn namespace(net: u64) -> Result<(u64, u32), Fault> {
    let inum = read(net + u64::from(known(&SETTINGS.layout.net_inum)))?;
    let cookie = match known(&SETTINGS.layout.net_cookie) {
        ABSENT => 0,
        offset => read(net + u64::from(offset))?,
    };
    Ok((cookie, inum))
}

/// Zone of the entry at `address`, and the directions for which it holds; left
/// as they are where this kernel has no zones.
///
/// # Safety
/// Both can be written to.
#[inline(always)]
pub(crate) unsafe fn read_zone(zone: *mut u16, directions: *mut u8, address: u64) {
    if known(&SETTINGS.layout.zone_id) == ABSENT {
        return;
    }
    // SAFETY: by the caller.
    unsafe {
        let _ = read_into(zone, address + u64::from(known(&SETTINGS.layout.zone_id)));
        let _ = read_into(directions, address + u64::from(known(&SETTINGS.layout.zone_dir)));
    }
}
