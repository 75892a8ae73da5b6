//! An expectation → a record.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use flowlog_ebpf::{ABSENT, RawExpect, VERSION, kind, tuple};

use crate::SETTINGS;
use crate::emit::{fault, reserve};
use crate::filter::{wants_netns, wants_tuple};
use crate::flow::{extensions, name_of};
use crate::kernel::{Fault, known, namespace, read, read_into, read_zone};

/// `IPEXP_DESTROY` of `enum ip_conntrack_expect_events`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const IPEXP_DESTROY: u32 = 1;

/// What happened to an expectation that is wanted.
pub(crate) struct Expected {
    pub(crate) kind: u8,
    address: u64,
    master: u64,
    cookie: u64,
    inum: u32,
    tuple: [u8; tuple::SIZE],
    armed: bool,
}

/// Reports what happened to the expectation at `address`.
#[inline(always)]
pub(crate) fn report(event: u32, address: u64) {
    match look(event, address) {
        Ok(Some(expected)) => {
            let Some(mut room) = reserve::<RawExpect>(expected.kind) else { return };
            // SAFETY: the ring has room for a whole record.
            unsafe { fill(room.as_mut_ptr(), &expected) };
            room.submit(0);
        }
        Ok(None) => {}
        Err(Fault) => fault(),
    }
}

/// Looks whether it is wanted.
#[inline(always)]
pub(crate) fn look(event: u32, address: u64) -> Result<Option<Expected>, Fault> {
    let kind = if event == IPEXP_DESTROY { kind::EXPECT_DESTROY } else { kind::EXPECT_NEW };
    let at = |offset: u32| address + u64::from(offset);
    let master: u64 = read(at(known(&SETTINGS.layout.expect_master)))?;
    let net: u64 = read(master + u64::from(known(&SETTINGS.layout.net)))?;
    let (cookie, inum) = namespace(net)?;
    let tuple: [u8; tuple::SIZE] = read(at(known(&SETTINGS.layout.expect_tuple)))?;
    if !wants_netns(inum) || !wants_tuple(&tuple) {
        return Ok(None);
    }
    let ext: u64 = read(master + u64::from(known(&SETTINGS.layout.ext)))?;
    let armed = extensions(ext)?.ecache != 0;
    Ok(Some(Expected { kind, address, master, cookie, inum, tuple, armed }))
}

/// Fills all of a record.
///
/// # Safety
/// `record` points to room for it in the ring.
#[inline(always)]
pub(crate) unsafe fn fill(record: *mut RawExpect, expected: &Expected) {
    let Expected { kind, address, master, cookie, inum, tuple, armed } = expected;
    let at = |offset: u32| address + u64::from(offset);
    // SAFETY: each field is written by itself, and the verifier checks that all
    // writes are inside.
    unsafe {
        (*record).version = VERSION;
        (*record).kind = *kind;
        (*record).has_helper = 0;
        (*record).armed = u8::from(*armed);
        (*record).reserved = [0; 4];
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).netns_cookie = *cookie;
        (*record).netns_inum = *inum;
        (*record).zone = 0;
        (*record).zone_dir = 0;
        (*record).reserved2 = 0;
        (*record).tuple = *tuple;
        (*record).mask = [0; tuple::MASK_SIZE];
        (*record).reserved3 = [0; 4];
        (*record).master = [0; tuple::SIZE];
        (*record).helper = [0; 16];
        let mask = read_into(&raw mut (*record).mask, at(known(&SETTINGS.layout.expect_mask)));
        let orig = master + u64::from(known(&SETTINGS.layout.orig));
        let orig = read_into(&raw mut (*record).master, orig);
        if mask.is_err() || orig.is_err() {
            fault();
        }
        read_zone(&raw mut (*record).zone, &raw mut (*record).zone_dir, *master);
        if known(&SETTINGS.layout.expect_helper) != ABSENT
            && let Ok(helper) = read(at(known(&SETTINGS.layout.expect_helper)))
            && name_of(&raw mut (*record).helper, helper).is_ok()
        {
            (*record).has_helper = 1;
        }
    }
}
