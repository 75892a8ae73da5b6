//! Bytes of a ctnetlink message → [`Event`] or [`Expectation`]. Attribute
//! numbers and layouts: include/uapi/linux/netfilter/nfnetlink_conntrack.h and
//! net/netfilter/nf_conntrack_netlink.c, Linux 6.18.
//!
//! Attributes that are not known, or that say what no record holds, are passed
//! over; a known one of the wrong size makes the whole message malformed.

use super::attr::{Attribute, Attributes, DecodeError, Message};
use crate::event::{Event, ExpectAction, Expectation, Kinds, Witness};
use crate::flow::{Counters, Family, Flow, HelperName, Status, Tuple};

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYS_CONNTRACK: u8 = 1;
/// `NFNL_SUBSYS_CTNETLINK_EXP`.
const SUBSYS_EXPECT: u8 = 2;
/// `IPCTNL_MSG_CT_NEW`, and `IPCTNL_MSG_EXP_NEW`.
const MSG_NEW: u8 = 0;
/// `IPCTNL_MSG_CT_DELETE`, and `IPCTNL_MSG_EXP_DELETE`.
const MSG_DELETE: u8 = 2;
/// `NLM_F_CREATE`: set on NEW, clear on UPDATE and in dumps.
const FLAG_CREATE: u16 = 0x400;
/// Length of `struct nfgenmsg`.
const GENMSG: usize = 4;

mod cta {
    pub(super) const TUPLE_ORIG: u16 = 1;
    pub(super) const TUPLE_REPLY: u16 = 2;
    pub(super) const STATUS: u16 = 3;
    pub(super) const PROTOINFO: u16 = 4;
    pub(super) const HELP: u16 = 5;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const MARK: u16 = 8;
    pub(super) const COUNTERS_ORIG: u16 = 9;
    pub(super) const COUNTERS_REPLY: u16 = 10;
    pub(super) const USE: u16 = 11;
    pub(super) const ID: u16 = 12;
    pub(super) const TUPLE_MASTER: u16 = 14;
    pub(super) const ZONE: u16 = 18;
    pub(super) const SECCTX: u16 = 19;
    pub(super) const TIMESTAMP: u16 = 20;
    pub(super) const LABELS: u16 = 22;
    pub(super) const TIMESTAMP_EVENT: u16 = 27;

    pub(super) mod tuple {
        pub(in super::super) const IP: u16 = 1;
        pub(in super::super) const PROTO: u16 = 2;
        pub(in super::super) const ZONE: u16 = 3;
    }
    pub(super) mod expect {
        pub(in super::super) const MASTER: u16 = 1;
        pub(in super::super) const TUPLE: u16 = 2;
        pub(in super::super) const HELP_NAME: u16 = 6;
        pub(in super::super) const ZONE: u16 = 7;
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A conntrack entry was created, changed, destroyed, or is dumped.
    Flow(Kinds),
    /// An expectation event.
    Expectation(ExpectAction),
    /// Another subsystem or request: nothing of ours.
    Other,
}

/// What `message` is about, from its header alone.
pub fn kind(message: &Message<'_>) -> Kind {
    let [subsystem, kind] = message.kind.to_be_bytes();
    let created = message.flags & FLAG_CREATE != 0;
    match (subsystem, kind) {
        (SUBSYS_CONNTRACK, MSG_NEW) if created => Kind::Flow(Kinds::NEW),
        (SUBSYS_CONNTRACK, MSG_NEW) => Kind::Flow(Kinds::UPDATE),
        (SUBSYS_CONNTRACK, MSG_DELETE) => Kind::Flow(Kinds::DESTROY),
        (SUBSYS_EXPECT, MSG_NEW) if created => Kind::Expectation(ExpectAction::New),
        (SUBSYS_EXPECT, MSG_NEW) => Kind::Expectation(ExpectAction::Update),
        (SUBSYS_EXPECT, MSG_DELETE) => Kind::Expectation(ExpectAction::Destroy),
        _ => Kind::Other,
    }
}

fn attributes<'a>(message: &Message<'a>) -> Result<Attributes<'a>, DecodeError> {
    match message.payload.get(GENMSG..) {
        Some(rest) => Ok(Attributes::new(rest)),
        None => {
            Err(DecodeError::Short { what: "nfgenmsg", need: GENMSG, have: message.payload.len() })
        }
    }
}

/// Decodes a conntrack entry into `event`, whose old content is replaced;
/// `event.at` is `received` unless the kernel tells the time of the event.
///
/// # Errors
/// The message is malformed; `event` then holds nothing of meaning.
pub fn flow(
    message: &Message<'_>,
    kinds: Kinds,
    received: u64,
    event: &mut Event,
) -> Result<(), DecodeError> {
    event.kinds = kinds;
    event.transitions = None;
    event.at = received;
    event.flow = Flow::default();
    event.end = None;
    event.witness = Witness::Single;
    let flow = &mut event.flow;
    let (mut orig, mut reply) = (false, false);
    let mut reply_zone = 0;
    for attribute in attributes(message)? {
        let attribute = attribute?;
        match attribute.kind {
            cta::TUPLE_ORIG => {
                tuple(&attribute, "CTA_TUPLE_ORIG", &mut flow.orig, &mut flow.zone)?;
                orig = true;
            }
            cta::TUPLE_REPLY => {
                tuple(&attribute, "CTA_TUPLE_REPLY", &mut flow.reply, &mut reply_zone)?;
                reply = true;
            }
            cta::STATUS => {
                flow.status = Status::from_bits_retain(attribute.u32("CTA_STATUS")?);
            }
            cta::COUNTERS_ORIG => {
                flow.counters.get_or_insert_default()[0] = counters(&attribute)?;
            }
            cta::COUNTERS_REPLY => {
                flow.counters.get_or_insert_default()[1] = counters(&attribute)?;
            }
            cta::ID => flow.id = Some(attribute.u32("CTA_ID")?),
            cta::TIMEOUT => flow.timeout = Some(attribute.u32("CTA_TIMEOUT")?),
            cta::PROTOINFO => flow.l4_state = protoinfo(&attribute)?,
            cta::TIMESTAMP => timestamps(&attribute, flow)?,
            cta::TIMESTAMP_EVENT => event.at = attribute.u64("CTA_TIMESTAMP_EVENT")?,
            cta::MARK => flow.mark = attribute.u32("CTA_MARK")?,
            // Of both directions.
            cta::ZONE => {
                flow.zone = attribute.u16("CTA_ZONE")?;
                reply_zone = flow.zone;
            }
            cta::SECCTX => flow.secctx = secctx(&attribute)?,
            cta::USE => flow.uses = Some(attribute.u32("CTA_USE")?),
            cta::HELP => flow.helper = helper(&attribute)?,
            cta::LABELS => flow.labels = Some(labels(attribute.value)),
            cta::TUPLE_MASTER => {
                let mut master = Tuple::default();
                tuple(&attribute, "CTA_TUPLE_MASTER", &mut master, &mut 0)?;
                flow.master = Some(master);
            }
            _ => {}
        }
    }
    flow.reply_zone = (reply_zone != flow.zone).then_some(reply_zone);
    match (orig, reply) {
        (true, true) => Ok(()),
        (false, _) => Err(DecodeError::Missing("CTA_TUPLE_ORIG")),
        (true, false) => Err(DecodeError::Missing("CTA_TUPLE_REPLY")),
    }
}

/// Decodes an expectation.
///
/// # Errors
/// The message is malformed.
pub fn expectation(
    message: &Message<'_>,
    action: ExpectAction,
) -> Result<Expectation, DecodeError> {
    let mut expected = None;
    let mut master = None;
    let mut zone = 0;
    let mut helper = None;
    for attribute in attributes(message)? {
        let attribute = attribute?;
        match attribute.kind {
            cta::expect::TUPLE => {
                tuple(
                    &attribute,
                    "CTA_EXPECT_TUPLE",
                    expected.insert(Tuple::default()),
                    &mut zone,
                )?;
            }
            cta::expect::MASTER => {
                tuple(&attribute, "CTA_EXPECT_MASTER", master.insert(Tuple::default()), &mut zone)?;
            }
            cta::expect::HELP_NAME => helper = Some(HelperName::new(attribute.value)),
            cta::expect::ZONE => zone = attribute.u16("CTA_EXPECT_ZONE")?,
            _ => {}
        }
    }
    Ok(Expectation {
        action,
        tuple: expected.ok_or(DecodeError::Missing("CTA_EXPECT_TUPLE"))?,
        master: master.ok_or(DecodeError::Missing("CTA_EXPECT_MASTER"))?,
        zone,
        helper,
        netns: None,
    })
}

#[inline]
fn tuple(
    attribute: &Attribute<'_>,
    name: &'static str,
    tuple: &mut Tuple,
    zone: &mut u16,
) -> Result<(), DecodeError> {
    let mut addresses = 0;
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            cta::tuple::IP => addresses = ip(&part, tuple)?,
            cta::tuple::PROTO => l4(&part, tuple)?,
            cta::tuple::ZONE => *zone = part.u16("CTA_TUPLE_ZONE")?,
            _ => {}
        }
    }
    if addresses == 2 { Ok(()) } else { Err(DecodeError::Missing(name)) }
}

/// `CTA_IP_*`; returns how many addresses were there.
#[inline]
fn ip(attribute: &Attribute<'_>, tuple: &mut Tuple) -> Result<u8, DecodeError> {
    let mut addresses = 0;
    for part in attribute.nested() {
        let part = part?;
        let (family, address) = match part.kind {
            1 => (Family::V4, &mut tuple.src),
            2 => (Family::V4, &mut tuple.dst),
            3 => (Family::V6, &mut tuple.src),
            4 => (Family::V6, &mut tuple.dst),
            _ => continue,
        };
        match family {
            Family::V4 => address[..4].copy_from_slice(&part.array::<4>("CTA_IP_V4")?),
            Family::V6 => *address = part.array("CTA_IP_V6")?,
        }
        tuple.family = family;
        addresses += 1;
    }
    Ok(addresses)
}

/// `CTA_PROTO_*`.
#[inline]
fn l4(attribute: &Attribute<'_>, tuple: &mut Tuple) -> Result<(), DecodeError> {
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            1 => tuple.proto = part.u8("CTA_PROTO_NUM")?,
            2 => tuple.src_l4 = part.u16("CTA_PROTO_SRC_PORT")?,
            3 => tuple.dst_l4 = part.u16("CTA_PROTO_DST_PORT")?,
            4 | 7 => tuple.src_l4 = part.u16("CTA_PROTO_ICMP_ID")?,
            5 | 8 => tuple.dst_l4 |= u16::from(part.u8("CTA_PROTO_ICMP_TYPE")?) << 8,
            6 | 9 => tuple.dst_l4 |= u16::from(part.u8("CTA_PROTO_ICMP_CODE")?),
            _ => {}
        }
    }
    Ok(())
}

#[inline]
fn counters(attribute: &Attribute<'_>) -> Result<Counters, DecodeError> {
    let mut counters = Counters::default();
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            1 => counters.packets = part.u64("CTA_COUNTERS_PACKETS")?,
            2 => counters.bytes = part.u64("CTA_COUNTERS_BYTES")?,
            _ => {}
        }
    }
    Ok(counters)
}

fn timestamps(attribute: &Attribute<'_>, flow: &mut Flow) -> Result<(), DecodeError> {
    for part in attribute.nested() {
        let part = part?;
        match part.kind {
            1 => flow.start = Some(part.u64("CTA_TIMESTAMP_START")?),
            2 => flow.stop = Some(part.u64("CTA_TIMESTAMP_STOP")?),
            _ => {}
        }
    }
    Ok(())
}

/// The state is the first attribute of each protocol's own nest.
fn protoinfo(attribute: &Attribute<'_>) -> Result<Option<u8>, DecodeError> {
    for protocol in attribute.nested() {
        for part in protocol?.nested() {
            let part = part?;
            if part.kind == 1 {
                return Ok(Some(part.u8("CTA_PROTOINFO_*_STATE")?));
            }
        }
    }
    Ok(None)
}

fn helper(attribute: &Attribute<'_>) -> Result<Option<HelperName>, DecodeError> {
    for part in attribute.nested() {
        let part = part?;
        if part.kind == 1 {
            return Ok(Some(HelperName::new(part.value)));
        }
    }
    Ok(None)
}

/// `CTA_SECCTX_NAME`
fn secctx(attribute: &Attribute<'_>) -> Result<Option<Box<str>>, DecodeError> {
    for part in attribute.nested() {
        let part = part?;
        if part.kind == 1 {
            let name = part.value.split(|byte| *byte == 0).next().unwrap_or_default();
            return Ok(Some(String::from_utf8_lossy(name).into()));
        }
    }
    Ok(None)
}

/// Shorter than 16 bytes on kernels that keep fewer labels.
fn labels(value: &[u8]) -> [u8; 16] {
    let mut labels = [0; 16];
    let len = value.len().min(16);
    labels[..len].copy_from_slice(&value[..len]);
    labels
}
