//! What may stand in a configuration: the plugins, what each needs and
//! provides, and every key with its default. One list for the parser, for
//! `flowlog info`, for docs/keys.md and for the test of `conf/flowlog.conf`.

use self::{
    brokers::{KAFKA, NATS},
    clickhouse::CLICKHOUSE,
    keys::{FILTER, NFCT},
    network::PGSQL,
    sinks::{IPFIX, JSON, LOGEMU, PARQUET, PRINTFLOW, SQLITE3, SYSLOG},
};

mod brokers;
mod clickhouse;
mod keys;
mod network;
mod sinks;
mod tls;

/// A key of a section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What its value is, with its unit.
    pub kind: &'static str,
    /// The default, as it would be written.
    pub default: &'static str,
    /// It may stand more than once.
    pub repeats: bool,
    /// What it does.
    pub help: &'static str,
}

const fn key(
    name: &'static str,
    kind: &'static str,
    default: &'static str,
    help: &'static str,
) -> Key {
    Key { name, kind, default, repeats: false, help }
}

impl Key {
    /// Its value has blanks and quotes, so what follows it is likely a part of it.
    pub fn is_expression(&self) -> bool {
        self.kind.starts_with("expression")
    }

    /// Its value may be a password, or have one in it.
    pub fn is_secret(&self) -> bool {
        is_secret(self.name)
    }

    /// It is there for configurations of ulogd2, and changes nothing.
    pub fn is_ignored(&self) -> bool {
        self.help.starts_with("accepted and ignored")
    }
}

/// Whether the value of a key of that name may be a password, or have one in it.
pub fn is_secret(name: &str) -> bool {
    matches!(name, "connstring" | "pass" | "password" | "property" | "token")
}

/// Where in a stack a plugin stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// First.
    Source,
    /// Between.
    Filter,
    /// Last.
    Sink,
}

impl Role {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Filter => "filter",
            Self::Sink => "sink",
        }
    }
}

/// A plugin by its name in a stack line.
#[derive(Clone, Copy, Debug)]
pub struct Plugin {
    /// Its name, upper case.
    pub name: &'static str,
    /// Where it stands.
    pub role: Role,
    /// What it does, in a sentence.
    pub summary: &'static str,
    /// Keys of the record that must be provided before it.
    pub needs: &'static [&'static str],
    /// Keys of the record that it provides.
    pub provides: &'static [&'static str],
    /// Keys of its section.
    pub keys: &'static [Key],
}

/// Keys of `[global]`.
pub const GLOBAL: &[Key] = &[
    key(
        "logfile",
        "`syslog`, `stdout`, `stderr` or a path",
        "syslog",
        "where the daemon's own messages go; those that it does not take in time are dropped \
         and counted. syslog: to /dev/log, and to standard error while no daemon is there",
    ),
    key(
        "loglevel",
        "integer from 0 to 8, or `debug`, `info`, `notice`, `warning`, `error` or `fatal`",
        "5",
        "messages shown, those of this level and graver ones: 1 debug, 3 info, 5 notice, \
         6 warning, 7 error, 8 fatal; -l overrides it",
    ),
    key(
        "nice",
        "integer from -20 to 19",
        "-10",
        "priority of the daemon: the kernel drops events while their logger waits for its turn",
    ),
    key(
        "metrics",
        "address with its port, 9470 where it has none",
        "",
        "serve /metrics for Prometheus and /healthz over HTTP there, such as 127.0.0.1:9470 or \
         [::1]:9470; whoever can reach the address can read them. Empty: nowhere",
    ),
    key(
        "spool_dir",
        "directory",
        "/var/lib/flowlog",
        "where sinks that ship to others keep records until these have acknowledged them: the \
         SQLite database spool.db; made if it is missing",
    ),
    key(
        "spool_max_bytes",
        "integer from 1048576 to 1125899906842624, bytes",
        "1073741824",
        "records that may wait there, of all sinks together; the file is somewhat larger",
    ),
    key(
        "spool_full",
        "`drop-oldest` or `drop-newest`",
        "drop-oldest",
        "which records are lost, and counted, when there is no room",
    ),
    Key {
        name: "plugin",
        kind: "path",
        default: "",
        repeats: true,
        help: "accepted and ignored: flowlog has its plugins built in",
    },
    Key {
        name: "stack",
        kind: "ID:PLUGIN,ID:PLUGIN,…",
        default: "",
        repeats: true,
        help: "a way from a source through filters to a sink; ID names the section with the \
               plugin's keys, and a source named in several stacks is shared by them",
    },
];

/// The plugins.
pub const PLUGINS: &[Plugin] = &[
    Plugin {
        name: "NFCT",
        role: Role::Source,
        summary: "connection tracking events",
        needs: &[],
        provides: &[
            "oob.family",
            "oob.protocol",
            "orig.ip.saddr",
            "orig.ip.daddr",
            "orig.ip.protocol",
            "orig.l4.sport",
            "orig.l4.dport",
            "orig.raw.pktlen",
            "orig.raw.pktcount",
            "reply.ip.saddr",
            "reply.ip.daddr",
            "reply.ip.protocol",
            "reply.l4.sport",
            "reply.l4.dport",
            "reply.raw.pktlen",
            "reply.raw.pktcount",
            "icmp.code",
            "icmp.type",
            "ct.mark",
            "ct.id",
            "ct.event",
            "flow.start.sec",
            "flow.start.usec",
            "flow.end.sec",
            "flow.end.usec",
        ],
        keys: NFCT,
    },
    Plugin {
        name: "IP2STR",
        role: Role::Filter,
        summary: "addresses as text",
        needs: &[
            "oob.family",
            "orig.ip.saddr",
            "orig.ip.daddr",
            "reply.ip.saddr",
            "reply.ip.daddr",
        ],
        provides: ADDRESS_TEXTS,
        keys: &[],
    },
    Plugin {
        name: "PRINTFLOW",
        role: Role::Filter,
        summary: "the flow as one line of text",
        needs: ADDRESS_TEXTS,
        provides: &["print"],
        keys: PRINTFLOW,
    },
    Plugin {
        name: "FILTER",
        role: Role::Filter,
        summary: "events that an expression holds of",
        needs: &[],
        provides: &[],
        keys: FILTER,
    },
    Plugin {
        name: "LOGEMU",
        role: Role::Sink,
        summary: "lines to a file, as syslogd would write them",
        needs: &["print"],
        provides: &[],
        keys: LOGEMU,
    },
    Plugin {
        name: "SYSLOG",
        role: Role::Sink,
        summary: "lines to syslog, on this host or another",
        needs: &["print"],
        provides: &[],
        keys: SYSLOG,
    },
    Plugin {
        name: "JSON",
        role: Role::Sink,
        summary: "JSON objects to a file or a socket",
        needs: &[],
        provides: &[],
        keys: JSON,
    },
    Plugin {
        name: "SQLITE3",
        role: Role::Sink,
        summary: "rows of a SQLite database in a file",
        needs: &[],
        provides: &[],
        keys: SQLITE3,
    },
    Plugin {
        name: "IPFIX",
        role: Role::Sink,
        summary: "flows to an IPFIX collector",
        needs: &[],
        provides: &[],
        keys: IPFIX,
    },
    Plugin {
        name: "PARQUET",
        role: Role::Sink,
        summary: "an archive: compressed files of columns",
        needs: &[],
        provides: &[],
        keys: PARQUET,
    },
    Plugin {
        name: "PGSQL",
        role: Role::Sink,
        summary: "rows of a PostgreSQL database",
        needs: &[],
        provides: &[],
        keys: PGSQL,
    },
    Plugin {
        name: "NATS",
        role: Role::Sink,
        summary: "messages to a stream of NATS JetStream",
        needs: &[],
        provides: &[],
        keys: NATS,
    },
    Plugin {
        name: "KAFKA",
        role: Role::Sink,
        summary: "messages to a topic of Kafka",
        needs: &[],
        provides: &[],
        keys: KAFKA,
    },
    Plugin {
        name: "CLICKHOUSE",
        role: Role::Sink,
        summary: "rows of a table of ClickHouse",
        needs: &[],
        provides: &[],
        keys: CLICKHOUSE,
    },
];

const ADDRESS_TEXTS: &[&str] =
    &["orig.ip.saddr.str", "orig.ip.daddr.str", "reply.ip.saddr.str", "reply.ip.daddr.str"];

/// Sources of ulogd2 that log packets or sums, not flows.
pub const FOREIGN_SOURCES: &[&str] = &["NFLOG", "ULOG", "UNIXSOCK", "NFACCT"];

/// Plugins of ulogd2 that flowlog does not have.
pub const FOREIGN_PLUGINS: &[&str] = &[
    "BASE", "IFINDEX", "HWHDR", "PWSNIFF", "MARK", "IP2BIN", "IP2HBIN", "PRINTPKT", "GPRINT",
    "OPRINT", "XML", "NACCT", "MYSQL", "DBI", "GRAPHITE", "PCAP",
];

/// The plugin of that name.
pub fn plugin(name: &str) -> Option<&'static Plugin> {
    PLUGINS.iter().find(|plugin| plugin.name == name)
}
