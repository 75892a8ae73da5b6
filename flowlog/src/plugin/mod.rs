//! The plugins: one file for each name that may stand in a stack line. They
//! see flows and events, never netlink.

use crate::event::{End, Expectation, Kinds, Lost, Witness};
use crate::flow::Flow;

mod beneath;
pub mod clickhouse;
pub mod clock;
pub mod compact;
pub mod filter;
pub mod format;
pub mod ip2str;
pub mod ipfix;
pub mod json;
pub mod kafka;
pub mod line;
pub mod logemu;
pub mod nats;
pub mod nfct;
pub mod output;
pub mod parquet;
pub mod pgsql;
pub mod printflow;
pub mod record_id;
pub mod ship;
pub mod sqlite3;
pub mod stall;
pub mod syslog;
mod threads;
mod ulogd_key;

/// What a source hands down its stacks.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    /// The selected kinds; empty for a loss.
    pub tag: Kinds,
    /// When it happened, nanoseconds since the epoch.
    pub at: u64,
    /// What happened.
    pub body: Body<'a>,
}

/// What an [`Item`] is about.
#[derive(Clone, Copy, Debug)]
pub enum Body<'a> {
    /// A connection.
    Flow {
        /// The connection, with all that the source told.
        flow: &'a Flow,
        /// Its start, nanoseconds since the epoch, when it is known.
        start: Option<u64>,
        /// Its end, as `start`.
        end: Option<u64>,
        /// How it ended, where the source tells.
        how: Option<&'a End>,
        /// Lines in the form of ulogd2 show the counters: those of its end,
        /// and those of a dump. Netlink tells no others; eBPF tells them with
        /// each event, and the lines are to be the same from both.
        counted: bool,
        /// Who told it.
        witness: Witness,
    },
    /// An expectation.
    Expectation(&'a Expectation),
    /// Events that nobody will ever see.
    Lost(Lost),
}

/// Takes what a source hands on.
pub trait Downstream {
    /// Takes one item.
    fn push(&mut self, item: &Item<'_>);
}

/// What the plugins of a stack leave for those behind them.
#[derive(Debug, Default)]
pub struct Scratch {
    /// By IP2STR.
    pub addresses: ip2str::Addresses,
    /// By PRINTFLOW: the line with its line feed; empty: nothing to log.
    pub print: line::Line,
}
