//! `capture=both`: eBPF and netlink compared, each event logged once. What one of them loses the
//! other tells; what both lose is counted. A mass of flows, of which every line is known, shows it
//! while buffers are too small and the daemon stands still.

use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Finished};
use tests::lab::{Lab, SingleNs};
use tests::lines::{Line, lost, tagged};
use tests::mass::tally::Tally;
use tests::mass::{Mass, mass, mass_of};
use tests::{poll, sources};

use super::kernel::Sysctl;
use super::log::Log;
use super::{by_ebpf, ensure_total, extra, launch, lines_of, lines_so_far, total};

/// Bytes of a ring that has room for some 80,000 events.
pub(super) const RING: u32 = 16 << 20;
/// Of one that has room for some 300.
pub(super) const SMALL_RING: u32 = 64 << 10;
/// Of a netlink buffer that has room for some 40,000 messages.
pub(super) const BUFFER: u32 = 64 << 20;
/// Of one that has room for hardly any.
pub(super) const SMALL_BUFFER: u32 = 4 << 10;

/// The keys of a source that compares.
pub(super) fn keys(ring: u32, buffer: u32, more: &str) -> String {
    format!(
        "capture=both\nnetns=self\nevent_mask=5\nring_buffer_size={ring}\n\
         netlink_socket_buffer_size={buffer}\nnetlink_socket_buffer_maxsize={buffer}\n{more}"
    )
}

/// The router of a lab with a daemon on these keys.
pub(super) fn daemon(lab: &Lab, keys: &str) -> Result<Daemon> {
    launch(lab.router(), &sources::config(&[keys], "extras=1"))?.start()
}

/// A lab that can make a mass of flows.
pub(super) fn mass_lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.add_mass_rules()?;
    Ok(lab)
}

/// Does `work` while the daemon stands still.
pub(super) fn frozen<T>(daemon: &Daemon, work: impl FnOnce() -> Result<T>) -> Result<T> {
    daemon.process.freeze()?;
    let done = work()?;
    daemon.process.thaw()?;
    Ok(done)
}

/// The end of a daemon that had no trouble.
pub(super) fn end(daemon: Daemon) -> Result<Finished> {
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    Ok(finished)
}

/// What the cross-check has counted under a name, of one kind or (`sum`) of all.
pub(super) fn check(finished: &Finished, name: &str, kind: &str) -> Result<u64> {
    if kind == "sum" {
        return total(finished, &format!("crosscheck.{name}"));
    }
    let start = format!("total crosscheck.{name}: ");
    let line = finished.log.lines().filter_map(|line| line.split_once(&start)).next_back();
    // SUM events (new A, update B, destroy C, expect D)
    let counts = line.and_then(|(_, counts)| counts.split_once('(')).map(|(_, counts)| counts);
    let mut counts = counts.into_iter().flat_map(|counts| counts.trim_end_matches(')').split(", "));
    let count = counts.find_map(|count| count.strip_prefix(kind)?.strip_prefix(' '));
    let count = count.with_context(|| format!("no {name} of {kind} in\n{}", finished.log))?;
    Ok(count.parse()?)
}

/// Nothing was told differently, and what one source alone told its counters explain.
pub(super) fn ensure_explained(finished: &Finished) -> Result<()> {
    for name in ["differing", "only_ebpf_unexplained", "only_netlink_unexplained"] {
        let found = check(finished, name, "sum")?;
        ensure!(found == 0, "{found} events {name}\n{}", finished.log);
    }
    Ok(())
}

/// The same, and each flow has its two lines and no others: nothing is told as lost.
pub(super) fn ensure_each_once(finished: &Finished, mass: &Mass) -> Result<()> {
    let tally = Tally::read(mass, &finished.path(&sources::file(1)))?;
    for tag in ["NEW", "DESTROY"] {
        tally.ensure_each_once(tag).with_context(|| format!("[{tag}]\n{}", finished.log))?;
    }
    tally.ensure_no_others()?;
    ensure_total(finished, "crosscheck.lost", 0)?;
    ensure_explained(finished)
}

/// How many lines with this tag say that they were healed.
fn healed(lines: &[Line], tag: &str) -> u64 {
    tagged(lines, tag).iter().filter(|line| extra(line, "HEALED") == Some("1")).count() as u64
}

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn nothing_is_lost_or_told_twice() -> Result<()> {
    const FLOWS: u32 = 20_000;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let daemon = daemon(&lab, &keys(RING, BUFFER, "hash_enable=0"))?;
        let mut log = Log::open(&daemon, 1)?;
        let mass = mass(&lab, FLOWS)?;
        log.wait(FLOWS, 0)?;
        lab.router().flush_conntrack()?;
        log.wait(FLOWS, FLOWS)?;
        let finished = end(daemon)?;
        ensure_each_once(&finished, &mass)?;
        for kind in ["new", "destroy"] {
            let matched = check(&finished, "matched", kind)?;
            ensure!(matched == mass.flows(), "{matched} matched of {kind}\n{}", finished.log);
        }
        Ok(())
    })
}

/// A line has the id by which `conntrack` knows the entry.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn lines_join_with_the_table() -> Result<()> {
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let keys = [keys(RING, BUFFER, "hash_enable=0")];
        let daemon = launch(single.namespace(), &sources::config(&keys, "extras=1"))?.start()?;
        udp_burst(&single, 4000, 0, 3)?;
        Log::open(&daemon, 1)?.wait(3, 0)?;
        let listed = single.namespace().run("conntrack -L -o id")?;
        let lines = lines_so_far(&daemon, 1)?;
        for line in tagged(&lines, "NEW") {
            let host = line.text.split(" DST=").nth(1).and_then(|rest| rest.split(' ').next());
            let host = format!(" dst={} ", host.context("no destination")?);
            let entry = listed.lines().find(|entry| entry.contains(&host));
            let entry = entry.with_context(|| format!("no{host}in\n{listed}"))?;
            let id = format!("id={}", extra(line, "ID").context("no id")?);
            ensure!(entry.split_whitespace().any(|word| word == id), "{line}\n{entry}");
        }
        end(daemon).map(drop)
    })
}

/// The ring overflows each time that the daemon stands still.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn netlink_heals_what_ebpf_lost() -> Result<()> {
    const FLOWS: u32 = 6_000;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let daemon = daemon(&lab, &keys(SMALL_RING, BUFFER, "hash_enable=0"))?;
        let mut log = Log::open(&daemon, 1)?;
        let mut mass = frozen(&daemon, || mass_of(&lab, 0..FLOWS / 2))?;
        log.wait(FLOWS / 2, 0)?;
        frozen(&daemon, || mass_of(&lab, FLOWS / 2..FLOWS))?;
        mass.numbers.end = FLOWS;
        log.wait(FLOWS, 0)?;
        frozen(&daemon, || lab.router().flush_conntrack())?;
        log.wait(FLOWS, FLOWS)?;
        let finished = end(daemon)?;
        ensure_each_once(&finished, &mass)?;
        let lines = lines_of(&finished, 1)?;
        for (tag, kind, loss) in
            [("NEW", "new", "ebpf.lost_new"), ("DESTROY", "destroy", "ebpf.lost_destroy")]
        {
            let lost = total(&finished, loss)?;
            ensure!(lost > 0, "{loss} is 0, so nothing was tested");
            let counted = check(&finished, "healed", kind)?;
            ensure!(counted == lost, "{lost} lost, {counted} healed\n{}", finished.log);
            let told = healed(&lines, tag);
            ensure!(told == lost, "{lost} lost, but {told} [{tag}] lines have HEALED=1");
        }
        Ok(())
    })
}

/// The buffer of netlink overflows while the daemon is at work, at full speed.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn ebpf_tells_what_netlink_lost() -> Result<()> {
    const FLOWS: u32 = 20_000;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let daemon = daemon(&lab, &keys(RING, SMALL_BUFFER, "hash_enable=0"))?;
        let mut log = Log::open(&daemon, 1)?;
        let mass = mass(&lab, FLOWS)?;
        log.wait(FLOWS, 0)?;
        lab.router().flush_conntrack()?;
        log.wait(FLOWS, FLOWS)?;
        let finished = end(daemon)?;
        ensure_each_once(&finished, &mass)?;
        let (only, lost) =
            (check(&finished, "only_ebpf", "sum")?, total(&finished, "netlink.lost")?);
        ensure!(only > 0, "netlink lost nothing, so nothing was tested");
        ensure!(only <= lost, "only eBPF told {only}, netlink lost {lost}\n{}", finished.log);
        ensure!(check(&finished, "healed", "sum")? == 0, "healed what was not lost");
        Ok(())
    })
}

/// Each event is logged, or counted as lost and told so.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn what_both_lost_is_counted() -> Result<()> {
    const FLOWS: u32 = 6_000;
    const EVENTS: u64 = 2 * FLOWS as u64;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let daemon = daemon(&lab, &keys(SMALL_RING, SMALL_BUFFER, "hash_enable=0"))?;
        let mut log = Log::open(&daemon, 1)?;
        let mass = frozen(&daemon, || mass(&lab, FLOWS))?;
        sleep(Duration::from_millis(100));
        frozen(&daemon, || lab.router().flush_conntrack())?;
        let sum = |log: &Log| u64::from(log.new) + u64::from(log.destroy) + log.lost;
        log.until(|log| sum(log) >= EVENTS).context("logged + lost = made")?;
        let finished = end(daemon)?;
        let tally = Tally::read(&mass, &finished.path(&sources::file(1)))?;
        for tag in ["NEW", "DESTROY"] {
            tally.ensure_none_twice(tag)?;
            ensure!(tally.sum(tag) > 0, "no [{tag}] at all");
        }
        let told =
            tally.others.iter().find(|line| line.tag() != "LOST" || !line.has("SOURCE=both "));
        ensure!(told.is_none(), "neither of the mass nor lost by both: {told:?}");
        let (logged, lost) = (tally.sum("NEW") + tally.sum("DESTROY"), lost(&tally.others));
        ensure!(logged + lost == EVENTS, "{logged} logged + {lost} lost, not {EVENTS}");
        ensure!(lost > 0, "nothing was lost, so nothing was tested");
        ensure_total(&finished, "crosscheck.lost", lost)?;
        ensure_explained(&finished)
    })
}

/// For longer than an event waits for the other source's word.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_standstill_is_no_loss() -> Result<()> {
    const FLOWS: u32 = 20_000;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let daemon = daemon(&lab, &keys(RING, BUFFER, "hash_enable=0"))?;
        let mut log = Log::open(&daemon, 1)?;
        let mass = thread::scope(|scope| {
            let load = scope.spawn(|| mass(&lab, FLOWS));
            sleep(Duration::from_millis(200));
            daemon.process.freeze()?;
            sleep(Duration::from_secs(3));
            daemon.process.thaw()?;
            load.join().map_err(|_panic| anyhow!("a thread panicked, see above"))?
        })?;
        log.wait(FLOWS, 0)?;
        lab.router().flush_conntrack()?;
        log.wait(FLOWS, FLOWS)?;
        let finished = end(daemon)?;
        ensure_each_once(&finished, &mass)?;
        for name in ["only_ebpf", "only_netlink", "unseen", "unchecked"] {
            let found = check(&finished, name, "sum")?;
            ensure!(found == 0, "{found} events {name}\n{}", finished.log);
        }
        Ok(())
    })
}

/// So many ends at once that no buffer of netlink has room for them.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_full_table_is_flushed() -> Result<()> {
    const FLOWS: u32 = 100_000;
    by_ebpf(|| {
        let _max = Sysctl::set("net/netfilter/nf_conntrack_max", 2 * FLOWS)?;
        let lab = mass_lab()?;
        // Those that no reset ends live until they are flushed.
        lab.set_flow_timeout(600)?;
        let daemon = daemon(&lab, &keys(2 * BUFFER, BUFFER, "hash_enable=0"))?;
        let mut log = Log::open(&daemon, 1)?;
        let mass = mass(&lab, FLOWS)?;
        log.wait(FLOWS, 0)?;
        let live = lab.router().conntrack_count()?;
        ensure!(live > u64::from(FLOWS) * 9 / 10, "only {live} of {FLOWS} flows live");
        lab.router().flush_conntrack()?;
        log.wait(FLOWS, FLOWS)?;
        ensure_each_once(&end(daemon)?, &mass)
    })
}

/// Events that are logged without waiting, as too many wait already, are not told again when the
/// other source tells them.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn without_room_to_wait() -> Result<()> {
    const FLOWS: u32 = 5_000;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let few = "hash_enable=0\ncrosscheck_max_pending=64";
        let daemon = daemon(&lab, &keys(RING, BUFFER, few))?;
        let mut log = Log::open(&daemon, 1)?;
        let mass = frozen(&daemon, || mass(&lab, FLOWS))?;
        log.wait(FLOWS, 0)?;
        frozen(&daemon, || lab.router().flush_conntrack())?;
        log.wait(FLOWS, FLOWS)?;
        let finished = end(daemon)?;
        ensure_each_once(&finished, &mass)?;
        let unchecked = check(&finished, "unchecked", "sum")?;
        ensure!(unchecked > 0, "all were checked, so nothing was tested\n{}", finished.log);
        Ok(())
    })
}

/// Netlink is listened to now and then, while flows come and go.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn audits_by_the_clock() -> Result<()> {
    const AUDITS: u32 = 3;
    const ROUND: u32 = 200;
    by_ebpf(|| {
        let lab = mass_lab()?;
        let keys = format!(
            "capture=ebpf\nnetns=self\nevent_mask=5\nhash_enable=0\ncrosscheck_every=4s\n\
             crosscheck_for=2s\ncrosscheck_window_ms=500\nnetlink_socket_buffer_size={BUFFER}\n\
             netlink_socket_buffer_maxsize={BUFFER}"
        );
        let daemon = daemon(&lab, &keys)?;
        let mut log = Log::open(&daemon, 1)?;
        let (mut audits, mut was_listening) = (0, false);
        let mut mass = mass(&lab, ROUND)?;
        // Until the last one has ended.
        poll::until("audits", || {
            mass_of(&lab, mass.numbers.end..mass.numbers.end + ROUND)?;
            mass.numbers.end += ROUND;
            let sockets = daemon.process.netlink_sockets(lab.router())?;
            let listening = sockets.iter().any(|socket| socket.groups != 0);
            audits += u32::from(listening && !was_listening);
            was_listening = listening;
            sleep(Duration::from_millis(100));
            Ok((audits >= AUDITS && !listening).then_some(()))
        })
        .with_context(|| format!("{audits} audits\n{}", daemon.log()))?;
        let made = mass.numbers.end;
        log.wait(made, 0)?;
        lab.router().flush_conntrack()?;
        log.wait(made, made)?;
        let finished = end(daemon)?;
        ensure_each_once(&finished, &mass)?;
        let matched = check(&finished, "matched", "new")?;
        let part = matched > 0 && matched < u64::from(made);
        ensure!(part, "{matched} of {made} beginnings were compared\n{}", finished.log);
        Ok(())
    })
}
