//! A record → a row in ClickHouse's RowBinary: numbers little-endian, texts with
//! their length before them, one column after the other.

use crate::event::{Cause, ExpectAction};
use crate::plugin::compact::Record;
use crate::plugin::record_id::RecordId;

/// The columns and their types, in the order in which [`write`] has them.
/// conf/fleet/clickhouse.sql says what each is.
pub(super) const COLUMNS: [(&str, &str); 47] = [
    ("time", "UInt64"),
    ("hash", "UInt64"),
    ("host", "String"),
    ("type", "Enum8('flow' = 1, 'expectation' = 2, 'lost' = 3)"),
    ("kinds", "UInt8"),
    ("action", "String"),
    ("protocol", "UInt8"),
    ("orig_src", "FixedString(16)"),
    ("orig_sport", "UInt16"),
    ("orig_dst", "FixedString(16)"),
    ("orig_dport", "UInt16"),
    ("reply_src", "FixedString(16)"),
    ("reply_sport", "UInt16"),
    ("reply_dst", "FixedString(16)"),
    ("reply_dport", "UInt16"),
    ("nat", "UInt8"),
    ("icmp_type", "UInt8"),
    ("icmp_code", "UInt8"),
    ("counted", "UInt8"),
    ("orig_packets", "UInt64"),
    ("orig_bytes", "UInt64"),
    ("reply_packets", "UInt64"),
    ("reply_bytes", "UInt64"),
    ("start", "UInt64"),
    ("stop", "UInt64"),
    ("timeout", "UInt32"),
    ("zone", "UInt16"),
    ("mark", "UInt32"),
    ("ct_id", "UInt32"),
    ("netns_cookie", "UInt64"),
    ("netns_inode", "UInt32"),
    ("status", "UInt32"),
    ("state", "String"),
    ("helper", "String"),
    ("labels", "FixedString(16)"),
    ("master_protocol", "UInt8"),
    ("master_src", "FixedString(16)"),
    ("master_sport", "UInt16"),
    ("master_dst", "FixedString(16)"),
    ("master_dport", "UInt16"),
    ("cause", "String"),
    ("portid", "UInt32"),
    ("pid", "UInt32"),
    ("comm", "String"),
    ("witness", "String"),
    ("source", "String"),
    ("events", "UInt64"),
];

/// Values of the column `type`.
const FLOW: u8 = 1;
const EXPECTATION: u8 = 2;
const LOST: u8 = 3;

/// Appends the row of a record.
pub(super) fn write(record: &Record, id: RecordId, host: &str, out: &mut Vec<u8>) {
    let mut row = Row(out);
    row.u64(id.time);
    row.u64(id.hash);
    row.text(host);
    row.u8(kind_of(record));
    row.u8(record.kinds as u8);
    row.text(record.done().map_or("", ExpectAction::name));
    row.tuples(record);
    row.counters(record);
    row.u64(record.start.unwrap_or_default());
    row.u64(record.stop.unwrap_or_default());
    row.u32(record.timeout.unwrap_or_default());
    row.entry(record);
    row.text(record.ended_by().map_or("", Cause::name));
    row.u32(record.portid.unwrap_or_default());
    row.u32(record.pid.unwrap_or_default());
    row.text(record.comm.as_deref().unwrap_or_default());
    row.text(record.told_by().name().unwrap_or_default());
    row.text(&record.lost_source);
    row.u64(record.lost_events);
}

fn kind_of(record: &Record) -> u8 {
    match record {
        _ if record.kinds == 0 => LOST,
        _ if record.action != 0 => EXPECTATION,
        _ => FLOW,
    }
}

/// A row that is being made.
struct Row<'a>(&'a mut Vec<u8>);

impl Row<'_> {
    fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    fn u16(&mut self, value: Option<u32>) {
        self.0.extend_from_slice(&(value.unwrap_or_default() as u16).to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        let mut length = text.len();
        // LEB128.
        while length > 0x7f {
            self.0.push(length as u8 | 0x80);
            length >>= 7;
        }
        self.0.push(length as u8);
        self.0.extend_from_slice(text.as_bytes());
    }

    /// Sixteen bytes; zeros where there are none.
    fn sixteen(&mut self, bytes: &[u8]) {
        let mut all = [0; 16];
        let length = bytes.len().min(16);
        all[..length].copy_from_slice(&bytes[..length]);
        self.0.extend_from_slice(&all);
    }

    /// An address of IPv4 as `::ffff:a.b.c.d`.
    fn address(&mut self, address: &[u8]) {
        match address.first_chunk() {
            Some(&v4) if address.len() == 4 => {
                let mapped = std::net::Ipv4Addr::from_octets(v4).to_ipv6_mapped();
                self.sixteen(&mapped.octets());
            }
            _ => self.sixteen(address),
        }
    }

    /// Both tuples; the reply's is told only where NAT has changed it.
    fn tuples(&mut self, record: &Record) {
        let reply = record.reply();
        // Neither losses nor expectations have one.
        let replies = kind_of(record) == FLOW;
        self.u8(record.protocol.unwrap_or_default() as u8);
        self.address(&record.orig_src);
        self.u16(record.orig_sport);
        self.address(&record.orig_dst);
        self.u16(record.orig_dport);
        self.address(if replies { reply.src } else { &[] });
        self.u16(reply.sport.filter(|_| replies));
        self.address(if replies { reply.dst } else { &[] });
        self.u16(reply.dport.filter(|_| replies));
        self.u8(reply.nat);
        self.u8(record.icmp_type.unwrap_or_default() as u8);
        self.u8(record.icmp_code.unwrap_or_default() as u8);
    }

    fn counters(&mut self, record: &Record) {
        let Record { orig_packets, orig_bytes, reply_packets, reply_bytes, .. } = record;
        self.u8(orig_packets.is_some().into());
        for counter in [orig_packets, orig_bytes, reply_packets, reply_bytes] {
            self.u64(counter.unwrap_or_default());
        }
    }

    fn entry(&mut self, record: &Record) {
        self.u16(Some(record.zone));
        self.u32(record.mark);
        self.u32(record.ct_id.unwrap_or_default());
        self.u64(record.netns_cookie.unwrap_or_default());
        self.u32(record.netns_inode.unwrap_or_default());
        self.u32(record.status);
        self.text(record.state_name().unwrap_or_default());
        self.text(&record.helper);
        self.sixteen(&record.labels);
        self.u8(record.master_protocol.unwrap_or_default() as u8);
        self.address(&record.master_src);
        self.u16(record.master_sport);
        self.address(&record.master_dst);
        self.u16(record.master_dport);
    }
}

#[cfg(test)]
mod tests;
