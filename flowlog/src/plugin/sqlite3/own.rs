//! flowlog's own tables: all that is known of a record, each once.
//!
//! A table is kept in the order of its primary key, the two halves of the record
//! id, so rows are added at its end, times are found without a further index,
//! and a record that comes twice is recognised. Addresses are text, so that the
//! tables can be asked by hand.

use std::collections::HashSet;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::coverage;
use super::failure::Failure;
use super::row::Row;
use crate::event::{Expectation, Kinds, Lost};
use crate::flow::{Counters, Flow, Netns, Tuple, names, proto};
use crate::plugin::ip2str::{self, Addresses};
use crate::plugin::json::full::KINDS;
use crate::plugin::record_id::RecordId;
use crate::plugin::{Body, Item};

/// A table: its name, its columns behind those that all have, its indexes.
struct Table {
    name: &'static str,
    columns: &'static [(&'static str, &'static str)],
    /// Columns, and the rows that it is about.
    indexes: &'static [(&'static str, &'static str)],
}

const NUMBER: &str = "INTEGER";
const NUMBER_ALWAYS: &str = "INTEGER NOT NULL";
const TEXT: &str = "TEXT";
const TEXT_ALWAYS: &str = "TEXT NOT NULL";

/// The halves of the record id: when it happened, nanoseconds since the epoch,
/// and what tells it from others of that time.
const ID: [(&str, &str); 2] = [("time", NUMBER_ALWAYS), ("hash", NUMBER_ALWAYS)];
/// The record id as one, as other sinks write it.
const RECORD_ID: &str =
    "record_id TEXT GENERATED ALWAYS AS (printf('%016x%016x', time, hash)) VIRTUAL";
/// See [`checksum`]. Absent in rows of versions that had none.
const CHECKSUM: &str = "checksum";
/// Rows whose reply tuple has addresses or ports that the original has not.
const TRANSLATED: &str = " WHERE nat <> 0";

const FLOW: Table = Table {
    name: "flow",
    columns: &[
        ("kind", TEXT_ALWAYS),
        ("start", NUMBER),
        ("stop", NUMBER),
        ("protocol", NUMBER_ALWAYS),
        ("orig_src", TEXT_ALWAYS),
        ("orig_sport", NUMBER),
        ("orig_dst", TEXT_ALWAYS),
        ("orig_dport", NUMBER),
        ("reply_src", TEXT_ALWAYS),
        ("reply_sport", NUMBER),
        ("reply_dst", TEXT_ALWAYS),
        ("reply_dport", NUMBER),
        ("nat", NUMBER_ALWAYS),
        ("icmp_type", NUMBER),
        ("icmp_code", NUMBER),
        ("orig_packets", NUMBER),
        ("orig_bytes", NUMBER),
        ("reply_packets", NUMBER),
        ("reply_bytes", NUMBER),
        ("zone", NUMBER_ALWAYS),
        ("mark", NUMBER_ALWAYS),
        ("ct_id", NUMBER),
        ("netns_cookie", NUMBER),
        ("netns_inode", NUMBER),
        ("status", NUMBER_ALWAYS),
        ("state", TEXT),
        ("helper", TEXT),
        ("labels", "BLOB"),
        ("master_src", TEXT),
        ("master_sport", NUMBER),
        ("master_dst", TEXT),
        ("master_dport", NUMBER),
        ("cause", TEXT),
        ("portid", NUMBER),
        ("pid", NUMBER),
        ("comm", TEXT),
        ("witness", TEXT),
    ],
    indexes: &[
        ("orig_src, orig_sport", ""),
        ("orig_dst, orig_dport", ""),
        ("reply_src, reply_sport", TRANSLATED),
        ("reply_dst, reply_dport", TRANSLATED),
    ],
};

const EXPECTATION: Table = Table {
    name: "expectation",
    columns: &[
        ("action", TEXT_ALWAYS),
        ("protocol", NUMBER_ALWAYS),
        ("src", TEXT_ALWAYS),
        ("sport", NUMBER),
        ("dst", TEXT_ALWAYS),
        ("dport", NUMBER),
        ("master_src", TEXT_ALWAYS),
        ("master_sport", NUMBER),
        ("master_dst", TEXT_ALWAYS),
        ("master_dport", NUMBER),
        ("zone", NUMBER_ALWAYS),
        ("helper", TEXT),
        ("netns_cookie", NUMBER),
        ("netns_inode", NUMBER),
    ],
    indexes: &[],
};

const LOST: Table = Table {
    name: "lost",
    columns: &[("source", TEXT_ALWAYS), ("events", NUMBER_ALWAYS)],
    indexes: &[],
};

/// The tables, each at the number of its statement.
const TABLES: [Table; 3] = [FLOW, EXPECTATION, LOST];
const FLOWS: u8 = 0;
const EXPECTATIONS: u8 = 1;
const LOSSES: u8 = 2;

impl Table {
    fn columns(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        ID.into_iter().chain(self.columns.iter().copied())
    }

    /// Its indexes: name, columns, rows.
    fn index_names(&self) -> impl Iterator<Item = (String, &'static str, &'static str)> {
        self.indexes.iter().map(|(columns, rows)| {
            let first = columns.split(',').next().unwrap_or_default();
            (format!("{}_{first}", self.name), *columns, *rows)
        })
    }

    fn create(&self) -> String {
        let name = self.name;
        let columns: Vec<_> = self.columns().map(|(name, kind)| format!("{name} {kind}")).collect();
        let mut sql = format!(
            "CREATE TABLE IF NOT EXISTS {name} (\n  {},\n  {RECORD_ID},\n  \
             {CHECKSUM} INTEGER,\n  PRIMARY KEY (time, hash)\n) STRICT, WITHOUT ROWID;\n",
            columns.join(",\n  ")
        );
        for (index, columns, rows) in self.index_names() {
            sql += &format!("CREATE INDEX IF NOT EXISTS {index} ON {name} ({columns}){rows};\n");
        }
        sql
    }

    fn insert(&self, checksum: bool) -> String {
        let names = self.columns().map(|(name, _)| name);
        let names: Vec<_> = names.chain(checksum.then_some(CHECKSUM)).collect();
        let places = vec!["?"; names.len()].join(", ");
        format!("INSERT OR IGNORE INTO {} ({}) VALUES ({places})", self.name, names.join(", "))
    }
}

/// Makes the tables, indexes and columns where they are missing. Where all is there it takes no
/// lock of a writer, so that another process may hold it.
pub(super) fn create(connection: &Connection) -> Result<(), Failure> {
    if is_complete(connection)? {
        return Ok(());
    }
    let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
    let tables: String = TABLES.iter().map(Table::create).collect();
    transaction.execute_batch(&tables)?;
    transaction.execute_batch(coverage::CREATE)?;
    for table in with_checksums() {
        if !has_checksum(&transaction, table)? {
            let sql = format!("ALTER TABLE {table} ADD COLUMN {CHECKSUM} INTEGER");
            transaction.execute_batch(&sql)?;
        }
    }
    Ok(transaction.commit()?)
}

/// Nothing of what [`create`] makes is missing.
fn is_complete(connection: &Connection) -> Result<bool, Failure> {
    let mut names = connection.prepare("SELECT name FROM sqlite_schema")?;
    let names: HashSet<String> =
        names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let mut needed = TABLES.iter().flat_map(|table| table.index_names().map(|(name, ..)| name));
    if !with_checksums().all(|table| names.contains(table))
        || !needed.all(|index| names.contains(&index))
    {
        return Ok(false);
    }
    for table in with_checksums() {
        if !has_checksum(connection, table)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tables whose rows have a checksum: all.
fn with_checksums() -> impl Iterator<Item = &'static str> {
    TABLES.iter().map(|table| table.name).chain([coverage::TABLE])
}

fn has_checksum(connection: &Connection, table: &str) -> Result<bool, Failure> {
    let sql = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?";
    Ok(connection.query_row(sql, [table, CHECKSUM], |row| row.get::<_, i64>(0))? > 0)
}

/// The statements, by number.
pub(super) fn inserts() -> Vec<String> {
    TABLES.iter().map(|table| table.insert(true)).collect()
}

/// What rows could be inserted by before anything is made: the tables of a version that had no
/// checksums are flowlog's too.
pub(super) fn inserts_as_found(connection: &Connection) -> Result<Vec<String>, Failure> {
    let insert = |table: &Table| Ok(table.insert(has_checksum(connection, table.name)?));
    TABLES.iter().map(insert).collect()
}

/// The tables and the names of their columns, in the order in which a checksum takes them.
pub fn names() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    TABLES.iter().map(|table| (table.name, table.columns().map(|(name, _)| name).collect()))
}

/// The checksum of a row: XXH64, seed 0, over its values in the order of [`names()`], each as
/// `row.rs` encodes it; the column `checksum` has it as a signed number.
pub fn checksum<'v>(values: impl Iterator<Item = ValueRef<'v>>) -> i64 {
    let mut row = Row::default();
    row.begin(0);
    values.for_each(|value| row.value(value));
    row.checksum()
}

/// Makes the row of a record. Its values stand in the order of the columns.
pub(super) fn fill(item: &Item<'_>, id: RecordId, addresses: &Addresses, row: &mut Row) {
    row.begin(match item.body {
        Body::Flow { .. } => FLOWS,
        Body::Expectation(_) => EXPECTATIONS,
        Body::Lost(_) => LOSSES,
    });
    row.number(id.time);
    row.number(id.hash);
    match item.body {
        Body::Flow { flow, start, end, how, counted: _, witness } => {
            kind(item.tag, row);
            row.optional(start);
            row.optional(end);
            self::flow(flow, addresses, row);
            row.optional_text(how.map(|how| how.cause.name().as_bytes()));
            row.optional(how.and_then(|how| how.portid));
            let process = how.and_then(|how| how.process);
            row.optional(process.map(|process| process.pid));
            row.optional_text(process.as_ref().map(|process| process.comm.as_bytes()));
            row.optional_text(witness.name().map(str::as_bytes));
        }
        Body::Expectation(expectation) => self::expectation(expectation, addresses, row),
        Body::Lost(Lost { source, events, .. }) => {
            row.text(source.as_bytes());
            row.number(events);
        }
    }
    row.integer(row.checksum());
}

/// Names of kinds, joined by commas.
fn kind(tag: Kinds, row: &mut Row) {
    let mut text = [0; 64];
    let mut length = 0;
    for (_, name) in KINDS.iter().filter(|(kind, _)| tag.contains(*kind)) {
        if length > 0 {
            text[length] = b',';
            length += 1;
        }
        text[length..length + name.len()].copy_from_slice(name.as_bytes());
        length += name.len();
    }
    row.text(&text[..length]);
}

fn flow(flow: &Flow, addresses: &Addresses, row: &mut Row) {
    let (source, destination) = flow.translated();
    let Flow { orig, reply, status, counters, zone, mark, id, l4_state, helper, .. } = flow;
    row.number(orig.proto);
    ends(orig, &addresses.orig, row);
    ends(reply, &addresses.reply, row);
    // 1: the source was translated, 2: the destination, 3: both.
    row.number(u8::from(source) | u8::from(destination) << 1);
    let icmp = matches!(orig.proto, proto::ICMP | proto::ICMPV6);
    row.optional(icmp.then(|| orig.icmp_type()));
    row.optional(icmp.then(|| orig.icmp_code()));
    for direction in 0..2 {
        let counted = counters.map(|both| both[direction]);
        row.optional(counted.map(|Counters { packets, .. }| packets));
        row.optional(counted.map(|Counters { bytes, .. }| bytes));
    }
    row.number(*zone);
    row.number(*mark);
    row.optional(*id);
    netns(flow.netns, row);
    row.number(status.bits());
    let state = l4_state.and_then(|value| names::state(orig.proto, value));
    row.optional_text(state.map(str::as_bytes));
    row.optional_text(helper.as_ref().map(|helper| helper.as_bytes()));
    row.optional_blob(flow.labels.as_ref().map(|labels| labels.as_slice()));
    match &flow.master {
        Some(master) => {
            let mut texts = ip2str::Pair::default();
            texts.set(master);
            ends(master, &texts, row);
        }
        None => (0..4).for_each(|_| row.null()),
    }
}

fn expectation(expectation: &Expectation, addresses: &Addresses, row: &mut Row) {
    let Expectation { action, tuple, master, helper, zone, netns } = expectation;
    row.text(action.name().as_bytes());
    row.number(tuple.proto);
    ends(tuple, &addresses.orig, row);
    ends(master, &addresses.master, row);
    row.number(*zone);
    row.optional_text(helper.as_ref().map(|helper| helper.as_bytes()));
    self::netns(*netns, row);
}

/// Addresses and ports of a tuple. GRE has keys in place of ports, ICMP an
/// identifier in that of the source's.
fn ends(tuple: &Tuple, texts: &ip2str::Pair, row: &mut Row) {
    let icmp = matches!(tuple.proto, proto::ICMP | proto::ICMPV6);
    let ports = tuple.has_ports() || tuple.proto == proto::GRE;
    row.text(texts.src.as_bytes());
    row.optional((ports || icmp).then_some(tuple.src_l4));
    row.text(texts.dst.as_bytes());
    row.optional(ports.then_some(tuple.dst_l4));
}

fn netns(netns: Option<Netns>, row: &mut Row) {
    row.optional(netns.and_then(|netns| netns.cookie));
    row.optional(netns.map(|netns| netns.inum));
}
