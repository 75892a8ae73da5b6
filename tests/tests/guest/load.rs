//! Many flows at full speed: none is lost with the default ring, and with a small one what is lost
//! is counted to the last.

use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tests::burst::{burst_lines, udp_burst};
use tests::lab::SingleNs;
use tests::lines::{Line, ensure_equal, lost, tagged, uncounted};
use tests::poll;

use super::kernel::Sysctl;
use super::log::Log;
use super::{by_ebpf, ensure_total, lines_of, lines_so_far, start, stop, total};

/// At once in the table. Each takes some 500 bytes of the guest's memory there, and two lines of
/// the log, which is in its memory too, as much again.
const FLOWS: u32 = 200_000;
/// The kernel ends a whole namespace's flows faster than anybody can write their lines. So many
/// fit into the default ring, even if the daemon stands still meanwhile.
const AT_ONCE: u32 = 50_000;
/// For what a ring of [`SMALL`] bytes has no room by far.
const TOO_MANY: u32 = 5_000;
const SMALL: u32 = 65_536;

const COMMON: &str = "capture=ebpf\nhash_enable=0\nevent_mask=5";

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn none_is_lost_at_full_speed() -> Result<()> {
    by_ebpf(|| {
        let _max = Sysctl::set("net/netfilter/nf_conntrack_max", 2 * FLOWS)?;
        let namespaces = (0..FLOWS / AT_ONCE).map(|_| SingleNs::new());
        let namespaces = namespaces.collect::<Result<Vec<_>>>()?;
        let daemon = start(namespaces[0].namespace(), COMMON, &[""], "")?;
        let mut log = Log::open(&daemon, 1)?;
        for single in &namespaces {
            udp_burst(single, 4000, 0, AT_ONCE)?;
        }
        log.wait(FLOWS, 0)?;
        for (ended, single) in (1..).zip(&namespaces) {
            single.namespace().flush_conntrack()?;
            log.wait(FLOWS, ended * AT_ONCE)?;
        }
        let finished = stop(daemon)?;
        log.read()?;
        let Log { new, destroy, others, .. } = log;
        let told = format!("{new} [NEW], {destroy} [DESTROY], {others} other lines");
        ensure!([new, destroy, others] == [FLOWS, FLOWS, 0], "{told}");
        ensure_total(&finished, "ebpf.records", 2 * u64::from(FLOWS))
    })
}

/// Losses while the daemon stands still, one soon after the other, are told although nothing
/// happens any more; the last ones come while it reads.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn losses_are_exact() -> Result<()> {
    const ROUNDS: u32 = 3;
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let keys = [format!("netns=self\nring_buffer_size={SMALL}")];
        let daemon = start(single.namespace(), COMMON, &keys, "")?;
        for round in 0..ROUNDS {
            daemon.process.freeze()?;
            udp_burst(&single, 4000, round * TOO_MANY, TOO_MANY)?;
            daemon.process.thaw()?;
            sleep(Duration::from_millis(100));
        }
        let made = u64::from(ROUNDS * TOO_MANY);
        let told = |lines: &[Line]| tagged(lines, "NEW").len() as u64 + lost(lines) == made;
        poll::until("logged + lost = made", || Ok(told(&lines_so_far(&daemon, 1)?).then_some(())))
            .with_context(|| daemon.log())?;
        single.namespace().flush_conntrack()?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
        let lines = lines_of(&finished, 1)?;
        let mut all_lost = 0;
        for (tag, counter) in [("NEW", "ebpf.lost_new"), ("DESTROY", "ebpf.lost_destroy")] {
            let (logged, lost) = (tagged(&lines, tag).len() as u64, total(&finished, counter)?);
            ensure!(logged + lost == made, "[{tag}]: {logged} logged + {lost} lost, not {made}");
            all_lost += lost;
        }
        ensure!(total(&finished, "ebpf.lost_new")? > 0, "nothing was lost, so nothing was tested");
        ensure!(lost(&lines) == all_lost, "[LOST] tells of {}, not {all_lost}", lost(&lines));
        let told = tagged(&lines, "LOST");
        ensure!(told.iter().all(|line| line.has("SOURCE=ebpf ")), "{told:?}");
        ensure_total(&finished, "ebpf.missed", 0)
    })
}

/// Two processors make flows and end them at the same time, and both ways of attaching see all.
/// That all fits into the ring, so that only what the programs get wrong could be missing.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn two_processors_at_once() -> Result<()> {
    const EACH: u32 = 20_000;
    by_ebpf(|| {
        let both = [SingleNs::new()?, SingleNs::new()?];
        let keys = ["attach=kprobe", "attach=fentry"];
        let daemon = start(both[0].namespace(), COMMON, &keys, "")?;
        let work = |single: &SingleNs| {
            udp_burst(single, 4000, 0, EACH)?;
            single.namespace().flush_conntrack()
        };
        thread::scope(|scope| {
            let other = scope.spawn(|| work(&both[1]));
            let one = work(&both[0]);
            other.join().map_err(|_panic| anyhow!("a thread panicked, see above"))?.and(one)
        })?;
        let (kprobe, fentry) = (Log::open(&daemon, 1)?, Log::open(&daemon, 2)?);
        let finished = stop(daemon)?;
        for (name, mut log) in [("kprobe", kprobe), ("fentry", fentry)] {
            log.read()?;
            let found = [log.new, log.destroy, log.others];
            ensure!(found == [2 * EACH, 2 * EACH, 0], "{name}: {found:?}");
        }
        ensure_total(&finished, "ebpf.records", u64::from(2 * 4 * EACH))
    })
}

/// With a table each flow has its line in the end, although the events of ends were lost.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_dump_finds_what_was_lost() -> Result<()> {
    const BATCH: u32 = 200;
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let keys = format!(
            "capture=ebpf\nnetns=self\nhash_enable=1\nevent_mask=5\nnetlink_resync_timeout=1\n\
             ring_buffer_size={SMALL}"
        );
        let daemon = start(single.namespace(), &keys, &[""], "")?;
        for batch in 0..TOO_MANY / BATCH {
            udp_burst(&single, 4000, batch * BATCH, BATCH)?;
            // The ring has room for one batch: all beginnings are known.
            sleep(Duration::from_millis(100));
        }
        daemon.process.freeze()?;
        single.namespace().flush_conntrack()?;
        daemon.process.thaw()?;
        let ends = |lines: &[Line]| tagged(lines, "DESTROY").len() >= TOO_MANY as usize;
        poll::until("the ends of all flows", || Ok(ends(&lines_so_far(&daemon, 1)?).then_some(())))
            .with_context(|| daemon.log())?;
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
        let (vanished, lost) =
            (total(&finished, "flows.vanished")?, total(&finished, "ebpf.lost_destroy")?);
        ensure!(vanished == lost && lost > 0, "{lost} ends were lost, {vanished} found");
        ensure_total(&finished, "ebpf.lost_new", 0)?;
        let lines = lines_of(&finished, 1)?;
        let expected = burst_lines("DESTROY", 4000, 0..TOO_MANY);
        ensure_equal("one end each", &expected, &uncounted(tagged(&lines, "DESTROY")))
    })
}
