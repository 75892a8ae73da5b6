//! Where capture by eBPF cannot be had: `capture=ebpf` ends at once and says why and what to do,
//! `capture=auto` says why and goes on over netlink.

use anyhow::{Result, ensure};
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::{Launch, config};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, uncounted};

use super::kernel::Sysctl;
use super::privileges::{AS_NOBODY, PARANOIA};
use super::{by_ebpf, launch};

const FLOWS: u32 = 20;

/// All functions by which the ends of connections can be told.
const ENDS: &str =
    "__nf_ct_delete_from_lists,nf_ct_delete_from_lists,nf_ct_destroy,destroy_conntrack";

/// Root without the capabilities that eBPF needs. Netlink needs the one that is left.
pub(crate) const INCAPABLE: [&str; 2] = ["setpriv", "--bounding-set=-all,+net_admin"];

/// Hides the kernel's description of its types, of all modules or of all.
const WITHOUT_BTF: [&str; 6] =
    ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"", "sh"];

/// Has something missing.
type Without = fn(Launch<'_>) -> Launch<'_>;

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_capabilities() -> Result<()> {
    by_ebpf(|| {
        let without: Without = |launch| launch.wrapped_by(&INCAPABLE);
        ensure_refused(without, &["CAP_BPF and CAP_PERFMON missing"], "run flowlog as root")
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_leave_to_probe() -> Result<()> {
    by_ebpf(|| {
        let _paranoia = Sysctl::set(PARANOIA, 3)?;
        let without: Without = |launch| launch.wrapped_by(&AS_NOBODY);
        ensure_refused(without, &["perf_event_paranoid"], "sysctl kernel.perf_event_paranoid=2")
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_btf() -> Result<()> {
    by_ebpf(|| {
        let without: Without = |launch| launch.wrapped_by(&WITHOUT_BTF);
        ensure_refused(without, &["BTF"], "CONFIG_DEBUG_INFO_BTF")
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_a_function_that_tells_ends() -> Result<()> {
    by_ebpf(|| {
        let without: Without = |launch| launch.environment("FLOWLOG_HIDE_FUNCTIONS", ENDS);
        let mut words = vec!["the end of connections"];
        words.extend(ENDS.split(','));
        ensure_refused(without, &words, "capture=netlink")
    })
}

/// On a kernel that has no BTF of its modules.
pub(crate) fn ensure_refused_without_btf() -> Result<()> {
    let as_it_is: Without = |launch| launch;
    ensure_refused(as_it_is, &["BTF", "nf_conntrack"], "CONFIG_DEBUG_INFO_BTF_MODULES")
}

/// Checks both answers to something that is missing: the words that name it, and the remedy.
fn ensure_refused(without: Without, words: &[&str], remedy: &str) -> Result<()> {
    let single = SingleNs::new()?;
    let config = config("hash_enable=0\nevent_mask=5", "sync=0");
    let launch = || launch(single.namespace(), &config);

    let finished = without(launch()?).args(&["--capture", "ebpf"]).run()?;
    let said = format!("{}{}", finished.stderr, finished.log);
    ensure!(finished.code == Some(1), "exit {:?}\n{said}", finished.code);
    for word in words.iter().chain([&remedy]) {
        ensure!(said.contains(word), "no {word:?} in\n{said}");
    }
    ensure!(finished.lines.is_empty(), "it has logged");

    let daemon = without(launch()?).start()?;
    daemon.wait_log("runs over netlink: ct1")?;
    let log = daemon.log();
    let reasons: Vec<_> =
        log.lines().filter(|line| line.contains("[ct1] eBPF capture cannot be had: ")).collect();
    ensure!(reasons.len() == 1, "{} lines tell why\n{log}", reasons.len());
    for word in words {
        ensure!(reasons[0].contains(word), "no {word:?} in {}", reasons[0]);
    }
    ensure!(!log.contains("will not be reported"), "warnings of what is not tried any more\n{log}");
    udp_burst(&single, 4000, 0, FLOWS)?;
    single.namespace().flush_conntrack()?;
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    let mut expected = burst_lines("NEW", 4000, 0..FLOWS);
    expected.extend(burst_lines("DESTROY", 4000, 0..FLOWS));
    ensure_equal("over netlink", &expected, &uncounted(&finished.lines))
}
