//! An expectation → a record.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use flowlog_ebpf::{ABSENT, RawExpect, VERSION, kind, tuple};

use crate::SETTINGS;
use crate::emit::{count, reserve};
use crate::filter::{wants_netns, wants_tuple};
use crate::flow::{extensions, name_of};
use crate::kernel::{Fault, known, namespace, read, read_into, read_zone};

/// `IPEXP_DESTROY` of `enum ip_conntrack_expect_events`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const IPEXP_DESTROY: u32 = 1;

/// Reports what happened to the expectation at `address`.
#[inline(always)]
pub(crate) fn report(event: u32, address: u64) {
    let kind = if event == IPEXP_DESTROY { kind::EXPECT_DESTROY } else { kind::EXPECT_NEW };
    if try_report(kind, address).is_err() {
        count(|counts| counts.faults += 1);
    }
}

#[inline(always)]
fn try_report(kind: u8, address: u64) -> Result<(), Fault> {
    let at = |offset: u32| address + u64::from(offset);
    let master: u64 = read(at(known(&SETTINGS.layout.expect_master)))?;
    let net: u64 = read(master + u64::from(known(&SETTINGS.layout.net)))?;
    let (cookie, inum) = namespace(net)?;
    let expected: [u8; tuple::SIZE] = read(at(known(&SETTINGS.layout.expect_tuple)))?;
    if !wants_netns(inum) || !wants_tuple(&expected) {
        return Ok(());
    }
    let ext: u64 = read(master + u64::from(known(&SETTINGS.layout.ext)))?;
    let armed = extensions(ext)?.ecache != 0;
    let Some(mut room) = reserve::<RawExpect>(kind) else { return Ok(()) };
    let record = room.as_mut_ptr();
    // SAFETY: `record` points to room for it in the ring; each field is written
    // by itself, and the verifier checks that all writes are inside.
    unsafe {
        (*record).version = VERSION;
        (*record).kind = kind;
        (*record).has_helper = 0;
        (*record).armed = u8::from(armed);
        (*record).reserved = [0; 4];
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).netns_cookie = cookie;
        (*record).netns_inum = inum;
        (*record).zone = 0;
        (*record).zone_dir = 0;
        (*record).reserved2 = 0;
        (*record).tuple = expected;
        (*record).mask = [0; tuple::MASK_SIZE];
        (*record).reserved3 = [0; 4];
        (*record).master = [0; tuple::SIZE];
        (*record).helper = [0; 16];
        let mask = read_into(&raw mut (*record).mask, at(known(&SETTINGS.layout.expect_mask)));
        let orig = master + u64::from(known(&SETTINGS.layout.orig));
        let orig = read_into(&raw mut (*record).master, orig);
        if mask.is_err() || orig.is_err() {
            count(|counts| counts.faults += 1);
        }
        read_zone(&raw mut (*record).zone, &raw mut (*record).zone_dir, master);
        if known(&SETTINGS.layout.expect_helper) != ABSENT
            && let Ok(helper) = read(at(known(&SETTINGS.layout.expect_helper)))
            && name_of(&raw mut (*record).helper, helper).is_ok()
        {
            (*record).has_helper = 1;
        }
    }
    room.submit(0);
    Ok(())
}
