//! ulogd.conf text → sections → typed configuration. Every refusal names file,
//! line and remedy, and all of them are told at once.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::capture::{
    Attach, CaptureChoice, NetnsScope, RING, RING_BOUNDS, ring_size, untold_by_netlink,
};
use self::catalog::Role;
pub use self::command_line::Wanted;
pub use self::crosscheck::{MAX_PENDING, MAX_PENDING_BOUNDS, WINDOW_MS, WINDOW_MS_BOUNDS};
use self::diagnostic::{Diagnostic, Diagnostics, Severity, nearest};
use self::grammar::{Document, Value};
use self::lines::{Line, Reading};
pub use self::loglevel::{LEVEL_FORMS, level_named};
pub use self::protocols::number as protocol;
pub use self::sections::{BUFFER_LIMIT, default_buffers};
use self::values::Values;
use crate::capture::crosscheck::Settings as Crosscheck;
use crate::capture::filter::Filter;
use crate::event::Kinds;
use crate::plugin::filter::pushdown::Bounds;
use crate::plugin::{
    clickhouse as columns, filter as expression, ipfix, json, kafka, logemu, nats, nfct,
    parquet as archived, pgsql, printflow, ship, sqlite3, syslog,
};
use crate::stats::SinkPlugin;

mod brokers;
mod capture;
pub mod catalog;
mod clickhouse;
mod collector;
mod command_line;
mod crosscheck;
pub mod diagnostic;
mod filter;
pub mod grammar;
mod hosts;
pub mod lines;
mod loglevel;
mod metrics;
mod network;
mod parquet;
mod protocols;
mod sections;
mod sinks;
mod spool;
mod stacks;
mod tls;
pub mod values;

/// A configuration that can be run.
#[derive(Debug)]
pub struct Config {
    /// Where the daemon's own messages go.
    pub log: LogTarget,
    /// The least severe message shown, on ulogd2's scale from 1 to 8, with 6 for
    /// warnings.
    pub loglevel: u8,
    /// The daemon's nice value; absent: flowlog's own, if it can be had.
    pub nice: Option<i32>,
    /// Where metrics are served; absent: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where records wait for what is away.
    pub spool: ship::Settings,
    /// Sources, each once.
    pub sources: Vec<Source>,
    /// Stacks in the order of the file.
    pub stacks: Vec<Stack>,
}

impl Config {
    /// A stack has a sink that needs the spool.
    pub fn ships(&self) -> bool {
        self.stacks.iter().flat_map(|stack| &stack.stages).any(Stage::ships)
    }
}

/// Where the daemon's own messages go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogTarget {
    /// syslog(3), facility daemon.
    Syslog,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// A file, appended to.
    File(PathBuf),
}

/// A NFCT instance.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its id in the stack lines.
    pub id: String,
    /// The command line asks for it, and no file: no key can be set.
    pub by_command_line: bool,
    /// The mask as written, for bits that flowlog does not know.
    pub event_mask: u32,
    /// What NFCT does.
    pub nfct: nfct::Settings,
    /// What the expressions of its stacks want at most; part of `nfct.filter`.
    pub pushed: Bounds,
    /// Where events come from; `Netlink` when NFCT polls.
    pub capture: CaptureChoice,
    /// How eBPF and netlink are compared; absent: they are not.
    pub crosscheck: Option<Crosscheck>,
    /// What the keys `crosscheck_*` say, whether or not it is of use.
    crosscheck_keys: crosscheck::Keys,
    /// How eBPF is attached.
    pub attach: Attach,
    /// The ring of eBPF, bytes: a power of two of pages.
    pub ring_buffer: u32,
    /// The receive buffer, bytes: at start and at most.
    pub buffer: (usize, usize),
    /// The kernel repeats DESTROY events.
    pub reliable: bool,
    /// The namespaces to watch; never `All` with `CaptureChoice::Netlink`. If
    /// `Auto` comes down to netlink, `All` means flowlog's own.
    pub netns: NetnsScope,
    /// `netns` was asked for, not assumed.
    pub netns_named: bool,
    /// Set the conntrack sysctls at start.
    pub set_sysctls: bool,
    /// Hold a rule that makes the kernel track connections.
    pub activate: bool,
}

/// A stack line.
#[derive(Clone, Debug)]
pub struct Stack {
    /// Its line in the file.
    pub line: usize,
    /// Index of its source in [`Config::sources`].
    pub source: usize,
    /// The id of its sink, which stands last.
    pub sink: String,
    /// What follows the source.
    pub stages: Vec<Stage>,
}

/// A plugin after the source.
#[derive(Clone, Debug)]
pub enum Stage {
    /// Addresses to text.
    Ip2Str,
    /// Flow to line.
    PrintFlow(printflow::Settings),
    /// Only what an expression holds of.
    Filter(expression::Settings),
    /// Lines to a file.
    LogEmu(logemu::Settings),
    /// Lines to a syslog daemon.
    Syslog(syslog::Settings),
    /// Objects to a file or a socket.
    Json(json::Settings),
    /// Rows of a database in a file.
    Sqlite3(sqlite3::Settings),
    /// Records to a collector.
    Ipfix(ipfix::Settings),
    /// Records to files of columns.
    Parquet(archived::Settings),
    /// Rows of a database of a server.
    Pgsql(Box<pgsql::Settings>),
    /// Messages of NATS.
    Nats(nats::Settings),
    /// Messages of Kafka.
    Kafka(kafka::Settings),
    /// Rows of a table of ClickHouse.
    Clickhouse(Box<columns::Settings>),
}

impl Stage {
    /// The plugin that counts what it does, if it is a sink.
    pub fn sink(&self) -> Option<SinkPlugin> {
        match self {
            Self::Ip2Str | Self::PrintFlow(_) | Self::Filter(_) => None,
            Self::LogEmu(_) => Some(SinkPlugin::Logemu),
            Self::Syslog(_) => Some(SinkPlugin::Syslog),
            Self::Json(_) => Some(SinkPlugin::Json),
            Self::Sqlite3(_) => Some(SinkPlugin::Sqlite3),
            Self::Ipfix(_) => Some(SinkPlugin::Ipfix),
            Self::Parquet(_) => Some(SinkPlugin::Parquet),
            Self::Pgsql(_) => Some(SinkPlugin::Pgsql),
            Self::Nats(_) => Some(SinkPlugin::Nats),
            Self::Kafka(_) => Some(SinkPlugin::Kafka),
            Self::Clickhouse(_) => Some(SinkPlugin::Clickhouse),
        }
    }

    /// It is a sink that needs the spool.
    pub fn ships(&self) -> bool {
        self.sink().is_some_and(SinkPlugin::is_spooled)
    }
}

/// What came of reading a configuration.
#[derive(Debug)]
pub struct Outcome {
    /// The configuration, if it can be run.
    pub config: Option<Config>,
    /// Where messages go and which, also if the rest is wrong; absent without
    /// `[global]`.
    pub log: Option<(LogTarget, u8)>,
    /// Everything that is to be said about it.
    pub diagnostics: Vec<Diagnostic>,
    /// Every line that says something, with what it is to flowlog.
    pub lines: Vec<Line>,
}

/// Reads the configuration in `file`.
pub fn load(file: &Path) -> Outcome {
    match fs::read(file) {
        Ok(bytes) => parse(file, &String::from_utf8_lossy(&bytes)),
        Err(error) => {
            let mut found = Diagnostics::new(file);
            found.error(
                None,
                format!("cannot be read: {error}; name another file with -c, or make it readable"),
            );
            Outcome { config: None, log: None, diagnostics: found.list, lines: Vec::new() }
        }
    }
}

/// Reads the configuration `text`, which stands in `file`.
pub fn parse(file: &Path, text: &str) -> Outcome {
    let mut found = Diagnostics::new(file);
    // Editors of other systems mark a file as UTF-8 so.
    let document = Document::new(text.strip_prefix('\u{feff}').unwrap_or(text));
    let global = sections::global(&document, &mut found);
    let log = global.as_ref().map(|global| (global.log.clone(), global.loglevel));
    let config = global.map(|global| stacks::build(&document, global, &mut found));
    found.list.sort_by_key(|d| d.line);
    let config = config.filter(|_| !found.has_errors());
    let lines = lines::lines(&document, &found.readings);
    Outcome { config, log, diagnostics: found.list, lines }
}

#[cfg(test)]
mod tests;
