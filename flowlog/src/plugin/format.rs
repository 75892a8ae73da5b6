//! How a record is written for a broker, which hands it on to others as it is.

use super::compact;
use super::json::Records;
use super::record_id::RecordId;
use super::ship::Encode;
use super::{Item, Scratch};

/// What the body of a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A JSON object, as docs/flow.schema.json describes it.
    Json,
    /// Protocol Buffers, as conf/fleet/flow.proto describes them.
    Protobuf,
}

impl Format {
    /// Its name and version, as the spool keeps them with records.
    pub fn encoding(self) -> &'static str {
        match self {
            Self::Json => "json 1",
            Self::Protobuf => "protobuf 1",
        }
    }

    /// What writes records of the host of that name.
    pub fn encoder(self, host: &str) -> Encoder {
        match self {
            Self::Json => Encoder::Json(Box::new(Records::new(host))),
            Self::Protobuf => Encoder::Protobuf(Box::new(compact::Encoder::of_host(host))),
        }
    }
}

/// What writes records.
#[derive(Debug)]
pub enum Encoder {
    /// In JSON.
    Json(Box<Records>),
    /// In Protocol Buffers.
    Protobuf(Box<compact::Encoder>),
}

impl Encode for Encoder {
    fn encode(
        &mut self,
        item: &Item<'_>,
        id: RecordId,
        scratch: &Scratch,
        out: &mut Vec<u8>,
    ) -> bool {
        match self {
            Self::Json(records) => out.extend_from_slice(records.record(item, id, scratch)),
            Self::Protobuf(encoder) => encoder.encode(item, Some(id), out),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Kinds, Lost};
    use crate::plugin::Body;

    /// Both say who tells it, and by the same id.
    #[test]
    fn each_format_names_host_and_record() {
        let lost = Lost::noticed("ebpf", 7, 0x17);
        let item = Item { tag: Kinds::empty(), at: 0x17, body: Body::Lost(lost) };
        let id = RecordId { time: 0x17, hash: 0x2a };
        let bytes = |format: Format| {
            let mut out = Vec::new();
            assert!(format.encoder("fw1").encode(&item, id, &Scratch::default(), &mut out));
            out
        };
        let json: serde_json::Value = serde_json::from_slice(&bytes(Format::Json)).unwrap();
        assert_eq!((&json["host"], &json["record"]), (&"fw1".into(), &id.to_string().into()));
        let mut record = compact::Record::default();
        record.read(&bytes(Format::Protobuf)).unwrap();
        assert_eq!((record.host.as_str(), record.time, record.hash), ("fw1", id.time, id.hash));
        assert_ne!(Format::Json.encoding(), Format::Protobuf.encoding());
    }
}
