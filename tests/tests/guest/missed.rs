//! Kprobes that the kernel misses, because another kprobe's handler is at work on the processor,
//! are counted where the kernel counts them, and else the daemon says that they are not. On
//! PREEMPT_RT the same disturbance makes it miss none.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::getppid;
use tests::burst::destination;
use tests::lab::Lab;
use tests::lines::{lost, tagged};
use tests::poll;

use super::crosscheck::mass_lab;
use super::kernel::{SlowProbes, counts_missed_kprobes, may_miss_kprobes, receive_on, stay_on};
use super::{by_ebpf, ensure_total, lines_of, lines_so_far, start, total};

/// The first kprobe to be missed is that of a packet in a softirq which interrupts the handler of
/// a probe on this function.
const BUSY: &str = "__x64_sys_getppid";
/// Probes on it: while it is called again and again, the processor is in their handlers for most
/// of the time.
const PROBES: usize = 64;
/// Where it is called, and where the packets are received.
const PROCESSOR: usize = 1;
const FLOWS: u32 = 3_000;
const UNCOUNTED: &str = "this kernel does not count the kprobes that it misses";

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn what_a_kprobe_misses_is_counted() -> Result<()> {
    by_ebpf(|| {
        let lab = mass_lab()?;
        lab.set_flow_timeout(600)?;
        receive_on(lab.router(), "client", 1 << PROCESSOR)?;
        let common = "capture=ebpf\nnetns=self\nhash_enable=0\nevent_mask=5";
        let daemon = start(lab.router(), common, &["attach=kprobe", "attach=fentry"], "")?;
        let counted = counts_missed_kprobes()?;
        let said = daemon.log().matches(UNCOUNTED).count();
        ensure!(said == usize::from(!counted), "said {said} times\n{}", daemon.log());
        let made = disturbed_burst(&lab)?;
        lab.router().flush_conntrack()?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
        let fentry = lines_of(&finished, 2)?;
        for tag in ["NEW", "DESTROY"] {
            let told = tagged(&fentry, tag).len() as u64;
            ensure!(told == made, "fentry told {told} [{tag}] of {made}\n{}", finished.log);
        }
        let kprobe = lines_of(&finished, 1)?;
        let told = (tagged(&kprobe, "NEW").len() + tagged(&kprobe, "DESTROY").len()) as u64;
        let missing = 2 * made - told;
        let as_expected = (missing > 0) == may_miss_kprobes()?;
        ensure!(
            as_expected,
            "{missing} were missed; on PREEMPT_RT none may be, elsewhere some must be"
        );
        let expected = if counted { missing } else { 0 };
        ensure!(lost(&kprobe) == expected, "[LOST] tells of {}, not {expected}", lost(&kprobe));
        ensure_total(&finished, "ebpf.missed", expected)?;
        ensure!(total(&finished, "ebpf.lost_new")? == 0, "the ring was full\n{}", finished.log);
        Ok(())
    })
}

/// A source whose filter refuses each of the flows reads no record at all: what its probes miss
/// is reported on the timer, while it runs.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn misses_are_reported_where_no_record_follows() -> Result<()> {
    by_ebpf(|| {
        if !counts_missed_kprobes()? || !may_miss_kprobes()? {
            return Ok(());
        }
        let lab = mass_lab()?;
        lab.set_flow_timeout(600)?;
        receive_on(lab.router(), "client", 1 << PROCESSOR)?;
        let common =
            "capture=ebpf\nnetns=self\nhash_enable=0\nevent_mask=5\naccept_proto_filter=tcp";
        let daemon = start(lab.router(), common, &["attach=kprobe"], "")?;
        disturbed_burst(&lab)?;
        let missed = poll::until("[LOST]", || {
            Ok(Some(lost(&lines_so_far(&daemon, 1)?)).filter(|lost| *lost > 0))
        })?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
        let lines = lines_of(&finished, 1)?;
        ensure!(lines.iter().all(|line| line.tag() == "LOST"), "a record: {lines:?}");
        ensure!(lost(&lines) >= missed, "{} lost in the end, {missed} before", lost(&lines));
        ensure_total(&finished, "ebpf.missed", lost(&lines))
    })
}

/// New flows, received while their processor is busy with handlers of kprobes. Returns how many
/// there are.
fn disturbed_burst(lab: &Lab) -> Result<u64> {
    let _slow = SlowProbes::new(BUSY, PROBES)?;
    let done = AtomicBool::new(false);
    let busy = || {
        stay_on(PROCESSOR)?;
        while !done.load(Ordering::Relaxed) {
            getppid();
        }
        Ok(())
    };
    thread::scope(|scope| {
        let busy = scope.spawn(busy);
        let sent = send(lab);
        done.store(true, Ordering::Relaxed);
        busy.join().map_err(|_panic| anyhow!("a thread panicked, see above"))?.and(sent)
    })
}

/// From the other processor, as fast as the first one receives: what finds no room in its queue
/// would never be seen.
fn send(lab: &Lab) -> Result<u64> {
    const BATCH: u32 = 100;
    let count = || lab.router().conntrack_count();
    let before = count()?;
    lab.client().enter(|| {
        stay_on(0)?;
        let socket = UdpSocket::bind("10.77.1.2:4000")?;
        for batch in 0..FLOWS / BATCH {
            for number in 0..BATCH {
                socket.send_to(b"x", destination(batch * BATCH + number))?;
            }
            let expected = before + u64::from((batch + 1) * BATCH);
            poll::until("the flows", || Ok((count()? >= expected).then_some(())))
                .with_context(|| format!("{} of {expected}", count().unwrap_or(0)))?;
        }
        Ok(())
    })?;
    Ok(count()? - before)
}
