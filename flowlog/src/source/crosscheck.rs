//! A source whose events two captures tell: eBPF, and netlink that is compared
//! with it.

use super::{NoEbpf, Opened};
use crate::capture::crosscheck::Settings;
use crate::config;
use crate::stats::Stats;

#[cfg(not(feature = "ebpf"))]
pub(super) fn crosscheck(
    source: &config::Source,
    _: &Settings,
    stats: &Stats,
    last: bool,
) -> Result<Opened, NoEbpf> {
    super::by_ebpf(source, stats, last)
}

/// Opens both in the current namespace.
///
/// # Errors
/// One of them cannot be had, and what to do.
#[cfg(feature = "ebpf")]
pub(super) fn crosscheck(
    source: &config::Source,
    settings: &Settings,
    stats: &Stats,
    last: bool,
) -> Result<Opened, NoEbpf> {
    use caps::{Capability, CapsHashSet};

    use crate::capture::crosscheck::{CrossCapture, Schedule, Sources};
    use crate::kernel::TableFill;
    use crate::plugin::nfct;

    let sources = Sources {
        ebpf: super::ebpf_settings(source, last)?,
        netlink: super::netlink_settings(source),
        settings: *settings,
    };
    let capture = CrossCapture::open(sources, stats.clone())
        .map_err(|error| NoEbpf { transient: error.is_transient(), why: error.to_string() })?;
    super::warn_of_silent_kernel(source);
    tell_of_old_flows(source);
    let mut capabilities = CapsHashSet::from([Capability::CAP_NET_ADMIN, Capability::CAP_BPF]);
    if matches!(settings.schedule, Schedule::Every { .. }) {
        // Programs are attached anew each time.
        capabilities.insert(Capability::CAP_PERFMON);
    }
    Ok(Opened {
        by: capture.describe(),
        capture: Box::new(capture),
        nfct: nfct::Settings { redump: None, ..source.nfct.clone() },
        activation: None,
        capabilities,
        table: TableFill::open(),
        namespace: None,
    })
}

/// What happened before the start nobody can tell, after a crash for instance.
#[cfg(feature = "ebpf")]
fn tell_of_old_flows(source: &config::Source) {
    let old = crate::kernel::conntrack_count().unwrap_or(0);
    if old > 0 {
        tracing::warn!(
            "[{}] {old} flows exist already: when they began, and what became of others before \
             now, is not known; netlink may not confirm the end of those that began while nobody \
             listened (nf_conntrack_events=2), so they are logged as eBPF tells them",
            source.id
        );
    }
}
