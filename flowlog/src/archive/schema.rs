//! What a file of the archive holds: its columns, and what it says of itself.
//! The writer fills them, docs/parquet.md explains them. They are called as the
//! columns of SQLITE3 are.
//!
//! A row is a record: an event of a connection, of an expectation, or a loss,
//! which `kind` tells apart. What is not known is null, never 0.
//!
//! The reply tuple is kept as what NAT made of the original one, as nearly all of
//! it would be there twice. It follows from the row without loss: its source is
//! `nat_dst`, `nat_dport` or, if these are null, `orig_dst`, `orig_dport`; its
//! destination `nat_src`, `nat_sport` or `orig_src`, `orig_sport`. The kernel
//! answers an ICMP message by the type that answers it, so type and code of the
//! reply are not kept either.
//!
//! The record id (`plugin/record_id.rs`) is not kept: its hash would be eight
//! bytes that nothing compresses, a third of a row. It can be computed from the
//! row and [`HOST_HASH`].

use std::sync::{Arc, LazyLock};

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// A change that makes a reader of earlier files misunderstand later ones makes
/// it greater. Further columns do not.
pub const VERSION: &str = "1";

/// `flowlog.schema`: [`VERSION`] of the file.
pub const SCHEMA: &str = "flowlog.schema";
/// `flowlog.version`: the version of flowlog that wrote the file.
pub const WRITER: &str = "flowlog.version";
/// `flowlog.checksums`: [`CRC32`] where the file has those of
/// [`checksums`](super::checksums). A file of an earlier version has none.
pub const CHECKSUMS: &str = "flowlog.checksums";
/// The one kind of checksums that there is.
pub const CRC32: &str = "crc32";
/// `flowlog.host`: name of the host, as in `host`.
pub const HOST: &str = "flowlog.host";
/// `flowlog.host_hash`: what the hash of each record id begins with, 16
/// hexadecimal digits.
pub const HOST_HASH: &str = "flowlog.host_hash";
/// `flowlog.from`: the file has all that happened from then on and was not lost,
/// up to [`TO`]; nanoseconds since the epoch, decimal. A file without rows says
/// that nothing happened.
pub const FROM: &str = "flowlog.from";
/// `flowlog.to`: as [`FROM`]; this moment is not in it.
pub const TO: &str = "flowlog.to";
/// `flowlog.lost_events`: the sum of the column `lost_events`, decimal.
pub const LOST_EVENTS: &str = "flowlog.lost_events";
/// `flowlog.gaps`: what the file does not have of the time that files cover, a line
/// each: `lost`, `dropped`, `refused` or `unsure`, the first and the last time as
/// [`FROM`], how many records, and which source reported it of events that the kernel
/// lost. A file of an earlier version has none.
pub const GAPS: &str = "flowlog.gaps";
/// `flowlog.sink`: the sink that has written the file, under the same name in all of its files:
/// host, namespace, source and sink by their ids. A file of an earlier version has none.
pub const SINK: &str = "flowlog.sink";
/// `flowlog.beginnings`: `1` where the beginning of each connection is recorded, `0` where that is
/// not so or not known: then a connection may have no record before its end.
pub const BEGINNINGS: &str = "flowlog.beginnings";
/// `flowlog.run`: when the run of flowlog began whose records they are, as
/// [`FROM`].
pub const RUN: &str = "flowlog.run";
/// `flowlog.spool_last`: the number of the last row of the spool that the file
/// has, or one before of the same run, decimal; absent if none has any.
pub const SPOOL_LAST: &str = "flowlog.spool_last";

/// What `kind` is of a loss.
pub const LOST: &str = "lost";
/// What `kind` is of an event of an expectation.
pub const EXPECT: &str = "expect";

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// A row may have none.
    pub nullable: bool,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nanoseconds since the epoch, UTC.
    Time,
    /// Text, each once: `Dictionary(Int32, Utf8)`.
    Text,
    /// A number of so many bits.
    U8,
    /// As before.
    U16,
    /// As before.
    U32,
    /// As before.
    U64,
    /// 16 bytes.
    Labels,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Self::Text => DataType::Dictionary(DataType::Int32.into(), DataType::Utf8.into()),
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::Labels => DataType::FixedSizeBinary(16),
        }
    }
}

const fn always(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: false }
}

const fn optional(name: &'static str, kind: Kind) -> Column {
    Column { name, kind, nullable: true }
}

/// The columns, in their order.
pub const COLUMNS: [Column; 42] = [
    // When it happened; rows are in its order within a row group.
    always("time", Kind::Time),
    // The kinds of the event, in lower case, joined by commas: `new`,
    // `update,assured`, `destroy,gc`; else `expect` or `lost`.
    always("kind", Kind::Text),
    // Of an expectation: `new`, `update`, `destroy`.
    optional("action", Kind::Text),
    always("host", Kind::Text),
    // Of the connection. `stop` is the moment of expiry where the kernel tells
    // it, else that of the event.
    optional("start", Kind::Time),
    optional("stop", Kind::Time),
    // As is all up to `orig_dport` also of an expectation, as what is expected:
    // there 0 and the unspecified address stand for any. Null of a loss.
    optional("protocol", Kind::U8),
    optional("orig_src", Kind::Text),
    // Port, GRE key, or identifier of ICMP; null for protocols without.
    optional("orig_sport", Kind::U16),
    optional("orig_dst", Kind::Text),
    // Port or GRE key.
    optional("orig_dport", Kind::U16),
    optional("icmp_type", Kind::U8),
    optional("icmp_code", Kind::U8),
    // The source after NAT: both are there if one of them was changed (the port
    // if the protocol has one), else none.
    optional("nat_src", Kind::Text),
    optional("nat_sport", Kind::U16),
    // The destination after NAT, likewise.
    optional("nat_dst", Kind::Text),
    optional("nat_dport", Kind::U16),
    optional("orig_packets", Kind::U64),
    optional("orig_bytes", Kind::U64),
    optional("reply_packets", Kind::U64),
    optional("reply_bytes", Kind::U64),
    optional("zone", Kind::U16),
    optional("mark", Kind::U32),
    optional("ct_id", Kind::U32),
    optional("netns_cookie", Kind::U64),
    optional("netns_inode", Kind::U32),
    // `enum ip_conntrack_status`.
    optional("status", Kind::U32),
    // Of the protocol: `ESTABLISHED`.
    optional("state", Kind::Text),
    optional("helper", Kind::Text),
    optional("labels", Kind::Labels),
    // The original tuple of the connection that expected this one.
    optional("master_protocol", Kind::U8),
    optional("master_src", Kind::Text),
    optional("master_sport", Kind::U16),
    optional("master_dst", Kind::Text),
    optional("master_dport", Kind::U16),
    // Why it ended, and who deleted it.
    optional("cause", Kind::Text),
    optional("portid", Kind::U32),
    optional("pid", Kind::U32),
    optional("comm", Kind::Text),
    // `both`, `ebpf`, `healed`.
    optional("witness", Kind::Text),
    // Of a loss: which source lost how many events.
    optional("lost_source", Kind::Text),
    optional("lost_events", Kind::U64),
];

/// The columns as arrow has them.
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let field = |Column { name, kind, nullable }| Field::new(name, kind.data_type(), nullable);
        Arc::new(Schema::new(COLUMNS.map(field).to_vec()))
    });
    Arc::clone(&SCHEMA)
}
