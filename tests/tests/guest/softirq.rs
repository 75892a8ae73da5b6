//! A full table, while tasks make, delete and flush flows and packets of others are received in
//! softirqs that interrupt them: what a softirq does within a task's own calls is told apart.

use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, ensure};
use tests::burst::destination;
use tests::lab::Lab;
use tests::lines::{Line, lost, multiset, tagged};
use tests::namespace::Namespace;

use super::crosscheck::mass_lab;
use super::kernel::{Sysctl, counts_missed_kprobes, receive_on, stay_on};
use super::{by_ebpf, ensure_total, extra, lines_of, start};

/// Entries that the table may hold.
const ROOM: u32 = 256;
/// As few buckets as there can be: the kernel looks for a victim in eight of them.
const BUCKETS: u32 = 512;
/// How long all of them are at it.
const TIME: Duration = Duration::from_secs(10);
/// What ends a flow here.
const CAUSES: [&str; 3] = ["early_drop", "deleted", "flushed"];

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn early_drops_within_softirqs_are_named() -> Result<()> {
    by_ebpf(|| {
        let lab = mass_lab()?;
        lab.set_flow_timeout(600)?;
        receive_on(lab.router(), "client", 0b11)?;
        let _buckets = Sysctl::set("net/netfilter/nf_conntrack_buckets", BUCKETS)?;
        let _max = Sysctl::set("net/netfilter/nf_conntrack_max", ROOM)?;
        let common = "capture=ebpf\nnetns=self\nhash_enable=0\nevent_mask=5";
        let daemon = start(lab.router(), common, &["attach=fentry", "attach=kprobe"], "extras=1")?;
        make_trouble(&lab)?;
        lab.router().flush_conntrack()?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
        let [fentry, kprobe] = [lines_of(&finished, 1)?, lines_of(&finished, 2)?];
        let begun = tagged(&fentry, "NEW").len();
        let ended = tagged(&fentry, "DESTROY").len();
        ensure!(begun == ended, "{begun} began, {ended} ended\n{}", finished.log);
        for (name, lines) in [("fentry", &fentry), ("kprobe", &kprobe)] {
            let ends = tagged(lines, "DESTROY");
            let causes = multiset(ends.iter().map(|line| cause(line).to_owned()));
            let only = causes.keys().all(|cause| CAUSES.contains(&cause.as_str()));
            ensure!(only && causes.len() == CAUSES.len(), "by {name}: {causes:?}");
            // Only a process that has asked for it is named.
            let named = |line: &&Line| extra(line, "PID").is_some();
            let wrong = ends.iter().find(|line| named(line) == (cause(line) == "early_drop"));
            ensure!(wrong.is_none(), "by {name}: {wrong:?}");
        }
        // A kprobe is missed where the packet interrupts the handler of another.
        let told = tagged(&kprobe, "NEW").len() + tagged(&kprobe, "DESTROY").len();
        let missing = (begun + ended - told) as u64;
        if counts_missed_kprobes()? {
            ensure!(lost(&kprobe) == missing, "{missing} missed, told {}", lost(&kprobe));
            ensure_total(&finished, "ebpf.missed", missing)?;
        }
        ensure_total(&finished, "ebpf.faults", 0)
    })
}

fn cause(line: &Line) -> &str {
    extra(line, "CAUSE").unwrap_or_default()
}

/// The client and the router itself make flows, and processes delete and flush them, until the time
/// is over.
fn make_trouble(lab: &Lab) -> Result<()> {
    let end = Instant::now() + TIME;
    let failed = AtomicBool::new(false);
    let goes_on = || Instant::now() < end && !failed.load(Ordering::Relaxed);
    let work = |result: Result<()>| {
        failed.fetch_or(result.is_err(), Ordering::Relaxed);
        result
    };
    thread::scope(|scope| {
        let threads = [
            scope.spawn(|| work(send(lab.client(), "10.77.1.2:4000", 0, &goes_on))),
            scope.spawn(|| work(send(lab.router(), "10.77.2.1:4001", 1, &goes_on))),
            scope.spawn(|| work(delete(lab.router(), &["-F"], &goes_on))),
            scope.spawn(|| work(delete(lab.router(), &["-D", "-p", "udp"], &goes_on))),
        ];
        for thread in threads {
            thread.join().map_err(|_panic| anyhow!("a thread panicked, see above"))??;
        }
        Ok(())
    })
}

/// New flows from one processor; some find no room.
fn send(
    from: &Namespace,
    address: &str,
    processor: usize,
    goes_on: &(dyn Fn() -> bool + Sync),
) -> Result<()> {
    from.enter(|| {
        stay_on(processor)?;
        let socket = UdpSocket::bind(address)?;
        for number in 0.. {
            if !goes_on() {
                break;
            }
            let _ = socket.send_to(b"x", destination(number));
        }
        Ok(())
    })
}

fn delete(router: &Namespace, args: &[&str], goes_on: &(dyn Fn() -> bool + Sync)) -> Result<()> {
    while goes_on() {
        let mut command: Command = router.command("conntrack");
        command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
        // It fails where another has deleted them all before.
        let status = command.status().map_err(Error::from);
        ensure!(status.context("conntrack")?.code().is_some(), "conntrack was killed");
    }
    Ok(())
}
