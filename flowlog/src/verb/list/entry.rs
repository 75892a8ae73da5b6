//! An entry of the table: the flow, and what only its printed line shows.

use crate::capture::netlink::attr::{Attribute, Attributes, DecodeError, Message};
use crate::capture::netlink::decode;
use crate::event::{Event, Kinds};
use crate::flow::Flow;

/// Length of `struct nfgenmsg`.
const GENMSG: usize = 4;

/// One entry of a dump.
#[derive(Clone, Debug, Default)]
pub(in crate::verb) struct Entry {
    /// The connection.
    pub(in crate::verb) flow: Flow,
    /// The kernel told a mark: some leave out a mark of 0, and those without
    /// marks tell none.
    pub(in crate::verb) has_mark: bool,
    /// The zone of both directions together; [`Flow::zone`] does not say whose
    /// it is.
    pub(in crate::verb) zone: Option<u16>,
    /// Zones of the original and of the reply direction alone.
    pub(in crate::verb) zones: [Option<u16>; 2],
}

impl Entry {
    /// Attribute numbers: include/uapi/linux/netfilter/nfnetlink_conntrack.h
    /// (6.18).
    pub(in crate::verb) fn decode(message: &Message<'_>) -> Result<Self, DecodeError> {
        let mut event = Event::default();
        decode::flow(message, Kinds::empty(), 0, &mut event)?;
        let mut entry = Self { flow: event.flow, ..Self::default() };
        for attribute in Attributes::new(message.payload.get(GENMSG..).unwrap_or_default()) {
            let attribute = attribute?;
            match attribute.kind {
                1 => entry.zones[0] = tuple_zone(&attribute)?,
                2 => entry.zones[1] = tuple_zone(&attribute)?,
                8 => entry.has_mark = true,
                18 => entry.zone = Some(attribute.u16("CTA_ZONE")?),
                _ => {}
            }
        }
        Ok(entry)
    }
}

/// `CTA_TUPLE_ZONE`
fn tuple_zone(tuple: &Attribute<'_>) -> Result<Option<u16>, DecodeError> {
    for part in tuple.nested() {
        let part = part?;
        if part.kind == 3 {
            return part.u16("CTA_TUPLE_ZONE").map(Some);
        }
    }
    Ok(None)
}
