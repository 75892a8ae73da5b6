//! `flowlog trace`: the life of connections, event by event, with the function
//! of the kernel that it happened in, who called it, and what was before; and
//! the connections that were refused before they began. By eBPF only: netlink
//! tells none of it.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

pub use self::kind::{Kind, Reason, Refusal};
pub use self::select::Selection;
use super::watch::When;
use crate::config::{Attach, NetnsScope};

#[cfg(feature = "ebpf")]
mod chain;
#[cfg(feature = "ebpf")]
mod json;
mod kind;
#[cfg(feature = "ebpf")]
mod life;
#[cfg(feature = "ebpf")]
mod line;
#[cfg(feature = "ebpf")]
mod run;
mod select;
#[cfg(feature = "ebpf")]
mod summary;
#[cfg(feature = "ebpf")]
#[cfg(test)]
mod tests;
#[cfg(feature = "ebpf")]
mod told;
#[cfg(feature = "ebpf")]
mod view;

/// What works where a trace cannot be had.
const INSTEAD: &str = "`flowlog watch` shows events over netlink";

/// How events are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A line for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// How events are shown.
    pub format: Format,
    /// Which events are shown.
    pub selection: Selection,
    /// Callers shown in a line of text; JSON has all.
    pub callers: usize,
    /// Tell at the end what was shown, counted.
    pub summary: bool,
    /// When colours are used.
    pub color: When,
    /// Of which namespaces.
    pub netns: NetnsScope,
    /// How eBPF is attached.
    pub attach: Attach,
    /// End after this time.
    pub lasting: Option<Duration>,
    /// End after this many events.
    pub count: Option<u64>,
    /// Say nothing on standard error but errors.
    pub quiet: bool,
    /// The ring of eBPF, bytes: a power of two of pages.
    pub ring_buffer: u32,
}

/// Shows what happens to connections on standard output until it is told to
/// end.
///
/// The exit code is 2 when the options do not go together, else 0.
///
/// # Errors
/// eBPF cannot be had, or standard output cannot be written to; a closed pipe is
/// no error.
pub fn run(options: &Options) -> anyhow::Result<ExitCode> {
    if let Err(why) = options.selection.check() {
        writeln!(io::stderr(), "flowlog: {why}")?;
        return Ok(ExitCode::from(2));
    }
    trace(options)
}

#[cfg(feature = "ebpf")]
fn trace(options: &Options) -> anyhow::Result<ExitCode> {
    run::run(options)
}

#[cfg(not(feature = "ebpf"))]
fn trace(_: &Options) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "connections cannot be traced: this flowlog was built without eBPF; build it with the \
         feature ebpf. {INSTEAD}"
    )
}
