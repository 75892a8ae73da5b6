//! The command line of the service, run as systemd would run it: its user, its capabilities, its
//! words to the manager, and its log.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::debian::Debian;
use tests::lab::SingleNs;
use tests::lines::{self, Line, ensure_equal, uncounted};
use tests::notify::{self, Notify};
use tests::poll;
use tests::process::Guarded;

use super::unit::Unit;

/// As the configuration of the package has it.
pub(crate) const LOG: &str = "/var/log/flowlog/flowlog.log";
const FLOWS: u32 = 50;
/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, bits of capabilities(7).
pub(crate) const NEEDED: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// The service at work in a network of its own.
struct Service {
    process: Guarded,
    notify: Notify,
}

impl Service {
    /// Starts it, and waits until it is ready.
    fn start(debian: &Debian, single: &SingleNs) -> Result<Self> {
        let unit = Unit::read(debian)?;
        let (setpriv, line) = (unit.setpriv()?, unit.get("ExecStart")?);
        let notify = Notify::bind(&debian.path("/run/notify"))?;
        let mut command = debian.command_in(single.namespace(), "sh");
        command.args(["-ec", &format!("umask {}\nexec \"$@\"", unit.get("UMask")?), "sh"]);
        command.args(setpriv).args(line.split(' '));
        command.env(notify::VARIABLE, "/run/notify").env("WATCHDOG_USEC", "1000000");
        let mut process = Guarded::spawn(&mut command)?;
        poll::until("READY=1", || {
            let ended = process.ended()?;
            ensure!(ended.is_none(), "it ended with {ended:?}");
            Ok(notify.has("READY=1")?.then_some(()))
        })?;
        Ok(Self { process, notify })
    }
}

/// Waits until each of [`FLOWS`] flows from a port has its two lines in a file of the log.
pub(crate) fn wait_lines(debian: &Debian, file: &str, port: u16) -> Result<()> {
    let mut expected = burst_lines("NEW", port, 0..FLOWS);
    expected.extend(burst_lines("DESTROY", port, 0..FLOWS));
    let number: usize = expected.values().sum();
    let mut found = Vec::new();
    let waited = poll::until("all lines", || {
        let text = debian.text(file).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        // Where eBPF can be had it sees what other tests do as well.
        let ours = |line: &Line| line.has(&format!(" SPT={port} "));
        found = lines::parse(&text[..whole])?.into_iter().filter(ours).collect();
        Ok((found.len() >= number).then_some(()))
    });
    ensure_equal(file, &expected, &uncounted(&found)).and(waited)
}

/// Makes [`FLOWS`] flows, and ends them.
pub(crate) fn flows(single: &SingleNs, port: u16) -> Result<()> {
    udp_burst(single, port, 0, FLOWS)?;
    single.namespace().flush_conntrack()
}

#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn the_service_logs() -> Result<()> {
    let debian = Debian::with_package()?;
    let single = SingleNs::new()?;
    let mut service = Service::start(&debian, &single)?;
    let user = debian.run("id -u flowlog")?;
    let ids = service.process.status("Uid")?;
    ensure!(ids.split_whitespace().all(|id| id == user.trim()), "uids {ids}, not {user}");
    for set in ["CapEff", "CapPrm", "CapAmb", "CapBnd"] {
        let held = u64::from_str_radix(&service.process.status(set)?, 16)?;
        ensure!(held == NEEDED, "{set} is {held:#x}, not {NEEDED:#x}");
    }
    flows(&single, 4000)?;
    wait_lines(&debian, LOG, 4000)?;
    let owner = debian.run(&format!("stat -c '%U %G %a' {LOG}"))?;
    ensure!(owner.trim() == "flowlog adm 640", "the log is of {owner}");
    poll::until("the watchdog", || Ok(service.notify.has("WATCHDOG=1")?.then_some(())))?;
    service.process.signal(Signal::SIGTERM)?;
    let code = service.process.wait()?;
    ensure!(code == Some(0), "it ended with {code:?}");
    Ok(())
}

/// What `ExecStartPre=` asks before: a host that is not ready may become so, a wrong configuration
/// keeps the service from starting.
#[test]
#[cfg_attr(not(feature = "package"), ignore = "needs root and a package: cargo xtask test")]
fn a_wrong_configuration_is_refused_before_the_start() -> Result<()> {
    let debian = Debian::with_package()?;
    let unit = Unit::read(&debian)?;
    let line = unit.get("ExecStartPre")?;
    let single = SingleNs::untracked()?;
    let check = || -> Result<bool> {
        let mut command = debian.command_in(single.namespace(), "sh");
        command.args(["-c", &format!("{} {line}", unit.setpriv()?.join(" "))]);
        Ok(command.output().context("sh")?.status.success())
    };
    ensure!(check()?, "refused for what may heal");
    debian.run("sed -i s/^event_mask/evnt_mask/ /etc/flowlog.conf")?;
    ensure!(!check()?, "a wrong configuration was taken");
    Ok(())
}
