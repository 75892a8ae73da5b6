//! Records → the columns of a batch, in the order of [`schema::COLUMNS`].

use std::sync::Arc;

use arrow_array::builder::{
    FixedSizeBinaryBuilder, StringDictionaryBuilder, TimestampNanosecondBuilder, UInt8Builder,
    UInt16Builder, UInt32Builder, UInt64Builder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::ArrowError;

use super::schema;
use crate::event::{Cause, ExpectAction, Kinds};
use crate::flow::Family;
use crate::plugin::compact::Record;
use crate::plugin::ip2str;
use crate::plugin::json::full::KINDS;

/// Rows of a batch: what the columns of so many take stays near the processor.
pub(super) const ROWS: usize = 4096;

/// Text of which much is the same: each once in a batch.
type Text = StringDictionaryBuilder<Int32Type>;

/// The columns of a batch that is being made.
pub(super) struct Columns {
    host_name: String,
    rows: usize,
    time: TimestampNanosecondBuilder,
    kind: Text,
    action: Text,
    host: Text,
    start: TimestampNanosecondBuilder,
    stop: TimestampNanosecondBuilder,
    protocol: UInt8Builder,
    orig: Ends,
    icmp_type: UInt8Builder,
    icmp_code: UInt8Builder,
    nat: Ends,
    orig_packets: UInt64Builder,
    orig_bytes: UInt64Builder,
    reply_packets: UInt64Builder,
    reply_bytes: UInt64Builder,
    zone: UInt16Builder,
    mark: UInt32Builder,
    ct_id: UInt32Builder,
    netns_cookie: UInt64Builder,
    netns_inode: UInt32Builder,
    status: UInt32Builder,
    state: Text,
    helper: Text,
    labels: FixedSizeBinaryBuilder,
    master_protocol: UInt8Builder,
    master: Ends,
    cause: Text,
    portid: UInt32Builder,
    pid: UInt32Builder,
    comm: Text,
    witness: Text,
    lost_source: Text,
    lost_events: UInt64Builder,
}

/// The four columns of two ends.
#[derive(Default)]
struct Ends {
    src: Text,
    sport: UInt16Builder,
    dst: Text,
    dport: UInt16Builder,
}

impl Ends {
    fn push(&mut self, src: &[u8], sport: Option<u32>, dst: &[u8], dport: Option<u32>) {
        address(&mut self.src, src);
        self.sport.append_option(sport.map(|port| port as u16));
        address(&mut self.dst, dst);
        self.dport.append_option(dport.map(|port| port as u16));
    }

    fn finish(&mut self) -> [ArrayRef; 4] {
        [
            Arc::new(self.src.finish()),
            Arc::new(self.sport.finish()),
            Arc::new(self.dst.finish()),
            Arc::new(self.dport.finish()),
        ]
    }
}

impl Columns {
    /// For records of that host.
    pub(super) fn new(host: &str) -> Self {
        let time = || TimestampNanosecondBuilder::new().with_timezone("UTC");
        Self {
            host_name: host.to_owned(),
            rows: 0,
            time: time(),
            kind: Text::new(),
            action: Text::new(),
            host: Text::new(),
            start: time(),
            stop: time(),
            protocol: UInt8Builder::new(),
            orig: Ends::default(),
            icmp_type: UInt8Builder::new(),
            icmp_code: UInt8Builder::new(),
            nat: Ends::default(),
            orig_packets: UInt64Builder::new(),
            orig_bytes: UInt64Builder::new(),
            reply_packets: UInt64Builder::new(),
            reply_bytes: UInt64Builder::new(),
            zone: UInt16Builder::new(),
            mark: UInt32Builder::new(),
            ct_id: UInt32Builder::new(),
            netns_cookie: UInt64Builder::new(),
            netns_inode: UInt32Builder::new(),
            status: UInt32Builder::new(),
            state: Text::new(),
            helper: Text::new(),
            labels: FixedSizeBinaryBuilder::new(16),
            master_protocol: UInt8Builder::new(),
            master: Ends::default(),
            cause: Text::new(),
            portid: UInt32Builder::new(),
            pid: UInt32Builder::new(),
            comm: Text::new(),
            witness: Text::new(),
            lost_source: Text::new(),
            lost_events: UInt64Builder::new(),
        }
    }

    /// Rows that have been pushed.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row.
    pub(super) fn push(&mut self, record: &Record) {
        self.rows += 1;
        let kinds = record.kinds();
        let (is_flow, is_loss) = (!kinds.is_empty() && kinds != Kinds::EXPECT, kinds.is_empty());
        self.time.append_value(record.time as i64);
        kind(&mut self.kind, kinds);
        self.action.append_option(record.done().map(ExpectAction::name));
        self.host.append_value(&self.host_name);
        self.start.append_option(record.start.map(|at| at as i64));
        self.stop.append_option(record.stop.map(|at| at as i64));
        self.protocol.append_option(record.protocol.map(|number| number as u8));
        let Record { orig_src, orig_sport, orig_dst, orig_dport, .. } = record;
        self.orig.push(orig_src, *orig_sport, orig_dst, *orig_dport);
        self.icmp_type.append_option(record.icmp_type.map(|number| number as u8));
        self.icmp_code.append_option(record.icmp_code.map(|number| number as u8));
        self.nat.push(&record.nat_src, record.nat_sport, &record.nat_dst, record.nat_dport);
        self.orig_packets.append_option(record.orig_packets);
        self.orig_bytes.append_option(record.orig_bytes);
        self.reply_packets.append_option(record.reply_packets);
        self.reply_bytes.append_option(record.reply_bytes);
        self.zone.append_option((!is_loss).then_some(record.zone as u16));
        self.mark.append_option(is_flow.then_some(record.mark));
        self.entry(record, is_flow);
        self.end(record);
        self.lost_source.append_option(text(&record.lost_source));
        self.lost_events.append_option(is_loss.then_some(record.lost_events));
    }

    fn entry(&mut self, record: &Record, is_flow: bool) {
        self.ct_id.append_option(record.ct_id);
        self.netns_cookie.append_option(record.netns_cookie);
        self.netns_inode.append_option(record.netns_inode);
        self.status.append_option(is_flow.then_some(record.status));
        self.state.append_option(record.state_name());
        self.helper.append_option(text(&record.helper));
        if record.labels.len() != 16 || self.labels.append_value(&record.labels).is_err() {
            self.labels.append_null();
        }
        let Record { master_src, master_sport, master_dst, master_dport, .. } = record;
        self.master_protocol.append_option(record.master_protocol.map(|number| number as u8));
        self.master.push(master_src, *master_sport, master_dst, *master_dport);
    }

    fn end(&mut self, record: &Record) {
        self.cause.append_option(record.ended_by().map(Cause::name));
        self.portid.append_option(record.portid);
        self.pid.append_option(record.pid);
        self.comm.append_option(record.comm.as_deref());
        self.witness.append_option(record.told_by().name());
    }

    /// The rows as a batch; begins anew.
    ///
    /// # Errors
    /// The columns are not those of the schema, which a test excludes.
    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        self.rows = 0;
        let [orig_src, orig_sport, orig_dst, orig_dport] = self.orig.finish();
        let [nat_src, nat_sport, nat_dst, nat_dport] = self.nat.finish();
        let [master_src, master_sport, master_dst, master_dport] = self.master.finish();
        RecordBatch::try_new(
            schema::schema(),
            vec![
                Arc::new(self.time.finish()),
                Arc::new(self.kind.finish()),
                Arc::new(self.action.finish()),
                Arc::new(self.host.finish()),
                Arc::new(self.start.finish()),
                Arc::new(self.stop.finish()),
                Arc::new(self.protocol.finish()),
                orig_src,
                orig_sport,
                orig_dst,
                orig_dport,
                Arc::new(self.icmp_type.finish()),
                Arc::new(self.icmp_code.finish()),
                nat_src,
                nat_sport,
                nat_dst,
                nat_dport,
                Arc::new(self.orig_packets.finish()),
                Arc::new(self.orig_bytes.finish()),
                Arc::new(self.reply_packets.finish()),
                Arc::new(self.reply_bytes.finish()),
                Arc::new(self.zone.finish()),
                Arc::new(self.mark.finish()),
                Arc::new(self.ct_id.finish()),
                Arc::new(self.netns_cookie.finish()),
                Arc::new(self.netns_inode.finish()),
                Arc::new(self.status.finish()),
                Arc::new(self.state.finish()),
                Arc::new(self.helper.finish()),
                Arc::new(self.labels.finish()),
                Arc::new(self.master_protocol.finish()),
                master_src,
                master_sport,
                master_dst,
                master_dport,
                Arc::new(self.cause.finish()),
                Arc::new(self.portid.finish()),
                Arc::new(self.pid.finish()),
                Arc::new(self.comm.finish()),
                Arc::new(self.witness.finish()),
                Arc::new(self.lost_source.finish()),
                Arc::new(self.lost_events.finish()),
            ],
        )
    }
}

fn kind(column: &mut Text, kinds: Kinds) {
    if kinds.is_empty() {
        column.append_value(schema::LOST);
        return;
    }
    let mut all = KINDS.iter().filter(|(kind, _)| kinds.contains(*kind)).map(|(_, name)| *name);
    match (all.next(), all.next()) {
        (first, None) => column.append_value(first.unwrap_or_default()),
        (first, second) => {
            let names: Vec<_> = first.into_iter().chain(second).chain(all).collect();
            column.append_value(names.join(","));
        }
    }
}

/// Text that cannot be absent is empty where it is not known.
fn text(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn address(column: &mut Text, address: &[u8]) {
    let mut bytes = [0; 16];
    let family = match address.len() {
        4 => Family::V4,
        16 => Family::V6,
        _ => return column.append_null(),
    };
    bytes[..address.len()].copy_from_slice(address);
    let mut text = ip2str::Text::default();
    text.set(family, &bytes);
    column.append_option(str::from_utf8(text.as_bytes()).ok());
}
