//! The only reads of the kernel's memory: settings, a copy of an entry, values
//! behind pointers. Nothing here trusts a pointer: a bad one is an error.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel as probe_read;
use flowlog_ebpf::{ABSENT, ENTRY_MAX, tuple};

use crate::SETTINGS;

/// A read failed; it has been given up.
pub(crate) struct Fault;

/// A setting: a field of [`SETTINGS`]. Volatile, lest the compiler takes the zero
/// in the source for its value.
#[inline(always)]
pub(crate) fn known(field: &'static u32) -> u32 {
    // SAFETY: a reference can be read.
    unsafe { ptr::read_volatile(field) }
}

/// A value at `address`.
#[inline(always)]
pub(crate) fn read<T: Copy>(address: u64) -> Result<T, Fault> {
    let mut value = MaybeUninit::<T>::uninit();
    read_into(value.as_mut_ptr(), address)?;
    // SAFETY: the helper has filled it.
    Ok(unsafe { value.assume_init() })
}

/// A value at `address`, put to `into`, which the program owns.
#[inline(always)]
pub(crate) fn read_into<T>(into: *mut T, address: u64) -> Result<(), Fault> {
    read_bytes(into.cast(), size_of::<T>() as u32, address)
}

#[inline(always)]
fn read_bytes(into: *mut u8, length: u32, address: u64) -> Result<(), Fault> {
    // SAFETY: the verifier has proved that `into` has room for `length` bytes,
    // and the helper checks the address.
    match unsafe { probe_read(into.cast(), length, address as *const _) } {
        0 => Ok(()),
        _ => Err(Fault),
    }
}

/// A copy of an entry, made by one read: the fields are spread over it, and a
/// read costs more than the bytes between them.
#[repr(C, align(8))]
pub(crate) struct Entry([MaybeUninit<u8>; ENTRY_MAX]);

impl Entry {
    /// Room for a copy.
    #[inline(always)]
    pub(crate) fn room() -> Self {
        Self([MaybeUninit::uninit(); ENTRY_MAX])
    }

    /// Copies the entry at `address`.
    #[inline(always)]
    pub(crate) fn read(&mut self, address: u64) -> Result<(), Fault> {
        let size = known(&SETTINGS.layout.entry_size);
        // Never so; for the verifier.
        if size == 0 || size > ENTRY_MAX as u32 {
            return Err(Fault);
        }
        read_bytes(self.0.as_mut_ptr().cast(), size, address)
    }

    /// The field at `offset`, or the default where this kernel has none.
    #[inline(always)]
    pub(crate) fn field<T: Copy + Default>(&self, offset: u32) -> T {
        if offset == ABSENT {
            return T::default();
        }
        // SAFETY: the offset is one of the layout, within what was copied; the
        // verifier knows it as a constant and checks just that.
        unsafe { ptr::read(self.0.as_ptr().byte_add(offset as usize).cast::<T>()) }
    }
}

impl Entry {
    /// The tuple at `offset`. Every kernel has both.
    #[inline(always)]
    pub(crate) fn tuple(&self, offset: u32) -> &[u8; tuple::SIZE] {
        // SAFETY: as above, and bytes need no alignment.
        unsafe { &*self.0.as_ptr().byte_add(offset as usize).cast() }
    }
}

/// Copies a tuple word by word; as bytes it would go over the stack, of which
/// there is little.
///
/// # Safety
/// `into` has room for it, and both are aligned to 8.
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
    let _ = read_into(zone, address + u64::from(known(&SETTINGS.layout.zone_id)));
    let _ = read_into(directions, address + u64::from(known(&SETTINGS.layout.zone_dir)));
}
