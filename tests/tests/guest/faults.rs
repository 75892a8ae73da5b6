//! `capture=both` where the kernel or somebody else does what seldom happens: ends that both
//! sources lose, a table that is full, a namespace that goes, a daemon that is killed.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset, tagged, uncounted};
use tests::mass::tally::Tally;
use tests::mass::{mass_beyond_room, mass_of};
use tests::{poll, sources};

use super::attach::InKernel;
use super::crosscheck::{
    BUFFER, RING, SMALL_BUFFER, SMALL_RING, check, daemon, end, ensure_explained, frozen, keys,
    mass_lab,
};
use super::kernel::Sysctl;
use super::log::Log;
use super::{bare, by_ebpf, ensure_total, extra, launch, lines_of, start, total};

/// With a table each flow has its line in the end, though nobody told the ends: the dump after the
/// loss finds them, and says so.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_dump_finds_what_both_lost() -> Result<()> {
    const FLOWS: u32 = 2_000;
    /// The small ring has room for it.
    const BATCH: u32 = 100;
    by_ebpf(|| {
        let lab = mass_lab()?;
        lab.set_flow_timeout(600)?;
        let more = "hash_enable=1\nnetlink_resync_timeout=1";
        let daemon = daemon(&lab, &keys(SMALL_RING, SMALL_BUFFER, more))?;
        let mut log = Log::open(&daemon, 1)?;
        let mut mass = mass_of(&lab, 0..0)?;
        while mass.numbers.end < FLOWS {
            mass_of(&lab, mass.numbers.end..mass.numbers.end + BATCH)?;
            mass.numbers.end += BATCH;
            sleep(Duration::from_millis(100));
        }
        frozen(&daemon, || lab.router().flush_conntrack())?;
        log.wait(0, FLOWS)?;
        let finished = end(daemon)?;
        ensure_total(&finished, "ebpf.lost_new", 0)?;
        let tally = Tally::read(&mass, &finished.path(&sources::file(1)))?;
        tally.ensure_each_once("DESTROY")?;
        let stranger = tally.others.iter().find(|line| line.tag() != "LOST");
        ensure!(stranger.is_none() && tally.sum("NEW") == 0, "beside the ends: {stranger:?}");
        let lines = lines_of(&finished, 1)?;
        let found = lines.iter().filter(|line| extra(line, "CAUSE") == Some("lost")).count() as u64;
        let lost = total(&finished, "crosscheck.lost")?;
        ensure!(found == lost && lost > 0, "{lost} ends lost, {found} found\n{}", finished.log);
        ensure_total(&finished, "flows.vanished", lost)?;
        ensure!(finished.log.contains("[ct1] 0 flows are live"), "{}", finished.log);
        ensure_explained(&finished)
    })
}

/// The kernel drops flows early, and packets whose flow finds no room. A source of its own over
/// netlink shows what there was.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn a_table_without_room() -> Result<()> {
    const FLOWS: u32 = 5_000;
    const ROOM: u32 = 256;
    by_ebpf(|| {
        let lab = mass_lab()?;
        // What comes later of a flow that found no room is not taken for a new one.
        lab.router().set_sysctls(&[("net/netfilter/nf_conntrack_tcp_loose", 0)])?;
        let _buckets = Sysctl::set("net/netfilter/nf_conntrack_buckets", 512)?;
        let _max = Sysctl::set("net/netfilter/nf_conntrack_max", ROOM)?;
        let netlink = format!(
            "capture=netlink\nevent_mask=5\nhash_enable=0\nnetlink_socket_buffer_size={BUFFER}\n\
             netlink_socket_buffer_maxsize={BUFFER}"
        );
        let both = [keys(RING, BUFFER, "hash_enable=0"), netlink];
        let daemon = launch(lab.router(), &sources::config(&both, "extras=1"))?.start()?;
        mass_beyond_room(&lab, 0..FLOWS)?;
        // Assured flows make room by their timeouts only; then there is some again.
        lab.router().expire_conntrack()?;
        mass_beyond_room(&lab, FLOWS..FLOWS + ROOM)?;
        lab.router().flush_conntrack()?;
        let finished = end(daemon)?;
        ensure_explained(&finished)?;
        ensure_total(&finished, "crosscheck.lost", 0)?;
        ensure_total(&finished, "netlink.lost", 0)?;
        let (lines, theirs) = (lines_of(&finished, 1)?, lines_of(&finished, 2)?);
        // A packet that still had the entry when it was dropped is counted by the second look.
        let mut ours = multiset(lines.iter().map(|line| bare(line).without_counters()));
        let theirs = uncounted(&theirs);
        // Netlink is silent of the beginning of a flow that is dropped in the same moment.
        let silent = check(&finished, "silent", "new")?;
        ensure!(
            silent < ROOM.into(),
            "{silent} beginnings were silent
{}",
            finished.log
        );
        let unheard: Vec<_> = ours.keys().filter(|line| !theirs.contains_key(*line)).collect();
        ensure!(unheard.len() as u64 == silent, "{silent} silent, but {unheard:#?}");
        ensure!(unheard.iter().all(|line| line.starts_with("[NEW]")), "{unheard:#?}");
        ours.retain(|line, _| theirs.contains_key(line));
        ensure_equal("as over netlink", &theirs, &ours)?;
        let begun = tagged(&lines, "NEW").len();
        ensure!(begun > ROOM as usize, "{begun} flows never filled the table");
        ensure!(begun == tagged(&lines, "DESTROY").len(), "not {begun} ends\n{}", finished.log);
        let early = |line: &&_| extra(line, "CAUSE") == Some("early_drop");
        ensure!(lines.iter().filter(early).count() > 0, "none was dropped early");
        Ok(())
    })
}

/// Flows of other namespaces are told by eBPF alone, which is no finding.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn another_namespace_goes() -> Result<()> {
    const FLOWS: u32 = 500;
    by_ebpf(|| {
        let (own, other) = (SingleNs::new()?, SingleNs::new()?);
        let keys = ["capture=both\nnetns=all\nhash_enable=0\nevent_mask=5"];
        let daemon = start(own.namespace(), "", &keys, "extras=1")?;
        let mut log = Log::open(&daemon, 1)?;
        udp_burst(&own, 4000, 0, FLOWS)?;
        udp_burst(&other, 4000, 0, FLOWS)?;
        let (here, elsewhere) = (own.namespace().inode()?, other.namespace().inode()?);
        own.namespace().flush_conntrack()?;
        // With all its flows.
        drop(other);
        log.wait(2 * FLOWS, 2 * FLOWS)?;
        let finished = end(daemon)?;
        let lines = lines_of(&finished, 1)?;
        for (netns, cause) in [(here, "flushed"), (elsewhere, "netns_gone")] {
            let netns = netns.to_string();
            let there = lines.iter().filter(|line| extra(line, "NETNS") == Some(&netns));
            let there: Vec<_> = there.cloned().collect();
            for tag in ["NEW", "DESTROY"] {
                let told: Vec<_> = tagged(&there, tag).into_iter().map(bare).collect();
                let expected = burst_lines(tag, 4000, 0..FLOWS);
                ensure_equal(&format!("[{tag}] in {netns}"), &expected, &uncounted(&told))?;
            }
            let ends = tagged(&there, "DESTROY");
            let stranger = ends.iter().find(|line| extra(line, "CAUSE") != Some(cause));
            ensure!(stranger.is_none(), "not {cause}: {stranger:?}");
        }
        ensure_explained(&finished)?;
        ensure_total(&finished, "crosscheck.lost", 0)?;
        ensure_total(&finished, "crosscheck.elsewhere", u64::from(2 * FLOWS))?;
        for kind in ["new", "destroy"] {
            for name in ["ebpf", "matched"] {
                let found = check(&finished, name, kind)?;
                ensure!(found == u64::from(FLOWS), "{found} {name} of {kind}\n{}", finished.log);
            }
        }
        Ok(())
    })
}

/// Nothing stays in the kernel, and the next one works.
#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn it_is_killed() -> Result<()> {
    const FLOWS: u32 = 50;
    by_ebpf(|| {
        let single = SingleNs::new()?;
        let before = InKernel::look()?;
        let configuration = sources::config(&[keys(RING, BUFFER, "hash_enable=0")], "");
        let mut first = launch(single.namespace(), &configuration)?.start()?;
        let (programs, functions) = InKernel::look()?.beyond(&before);
        let at_work = programs.len() > 5 && functions.len() > 5;
        ensure!(at_work, "not at work: {programs:?} {functions:?}");
        udp_burst(&single, 4000, 0, FLOWS)?;
        Log::open(&first, 1)?.wait(FLOWS, 0)?;
        first.process.signal(Signal::SIGKILL)?;
        first.process.wait()?;
        poll::until("the kernel to free all", || {
            let (programs, functions) = InKernel::look()?.beyond(&before);
            Ok((programs.is_empty() && functions.is_empty()).then_some(()))
        })
        .context("what was attached stays")?;

        let next = launch(single.namespace(), &configuration)?.start()?;
        // It says what it cannot know, and tells the end of these flows all the same.
        next.wait_log(&format!(" {FLOWS} flows exist already"))?;
        udp_burst(&single, 4001, FLOWS, FLOWS)?;
        single.namespace().flush_conntrack()?;
        Log::open(&next, 1)?.wait(FLOWS, 2 * FLOWS)?;
        let finished = end(next)?;
        let mut expected = burst_lines("NEW", 4001, FLOWS..2 * FLOWS);
        expected.extend(burst_lines("DESTROY", 4001, FLOWS..2 * FLOWS));
        expected.extend(burst_lines("DESTROY", 4000, 0..FLOWS));
        ensure_equal("the next one", &expected, &uncounted(&lines_of(&finished, 1)?))?;
        let matched = check(&finished, "matched", "sum")?;
        ensure!(matched == u64::from(3 * FLOWS), "{matched} matched\n{}", finished.log);
        ensure_explained(&finished)
    })
}
