//! The sinks that are measured, and what is asked of their far sides.

use std::path::Path;
use std::time::Duration;

use ::tests::lab::SingleNs;
use anyhow::Result;

use super::{Programs, files, servers};

/// Where a sink is measured.
pub(super) struct Place<'p> {
    /// In which namespace.
    pub(super) single: &'p SingleNs,
    /// Where its files are.
    pub(super) dir: &'p Path,
    /// What it may run.
    pub(super) programs: &'p Programs,
}

/// What a sink writes to.
pub(super) trait Far {
    /// The keys of its section.
    fn keys(&self) -> String;
    /// Processor time of the server's process, if there is one.
    fn cpu_time(&self) -> Result<Option<Duration>> {
        Ok(None)
    }
    /// Flows that are there.
    fn flows(&mut self) -> Result<u64>;
    /// Bytes on its disk, if it keeps them there.
    fn disk(&self) -> Result<Option<u64>> {
        Ok(None)
    }
}

/// A sink that is measured.
pub(super) struct Sink {
    /// Its name in the table.
    pub(super) name: &'static str,
    /// It, as `sink1`, and what it needs before it.
    pub(super) stages: &'static str,
    /// Whether flows leave this host by it.
    pub(super) ships: bool,
    /// Starts what it writes to.
    pub(super) start: for<'p> fn(&'p Place<'p>) -> Result<Box<dyn Far + 'p>>,
}

/// The archive, which has targets.
pub(super) const PARQUET: &str = "PARQUET";

/// All of them, in the order of the table.
pub(super) const ALL: [Sink; 11] = [
    Sink {
        name: "LOGEMU, lines in a file",
        stages: "ip1:IP2STR,print1:PRINTFLOW,sink1:LOGEMU",
        ships: false,
        start: files::lines,
    },
    Sink {
        name: "JSON, `schema=full`, a file",
        stages: "sink1:JSON",
        ships: false,
        start: files::json,
    },
    Sink {
        name: "SQLITE3, own tables",
        stages: "sink1:SQLITE3",
        ships: false,
        start: files::sqlite3,
    },
    Sink { name: PARQUET, stages: "sink1:PARQUET", ships: false, start: files::parquet },
    Sink { name: "PGSQL, own tables", stages: "sink1:PGSQL", ships: true, start: servers::pgsql },
    Sink { name: "IPFIX, TCP", stages: "sink1:IPFIX", ships: true, start: servers::ipfix },
    Sink { name: "NATS, JSON", stages: "sink1:NATS", ships: true, start: servers::nats_json },
    Sink {
        name: "NATS, Protocol Buffers",
        stages: "sink1:NATS",
        ships: true,
        start: servers::nats_protobuf,
    },
    Sink {
        name: "KAFKA, JSON, zstd",
        stages: "sink1:KAFKA",
        ships: true,
        start: servers::kafka_json,
    },
    Sink {
        name: "KAFKA, Protocol Buffers, zstd",
        stages: "sink1:KAFKA",
        ships: true,
        start: servers::kafka_protobuf,
    },
    Sink {
        name: "CLICKHOUSE",
        stages: "sink1:CLICKHOUSE",
        ships: true,
        start: servers::clickhouse,
    },
];
