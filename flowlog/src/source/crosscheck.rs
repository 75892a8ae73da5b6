//! A source whose events two captures tell: eBPF, and netlink that is compared
//! with it.

use super::Opened;
use crate::capture::crosscheck::Settings;
use crate::config;
use crate::stats::Stats;

#[cfg(not(feature = "ebpf"))]
pub(super) fn crosscheck(
    source: &config::Source,
    _: &Settings,
    stats: &Stats,
) -> Result<Opened, String> {
    super::by_ebpf(source, stats)
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
) -> Result<Opened, String> {
    use caps::{Capability, CapsHashSet};

    use crate::capture::crosscheck::{CrossCapture, Schedule, Sources};
    use crate::netns;
    use crate::plugin::nfct;

    let sources = Sources {
        ebpf: super::ebpf_settings(source)?,
        netlink: super::netlink_settings(source),
        netns: source.netns.path().map(netns::resolve),
        settings: *settings,
    };
    let capture = CrossCapture::open(sources, stats.clone()).map_err(|error| error.to_string())?;
    super::warn_of_silent_kernel(source);
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
    })
}
