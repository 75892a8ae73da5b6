//! What capture by eBPF needs of root, and what is left of root after `-u`.

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::{Daemon, Finished, config};
use tests::lab::SingleNs;
use tests::lines::{self, Line, ensure_equal, totals, uncounted};
use tests::poll;
use tests::process::Guarded;

use super::kernel::Sysctl;
use super::{by_ebpf, launch, stop};

const FLOWS: u32 = 50;
/// CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF, bits of capabilities(7).
const NEEDED: u64 = 1 << 12 | 1 << 38 | 1 << 39;
/// Another user with no capability but these, which it keeps over the execution of a program.
pub(crate) const AS_NOBODY: [&str; 7] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--inh-caps=-all,+bpf,+perfmon,+net_admin",
    "--ambient-caps=-all,+bpf,+perfmon,+net_admin",
    "--bounding-set=-all,+bpf,+perfmon,+net_admin",
];
/// Debian's kernels keep probes from everybody but root unless it is at most 2, the default of
/// others.
pub(crate) const PARANOIA: &str = "kernel/perf_event_paranoid";

fn configuration() -> String {
    config("capture=ebpf\nhash_enable=0\nevent_mask=5\nnetns=self", "sync=0")
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn three_capabilities_are_enough() -> Result<()> {
    by_ebpf(|| {
        let _paranoia = Sysctl::set(PARANOIA, 2)?;
        let single = SingleNs::new()?;
        let launch = launch(single.namespace(), &configuration())?.wrapped_by(&AS_NOBODY);
        let daemon = launch.start()?;
        ensure!(capabilities(&daemon, "CapPrm")? & !NEEDED == 0, "more than was given");
        let log = logs(daemon, &single)?.log;
        // That fentry could not be had is no loss where kprobes can.
        ensure!(!log.contains("will not be reported"), "warnings of what is told after all\n{log}");
        Ok(())
    })
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn another_user_keeps_what_is_needed() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let launch = launch(single.namespace(), &configuration())?;
        let daemon = launch.args(&["-u", "nobody"]).start()?;
        for set in ["CapEff", "CapPrm", "CapAmb", "CapInh"] {
            let held = capabilities(&daemon, set)?;
            ensure!(held & !NEEDED == 0, "{set} is {held:#x}, more than {NEEDED:#x}");
        }
        let ids = daemon.process.status("Uid")?;
        ensure!(ids.split_whitespace().all(|id| id == "65534"), "still {ids}");
        udp_burst(&single, 4001, 0, 1)?;
        daemon.wait_lines("a line", |lines| lines.len() == 1)?;
        daemon.process.signal(Signal::SIGUSR1)?;
        poll::until("totals", || {
            let totals = totals(&daemon.log());
            Ok((totals.get("ebpf.records") == Some(&1)).then_some(()))
        })?;
        let finished = logs(daemon, &single)?;
        let records = totals(&finished.log)["ebpf.records"];
        ensure!(records == u64::from(2 * FLOWS + 2), "{records} records at the end");
        Ok(())
    })
}

/// The line of Debian's unit for ulogd2: as the parent ends, the daemon is at work.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_ulogd_command_line_works() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let args = ["--daemon", "--uid", "nobody", "--pidfile", "@DIR@/pid"];
        let launch = launch(single.namespace(), &configuration())?.without_verb();
        let parent = launch.args(&args).run()?;
        ensure!(parent.code == Some(0), "the parent: {:?}\n{}", parent.code, parent.stderr);
        let mut daemon = Guarded::adopt(&parent.text("pid"))?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        let user = daemon.status("Uid")?;
        ensure!(user.starts_with("65534"), "uid {user}");
        single.namespace().flush_conntrack()?;
        daemon.signal(Signal::SIGTERM)?;
        daemon.wait()?;
        ensure_logged(&lines::parse(&parent.text("flows.log"))?)
    })
}

fn capabilities(daemon: &Daemon, set: &str) -> Result<u64> {
    Ok(u64::from_str_radix(&daemon.process.status(set)?, 16)?)
}

/// Flows have their two lines, whatever else there was; then it ends.
fn logs(daemon: Daemon, single: &SingleNs) -> Result<Finished> {
    udp_burst(single, 4000, 0, FLOWS)?;
    single.namespace().flush_conntrack()?;
    let finished = stop(daemon)?;
    ensure_logged(&finished.lines)?;
    Ok(finished)
}

fn ensure_logged(lines: &[Line]) -> Result<()> {
    let ours = lines.iter().filter(|line| line.has(" SPT=4000 "));
    let mut expected = burst_lines("NEW", 4000, 0..FLOWS);
    expected.extend(burst_lines("DESTROY", 4000, 0..FLOWS));
    ensure_equal("lines", &expected, &uncounted(ours))
}
