//! Bytes of the ring → events. Every number in a record is looked at: what makes
//! no sense is an error, never a guess.

use std::borrow::Cow;

use bytemuck::{Pod, pod_read_unaligned, try_from_bytes};
use flowlog_ebpf::{
    RawDetails, RawExpect, RawFlow, RawFlowDetails, RawNotice, VERSION, cause, flag, group, kind,
    tuple,
};
use thiserror::Error;

use super::clock::Clock;
use super::witness::{Notice, Origin};
use crate::event::{Cause, Comm, End, Event, ExpectAction, Expectation, Kinds, Process, Witness};
use crate::flow::{Counters, Family, Flow, HelperName, Netns, Status, Tuple, proto};
use crate::stats::CheckKind;

/// `enum ip_conntrack_events` as bits
/// (include/uapi/linux/netfilter/nf_conntrack_common.h, 6.12).
const IPCT_REPLY: u32 = 1 << 3;
const IPCT_ASSURED: u32 = 1 << 4;
const IPCT_HELPER: u32 = 1 << 6;
/// `NF_CT_ZONE_DIR_ORIG` (include/net/netfilter/nf_conntrack_zones.h, 6.12).
const ZONE_DIR_ORIG: u8 = 1;
/// `NF_CT_ZONE_DIR_REPL`
const ZONE_DIR_REPLY: u8 = 2;

/// A record makes no sense.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum Malformed {
    /// No record has this length.
    #[error("{0} bytes are no record")]
    Length(usize),
    /// It was made by other programs than those of this daemon.
    #[error("version {0} instead of {VERSION}")]
    Version(u8),
    /// A number is none that it can be.
    #[error("{0} is {1}")]
    Number(&'static str, u64),
}

/// What a record tells.
pub(super) enum Told {
    /// The event has been filled.
    Event(Origin),
    /// An expectation, when, and where it comes from, without an entry.
    Expectation(Expectation, u64, Origin),
    /// A netlink message is due.
    Notice(Notice),
}

/// Bits of `enum ip_conntrack_events` that make an update for this mask. A
/// request over netlink reports all bits at once, so each of them will do.
pub(super) fn updates(mask: Kinds) -> u32 {
    let mut bits = 0;
    if mask.contains(Kinds::UPDATE) {
        return u32::MAX;
    }
    for (wanted, bit) in [
        (Kinds::ASSURED, IPCT_ASSURED),
        (Kinds::CONFIRMED, IPCT_REPLY),
        (Kinds::HELPER, IPCT_HELPER),
    ] {
        if mask.contains(wanted) {
            bits |= bit;
        }
    }
    bits
}

/// Decodes records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder {
    /// Jiffies in a second.
    pub(super) hz: u32,
}

impl Decoder {
    /// Decodes a record, into `event` if it is one.
    ///
    /// # Errors
    /// It makes no sense.
    #[inline]
    pub(super) fn decode(
        &self,
        bytes: &[u8],
        clock: Clock,
        event: &mut Event,
    ) -> Result<Told, Malformed> {
        const FLOW: usize = size_of::<RawFlow>();
        const DETAILS: usize = size_of::<RawFlowDetails>();
        const EXPECT: usize = size_of::<RawExpect>();
        const NOTICE: usize = size_of::<RawNotice>();
        match bytes.len() {
            FLOW => {
                let raw = view::<RawFlow>(bytes);
                self.flow(&raw, None, clock, event)?;
                Ok(Told::Event(origin(&raw)))
            }
            DETAILS => {
                let raw = view::<RawFlowDetails>(bytes);
                self.flow(&raw.flow, Some(&raw.details), clock, event)?;
                Ok(Told::Event(origin(&raw.flow)))
            }
            EXPECT => {
                let raw = view::<RawExpect>(bytes);
                let at = clock.real(raw.time);
                let origin = Origin { entry: 0, armed: raw.armed != 0, boot: raw.time };
                Ok(Told::Expectation(expectation(&raw)?, at, origin))
            }
            NOTICE => Ok(Told::Notice(notice(&view::<RawNotice>(bytes), clock)?)),
            length => Err(Malformed::Length(length)),
        }
    }

    /// The same for a connection event that has been looked at.
    ///
    /// # Errors
    /// It makes no sense.
    #[inline]
    pub(super) fn flow(
        &self,
        raw: &RawFlow,
        details: Option<&RawDetails>,
        clock: Clock,
        event: &mut Event,
    ) -> Result<(), Malformed> {
        version(raw.version)?;
        let (kinds, transitions) = kinds(raw)?;
        let ends = kinds.contains(Kinds::DESTROY);
        let told = |bit: u8| raw.flags & bit != 0;
        let details = |bit: u8| details.filter(|_| told(bit));
        event.kinds = kinds;
        event.at = clock.real(raw.time);
        event.transitions = Some(transitions);
        event.end = None;
        event.witness = Witness::Single;
        if ends {
            let process = details(flag::PROCESS);
            event.end = Some(End {
                cause: cause_of(raw.cause)?,
                portid: (raw.portid != 0).then_some(raw.portid),
                process: process.map(|d| Process { pid: d.pid, comm: Comm::new(&d.comm) }),
            });
        }
        // Field by field, because a whole flow would be made elsewhere first and
        // copied; taken apart, so that nobody forgets a new field.
        let Flow {
            orig,
            reply,
            status,
            counters,
            zone,
            reply_zone,
            secctx,
            mark,
            id,
            netns,
            timeout,
            start,
            stop,
            l4_state,
            uses,
            helper,
            labels,
            master,
        } = &mut event.flow;
        tuple_into(&raw.orig, orig)?;
        tuple_into(&raw.reply, reply)?;
        let has_state = matches!(orig.proto, proto::TCP | proto::SCTP | proto::DCCP);
        let time = |time: u64| (told(flag::TIMES) && time != 0).then_some(time);
        *status = status_of(raw);
        *counters = told(flag::COUNTERS).then(|| counters_of(&raw.counters));
        *zone = zone_of(raw.zone, raw.zone_dir);
        *reply_zone = reply_zone_of(raw.zone, raw.zone_dir);
        *secctx = None;
        *mark = raw.mark;
        *id = None;
        *netns = Some(netns_of(raw.netns_cookie, raw.netns_inum));
        *timeout = (!ends).then(|| self.seconds(raw.timeout));
        *start = time(raw.start);
        *stop = time(raw.stop);
        *l4_state = has_state.then_some(raw.l4_state);
        *uses = None;
        *helper = details(flag::HELPER).map(|d| HelperName::new(&d.helper));
        *labels = details(flag::LABELS).map(|d| d.labels).filter(|labels| *labels != [0; 16]);
        *master = details(flag::MASTER).map(|d| tuple_of(&d.master)).transpose()?;
        if kinds.contains(Kinds::NEW) && event.flow.helper.is_some() {
            event.transitions = Some(Kinds::HELPER);
        }
        Ok(())
    }

    fn seconds(&self, jiffies: i32) -> u32 {
        jiffies.max(0) as u32 / self.hz
    }
}

/// A record where it is, if it is aligned, as all in the ring are; else a copy.
#[inline]
fn view<T: Pod>(bytes: &[u8]) -> Cow<'_, T> {
    match try_from_bytes(bytes) {
        Ok(record) => Cow::Borrowed(record),
        Err(_) => Cow::Owned(pod_read_unaligned(bytes)),
    }
}

fn version(version: u8) -> Result<(), Malformed> {
    if version == VERSION { Ok(()) } else { Err(Malformed::Version(version)) }
}

/// What happened, and which states began with it. A request over netlink
/// reports a fixed bundle of changes whether or not anything has changed
/// (`ctnetlink_change_conntrack`, net/netfilter/nf_conntrack_netlink.c, 6.12),
/// so it begins nothing that could be told for certain.
#[inline]
fn kinds(raw: &RawFlow) -> Result<(Kinds, Kinds), Malformed> {
    match raw.kind {
        kind::NEW => Ok((Kinds::NEW, Kinds::empty())),
        kind::DESTROY if raw.flags & flag::GC != 0 => {
            Ok((Kinds::DESTROY | Kinds::GC, Kinds::empty()))
        }
        kind::DESTROY => Ok((Kinds::DESTROY, Kinds::empty())),
        kind::UPDATE => {
            let mut begun = Kinds::empty();
            if raw.portid == 0 {
                begun.set(Kinds::ASSURED, raw.events & IPCT_ASSURED != 0);
                begun.set(Kinds::CONFIRMED, raw.events & IPCT_REPLY != 0);
                begun.set(Kinds::HELPER, raw.events & IPCT_HELPER != 0);
            }
            Ok((Kinds::UPDATE, begun))
        }
        // Neither is an event: there is no flow yet.
        kind::REFUSED | kind::UNALLOCATED => Ok((Kinds::empty(), Kinds::empty())),
        other => Err(Malformed::Number("the kind", other.into())),
    }
}

fn cause_of(number: u8) -> Result<Cause, Malformed> {
    Ok(match number {
        cause::EXPIRED_GC => Cause::ExpiredGc,
        cause::EXPIRED_LOOKUP => Cause::ExpiredLookup,
        cause::EARLY_DROP => Cause::EarlyDrop,
        cause::DELETED => Cause::Deleted,
        cause::FLUSHED => Cause::Flushed,
        cause::NETNS_GONE => Cause::NetnsGone,
        cause::TCP_REOPENED => Cause::TcpReopened,
        cause::RESET => Cause::Reset,
        cause::NAT_CLASH => Cause::NatClash,
        cause::OTHER => Cause::Other,
        other => return Err(Malformed::Number("the cause", other.into())),
    })
}

/// An entry is looked at as it enters the table. It gets its bit CONFIRMED right
/// before or after (`__nf_conntrack_confirm`,
/// net/netfilter/nf_conntrack_core.c: before until 6.15, 6.12.39 and 6.1.146,
/// after since), and has it when netlink tells of it.
fn status_of(raw: &RawFlow) -> Status {
    let status = Status::from_bits_retain(raw.status);
    if raw.kind == kind::NEW { status | Status::CONFIRMED } else { status }
}

fn counters_of(raw: &[u64; 4]) -> [Counters; 2] {
    let [packets, bytes, reply_packets, reply_bytes] = *raw;
    [Counters { packets, bytes }, Counters { packets: reply_packets, bytes: reply_bytes }]
}

fn netns_of(cookie: u64, inum: u32) -> Netns {
    Netns { cookie: (cookie != 0).then_some(cookie), inum }
}

/// The zone, as far as it holds for the original direction: netlink tells it
/// with that one's tuple, or for both (`ctnetlink_dump_zone_id`,
/// net/netfilter/nf_conntrack_netlink.c, 6.12).
fn zone_of(zone: u16, directions: u8) -> u16 {
    if directions & ZONE_DIR_ORIG != 0 { zone } else { 0 }
}

/// The zone of the reply direction, where it is another.
fn reply_zone_of(zone: u16, directions: u8) -> Option<u16> {
    let reply = if directions & ZONE_DIR_REPLY != 0 { zone } else { 0 };
    (reply != zone_of(zone, directions)).then_some(reply)
}

fn origin(raw: &RawFlow) -> Origin {
    Origin { entry: raw.entry, armed: raw.flags & flag::ARMED != 0, boot: raw.time }
}

fn tuple_of(raw: &[u8; tuple::SIZE]) -> Result<Tuple, Malformed> {
    let mut tuple = Tuple::default();
    tuple_into(raw, &mut tuple)?;
    Ok(tuple)
}

#[inline]
fn tuple_into(raw: &[u8; tuple::SIZE], into: &mut Tuple) -> Result<(), Malformed> {
    into.family = match u16::from_ne_bytes(bytes(raw, tuple::L3NUM)) {
        2 => Family::V4,
        10 => Family::V6,
        other => return Err(Malformed::Number("the address family", other.into())),
    };
    into.proto = raw[tuple::PROTONUM];
    into.src = bytes(raw, tuple::SRC);
    into.dst = bytes(raw, tuple::DST);
    into.src_l4 = u16::from_be_bytes(bytes(raw, tuple::SRC_L4));
    into.dst_l4 = u16::from_be_bytes(bytes(raw, tuple::DST_L4));
    Ok(())
}

/// `N` bytes from `at` on, which is a constant within the array.
#[inline(always)]
fn bytes<const N: usize>(raw: &[u8; tuple::SIZE], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&raw[at..at + N]);
    bytes
}

/// What the mask leaves open is 0, as over netlink.
fn expectation(raw: &RawExpect) -> Result<Expectation, Malformed> {
    version(raw.version)?;
    let action = match raw.kind {
        kind::EXPECT_NEW => ExpectAction::New,
        kind::EXPECT_DESTROY => ExpectAction::Destroy,
        other => return Err(Malformed::Number("the kind", other.into())),
    };
    let mut expected = raw.tuple;
    for (byte, mask) in expected.iter_mut().zip(raw.mask).take(tuple::L3NUM) {
        *byte &= mask;
    }
    Ok(Expectation {
        action,
        tuple: tuple_of(&expected)?,
        master: tuple_of(&raw.master)?,
        zone: zone_of(raw.zone, raw.zone_dir),
        helper: (raw.has_helper != 0).then(|| HelperName::new(&raw.helper)),
        netns: Some(netns_of(raw.netns_cookie, raw.netns_inum)),
    })
}

fn notice(raw: &RawNotice, clock: Clock) -> Result<Notice, Malformed> {
    version(raw.version)?;
    if raw.kind != kind::NOTICE {
        return Err(Malformed::Number("the kind", raw.kind.into()));
    }
    let kind = match raw.group {
        group::NEW => CheckKind::New,
        group::UPDATE => CheckKind::Update,
        group::DESTROY => CheckKind::Destroy,
        other => return Err(Malformed::Number("the group", other.into())),
    };
    Ok(Notice {
        kind,
        entry: raw.entry,
        id: (raw.has_id != 0).then_some(raw.id),
        orig: tuple_of(&raw.orig)?,
        zone: zone_of(raw.zone, raw.zone_dir),
        at: clock.real(raw.time),
        boot: raw.time,
    })
}

#[cfg(test)]
mod tests;
