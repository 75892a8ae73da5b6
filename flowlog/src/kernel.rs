//! Facts about this host, each from one place in the kernel, and what follows
//! from them for a configuration. All of them are those of the calling thread's
//! network namespace: `/proc/sys/net` shows the namespace of whoever reads it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socket, sockopt};

pub use self::activity::{Activity, conntrack_active};
pub use self::findings::{Finding, State, findings};

mod activity;
mod findings;

/// The conntrack sysctls that flowlog wants to be 1.
pub(crate) const WANTED: [&str; 3] =
    ["nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events"];

/// A receive buffer that any kernel grants, bytes.
const RCVBUF: usize = 65_536;

/// The kernel's release, such as `6.18.44`; absent without /proc.
pub fn release() -> Option<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim_end().to_owned())
}

/// Whether the kernel describes its types (BTF), as eBPF capture needs it.
pub fn has_btf() -> bool {
    Path::new("/sys/kernel/btf/vmlinux").exists()
}

/// Whether this thread has `CAP_NET_ADMIN` in effect.
pub fn has_net_admin() -> bool {
    caps::has_cap(None, CapSet::Effective, Capability::CAP_NET_ADMIN).unwrap_or(false)
}

/// The sysctl `net.netfilter.NAME`; absent when this kernel has none, or its
/// module is not loaded.
pub fn sysctl(name: &str) -> Option<u64> {
    number(&sysctl_file(name))
}

/// Sets the sysctl `net.netfilter.NAME`.
///
/// # Errors
/// The kernel has none of that name, or refuses the value or the caller.
pub fn set_sysctl(name: &str, value: u64) -> io::Result<()> {
    fs::write(sysctl_file(name), value.to_string())
}

/// Whether [`set_sysctl`] would be allowed: `/proc/sys` may be read-only, as in
/// most containers. Nothing is written.
///
/// # Errors
/// Why not.
pub fn may_set_sysctl(name: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(sysctl_file(name)).map(drop)
}

/// Whether a receive buffer may be larger than `rmem_max`: `SO_RCVBUFFORCE` takes
/// `CAP_NET_ADMIN` in the initial user namespace (`sockopt_capable`,
/// net/core/sock.c, 6.18). Tried with a socket that nobody uses.
pub fn may_exceed_rmem_max() -> bool {
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None);
    socket.is_ok_and(|socket| setsockopt(&socket, sockopt::RcvBufForce, &RCVBUF).is_ok())
}

/// Sets accounting, timestamps and events to 1, and tells what came of each.
pub fn set_sysctls() -> Vec<(&'static str, io::Result<()>)> {
    WANTED.map(|name| (name, set_sysctl(name, 1))).into()
}

/// Memory of this host, bytes; absent without /proc.
pub fn memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Entries in the table of tracked connections; absent without conntrack.
pub fn conntrack_count() -> Option<u64> {
    sysctl("nf_conntrack_count")
}

/// Entries that the table takes at most; absent without conntrack.
pub fn conntrack_max() -> Option<u64> {
    sysctl("nf_conntrack_max")
}

/// The fill of a network namespace's conntrack table. The files belong to the
/// namespace in which they are opened, and need no rights when they are read.
#[derive(Debug, Default)]
pub struct TableFill {
    count: Option<File>,
    max: Option<File>,
}

impl TableFill {
    /// That of the current namespace.
    pub fn open() -> Self {
        let open = |name| File::open(sysctl_file(name)).ok();
        Self { count: open("nf_conntrack_count"), max: open("nf_conntrack_max") }
    }

    /// A table whose number of entries stands in `count`, for tests.
    #[cfg(all(test, feature = "ebpf"))]
    pub(crate) fn with_count(count: File) -> Self {
        Self { count: Some(count), max: None }
    }

    /// Entries in the table; absent without conntrack.
    pub fn count(&self) -> Option<u64> {
        self.count.as_ref().and_then(number_again)
    }

    /// Entries that it takes at most; absent without conntrack.
    pub fn max(&self) -> Option<u64> {
        self.max.as_ref().and_then(number_again)
    }
}

/// The number that an open file has now.
fn number_again(file: &File) -> Option<u64> {
    let mut digits = [0; 32];
    let length = file.read_at(&mut digits, 0).ok()?;
    std::str::from_utf8(&digits[..length]).ok()?.trim().parse().ok()
}

/// The largest receive buffer that a process without `CAP_NET_ADMIN` gets,
/// bytes; absent where the namespace does not tell.
pub fn rmem_max() -> Option<u64> {
    number(Path::new("/proc/sys/net/core/rmem_max"))
}

fn sysctl_file(name: &str) -> PathBuf {
    Path::new("/proc/sys/net/netfilter").join(name)
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_absent() {
        assert_eq!(sysctl("nf_conntrack_nonsense"), None);
        let error = set_sysctl("nf_conntrack_nonsense", 1).unwrap_err();
        assert!(matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied));
    }

    #[test]
    fn the_release_is_one_word() {
        let release = release().unwrap();
        assert!(!release.is_empty() && !release.contains(char::is_whitespace), "{release:?}");
    }
}
