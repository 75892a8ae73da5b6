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

/// It has ports, not keys or an identifier.
pub(super) fn has_ports(record: &Record) -> bool {
    let protocol = record.protocol.and_then(|protocol| u8::try_from(protocol).ok());
    matches!(protocol, Some(proto::TCP | proto::UDP | proto::UDPLITE | proto::SCTP | proto::DCCP))
}
