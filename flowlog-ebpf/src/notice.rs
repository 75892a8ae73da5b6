//! A netlink message that is due → a record, and a count of it. These programs
//! are attached only while two sources are compared.
//!
//! The record pairs the entry's address, which no message tells, with the id
//! that the message has. ctnetlink asks for the id while it builds the message
//! (`nf_ct_get_id`), in the same call and by the same task, but also for each
//! entry of a dump: so what is being built is remembered for its task from the
//! beginning of `ctnetlink_conntrack_event` to its end. A packet that interrupts
//! a task there can have another message built, as in [`crate::pending`].

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuHashMap;
use flowlog_ebpf::task::RawMessage;
use flowlog_ebpf::{RawLedger, RawNotice, VERSION, group, kind, tuple};

use crate::SETTINGS;
use crate::emit::{add_one, fault, reserve};
use crate::filter::passes;
use crate::kernel::{Fault, known, read, read_into, read_zone};
use crate::pending::{Calls, begin_in, current_in, end_in};

/// `IPCT_NEW`, `IPCT_RELATED`, `IPCT_DESTROY`
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const NEW_OR_RELATED: u32 = 0b011;
const DESTROY: u32 = 0b100;
/// `BPF_NOEXIST`
const NOEXIST: u64 = 1;

/// Messages that can be under way at one time; the daemon sets it by the number of
/// processors, and makes it less where nothing is compared.
const MESSAGES_MAX: u32 = 1024;
/// Namespaces that are told apart; the daemon makes it less where nothing is
/// compared.
const NAMESPACES_MAX: u32 = 4096;

#[map]
static MESSAGES: Calls<RawMessage> = Calls::with_max_entries(MESSAGES_MAX, 0);

/// By inode number of the namespace.
#[map]
static LEDGER: PerCpuHashMap<u32, RawLedger> = PerCpuHashMap::with_max_entries(NAMESPACES_MAX, 0);

/// `ctnetlink_conntrack_event(events, item)` begins.
#[inline(always)]
pub(crate) fn due(events: u32, item: u64) {
    let message = counted(events, item).unwrap_or_default();
    begin_in(&MESSAGES, message, message.entry != 0);
}

/// As [`due`], where the id cannot be had.
#[inline(always)]
pub(crate) fn due_unpaired(events: u32, item: u64) {
    if let Some(message) = counted(events, item) {
        tell(&message, None);
    }
}

/// It ends, whether or not a message was built.
#[inline(always)]
pub(crate) fn done() {
    let _ = end_in(&MESSAGES);
}

/// `nf_ct_get_id(ct)` begins: of the entry that the message is about?
#[inline(always)]
pub(crate) fn id_begins(entry: u64) {
    let Some(current) = current_in(&MESSAGES) else { return };
    let message = *current.call();
    let asked = u32::from(message.entry == entry);
    if message.asked != asked {
        current.put(&MESSAGES, RawMessage { asked, ..message });
    }
}

/// It ends.
#[inline(always)]
pub(crate) fn id_ends(id: u32) {
    let Some(current) = current_in(&MESSAGES) else { return };
    let message = *current.call();
    if message.asked == 1 {
        tell(&message, Some(id));
        current.put(&MESSAGES, RawMessage { asked: 0, entry: 0, ..message });
    }
}

/// As both, at an end that has the entry beside the result.
#[inline(always)]
pub(crate) fn id_made(entry: u64, id: u32) {
    let Some(current) = current_in(&MESSAGES) else { return };
    let message = *current.call();
    if message.entry == entry {
        tell(&message, Some(id));
        current.put(&MESSAGES, RawMessage { entry: 0, ..message });
    }
}

/// Counts the message. Returned if the daemon's own sockets can receive it.
#[inline(always)]
fn counted(events: u32, item: u64) -> Option<RawMessage> {
    let group = group_of(events)?;
    try_count(group, events, item).unwrap_or_else(|Fault| {
        fault();
        None
    })
}

/// The kernel's own rule (`ctnetlink_conntrack_event`,
/// net/netfilter/nf_conntrack_netlink.c, 6.12).
#[inline(always)]
fn group_of(events: u32) -> Option<u8> {
    match events {
        0 => None,
        _ if events & DESTROY != 0 => Some(group::DESTROY),
        _ if events & NEW_OR_RELATED != 0 => Some(group::NEW),
        _ => Some(group::UPDATE),
    }
}

#[inline(always)]
fn try_count(group: u8, events: u32, item: u64) -> Result<Option<RawMessage>, Fault> {
    let entry: u64 = read(item + u64::from(known(&SETTINGS.layout.event_entry)))?;
    let net: u64 = read(entry + u64::from(known(&SETTINGS.layout.net)))?;
    let inum: u32 = read(net + u64::from(known(&SETTINGS.layout.net_inum)))?;
    if known(&SETTINGS.filters) != 0 {
        let orig: [u8; tuple::SIZE] = read(entry + u64::from(known(&SETTINGS.layout.orig)))?;
        if !passes(&orig) {
            return Ok(None);
        }
    }
    enter(inum, group);
    // The kinds of events have the numbers of the groups.
    let wanted = known(&SETTINGS.kinds) >> group & 1 != 0;
    if !wanted || inum != known(&SETTINGS.counted_netns) {
        return Ok(None);
    }
    let portid = read(item + u64::from(known(&SETTINGS.layout.event_portid)))?;
    Ok(Some(RawMessage { entry, events, portid, group: group.into(), asked: 0 }))
}

/// Puts a message into the ledger.
#[inline(always)]
fn enter(inum: u32, group: u8) {
    if LEDGER.get_ptr_mut(inum).is_none() {
        // Another processor may have been quicker.
        let _ = LEDGER.insert(inum, RawLedger::default(), NOEXIST);
    }
    let Some(ledger) = LEDGER.get_ptr_mut(inum) else {
        return fault();
    };
    if usize::from(group) < group::COUNT {
        // SAFETY: the entry is this processor's own, and the number within it; if
        // it is removed meanwhile its memory stays valid until the program has
        // ended.
        unsafe { add_one((&raw mut (*ledger).due).cast::<u64>().add(usize::from(group))) };
    }
}

#[inline(always)]
fn tell(message: &RawMessage, id: Option<u32>) {
    let Some(mut room) = reserve::<RawNotice>(kind::NOTICE) else { return };
    let record = room.as_mut_ptr();
    // SAFETY: `record` points to room for it in the ring; each field is written
    // by itself, and the verifier checks that all writes are inside.
    let told = unsafe {
        (*record).version = VERSION;
        (*record).kind = kind::NOTICE;
        (*record).group = message.group as u8;
        (*record).has_id = u8::from(id.is_some());
        (*record).events = message.events;
        (*record).time = bpf_ktime_get_boot_ns();
        (*record).entry = message.entry;
        (*record).netns_inum = known(&SETTINGS.counted_netns);
        // The kernel takes its number for one in network order and sends it as it
        // is (`ctnetlink_dump_id`).
        (*record).id = u32::from_be(id.unwrap_or(0));
        (*record).portid = message.portid;
        (*record).zone = 0;
        (*record).zone_dir = 0;
        (*record).reserved = 0;
        read_zone(&raw mut (*record).zone, &raw mut (*record).zone_dir, message.entry);
        let orig = message.entry + u64::from(known(&SETTINGS.layout.orig));
        read_into(&raw mut (*record).orig, orig)
    };
    match told {
        Ok(()) => room.submit(0),
        Err(Fault) => {
            room.discard(0);
            fault();
        }
    }
}
