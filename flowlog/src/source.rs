//! A configured source → a capture at work: by eBPF or over netlink, in the
//! right namespace. Whatever is less than was asked for is said here, once.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use caps::{Capability, CapsHashSet};
use thiserror::Error;
use tracing::{info, warn};

use crate::activate::Activation;
use crate::capture::Capture;
use crate::capture::netlink::{self, NetlinkCapture, exchange};
use crate::config::{self, CaptureChoice, NetnsScope, untold_by_netlink};
use crate::event::Kinds;
use crate::kernel::{self, Activity, TableFill};
use crate::log::notice;
use crate::netns::{self, Identity, NetnsError};
use crate::plugin::nfct;
use crate::stats::Stats;

mod crosscheck;
mod lookout;
pub mod place;

/// Between two attempts to open a source.
const AGAIN: Duration = Duration::from_millis(100);

/// A source at work.
pub struct Opened {
    /// Where its records come from.
    pub capture: Box<dyn Capture>,
    /// What NFCT has to do for a capture of this kind.
    pub nfct: nfct::Settings,
    /// "by eBPF (kprobe)", "over netlink"
    pub by: String,
    /// The rule that makes the kernel track connections, where asked for.
    pub activation: Option<Activation>,
    /// What the capture needs while it runs.
    pub capabilities: CapsHashSet,
    /// The kernel's table of the namespace.
    pub table: TableFill,
    /// The namespace.
    pub namespace: Option<Identity>,
}

/// The event socket or the request socket could not be opened.
#[derive(Debug, Error)]
#[error("conntrack events cannot be had over netlink: {cause}; {remedy}")]
struct NoNetlink {
    cause: io::Error,
    remedy: &'static str,
}

/// eBPF, or what it is to be compared with, is not available.
#[derive(Debug, Error)]
#[error("{why}")]
struct NoEbpf {
    why: String,
    /// The same may succeed a little later.
    transient: bool,
}

impl NoEbpf {
    /// With words around the reason.
    fn within(self, words: impl FnOnce(&str) -> String) -> Self {
        Self { why: words(&self.why), ..self }
    }
}

impl From<String> for NoEbpf {
    fn from(why: String) -> Self {
        Self { why, transient: false }
    }
}

/// Whether the same may succeed a little later: the kernel was short of memory,
/// or busy, or a module is not loaded yet; or the namespace is being made.
fn is_transient(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NoNetlink>().is_some_and(|error| exchange::is_transient(&error.cause))
        || error.downcast_ref::<NoEbpf>().is_some_and(|error| error.transient)
        || error.downcast_ref::<NetnsError>().is_some_and(NetnsError::is_transient)
}

/// Opens a source in its namespace. What the kernel cannot do for a moment is tried
/// again, as long as `patience` says; then a second choice is taken, if there is one.
///
/// # Errors
/// Neither way works, or the one that was asked for by name does not; the
/// namespace cannot be entered.
pub fn open(source: &config::Source, stats: &Stats, patience: Duration) -> anyhow::Result<Opened> {
    let path = source.netns.path().map(netns::resolve);
    patiently(patience, |last| {
        let opened = netns::within(path.as_deref(), || open_here(source, stats, last));
        of_source(source, opened)
    })
}

/// Opens a source once, in the namespace whose file is open and is called `path`.
/// `last`: a second choice may be taken for what may only be lacking at the moment.
///
/// # Errors
/// As [`open`].
pub fn open_in(
    namespace: &File,
    path: &Path,
    source: &config::Source,
    stats: &Stats,
    last: bool,
) -> anyhow::Result<Opened> {
    of_source(source, netns::within_open(namespace, path, || open_here(source, stats, last)))
}

fn of_source(
    source: &config::Source,
    opened: Result<anyhow::Result<Opened>, NetnsError>,
) -> anyhow::Result<Opened> {
    opened?.map_err(|error| error.context(format!("[{}] cannot be started", source.id)))
}

/// Calls `attempt` until it succeeds, fails for a reason that does not pass, or has
/// got the last call (`true`).
fn patiently<T>(
    patience: Duration,
    mut attempt: impl FnMut(bool) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut said = false;
    loop {
        let last = start.elapsed() >= patience;
        match attempt(last) {
            Err(error) if !last && is_transient(&error) => {
                if !said {
                    notice!(
                        "{error:#}; it is tried again for up to {:.0} s",
                        patience.as_secs_f32()
                    );
                }
                said = true;
                std::thread::sleep(AGAIN);
            }
            result => return result,
        }
    }
}

/// Opens a source in the current namespace, and says what is amiss there.
fn open_here(source: &config::Source, stats: &Stats, last: bool) -> anyhow::Result<Opened> {
    if source.set_sysctls {
        set_sysctls(&source.id);
    }
    let activation = source.activate.then(Activation::hold).transpose()?;
    let mut opened = match source.capture {
        CaptureChoice::Netlink => over_netlink(source, stats)?,
        CaptureChoice::Ebpf => at_best(source, stats, last)
            .map_err(|no| no.within(|why| format!("eBPF capture cannot be had: {why}")))?,
        CaptureChoice::Both => at_best(source, stats, last).map_err(|no| {
            no.within(|why| {
                format!(
                    "eBPF and netlink cannot be compared: {why}. With capture=auto flowlog runs by \
                     what can be had"
                )
            })
        })?,
        CaptureChoice::Auto => match at_best(source, stats, last) {
            Ok(opened) => opened,
            Err(no) if no.transient && !last => return Err(no.into()),
            Err(no) => {
                fall_back(source, &no.why);
                over_netlink(source, stats)?
            }
        },
    };
    opened.namespace = Identity::here().ok();
    let everywhere = opened.is_everywhere(source);
    if activation.is_none() && !everywhere && kernel::conntrack_active() == Activity::Inactive {
        warn!(
            "[{}] nothing makes the kernel track connections in this network namespace, so \
             there is nothing to log; add a rule that needs it (`ct state`, NAT), or {}",
            source.id,
            if source.by_command_line { "give --activate" } else { "set activate=1" }
        );
    }
    opened.activation = activation;
    Ok(opened)
}

impl Opened {
    /// It watches all namespaces.
    fn is_everywhere(&self, source: &config::Source) -> bool {
        source.netns == NetnsScope::All && self.capabilities.contains(&Capability::CAP_BPF)
    }
}

/// By eBPF, and compared with netlink where that is asked for.
fn at_best(source: &config::Source, stats: &Stats, last: bool) -> Result<Opened, NoEbpf> {
    match &source.crosscheck {
        Some(settings) => crosscheck::crosscheck(source, settings, stats, last),
        None => by_ebpf(source, stats, last),
    }
}

/// Says why netlink is used, and what it cannot tell.
fn fall_back(source: &config::Source, why: &str) {
    let elsewhere = match source.netns {
        NetnsScope::All => ", no flows of other network namespaces",
        NetnsScope::Own | NetnsScope::Path(_) => "",
    };
    warn!(
        "[{}] eBPF capture cannot be had: {why}. Netlink is used instead: it costs more, and \
         tells no causes of ends{elsewhere}",
        source.id
    );
    if let Some(text) = untold_by_netlink(source.event_mask) {
        warn!("[{}] {text}", source.id);
    }
    if source.crosscheck.is_some() {
        warn!(
            "[{}] nothing is compared, in spite of crosscheck_every, which needs eBPF",
            source.id
        );
    }
}

#[cfg(not(feature = "ebpf"))]
fn by_ebpf(_: &config::Source, _: &Stats, _: bool) -> Result<Opened, NoEbpf> {
    Err("this flowlog was built without it; build it with the feature ebpf".to_owned().into())
}

#[cfg(feature = "ebpf")]
fn by_ebpf(source: &config::Source, stats: &Stats, last: bool) -> Result<Opened, NoEbpf> {
    use crate::capture::ebpf::EbpfCapture;
    let capture =
        EbpfCapture::open(&ebpf_settings(source, last)?, stats.clone()).map_err(|error| {
            NoEbpf { why: format!("{error}; {}", error.remedy()), transient: error.is_transient() }
        })?;
    stats.use_ebpf();
    warn_of_silent_kernel(source);
    Ok(Opened {
        by: format!("by eBPF ({})", capture.method().name()),
        capture: Box::new(capture),
        // Every end is told, so nobody has to look for those that are not.
        nfct: nfct::Settings { redump: None, ..source.nfct.clone() },
        activation: None,
        capabilities: CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_BPF]),
        table: TableFill::open(),
        namespace: None,
    })
}

/// What eBPF is to capture, seen from the current namespace.
#[cfg(feature = "ebpf")]
fn ebpf_settings(
    source: &config::Source,
    last: bool,
) -> Result<crate::capture::ebpf::Settings, String> {
    let own = netns::current().map_err(|error| format!("the namespace has no number: {error}"))?;
    Ok(crate::capture::ebpf::Settings {
        mask: source.nfct.mask,
        tracked: source.nfct.hash.is_some(),
        filter: source.nfct.filter.clone(),
        attach: source.attach,
        ring: source.ring_buffer,
        netns: (source.netns != NetnsScope::All).then_some(own),
        own_netns: own,
        all_updates: false,
        traced: None,
        retried: !last,
    })
}

/// Changes are gathered by the kernel itself, unless it is told not to.
#[cfg(feature = "ebpf")]
fn warn_of_silent_kernel(source: &config::Source) {
    if source.nfct.wants_updates() && kernel::sysctl("nf_conntrack_events") == Some(0) {
        warn!(
            "[{}] nf_conntrack_events is 0: the kernel tells of no changes (update, assured, \
             confirmed, helper), only of beginnings and ends; set it to 2 or 1",
            source.id
        );
    }
}

fn over_netlink(source: &config::Source, stats: &Stats) -> anyhow::Result<Opened> {
    let capture = NetlinkCapture::open(&netlink_settings(source), stats.clone());
    let capture = capture.map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::EPERM) => "it needs CAP_NET_ADMIN: run it as root",
            Some(libc::EPROTONOSUPPORT) => "the kernel has no nfnetlink: load nf_conntrack_netlink",
            _ if exchange::is_transient(&error) => {
                "the kernel is short of memory, or this process of descriptors: make room (in the \
                 unit MemoryMax=, LimitNOFILE=), and start it again"
            }
            _ => "see `flowlog check`",
        };
        NoNetlink { cause: error, remedy }
    })?;
    warn_of_old_flows(source);
    Ok(Opened {
        by: "over netlink".to_owned(),
        capture: Box::new(capture),
        nfct: source.nfct.clone(),
        activation: None,
        capabilities: CapsHashSet::from([Capability::CAP_NET_ADMIN]),
        table: TableFill::open(),
        namespace: None,
    })
}

/// What netlink is to listen to.
fn netlink_settings(source: &config::Source) -> netlink::Settings {
    netlink::Settings {
        groups: source.nfct.groups(),
        buffer: source.buffer.0,
        buffer_max: source.buffer.1,
        reliable: source.reliable,
        filter: source.nfct.filter.clone(),
    }
}

fn set_sysctls(id: &str) {
    for (name, result) in kernel::set_sysctls() {
        match result {
            Ok(()) => info!("[{id}] {name} has been set to 1"),
            Err(error) => warn!("[{id}] {name} cannot be set to 1: {error}; set it with sysctl"),
        }
    }
}

/// Flows from before the first listener have no event extension, unless
/// nf_conntrack_events was 1 (net/netfilter/nf_conntrack_ecache.c, 6.18).
fn warn_of_old_flows(source: &config::Source) {
    let wants_end = source.nfct.mask.contains(Kinds::DESTROY) && source.nfct.poll.is_none();
    let events = kernel::sysctl("nf_conntrack_events");
    if events == Some(0) {
        warn!(
            "[{}] nf_conntrack_events is 0: the kernel reports no events at all; set it to 1{}",
            source.id,
            or_set_sysctls(source)
        );
    }
    let old = kernel::conntrack_count().unwrap_or(0);
    if !wants_end || events != Some(2) || old == 0 {
        return;
    }
    let what_is_done = match (source.nfct.hash, source.nfct.redump) {
        (None, _) if source.by_command_line => "it is not shown".to_owned(),
        (Some(_), Some(period)) => {
            format!("a dump every {} s finds and logs it", period.as_secs())
        }
        (Some(_), None) => "redump_interval=0 leaves it unlogged".to_owned(),
        (None, _) => "with hash_enable=0 it goes unlogged".to_owned(),
    };
    warn!(
        "[{}] {old} flows exist already; with nf_conntrack_events=2 the kernel does not report \
         the end of flows that are older than the first listener: {what_is_done}. Set \
         nf_conntrack_events=1 at boot{}",
        source.id,
        or_set_sysctls(source)
    );
}

/// A second remedy, where there is a section to write it into.
fn or_set_sysctls(source: &config::Source) -> String {
    if source.by_command_line {
        return String::new();
    }
    format!(", or set_sysctls=1 in [{}]", source.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(failures: u32, transient: bool, patience: Duration) -> (u32, bool) {
        let mut made = 0;
        let result = patiently(patience, |last| {
            made += 1;
            if made > failures || (last && transient) {
                return Ok(());
            }
            let no = NoEbpf { why: "no memory".to_owned(), transient };
            Err(anyhow::Error::from(no).context("[ct1] cannot be started"))
        });
        (made, result.is_ok())
    }

    #[test]
    fn what_may_pass_is_tried_again_until_a_second_choice_is_taken() {
        assert_eq!(attempts(2, true, Duration::from_secs(10)), (3, true));
        assert_eq!(attempts(2, false, Duration::from_secs(10)), (1, false));
        assert_eq!(attempts(u32::MAX, true, Duration::ZERO), (1, true), "the first is the last");
        let (made, ended) = attempts(u32::MAX, true, 2 * AGAIN);
        assert!((2..=4).contains(&made) && ended, "{made}");
    }

    #[test]
    fn netlink_and_ebpf_pass_alike() {
        let netlink = |errno| NoNetlink { cause: io::Error::from_raw_os_error(errno), remedy: "" };
        assert!(is_transient(&netlink(libc::ENOMEM).into()));
        assert!(!is_transient(&netlink(libc::EPERM).into()));
        assert!(!is_transient(&NoEbpf::from("no BTF".to_owned()).into()));
    }

    /// `ip netns add` makes a file, and then a namespace of it.
    #[test]
    fn a_namespace_that_is_being_made_is_awaited() {
        let cannot = |path: &str| {
            let error = netns::within(Some(Path::new(path)), || ()).unwrap_err();
            is_transient(&error.into())
        };
        assert!(cannot("/nonexistent/netns"));
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(cannot(&file.path().to_string_lossy()));
        assert!(!cannot("/proc/self/stat/netns"), "no directory");
    }
}
