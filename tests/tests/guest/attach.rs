//! Both ways of attaching, and that nothing stays in the kernel when the daemon has gone, however
//! it ends.

use std::collections::BTreeSet;

use anyhow::{Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::{Daemon, config};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, uncounted};
use tests::poll;

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
