//! Live tests: flowlog, and ulogd2 beside it, on real flows in network namespaces. One binary, so
//! that all of them run side by side. They need root and run with `cargo xtask test`, which turns
//! the feature `live` on; without it they are listed as ignored.

mod activate;
mod differential;
mod disk_full;
mod filters;
mod lifecycle;
mod list;
mod masks;
mod output;
mod overrun;
mod preexisting;
mod signals;
mod sync;

use anyhow::Result;
use tests::burst::destination;
use tests::daemon::{Daemon, Program, config};
use tests::lines::{Line, Multiset, multiset};
use tests::namespace::Namespace;

/// Starts flowlog with these keys in `[ct1]`, each line on disk at once.
fn flowlog(namespace: &Namespace, ct: &str) -> Result<Daemon> {
    Daemon::start(Program::Flowlog, namespace, &config(ct, "sync=1"))
}

/// The lines of a burst, counters aside, each as often as it occurs.
fn uncounted<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Multiset {
    multiset(lines.into_iter().map(Line::without_counters))
}

/// What [`uncounted`] gives when each flow of a burst from `port` has one line with this tag.
fn burst_lines(tag: &str, port: u16, numbers: std::ops::Range<u32>) -> Multiset {
    multiset(numbers.map(|number| {
        let to = destination(number);
        let (host, service) = (to.ip(), to.port());
        format!(
            "[{tag}] ORIG: SRC=198.18.0.1 DST={host} PROTO=UDP SPT={port} DPT={service} \
             PKTS=0 BYTES=0 , REPLY: SRC={host} DST=198.18.0.1 PROTO=UDP SPT={service} \
             DPT={port} PKTS=0 BYTES=0 "
        )
    }))
}
