//! Lost events are counted: a logger that stands still while more happens than its buffer holds
//! tells afterwards how much it missed. With `hash_enable=1` it then finds what vanished, so that
//! each flow still has its one line, also without root.

use anyhow::{Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, config};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, lost, tagged, totals};
use tests::poll;

use super::{burst_lines, flowlog, uncounted};

/// A buffer that holds some hundred events and does not grow.
const TINY: &str = "netlink_socket_buffer_size=65536\nnetlink_socket_buffer_maxsize=65536\n";

/// One that holds some thousand.
const SMALL: &str = "netlink_socket_buffer_size=1000000\nnetlink_socket_buffer_maxsize=1000000\n";

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn logged_and_lost_add_up() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = flowlog(single.namespace(), &format!("event_mask=1\nhash_enable=0\n{TINY}"))?;
    let mut made = 0;
    for round in 0..3 {
        daemon.process.freeze()?;
        made += udp_burst(&single, 4000, round * 3000, 3000)?.flows;
        daemon.process.thaw()?;
        daemon.wait_lines("logged + lost = made", |lines| {
            tagged(lines, "NEW").len() as u64 + lost(lines) >= made
        })?;
    }
    let finished = daemon.stop()?;
    let (new, lost) = (tagged(&finished.lines, "NEW"), lost(&finished.lines));
    ensure!(lost > 0, "nothing was lost, so nothing was tested");
    ensure!(new.len() as u64 + lost == made, "{} logged + {lost} lost, {made} made", new.len());
    let totals = totals(&finished.log);
    ensure!(totals.get("netlink.lost") == Some(&lost), "{lost} lost, but {totals:?}");
    let wanted = Some(new.len() as u64);
    ensure!(totals.get("netlink.messages").copied() == wanted, "{wanted:?} logged, {totals:?}");
    let expected = burst_lines("NEW", 4000, 0..9000);
    let stranger =
        uncounted(new).into_iter().find(|(text, n)| *n > 1 || !expected.contains_key(text));
    ensure!(stranger.is_none(), "twice or never sent: {stranger:?}");
    Ok(())
}

/// What loses events in a tiny buffer loses none in one that only `…_size` made large.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_size_alone_makes_the_buffer_large() -> Result<()> {
    let single = SingleNs::new()?;
    let settings = "event_mask=1\nhash_enable=0\nnetlink_socket_buffer_size=8388608";
    let daemon = flowlog(single.namespace(), settings)?;
    daemon.process.freeze()?;
    udp_burst(&single, 4000, 0, 3000)?;
    daemon.process.thaw()?;
    let lines = daemon.stop()?.lines;
    ensure_equal("8 MiB", &burst_lines("NEW", 4000, 0..3000), &uncounted(&lines))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn resync_closes_what_vanished() -> Result<()> {
    resync(&[])
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn resync_closes_what_vanished_without_root() -> Result<()> {
    resync(&["-u", "nobody"])
}

/// First the destroys are lost of flows that are known; then the news of flows, and after a resync
/// their destroys. Each flow has one line in the end.
fn resync(args: &[&str]) -> Result<()> {
    let single = SingleNs::new()?;
    let settings = format!("event_mask=5\nhash_enable=1\nnetlink_resync_timeout=1\n{SMALL}");
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config(&settings, "sync=1"))?;
    let daemon = launch.args(args).start()?;
    for round in 0..6 {
        udp_burst(&single, 4000, round * 500, 500)?;
        wait_drained(&daemon, &single)?;
    }
    let flush = || single.namespace().flush_conntrack();
    let lost_before = losing(&daemon, 0, flush)?;
    wait_ends(&daemon, 3000)?;

    let lost_ends = lost_before;
    let lost_before =
        losing(&daemon, lost_before, || udp_burst(&single, 4000, 3000, 3000).map(drop))?;
    // Each lost beginning is that of another flow.
    poll::until("the flows to be taken up", || {
        Ok((taken_up(&daemon.log()) >= lost_before - lost_ends).then_some(()))
    })?;
    losing(&daemon, lost_before, flush)?;
    wait_ends(&daemon, 6000)?;
    let finished = daemon.stop()?;
    ensure!(finished.code == Some(0), "exit {:?}", finished.code);
    let ends = uncounted(tagged(&finished.lines, "DESTROY"));
    ensure_equal("one end each", &burst_lines("DESTROY", 4000, 0..6000), &ends)
}

/// Flows that resyncs have taken up, as the log of the daemon says.
fn taken_up(log: &str) -> u64 {
    let resyncs = log.lines().filter_map(|line| line.split_once("resync after lost events: "));
    resyncs.filter_map(|(_, rest)| rest.split(' ').next()?.parse::<u64>().ok()).sum()
}

/// Does `work` while the logger stands still, and waits until it has told that it lost more than
/// before; returns how much it has lost by then.
fn losing(daemon: &Daemon, before: u64, work: impl FnOnce() -> Result<()>) -> Result<u64> {
    daemon.process.freeze()?;
    work()?;
    daemon.process.thaw()?;
    Ok(lost(&daemon.wait_lines("a loss", |lines| lost(lines) > before)?))
}

/// Waits until the logger has read all events that were sent to it.
fn wait_drained(daemon: &Daemon, single: &SingleNs) -> Result<()> {
    poll::until("the events to be read", || {
        let sockets = daemon.process.netlink_sockets(single.namespace())?;
        Ok(sockets.iter().all(|socket| socket.queued == 0).then_some(()))
    })
}

fn wait_ends(daemon: &Daemon, flows: usize) -> Result<()> {
    let what = format!("the ends of {flows} flows");
    daemon.wait_lines(&what, |lines| tagged(lines, "DESTROY").len() >= flows).map(drop)
}
