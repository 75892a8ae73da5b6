//! Reads of the netlink sockets that fail: a shim answers what a kernel that is short of memory
//! answers, or what a socket that is gone answers. Nothing of it ends the daemon.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::ensure_equal;
use tests::metrics::{ADDRESS, get};
use tests::namespace::Namespace;
use tests::poll;

use super::{burst_lines, uncounted};

/// Fails a number of calls by name and errno, as `SHIM=recvfrom:105:1,recvmmsg:9:1` says, once
/// the file `$SHIM_ARMED` is there. Only sockets of nfnetlink are touched, and only calls that
/// would return something.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct { char call[16]; int error; int left; } faults[8];
static int known = -1;

static int is_nfnetlink(int fd) {
    int saved = errno, domain = 0, protocol = 0;
    socklen_t length = sizeof domain;
    int is = getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_NETLINK;
    length = sizeof protocol;
    is = is && getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0
         && protocol == NETLINK_NETFILTER;
    errno = saved;
    return is;
}

static void read_faults(void) {
    const char *text = getenv("SHIM");
    known = 0;
    while (text && *text && known < 8) {
        if (sscanf(text, "%15[^:]:%d:%d", faults[known].call, &faults[known].error,
                   &faults[known].left) != 3) return;
        known++;
        text = strchr(text, ',');
        if (text) text++;
    }
}

static int fails(const char *call, int fd) {
    const char *armed = getenv("SHIM_ARMED");
    int saved = errno;
    int is_armed = !armed || access(armed, F_OK) == 0;
    errno = saved;
    if (!is_armed || !is_nfnetlink(fd)) return 0;
    if (known < 0) read_faults();
    for (int i = 0; i < known; i++) {
        if (strcmp(faults[i].call, call) == 0 && faults[i].left > 0) {
            faults[i].left--;
            errno = faults[i].error;
            return 1;
        }
    }
    return 0;
}

ssize_t recv(int fd, void *buffer, size_t length, int flags) {
    static ssize_t (*real)(int, void *, size_t, int);
    if (!real) real = dlsym(RTLD_NEXT, "recv");
    return fails("recv", fd) ? -1 : real(fd, buffer, length, flags);
}

ssize_t recvfrom(int fd, void *buffer, size_t length, int flags, struct sockaddr *from,
                 socklen_t *size) {
    static ssize_t (*real)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
    if (!real) real = dlsym(RTLD_NEXT, "recvfrom");
    return fails("recv", fd) ? -1 : real(fd, buffer, length, flags, from, size);
}

int bind(int fd, const struct sockaddr *address, socklen_t size) {
    static int (*real)(int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "bind");
    return fails("bind", fd) ? -1 : real(fd, address, size);
}

int recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags,
             struct timespec *timeout) {
    static int (*real)(int, struct mmsghdr *, unsigned int, int, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "recvmmsg");
    return fails("recvmmsg", fd) ? -1 : real(fd, messages, count, flags, timeout);
}

ssize_t send(int fd, const void *buffer, size_t length, int flags) {
    static ssize_t (*real)(int, const void *, size_t, int);
    if (!real) real = dlsym(RTLD_NEXT, "send");
    return fails("send", fd) ? -1 : real(fd, buffer, length, flags);
}

ssize_t sendto(int fd, const void *buffer, size_t length, int flags, const struct sockaddr *to,
               socklen_t size) {
    static ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
    if (!real) real = dlsym(RTLD_NEXT, "sendto");
    return fails("send", fd) ? -1 : real(fd, buffer, length, flags, to, size);
}
"#;

/// The shim, built.
struct Shim {
    dir: TempDir,
}

impl Shim {
    fn build() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let source = dir.path().join("shim.c");
        std::fs::write(&source, SHIM)?;
        let done = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(dir.path().join("shim.so"))
            .arg(&source)
            .output()
            .context("cc is missing: apt-get install gcc")?;
        ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Ok(Self { dir })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// flowlog with these faults: at once, or once [`Shim::arm`] is called.
    fn start(&self, single: &SingleNs, keys: &str, faults: &str, at_once: bool) -> Result<Daemon> {
        if at_once {
            self.arm()?;
        }
        let text = config(keys, "sync=1").replace("[global]", "[global]\nmetrics=127.0.0.1:9470");
        Launch::new(Program::Flowlog, single.namespace(), &text)?
            .environment("LD_PRELOAD", &self.path("shim.so").display().to_string())
            .environment("SHIM", faults)
            .environment("SHIM_ARMED", &self.path("armed").display().to_string())
            .start()
    }

    fn arm(&self) -> Result<()> {
        Ok(std::fs::write(self.path("armed"), "")?)
    }
}

const ENDS: &str = "event_mask=4\nhash_enable=1\nredump_interval=1";

/// Flows from before the start, without events for good: only dumps find their end.
fn old_flows(single: &SingleNs, flows: u32) -> Result<()> {
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_events", 0)])?;
    udp_burst(single, 4000, 0, flows)?;
    single.namespace().set_sysctls(&[("net/netfilter/nf_conntrack_events", 2)])
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn dumps_at_start_are_made_again() -> Result<()> {
    let shim = Shim::build()?;
    // ENOBUFS, EINTR, ENOMEM and EBUSY; then a socket that is none any more.
    for faults in ["recv:105:1", "recv:4:3", "recv:12:2", "send:16:2", "recv:105:40", "recv:9:1"] {
        let single = SingleNs::new()?;
        old_flows(&single, 50)?;
        std::fs::remove_file(shim.path("armed")).ok();
        let daemon = shim.start(&single, ENDS, faults, true)?;
        daemon.wait_log("50 flows existed at start").with_context(|| faults.to_owned())?;
        single.namespace().flush_conntrack()?;
        let lines = daemon.wait_lines("their ends", |lines| lines.len() >= 50)?;
        ensure_equal(faults, &burst_lines("DESTROY", 4000, 0..50), &uncounted(&lines))?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "{faults}: {:?}", finished.code);
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn dumps_and_queries_while_it_runs_are_made_again() -> Result<()> {
    let shim = Shim::build()?;
    for faults in ["recv:105:1", "recv:12:25", "recv:9:1", "send:105:2,recv:4:1"] {
        let single = SingleNs::new()?;
        old_flows(&single, 20)?;
        std::fs::remove_file(shim.path("armed")).ok();
        let daemon = shim.start(&single, ENDS, faults, false)?;
        daemon.wait_log("20 flows existed at start")?;
        single.namespace().run("conntrack -D -p udp --dst 198.19.0.3")?;
        shim.arm()?;
        let lines = daemon.wait_lines("the one end", |lines| !lines.is_empty())?;
        ensure!(lines.len() == 1, "{faults}: a failed query ended flows that live: {lines:?}");
        let log = daemon.log();
        ensure!(
            log.contains("it is read again") || log.contains("cannot be read"),
            "{faults}: {log}"
        );
        let (status, body) = get(single.namespace(), ADDRESS, "/healthz")?;
        ensure!(status == "HTTP/1.1 200 OK", "{faults}: {status} {body}");
        ensure!(daemon.stop()?.code == Some(0), "{faults}");
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_reset_of_counters_is_made_again() -> Result<()> {
    let shim = Shim::build()?;
    let single = SingleNs::new()?;
    udp_burst(&single, 4000, 0, 5)?;
    let daemon = shim.start(&single, "event_mask=4\nhash_enable=0", "recv:9:1", false)?;
    shim.arm()?;
    daemon.process.signal(Signal::SIGUSR2)?;
    daemon.wait_log("it is read again")?;
    poll::until("the counters to be 0", || {
        let table = single.namespace().run("conntrack -L")?;
        Ok((!table.is_empty() && !table.contains("packets=1 ")).then_some(()))
    })?;
    ensure!(daemon.stop()?.code == Some(0));
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_event_socket_that_fails_is_opened_anew_and_the_gap_is_a_loss() -> Result<()> {
    let shim = Shim::build()?;
    let single = SingleNs::new()?;
    let daemon = shim.start(&single, "event_mask=1\nhash_enable=0", "recvmmsg:9:1", false)?;
    udp_burst(&single, 4000, 0, 10)?;
    daemon.wait_lines("the first flows", |lines| lines.len() == 10)?;
    shim.arm()?;
    udp_burst(&single, 4000, 10, 1)?;
    daemon.wait_log("was opened anew")?;
    udp_burst(&single, 4000, 20, 10)?;
    let is_lost = |line: &tests::lines::Line| line.has("[LOST] EVENTS=1 SOURCE=netlink");
    let lines = daemon
        .wait_lines("the flows after it", |lines| lines.len() >= 21 && lines.iter().any(is_lost))?;
    let flows: Vec<_> = lines.iter().filter(|line| !is_lost(line)).cloned().collect();
    let mut expected = burst_lines("NEW", 4000, 0..10);
    expected.extend(burst_lines("NEW", 4000, 20..30));
    let mut seen = uncounted(&flows);
    // Whether the one on which the socket failed was read before is open.
    for line in burst_lines("NEW", 4000, 10..11).into_keys() {
        seen.remove(&line);
    }
    ensure_equal("all others", &expected, &seen)?;
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "{:?}", finished.code);
    ensure!(finished.log.contains("1 events lost by netlink"), "{}", finished.log);
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn events_that_cannot_be_read_for_a_while_are_read_later() -> Result<()> {
    let shim = Shim::build()?;
    let single = SingleNs::new()?;
    let faults = "recvmmsg:12:30,recvmmsg:4:40,recvmmsg:105:3";
    let daemon = shim.start(&single, "event_mask=1\nhash_enable=0", faults, true)?;
    udp_burst(&single, 4000, 0, 100)?;
    let lines = daemon.wait_lines("all flows", |lines| lines.len() >= 100)?;
    ensure_equal("all flows", &burst_lines("NEW", 4000, 0..100), &uncounted(&lines))?;
    ensure!(daemon.stop()?.code == Some(0));
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn sockets_that_cannot_be_opened_at_start_are_tried_for_ten_seconds() -> Result<()> {
    let shim = Shim::build()?;
    let single = SingleNs::new()?;
    let daemon = shim.start(&single, "event_mask=1\nhash_enable=0", "bind:12:5", true)?;
    udp_burst(&single, 4000, 0, 5)?;
    daemon.wait_lines("the flows", |lines| lines.len() == 5)?;
    ensure!(daemon.stop()?.code == Some(0));
    let text = config("event_mask=1\nhash_enable=0", "sync=1");
    let begin = Instant::now();
    let refused = Launch::new(Program::Flowlog, single.namespace(), &text)?
        .environment("LD_PRELOAD", &shim.path("shim.so").display().to_string())
        .environment("SHIM", "bind:12:1000000")
        .run()?;
    ensure!(refused.code == Some(1), "{:?}", refused.code);
    ensure!(begin.elapsed() >= Duration::from_secs(9), "{:?}", begin.elapsed());
    let said = refused.stderr + &refused.log;
    ensure!(said.contains("Cannot allocate memory") && said.contains("MemoryMax="), "{said}");
    Ok(())
}

/// What is asked once, and printed, is asked again too.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn list_and_activation_try_again() -> Result<()> {
    let shim = Shim::build()?;
    let single = SingleNs::new()?;
    udp_burst(&single, 4000, 0, 30)?;
    let list = |faults: &str| -> Result<String> {
        let mut command = single.namespace().command("env");
        command.arg(format!("LD_PRELOAD={}", shim.path("shim.so").display()));
        command.arg(format!("SHIM={faults}")).arg(Program::Flowlog.path()?).arg("list");
        let done = command.output()?;
        ensure!(done.status.success(), "{faults}: {}", String::from_utf8_lossy(&done.stderr));
        Ok(String::from_utf8_lossy(&done.stdout).into_owned())
    };
    for faults in ["recv:105:1", "recv:12:3", "recv:4:5", "send:105:1"] {
        let lines = list(faults)?.lines().filter(|line| line.contains("sport=4000")).count();
        ensure!(lines == 30, "{faults}: {lines}");
    }
    let untracked = SingleNs::untracked()?;
    let daemon =
        shim.start(&untracked, "event_mask=1\nhash_enable=0\nactivate=1", "recv:105:3", true)?;
    udp_burst(&untracked, 4000, 0, 5)?;
    daemon.wait_lines("the flows", |lines| lines.len() == 5)?;
    ensure!(daemon.stop()?.code == Some(0));
    Ok(())
}

/// Without the right to enter the namespace again no other socket can be opened there: dumps
/// that fail use up none, and however many fail, the next one is made.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn dumps_that_fail_in_a_named_namespace_use_up_no_sockets() -> Result<()> {
    let shim = Shim::build()?;
    let (home, single) = (Namespace::new("home")?, SingleNs::new()?);
    old_flows(&single, 20)?;
    let keys = format!("capture=netlink\nnetns={}\n{ENDS}", single.namespace().name());
    let text = config(&keys, "sync=1").replace("[global]", "[global]\nmetrics=127.0.0.1:9470");
    // Six dumps or queries that each fail by sixteen errors in a row.
    let daemon = Launch::new(Program::Flowlog, &home, &text)?
        .as_configured()
        .args(&["-u", "nobody"])
        .environment("LD_PRELOAD", &shim.path("shim.so").display().to_string())
        .environment("SHIM", "recv:105:96")
        .environment("SHIM_ARMED", &shim.path("armed").display().to_string())
        .start()?;
    daemon.wait_log("20 flows existed at start")?;
    daemon.wait_log("without CAP_SYS_ADMIN from now on")?;
    std::fs::set_permissions(shim.dir.path(), Permissions::from_mode(0o755))?;
    single.namespace().run("conntrack -D -p udp --dst 198.19.0.3")?;
    shim.arm()?;
    poll::until("/healthz to name them", || {
        let (_, body) = get(&home, ADDRESS, "/healthz")?;
        Ok(body.contains("the conntrack table cannot be read").then_some(()))
    })
    .with_context(|| daemon.log())?;
    let lines = daemon.wait_lines("the one end", |lines| !lines.is_empty())?;
    ensure!(lines.len() == 1, "a failed query ended flows that live: {lines:?}");
    poll::until("/healthz to be well", || {
        Ok((get(&home, ADDRESS, "/healthz")?.1 == "ok\n").then_some(()))
    })
    .with_context(|| daemon.log())?;
    ensure!(daemon.stop()?.code == Some(0));
    Ok(())
}
