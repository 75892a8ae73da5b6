//! The programs that the verbs run, and the Debian packages that have them: the one place where
//! something is installed by apt.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::privilege::is_root;
use crate::say::note;

/// A program and its Debian package.
pub(crate) type Program = (&'static str, &'static str);

/// What makes namespaces and the traffic in them.
pub(crate) const LAB: &[Program] = &[
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("nsenter", "util-linux"),
];
/// What tests and benchmarks need besides [`LAB`].
pub(crate) const TESTS: &[Program] = &[
    ("ulogd", "ulogd2"),
    (ULOGD_JSON, "ulogd2-json"),
    (ULOGD_SQLITE3, "ulogd2-sqlite3"),
    ("sqlite3", "sqlite3"),
    ("rsyslogd", "rsyslog"),
    ("kcat", "kcat"),
    ("nats-server", "nats-server"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("strace", "strace"),
    ("jq", "jq"),
    ("nfcapd", "nfdump"),
    ("nfacctd", "pmacct"),
    ("ipfixDump", "libfixbuf-tools"),
    ("openssl", "openssl"),
    ("virtualenv", "virtualenv"),
    ("initdb", "postgresql"),
    ("pgbouncer", "pgbouncer"),
    (ULOGD_PGSQL, "ulogd2-pgsql"),
    ("faketime", "faketime"),
    ("clickhouse-server", "clickhouse-server"),
    ("clickhouse-client", "clickhouse-client"),
];
/// No programs, but plugins of one, in the directory that ulogd2 has on each system.
const ULOGD_JSON: &str = "ulogd_output_JSON.so";
const ULOGD_SQLITE3: &str = "ulogd_output_SQLITE3.so";
const ULOGD_PGSQL: &str = "ulogd_output_PGSQL.so";
const PLUGINS: [&str; 5] = [
    "/usr/lib/x86_64-linux-gnu/ulogd",
    "/usr/lib/aarch64-linux-gnu/ulogd",
    "/usr/lib64/ulogd",
    "/usr/lib/ulogd",
    "/usr/local/lib/ulogd",
];
/// Programs of a PostgreSQL server, by its version.
const POSTGRESQL: [&str; 4] = [
    "/usr/lib/postgresql/15/bin",
    "/usr/lib/postgresql/16/bin",
    "/usr/lib/postgresql/17/bin",
    "/usr/lib/postgresql/18/bin",
];
/// What makes and runs a guest, and what it gets, besides [`LAB`].
pub(crate) const GUESTS: &[Program] = &[
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("dash", "dash"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("tar", "tar"),
    ("zstd", "zstd"),
    ("lz4", "lz4"),
    ("xz", "xz-utils"),
];

/// What compiles the C libraries that flowlog brings along.
pub(crate) const BUILD: &[Program] = &[("cc", "gcc"), ("make", "make")];
/// What compiles OpenSSL besides, for the feature `kafka-tls` only. Debian's `perl-base` has a perl
/// too, but not the modules.
pub(crate) const OPENSSL: &[Program] = &[("pod2man", "perl")];
/// What packs, besides cargo's own tools.
pub(crate) const DIST: &[Program] = &[
    ("dpkg-parsechangelog", "dpkg-dev"),
    ("dpkg-shlibdeps", "dpkg-dev"),
    ("gzip", "gzip"),
    ("musl-gcc", "musl-tools"),
    ("objdump", "binutils"),
    ("tar", "tar"),
];
/// What makes a Debian to install a package in, and judges the package.
pub(crate) const DEBIAN: &[Program] = &[
    ("debootstrap", "debootstrap"),
    ("lintian", "lintian"),
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
];

/// Where a program is. The PATH of a user often lacks the directories of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(system)
        .chain(PLUGINS.map(PathBuf::from))
        .chain(POSTGRESQL.map(PathBuf::from))
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Sees to it that every program of these lists is there: installs what is missing as root.
/// Returns whether all are; if not, the command that installs them has been said.
///
/// # Errors
/// The installation failed.
pub(crate) fn provide(lists: &[&[Program]]) -> Result<bool> {
    let all = lists.iter().copied().flatten();
    let missing: Vec<_> = all.filter(|(program, _)| find(program).is_none()).collect();
    if missing.is_empty() {
        return Ok(true);
    }
    let programs: Vec<_> = missing.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    note!("missing programs: {}", programs.join(", "));
    if find("apt-get").is_none() {
        note!("they are in Debian's packages {}; install their like here", packages.join(", "));
        return Ok(false);
    }
    if !is_root() {
        note!("run, and try again:\n  sudo {}", by_hand(&packages));
        return Ok(false);
    }
    install(&packages)?;
    for program in programs {
        ensure!(find(program).is_some(), "{program} is still missing after the installation");
    }
    Ok(true)
}

/// The command that installs packages.
pub(crate) fn by_hand(packages: &[&str]) -> String {
    format!("apt-get install --no-install-recommends {}", packages.join(" "))
}

/// Installs packages, as root, without starting their services: ulogd2's would log beside the
/// tests, rsyslog's beside the host's own, that of Prometheus would scrape this host, PostgreSQL's
/// would have a database that nobody asks.
///
/// # Errors
/// apt fails.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let services =
        ["ulogd2", "prometheus", "rsyslog", "postgresql", "pgbouncer", "clickhouse-server"];
    let _masked: Vec<_> =
        services.into_iter().filter(|name| packages.contains(name)).map(Masked::new).collect();
    apt(&["update"])?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(packages);
    apt(&words)
}

fn apt(words: &[&str]) -> Result<()> {
    note!("apt-get {}", words.join(" "));
    let mut command = Command::new("apt-get");
    // In runlevel 1, single user, init scripts of packages are not started.
    command.args(words).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    // Standard output may belong to a command in a guest.
    let status = command.arg("-q").stdout(std::io::stderr()).status();
    let status = status.context("cannot run apt-get")?;
    ensure!(status.success(), "apt-get {} failed", words.join(" "));
    Ok(())
}

/// Keeps systemd from starting a service while this lives; nothing where there is no systemd.
struct Masked(&'static str);

impl Masked {
    fn new(service: &'static str) -> Self {
        systemctl("mask", service);
        Self(service)
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        systemctl("unmask", self.0);
    }
}

fn systemctl(verb: &str, service: &str) {
    if Path::new("/run/systemd/system").exists() {
        let service = format!("{service}.service");
        // Not fatal: at worst the service runs, on a configuration that logs no connections.
        let _ = Command::new("systemctl").args([verb, "--runtime", &service]).status();
    }
}
