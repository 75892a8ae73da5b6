//! What verbs that show events live take alike: which flows, where, how long, and
//! how they are shown.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::{AttachKind, lasting, netns, within};
use crate::capture::filter::Network;
use crate::config::{self, NetnsScope, RING, RING_BOUNDS};
use crate::verb::watch::{Selection, When};

/// Which flows.
#[derive(Debug, Args)]
pub(super) struct Flows {
    /// Protocols, by name or number
    #[arg(long, value_name = "PROTOCOL", value_delimiter = ',', value_parser = config::protocol)]
    proto: Vec<u8>,
    /// Networks or addresses of the source, before NAT
    #[arg(long, value_name = "NET", value_delimiter = ',', value_parser = network)]
    src: Vec<Network>,
    /// Networks or addresses of the destination, before NAT
    #[arg(long, value_name = "NET", value_delimiter = ',', value_parser = network)]
    dst: Vec<Network>,
    /// Ports of either end, before or after NAT
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    port: Vec<u16>,
}

/// Where, and how events get here.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// Network namespaces: `all`, `self`, a name of `ip netns`, or a path [default: all by eBPF,
    /// self over netlink]
    #[arg(long, value_name = "NETNS", value_parser = netns)]
    pub(super) netns: Option<NetnsScope>,
    /// How eBPF is attached to the kernel's functions
    #[arg(long, value_enum, default_value_t = AttachKind::Auto)]
    pub(super) attach: AttachKind,
    /// Room for eBPF events that wait to be read
    #[arg(long, value_name = "BYTES", default_value_t = RING, value_parser = within(RING_BOUNDS))]
    pub(super) ring_buffer_size: u32,
}

/// How long lines are shown, and how.
#[derive(Debug, Args)]
pub(super) struct Showing {
    /// End after this time: a number with ms, s, m, h or d; without one of them, of seconds
    #[arg(long = "for", value_name = "DURATION", value_parser = lasting)]
    pub(super) lasting: Option<Duration>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// When to use colours
    #[arg(long, value_enum, default_value_t = Color::Auto)]
    pub(super) color: Color,
    /// Say nothing on standard error but errors
    #[arg(short, long)]
    pub(super) quiet: bool,
}

impl From<Flows> for Selection {
    fn from(args: Flows) -> Self {
        Self {
            protocols: args.proto,
            sources: args.src,
            destinations: args.dst,
            ports: args.port,
            ..Self::default()
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Color {
    /// On a terminal, unless NO_COLOR is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<Color> for When {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// A network, or an address alone.
fn network(text: &str) -> Result<Network, String> {
    let length = if text.contains(':') { 128 } else { 32 };
    if text.contains('/') { text.parse() } else { format!("{text}/{length}").parse() }
}
