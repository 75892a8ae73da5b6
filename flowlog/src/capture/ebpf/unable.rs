//! Why capture by eBPF cannot be had on this host, and what to do about it.

use std::io;
use std::path::Path;

use caps::{CapSet, Capability};
use thiserror::Error;

use super::btf::BtfError;
use super::layout::LayoutError;
use super::probes::{Method, ProbeError, os_error};
use crate::capture::netlink::exchange::{is_transient, is_transient_errno};

/// Where the kernel lists the ways of making probes.
const KPROBE_PMU: &str = "/sys/bus/event_source/devices/kprobe";
/// How much of perf_event_open(2) is forbidden.
const PARANOIA: &str = "/proc/sys/kernel/perf_event_paranoid";
/// What the kernel keeps from everybody, root included.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Why not.
#[derive(Debug, Error)]
pub enum Unable {
    /// A capability is missing.
    #[error("{} missing", list(.0))]
    Capability(Vec<Capability>),
    /// The kernel does not describe its types, or not those of conntrack.
    #[error("{0}")]
    Btf(#[from] BtfError),
    /// The kernel's structures are others than those that are known.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// The kernel has no kprobes.
    #[error("no kprobes: the kernel has no {KPROBE_PMU} (CONFIG_KPROBE_EVENTS)")]
    NoKprobes,
    /// A program or map is refused, or a function is missing.
    #[error("{cause}{}", barrier.words())]
    Probe {
        /// Why.
        cause: ProbeError,
        /// What stands behind a refusal.
        barrier: Barrier,
    },
    /// A map cannot be used.
    #[error("a map of the programs cannot be used: {0}")]
    Map(#[from] aya::maps::MapError),
    /// Netlink, which tables are dumped and events are switched on by, fails.
    #[error("{what}: {cause}")]
    Netlink {
        /// What was tried.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
    /// A namespace cannot be opened.
    #[error("{0}")]
    Netns(String),
}

/// What stands behind a refusal for want of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// Nothing that is known.
    Unknown,
    /// Reading the kernel's memory is forbidden to everybody.
    Lockdown,
    /// Debian and others forbid perf_event_open(2), which kprobes are attached
    /// by, to all without CAP_SYS_ADMIN if `perf_event_paranoid` is above 2.
    Paranoia,
    /// The BTF of modules, which fentry needs, is for CAP_SYS_ADMIN
    /// (`bpf_btf_get_fd_by_id`, kernel/bpf/syscall.c, 6.12).
    ModuleBtf,
}

impl Barrier {
    fn of(errno: Option<i32>) -> Self {
        let admin = has(Capability::CAP_SYS_ADMIN);
        // The verifier has another error for it than the kernel elsewhere.
        if confidential() {
            return Self::Lockdown;
        }
        match errno {
            Some(libc::EPERM) if !admin => Self::ModuleBtf,
            Some(libc::EACCES) if !admin && paranoia() > 2 => Self::Paranoia,
            _ => Self::Unknown,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Unknown => "",
            Self::Lockdown => "; the kernel is locked down",
            Self::Paranoia => "; kernel.perf_event_paranoid is above 2",
            Self::ModuleBtf => "; the BTF of modules needs CAP_SYS_ADMIN",
        }
    }
}

impl From<ProbeError> for Unable {
    fn from(cause: ProbeError) -> Self {
        let barrier = match &cause {
            ProbeError::Maps { .. } => Barrier::of(None),
            other => Barrier::of(other.errno()),
        };
        Self::Probe { cause, barrier }
    }
}

impl Unable {
    /// The same may succeed a little later: the kernel was short of memory, or busy, or
    /// conntrack's module is not loaded yet.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Netlink { cause, .. } | Self::Btf(BtfError::Read { cause, .. }) => {
                is_transient(cause)
            }
            Self::Btf(BtfError::NotLoaded) => true,
            Self::Probe { cause, .. } => cause.is_transient(),
            Self::Map(error) => os_error(error).is_some_and(is_transient_errno),
            Self::Capability(_)
            | Self::Btf(_)
            | Self::Layout(_)
            | Self::NoKprobes
            | Self::Netns(_) => false,
        }
    }

    /// What to do about it where netlink will not do.
    pub fn remedy_without_netlink(&self) -> &'static str {
        let remedy = self.remedy();
        let shorter = [", or use capture=netlink", ", or capture=netlink"]
            .into_iter()
            .find_map(|netlink| remedy.strip_suffix(netlink));
        match self {
            Self::Layout(_) => "see `flowlog layout`",
            _ => shorter.unwrap_or(remedy),
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Capability(_) => {
                "run flowlog as root, or give it CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"
            }
            Self::Btf(BtfError::NotLoaded) => "load nf_conntrack, or use capture=netlink",
            Self::Btf(_) => {
                "use a kernel with CONFIG_DEBUG_INFO_BTF and CONFIG_DEBUG_INFO_BTF_MODULES (Linux \
                 ≥ 5.11), or capture=netlink"
            }
            Self::Layout(_) => "use capture=netlink",
            Self::NoKprobes => "use a kernel with CONFIG_KPROBES, or capture=netlink",
            Self::Probe { barrier: Barrier::Lockdown, .. } => {
                "boot without lockdown=confidentiality, or use capture=netlink"
            }
            Self::Probe { barrier: Barrier::Paranoia, .. } => {
                "run `sysctl kernel.perf_event_paranoid=2`, or give flowlog CAP_SYS_ADMIN"
            }
            Self::Probe { barrier: Barrier::ModuleBtf, .. } => {
                "give flowlog CAP_SYS_ADMIN, or set attach=kprobe"
            }
            Self::Probe { .. } | Self::Map(_) => "see `flowlog check`, or use capture=netlink",
            Self::Netlink { .. } => "it needs CAP_NET_ADMIN and the module nf_conntrack_netlink",
            Self::Netns(_) => "name a namespace that exists with netns=",
        }
    }
}

fn list(missing: &[Capability]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// `kernel.perf_event_paranoid`; 0 where it is not told.
fn paranoia() -> i32 {
    let value = std::fs::read_to_string(PARANOIA).unwrap_or_default();
    value.trim().parse().unwrap_or(0)
}

/// The capabilities that are missing for programs of this kind. CAP_SYS_ADMIN
/// stands for the other two (kernel/capability.c, include/linux/capability.h,
/// 6.12: `bpf_capable`, `perfmon_capable`).
fn missing_capabilities() -> Vec<Capability> {
    let wanted = [
        (Capability::CAP_BPF, has(Capability::CAP_SYS_ADMIN)),
        (Capability::CAP_PERFMON, has(Capability::CAP_SYS_ADMIN)),
        (Capability::CAP_NET_ADMIN, false),
    ];
    let missing = wanted.into_iter().filter(|(capability, instead)| !instead && !has(*capability));
    missing.map(|(capability, _)| capability).collect()
}

/// What can be told before anything is tried. What the kernel forbids beyond
/// that is found by trying.
pub(super) fn preconditions(method: Method) -> Result<(), Unable> {
    let missing = missing_capabilities();
    if !missing.is_empty() {
        return Err(Unable::Capability(missing));
    }
    if method == Method::Kprobe && !Path::new(KPROBE_PMU).exists() {
        return Err(Unable::NoKprobes);
    }
    Ok(())
}

/// Lockdown forbids reading the kernel's memory.
fn confidential() -> bool {
    let state = std::fs::read_to_string(LOCKDOWN).unwrap_or_default();
    state.contains("[confidentiality]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lacks_for_a_moment_passes() {
        let refused = |errno| ProbeError::Refused {
            method: "fentry",
            function: "f",
            cause: String::new(),
            errno: Some(errno),
        };
        let no_way =
            |errno| ProbeError::NoWay { tells: "ends", tried: String::new(), errno: Some(errno) };
        let maps = |errno| ProbeError::Maps { cause: String::new(), errno: Some(errno) };
        for errno in [libc::ENOMEM, libc::EAGAIN, libc::EBUSY, libc::EINTR] {
            let cause = io::Error::from_raw_os_error(errno);
            assert!(Unable::Netlink { what: "w", cause }.is_transient(), "{errno}");
            for cause in [refused(errno), no_way(errno), maps(errno)] {
                assert!(Unable::from(cause).is_transient(), "{errno}");
            }
        }
        assert!(Unable::Btf(BtfError::NotLoaded).is_transient());
        for errno in [libc::EPERM, libc::EINVAL, libc::E2BIG] {
            assert!(!Unable::from(refused(errno)).is_transient(), "{errno}");
        }
        assert!(!Unable::NoKprobes.is_transient());
        assert!(!Unable::Capability(vec![Capability::CAP_BPF]).is_transient());
    }

    #[test]
    fn netlink_is_no_remedy_where_it_will_not_do() {
        let refused = || ProbeError::Object("it is refused".to_owned());
        let field = "nf_conn.status";
        for unable in [
            Unable::NoKprobes,
            Unable::Btf(BtfError::NotLoaded),
            Unable::Layout(LayoutError::Missing { field }),
            Unable::Probe { cause: refused(), barrier: Barrier::Unknown },
            Unable::Probe { cause: refused(), barrier: Barrier::Lockdown },
            Unable::Probe { cause: refused(), barrier: Barrier::ModuleBtf },
            Unable::Capability(vec![Capability::CAP_BPF]),
        ] {
            let remedy = unable.remedy_without_netlink();
            assert!(!remedy.is_empty() && !remedy.contains("netlink"), "{unable}: {remedy}");
        }
    }
}
