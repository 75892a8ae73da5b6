//! A record as it waits in the spool: the compact bytes of [`compact`], which know
//! nothing of tables, so that those may change meanwhile.
//!
//! [`compact`]: crate::plugin::compact

use crate::event::Kinds;
use crate::flow::proto;
use crate::plugin::compact::{self, Record};
use crate::plugin::record_id::RecordId;
use crate::plugin::ship::Encode;
use crate::plugin::{Body, Item, Scratch};

/// How bodies are encoded: a byte, then a message of [`compact`].
pub const ENCODING: &str = "pgsql 1";
/// In that byte: ulogd2 shows the counters of the record.
const COUNTED: u8 = 1;

/// Makes bodies.
#[derive(Debug, Default)]
pub(super) struct Encoder(compact::Encoder);

impl Encode for Encoder {
    fn encode(&mut self, item: &Item<'_>, _: RecordId, _: &Scratch, out: &mut Vec<u8>) -> bool {
        let counted = matches!(item.body, Body::Flow { counted: true, .. });
        out.push(if counted { COUNTED } else { 0 });
        self.0.encode(item, None, out);
        true
    }
}

/// Reads a body in place of `record`; returns whether ulogd2 shows its counters, or
/// why it is none.
pub(super) fn read(body: &[u8], record: &mut Record) -> Result<bool, String> {
    let (flags, bytes) = body.split_first().ok_or("it is empty")?;
    record.read(bytes).map_err(|error| error.to_string())?;
    Ok(flags & COUNTED != 0)
}

/// It is about a connection, not an expectation or a loss.
pub(super) fn is_flow(record: &Record) -> bool {
    record.lost_source.is_empty() && !record.kinds().contains(Kinds::EXPECT)
}

/// What a record tells of the reply direction, which it has only where that was
/// translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told<'a> {
    pub(super) reply_src: &'a [u8],
    pub(super) reply_sport: Option<u32>,
    pub(super) reply_dst: &'a [u8],
    pub(super) reply_dport: Option<u32>,
    /// 1: the source was translated, 2: the destination, 3: both.
    pub(super) nat: i16,
    /// It has ports, not keys or an identifier.
    pub(super) has_ports: bool,
}

impl<'a> Told<'a> {
    pub(super) fn of(record: &'a Record) -> Self {
        let protocol = record.protocol.unwrap_or_default() as u8;
        let (source, destination) = (!record.nat_src.is_empty(), !record.nat_dst.is_empty());
        // The source of the original direction is the destination of the reply.
        let source_port = if source { record.nat_sport } else { record.orig_sport };
        let destination_port = if destination { record.nat_dport } else { record.orig_dport };
        // The identifier of ICMP is in the source of both.
        let icmp = matches!(protocol, proto::ICMP | proto::ICMPV6);
        Self {
            reply_src: if destination { &record.nat_dst } else { &record.orig_dst },
            reply_sport: if icmp { source_port } else { destination_port },
            reply_dst: if source { &record.nat_src } else { &record.orig_src },
            reply_dport: if icmp { None } else { source_port },
            nat: i16::from(source) | i16::from(destination) << 1,
            has_ports: matches!(
                protocol,
                proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP
            ),
        }
    }
}
