//! flowlog's own tables: all that is known of a record, each once, in partitions of
//! a month. Names of columns are those of SQLITE3's tables.

use super::copy::Rows;
use crate::event::{Cause, ExpectAction, Kinds};
use crate::plugin::compact::Record;
use crate::plugin::json::full::KINDS;
use crate::plugin::record_id::RecordId;

/// A table: its name, its columns behind those that all have, its indexes.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    columns: &'static [(&'static str, &'static str)],
    /// Columns, and the rows that it is about.
    indexes: &'static [(&'static str, &'static str)],
}

/// When it happened, to the microsecond: what partitions are made by. Then the
/// record id, and the time to the nanosecond.
const ID: [(&str, &str); 3] =
    [("time", TIME_ALWAYS), ("record_id", "uuid NOT NULL"), ("time_ns", LARGE_ALWAYS)];
const TIME: &str = "timestamp with time zone";
const TIME_ALWAYS: &str = "timestamp with time zone NOT NULL";
const LARGE: &str = "bigint";
const LARGE_ALWAYS: &str = "bigint NOT NULL";
const NUMBER: &str = "integer";
const NUMBER_ALWAYS: &str = "integer NOT NULL";
const SMALL: &str = "smallint";
const SMALL_ALWAYS: &str = "smallint NOT NULL";
const ADDRESS: &str = "inet";
const ADDRESS_ALWAYS: &str = "inet NOT NULL";
const TEXT: &str = "text";
const TEXT_ALWAYS: &str = "text NOT NULL";
/// Rows whose reply tuple has addresses or ports that the original has not.
const TRANSLATED: &str = " WHERE nat <> 0";

/// From the largest to those of any length, so that no room is left between.
const FLOW: Table = Table {
    name: "flow",
    columns: &[
        ("start", TIME),
        ("start_ns", LARGE),
        ("stop", TIME),
        ("stop_ns", LARGE),
        ("orig_packets", LARGE),
        ("orig_bytes", LARGE),
        ("reply_packets", LARGE),
        ("reply_bytes", LARGE),
        ("mark", LARGE_ALWAYS),
        ("ct_id", LARGE),
        ("netns_cookie", LARGE),
        ("netns_inode", LARGE),
        ("portid", LARGE),
        ("status", NUMBER_ALWAYS),
        ("zone", NUMBER_ALWAYS),
        ("orig_sport", NUMBER),
        ("orig_dport", NUMBER),
        ("reply_sport", NUMBER),
        ("reply_dport", NUMBER),
        ("master_sport", NUMBER),
        ("master_dport", NUMBER),
        ("pid", NUMBER),
        ("protocol", SMALL_ALWAYS),
        ("nat", SMALL_ALWAYS),
        ("icmp_type", SMALL),
        ("icmp_code", SMALL),
        ("kind", TEXT_ALWAYS),
        ("orig_src", ADDRESS_ALWAYS),
        ("orig_dst", ADDRESS_ALWAYS),
        ("reply_src", ADDRESS_ALWAYS),
        ("reply_dst", ADDRESS_ALWAYS),
        ("master_src", ADDRESS),
        ("master_dst", ADDRESS),
        ("state", TEXT),
        ("cause", TEXT),
        ("helper", TEXT),
        ("labels", "bytea"),
        ("comm", TEXT),
        ("witness", TEXT),
    ],
    indexes: &[
        ("orig_src, orig_sport, time", ""),
        ("orig_dst, orig_dport, time", ""),
        ("reply_src, reply_sport, time", TRANSLATED),
        ("reply_dst, reply_dport, time", TRANSLATED),
    ],
};

const EXPECTATION: Table = Table {
    name: "expectation",
    columns: &[
        ("netns_cookie", LARGE),
        ("netns_inode", LARGE),
        ("zone", NUMBER_ALWAYS),
        ("sport", NUMBER),
        ("dport", NUMBER),
        ("master_sport", NUMBER),
        ("master_dport", NUMBER),
        ("protocol", SMALL_ALWAYS),
        ("action", TEXT_ALWAYS),
        ("src", ADDRESS_ALWAYS),
        ("dst", ADDRESS_ALWAYS),
        ("master_src", ADDRESS_ALWAYS),
        ("master_dst", ADDRESS_ALWAYS),
        ("helper", TEXT),
    ],
    indexes: &[],
};

const LOST: Table = Table {
    name: "lost",
    columns: &[("events", LARGE_ALWAYS), ("source", TEXT_ALWAYS)],
    indexes: &[],
};

/// The tables, in the order of [`fill`].
pub(super) const TABLES: [Table; 3] = [FLOW, EXPECTATION, LOST];
const FLOWS: usize = 0;
const EXPECTATIONS: usize = 1;
const LOSSES: usize = 2;

impl Table {
    /// Names and types of its columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        ID.into_iter().chain(self.columns.iter().copied())
    }

    /// Names of its columns, with commas.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.columns().map(|(name, _)| name).collect();
        names.join(", ")
    }

    /// What makes it, with its indexes, in that schema.
    pub(super) fn create(&self, schema: &str) -> String {
        let name = self.name;
        let columns: Vec<_> = self.columns().map(|(name, kind)| format!("{name} {kind}")).collect();
        let mut sql = format!(
            "CREATE TABLE {schema}.{name} (\n  {},\n  PRIMARY KEY (time, record_id)\n) \
             PARTITION BY RANGE (time);\n",
            columns.join(",\n  ")
        );
        for (columns, rows) in self.indexes {
            let first = columns.split(',').next().unwrap_or_default();
            sql += &format!("CREATE INDEX {name}_{first} ON {schema}.{name} ({columns}){rows};\n");
        }
        sql
    }
}

/// Makes the row of a record, in the rows of its table.
pub(super) fn fill(record: &Record, id: RecordId, rows: &mut [Rows; TABLES.len()]) {
    let number = if !record.lost_source.is_empty() {
        LOSSES
    } else if record.kinds().contains(Kinds::EXPECT) {
        EXPECTATIONS
    } else {
        FLOWS
    };
    let rows = &mut rows[number];
    rows.begin(TABLES[number].columns().count());
    rows.timestamp(Some(id.time));
    rows.uuid([id.time, id.hash]);
    rows.number(id.time);
    match number {
        FLOWS => flow(record, rows),
        EXPECTATIONS => expectation(record, rows),
        _ => {
            rows.number(record.lost_events);
            rows.bytes(record.lost_source.as_bytes());
        }
    }
    rows.end();
}

fn flow(record: &Record, rows: &mut Rows) {
    let reply = record.reply();
    for time in [record.start, record.stop] {
        rows.timestamp(time);
        rows.optional(time);
    }
    rows.optional(record.orig_packets);
    rows.optional(record.orig_bytes);
    rows.optional(record.reply_packets);
    rows.optional(record.reply_bytes);
    rows.number(record.mark);
    rows.optional(record.ct_id);
    rows.optional(record.netns_cookie);
    rows.optional(record.netns_inode);
    rows.optional(record.portid);
    rows.integer(record.status as i32);
    rows.integer(record.zone as i32);
    rows.port(record.orig_sport);
    rows.port(record.orig_dport);
    rows.port(reply.sport);
    rows.port(reply.dport);
    rows.port(record.master_sport);
    rows.port(record.master_dport);
    rows.port(record.pid);
    rows.small(Some(record.protocol.unwrap_or_default()));
    rows.smallint(reply.nat.into());
    rows.small(record.icmp_type);
    rows.small(record.icmp_code);
    kind(record.kinds(), rows);
    for address in [&record.orig_src, &record.orig_dst] {
        rows.inet(address);
    }
    rows.inet(reply.src);
    rows.inet(reply.dst);
    rows.inet(&record.master_src);
    rows.inet(&record.master_dst);
    rows.text(record.state_name());
    rows.text(record.ended_by().map(Cause::name));
    rows.filled(record.helper.as_bytes());
    rows.filled(&record.labels);
    rows.text(record.comm.as_deref());
    rows.text(record.told_by().name());
}

fn expectation(record: &Record, rows: &mut Rows) {
    rows.optional(record.netns_cookie);
    rows.optional(record.netns_inode);
    rows.integer(record.zone as i32);
    rows.port(record.orig_sport);
    rows.port(record.orig_dport);
    rows.port(record.master_sport);
    rows.port(record.master_dport);
    rows.small(Some(record.protocol.unwrap_or_default()));
    rows.bytes(record.done().unwrap_or(ExpectAction::New).name().as_bytes());
    rows.inet(&record.orig_src);
    rows.inet(&record.orig_dst);
    rows.inet(&record.master_src);
    rows.inet(&record.master_dst);
    rows.filled(record.helper.as_bytes());
}

/// Names of kinds, joined by commas.
fn kind(kinds: Kinds, rows: &mut Rows) {
    let mut text = String::new();
    for (_, name) in KINDS.iter().filter(|(kind, _)| kinds.contains(*kind)) {
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
    }
    rows.bytes(text.as_bytes());
}
