//! An entry of the table → a record.

use aya_ebpf::helpers::generated::{bpf_get_current_comm, bpf_jiffies64, bpf_ktime_get_boot_ns};
use flowlog_ebpf::task::{TaskState, function};
use flowlog_ebpf::{
    ABSENT, Ending, RawDetails, RawFlow, RawFlowDetails, TcpStates, VERSION, flag, kind,
    lost_clash, tuple,
};

use crate::SETTINGS;
use crate::activity;
use crate::emit::{Count, count, fault, reserve};
use crate::filter::{wants_netns, wants_tuple};
use crate::kernel::{Entry, Fault, copy_tuple, known, namespace, read, read_into};

const TCP: u8 = 6;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
/// Words of a `nf_ct_ext` that hold the offsets of all extensions: a byte for
/// each, and there are ten (include/net/netfilter/nf_conntrack_extend.h, 7.2).
const EXTENSION_WORDS: usize = 2;

/// What happened to an entry.
#[derive(Clone, Copy)]
pub(crate) struct What {
    pub(crate) kind: u8,
    /// Bits of `enum ip_conntrack_events`.
    pub(crate) events: u32,
    /// Netlink port of whoever asked for it.
    pub(crate) portid: u32,
}

/// Where the extensions of an entry are; 0: it has none of that kind.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extensions {
    helper: u64,
    acct: u64,
    /// Events are gathered here.
    pub(crate) ecache: u64,
    tstamp: u64,
    labels: u64,
}

/// Reports what happened to the entry at `address`.
#[inline(always)]
pub(crate) fn report(address: u64, what: What) {
    if try_report(address, what).is_err() {
        fault();
    }
}

#[inline(always)]
fn try_report(address: u64, what: What) -> Result<(), Fault> {
    let mut entry = Entry::room();
    entry.read(address)?;
    let net: u64 = entry.field(known(&SETTINGS.layout.net));
    let (cookie, inum) = namespace(net)?;
    if inum == known(&SETTINGS.counted_netns) {
        match what.kind {
            kind::NEW => count(Count::New),
            // Whose beginning nobody reports.
            kind::DESTROY
                if lost_clash(entry.field::<u64>(known(&SETTINGS.layout.status)) as u32) => {}
            kind::DESTROY => count(Count::Destroyed),
            _ => {}
        }
    }
    if known(&SETTINGS.kinds) >> what.kind & 1 == 0 {
        // It is seen only because it is counted.
        return Ok(());
    }
    if !wants_netns(inum) || !wants_tuple(entry.tuple(known(&SETTINGS.layout.orig))) {
        return Ok(());
    }
    let task = if what.kind == kind::DESTROY { activity::current() } else { TaskState::default() };
    let extensions = extensions(entry.field(known(&SETTINGS.layout.ext)))?;
    let master: u64 = entry.field(known(&SETTINGS.layout.master));
    let process = task.deletes();
    let place = Place { address, cookie, inum };
    if extensions.helper | extensions.labels | master == 0 && !process {
        let Some(mut room) = reserve::<RawFlow>(what.kind) else { return Ok(()) };
        // SAFETY: the ring has room for a whole record.
        unsafe { fill(room.as_mut_ptr(), &entry, &place, &what, task, &extensions) };
        room.submit(0);
        return Ok(());
    }
    let Some(mut room) = reserve::<RawFlowDetails>(what.kind) else { return Ok(()) };
    let record = room.as_mut_ptr();
    // SAFETY: the ring has room for a whole record, and the verifier checks
    // each write.
    unsafe {
        fill(&raw mut (*record).flow, &entry, &place, &what, task, &extensions);
        let told = fill_details(&raw mut (*record).details, &extensions, master, process);
        (*record).flow.flags |= told;
    }
    room.submit(0);
    Ok(())
}

/// Where the entry is.
pub(crate) struct Place {
    pub(crate) address: u64,
    pub(crate) cookie: u64,
    pub(crate) inum: u32,
}

/// The extensions at `ext`, as an entry has it.
#[inline(always)]
pub(crate) fn extensions(ext: u64) -> Result<Extensions, Fault> {
    if ext == 0 {
        return Ok(Extensions::default());
    }
    // As words: bytes would be copied one by one.
    let offsets: [u64; EXTENSION_WORDS] =
        read(ext + u64::from(known(&SETTINGS.layout.ext_offsets)))?;
    let place = |id: u32| {
        let word = match id {
            0..=7 => offsets[0],
            8..=15 => offsets[1],
            _ => 0,
        };
        // The byte is the first of its word's on machines of either order.
        let shift = if cfg!(target_endian = "big") { 7 - id % 8 } else { id % 8 };
        match word >> (8 * shift) & 0xff {
            0 => 0,
            offset => ext + offset,
        }
    };
    Ok(Extensions {
        helper: place(known(&SETTINGS.layout.ext_helper)),
        acct: place(known(&SETTINGS.layout.ext_acct)),
        ecache: place(known(&SETTINGS.layout.ext_ecache)),
        tstamp: place(known(&SETTINGS.layout.ext_tstamp)),
        labels: place(known(&SETTINGS.layout.ext_labels)),
    })
}

/// Fills all of a record.
///
/// # Safety
/// `record` points to room for it in the ring.
#[inline(always)]
pub(crate) unsafe fn fill(
    record: *mut RawFlow,
    entry: &Entry,
    place: &Place,
    what: &What,
    task: TaskState,
    extensions: &Extensions,
) {
    let orig = entry.tuple(known(&SETTINGS.layout.orig));
    let protocol = orig[tuple::PROTONUM];
    let ending = Ending {
        status: entry.field::<u64>(known(&SETTINGS.layout.status)) as u32,
        timeout: remaining(entry.field(known(&SETTINGS.layout.timeout))),
        protocol,
        l4_state: l4_state(entry, protocol),
    };
    let ends = what.kind == kind::DESTROY;
    // SAFETY: `record` by the caller; each field is written by itself, and the
    // verifier checks that all writes are inside.
    unsafe {
        (*record).version = VERSION;
        (*record).kind = what.kind;
        (*record).cause =
            if ends { ending.cause(task, tcp_states) } else { flowlog_ebpf::cause::NONE };
        (*record).events = what.events;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).entry = place.address;
        (*record).netns_cookie = place.cookie;
        (*record).netns_inum = place.inum;
        (*record).status = ending.status;
        (*record).mark = entry.field(known(&SETTINGS.layout.mark));
        (*record).timeout = ending.timeout;
        (*record).zone = entry.field(known(&SETTINGS.layout.zone_id));
        (*record).zone_dir = entry.field(known(&SETTINGS.layout.zone_dir));
        (*record).l4_state = ending.l4_state;
        (*record).portid = if ends { task.portid() } else { what.portid };
        copy_tuple(&raw mut (*record).orig, orig);
        copy_tuple(&raw mut (*record).reply, entry.tuple(known(&SETTINGS.layout.reply)));
        let mut flags = fill_counters(record, extensions) | fill_times(record, extensions);
        if task.innermost() == function::GC {
            flags |= flag::GC;
        }
        if extensions.ecache != 0 {
            flags |= flag::ARMED;
        }
        (*record).flags = flags;
    }
}

#[inline(always)]
fn tcp_states() -> TcpStates {
    TcpStates {
        time_wait: known(&SETTINGS.layout.tcp_time_wait),
        close: known(&SETTINGS.layout.tcp_close),
    }
}

/// Jiffies left. Deadlines are kept as the lower half of the kernel's counter.
#[inline(always)]
fn remaining(deadline: u32) -> i32 {
    // SAFETY: the helper has no preconditions.
    deadline.wrapping_sub(unsafe { bpf_jiffies64() } as u32) as i32
}

#[inline(always)]
fn l4_state(entry: &Entry, protocol: u8) -> u8 {
    match protocol {
        TCP => entry.field(known(&SETTINGS.layout.tcp_state)),
        SCTP => entry.field::<u32>(known(&SETTINGS.layout.sctp_state)) as u8,
        DCCP => entry.field(known(&SETTINGS.layout.dccp_state)),
        _ => 0,
    }
}

/// Two pairs of packets and bytes (`struct nf_conn_counter`), the original
/// direction first. 0 where they are not known: the ring's memory is used again.
///
/// # Safety
/// As for [`fill`].
#[inline(always)]
unsafe fn fill_counters(record: *mut RawFlow, extensions: &Extensions) -> u8 {
    // SAFETY: as in `fill`.
    unsafe {
        let counters = &raw mut (*record).counters;
        if extensions.acct != 0 && read_into(counters, extensions.acct).is_ok() {
            return flag::COUNTERS;
        }
        clear(counters.cast(), 4);
    }
    0
}

/// Start and stop, side by side (`struct nf_conn_tstamp`).
///
/// # Safety
/// As for [`fill`].
#[inline(always)]
unsafe fn fill_times(record: *mut RawFlow, extensions: &Extensions) -> u8 {
    // SAFETY: as in `fill`; the record has the two fields side by side as well.
    unsafe {
        let times = (&raw mut (*record).start).cast::<[u64; 2]>();
        let start = u64::from(known(&SETTINGS.layout.tstamp_start));
        if extensions.tstamp != 0 && read_into(times, extensions.tstamp + start).is_ok() {
            return flag::TIMES;
        }
        clear(times.cast(), 2);
    }
    0
}

/// Sets words to zero. Volatile, so that it does not become a loop over bytes.
///
/// # Safety
/// There is room for so many words.
#[inline(always)]
pub(crate) unsafe fn clear(words: *mut u64, count: usize) {
    let mut index = 0;
    while index < count {
        // SAFETY: the caller has room for so many words.
        unsafe { words.add(index).write_volatile(0) };
        index += 1;
    }
}

/// Fills what there is, and tells which.
///
/// # Safety
/// `details` points to room for them in the ring.
#[inline(always)]
pub(crate) unsafe fn fill_details(
    details: *mut RawDetails,
    extensions: &Extensions,
    master: u64,
    process: bool,
) -> u8 {
    let mut told = 0;
    // SAFETY: as in `fill`.
    unsafe {
        clear(details.cast(), size_of::<RawDetails>() / size_of::<u64>());
        (*details).master_entry = master;
        if extensions.helper != 0
            && helper_name(&raw mut (*details).helper, extensions.helper).is_ok()
        {
            told |= flag::HELPER;
        }
        if extensions.labels != 0
            && read_into(&raw mut (*details).labels, extensions.labels).is_ok()
        {
            told |= flag::LABELS;
        }
        let tuple = master + u64::from(known(&SETTINGS.layout.orig));
        if master != 0 && read_into(&raw mut (*details).master, tuple).is_ok() {
            told |= flag::MASTER;
        }
        if process {
            let comm = &raw mut (*details).comm;
            bpf_get_current_comm(comm.cast(), 16);
            (*details).pid = (aya_ebpf::helpers::bpf_get_current_pid_tgid() >> 32) as u32;
            told |= flag::PROCESS;
        }
    }
    told
}

/// The name of the helper in an extension; none when its module is gone.
///
/// # Safety
/// `into` can be written to.
#[inline(always)]
unsafe fn helper_name(into: *mut [u8; 16], extension: u64) -> Result<(), Fault> {
    if known(&SETTINGS.layout.help_helper) == ABSENT {
        return Err(Fault);
    }
    let helper: u64 = read(extension + u64::from(known(&SETTINGS.layout.help_helper)))?;
    // SAFETY: by the caller.
    unsafe { name_of(into, helper) }
}

/// The name of the helper at `helper`.
///
/// # Safety
/// `into` can be written to.
#[inline(always)]
pub(crate) unsafe fn name_of(into: *mut [u8; 16], helper: u64) -> Result<(), Fault> {
    if helper == 0 || known(&SETTINGS.layout.helper_name) == ABSENT {
        return Err(Fault);
    }
    // SAFETY: by the caller.
    unsafe { read_into(into, helper + u64::from(known(&SETTINGS.layout.helper_name))) }
}
