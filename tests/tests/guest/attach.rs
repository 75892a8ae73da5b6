//! Both ways of attaching, and that nothing stays in the kernel when the daemon has gone, however
//! it ends.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::{Daemon, config};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, uncounted};
use tests::{poll, sources};

use super::kernel::{hooked, programs};
use super::{by_ebpf, launch, stop};

const FLOWS: u32 = 20;

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_kprobes() -> Result<()> {
    by_ebpf(|| leaves_nothing("kprobe", Signal::SIGTERM))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_fentry() -> Result<()> {
    by_ebpf(|| leaves_nothing("fentry", Signal::SIGTERM))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_kprobes_until_killed() -> Result<()> {
    by_ebpf(|| leaves_nothing("kprobe", Signal::SIGKILL))
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn by_fentry_until_killed() -> Result<()> {
    by_ebpf(|| leaves_nothing("fentry", Signal::SIGKILL))
}

/// A program that this kernel's verifier refuses has another in its place, and nobody would notice:
/// each first choice is tried, and what stands in where functions are missing.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn no_program_is_refused_by_the_verifier() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        for hidden in ["", "__nf_conntrack_hash_insert,__nf_ct_delete_from_lists", "nf_ct_get_id"] {
            for attach in ["kprobe", "fentry"] {
                let keys = format!("capture=both\nattach={attach}\nhash_enable=0\nevent_mask=0xff");
                let config = sources::config(&[keys], "").replace("loglevel=3", "loglevel=1");
                let launch = launch(single.namespace(), &config)?;
                let daemon = launch.environment("FLOWLOG_HIDE_FUNCTIONS", hidden).start()?;
                daemon.wait_log(&format!("runs by eBPF ({attach}) and netlink: ct1"))?;
                let log = daemon.log();
                // What it says of each hook that it attaches.
                let said = log.contains("messages that netlink should deliver: ");
                ensure!(said, "no hooks in\n{log}");
                let refused = log.lines().find(|line| line.contains(" insns (limit "));
                ensure!(refused.is_none(), "{attach}, without {hidden:?}: {refused:?}");
                end(daemon, Signal::SIGTERM)?;
            }
        }
        Ok(())
    })
}

/// Every kind of event is wanted, so that every hook is attached.
fn leaves_nothing(attach: &str, signal: Signal) -> Result<()> {
    let single = SingleNs::new()?;
    let before = InKernel::look()?;
    let keys = format!("capture=ebpf\nattach={attach}\nhash_enable=0\nevent_mask=0xff\nnetns=self");
    let daemon = launch(single.namespace(), &config(&keys, "sync=0"))?.start()?;
    daemon.wait_log(&format!("runs by eBPF ({attach}): ct1"))?;
    let during = InKernel::look()?;
    let (programs, functions) = (during.beyond(&before).0, during.beyond(&before).1);
    ensure!(programs.len() > 5 && functions.len() > 5, "not at work: {programs:?} {functions:?}");
    udp_burst(&single, 4000, 0, FLOWS)?;
    daemon.wait_lines("the flows", |lines| lines.len() == FLOWS as usize)?;
    ensure_equal(attach, &burst_lines("NEW", 4000, 0..FLOWS), &uncounted(&daemon.lines()?))?;
    end(daemon, signal)?;
    // What has been detached is freed when no processor can be within it any more.
    poll::until("the kernel to free all", || {
        let (programs, functions) = InKernel::look()?.beyond(&before);
        Ok((programs.is_empty() && functions.is_empty()).then_some(()))
    })
    .map_err(|error| error.context(format!("left: {:?}", left(&before))))
}

fn left(before: &InKernel) -> Result<(Vec<String>, Vec<String>)> {
    Ok(InKernel::look()?.beyond(before))
}

fn end(mut daemon: Daemon, signal: Signal) -> Result<()> {
    match signal {
        Signal::SIGTERM => stop(daemon).map(drop),
        Signal::SIGKILL => {
            daemon.process.signal(signal)?;
            daemon.process.wait().map(drop)
        }
        other => bail!("{other} does not end it"),
    }
}

/// What is loaded and hooked.
#[derive(PartialEq, Eq)]
pub(super) struct InKernel {
    programs: BTreeSet<(u32, String)>,
    functions: BTreeSet<String>,
}

impl InKernel {
    pub(super) fn look() -> Result<Self> {
        Ok(Self { programs: programs().into_iter().collect(), functions: hooked()? })
    }

    /// What was not there before: names of programs, and functions.
    pub(super) fn beyond(&self, before: &Self) -> (Vec<String>, Vec<String>) {
        let programs = self.programs.difference(&before.programs).map(|(_, name)| name.clone());
        let functions = self.functions.difference(&before.functions).cloned();
        (programs.collect(), functions.collect())
    }
}
