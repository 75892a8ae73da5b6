//! What stands in a line beyond the default: the prefix, the switches of PRINTFLOW, and lines
//! of flows that the table had no room for.

use anyhow::{Result, ensure};
use nix::unistd::gethostname;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, ROOMY, config};
use tests::lab::{Lab, SingleNs};
use tests::lines::{Line, ensure_equal, multiset, tagged, totals};
use tests::poll;
use tests::traffic;

use super::{burst_lines, flowlog, uncounted};

/// Local time, blank-padded day and short host name, in a zone far from UTC: as ulogd2.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_prefix_is_that_of_ulogd() -> Result<()> {
    let single = SingleNs::new()?;
    let text = config(&format!("event_mask=1\nhash_enable=0\n{ROOMY}"), "sync=1");
    let start = |program| -> Result<Daemon> {
        Launch::new(program, single.namespace(), &text)?.time_zone("Asia/Kathmandu").start()
    };
    let (ulogd, ours) = (start(Program::Ulogd)?, start(Program::Flowlog)?);
    let host = gethostname()?.to_string_lossy().split('.').next().map(str::to_owned);
    let mut flows = 0;
    // Both write at their own moment, so that a second may lie between them: then once more.
    poll::until("equal times", || {
        udp_burst(&single, 4000, flows, 1)?;
        flows += 1;
        let last = |daemon: &Daemon| -> Result<Line> {
            let lines = daemon.wait_lines("a line", |lines| lines.len() == flows as usize)?;
            Ok(lines[lines.len() - 1].clone())
        };
        let (theirs, ours) = (last(&ulogd)?, last(&ours)?);
        ensure!(Some(&ours.host) == host.as_ref() && ours.host == theirs.host, "{ours:?}");
        Ok((ours.time == theirs.time).then_some(()))
    })
}

/// ICMP labels set right and ports for all: nothing else changes.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn printflow_switches() -> Result<()> {
    let lab = Lab::new()?;
    let text = config("event_mask=1\nhash_enable=0", "sync=1")
        .replace("[ct1]", "[print1]\nicmp_labels=fixed\nports=all\n[ct1]");
    let changed = Daemon::start(Program::Flowlog, lab.router(), &text)?;
    let plain = flowlog(lab.router(), "event_mask=1\nhash_enable=0")?;
    traffic::mix(&lab, 34_000)?;
    let (changed, plain) = (changed.stop()?.lines, plain.stop()?.lines);
    let has = |words: &str| changed.iter().filter(|line| line.has(words)).count();
    // Request and reply carry their own types now.
    for words in
        ["TYPE=8 CODE=5 PKTS=0", "TYPE=0 CODE=5 PKTS=0", "TYPE=13 CODE=0 ", "TYPE=14 CODE=0 "]
    {
        ensure!(has(words) == 1, "{} lines with {words:?}: {changed:#?}", has(words));
    }
    ensure!(has("PROTO=58 TYPE=128 CODE=0 ") == 1, "ICMPv6: {changed:#?}");
    ensure!(has("PROTO=58 TYPE=129 CODE=0 ") == 1, "ICMPv6: {changed:#?}");
    ensure!(has("PROTO=132 SPT=34020 DPT=9000 ") == 1, "SCTP: {changed:#?}");
    let others = |lines: &[Line]| {
        let other = |line: &&Line| {
            !["PROTO=ICMP ", "PROTO=58 ", "PROTO=132 "].iter().any(|words| line.has(words))
        };
        multiset(lines.iter().filter(other))
    };
    ensure_equal("other protocols", &others(&plain), &others(&changed))
}

/// A table that is full: counted, warned of once, and each end is logged all the same.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_full_table_loses_no_end() -> Result<()> {
    let single = SingleNs::new()?;
    let settings = "event_mask=5\nhash_enable=1\nhash_max_entries=100";
    let daemon = flowlog(single.namespace(), settings)?;
    udp_burst(&single, 4000, 0, 300)?;
    single.namespace().flush_conntrack()?;
    let finished = daemon.stop()?;
    let ends = uncounted(tagged(&finished.lines, "DESTROY"));
    ensure_equal("ends", &burst_lines("DESTROY", 4000, 0..300), &ends)?;
    let totals = totals(&finished.log);
    ensure!(totals.get("flows.table_full") == Some(&200), "{totals:?}");
    let warnings = finished.log.matches("hash_max_entries").count();
    ensure!(warnings == 1, "{warnings} warnings\n{}", finished.log);
    Ok(())
}

/// The log says how many flows there are at start, also where the table keeps fewer; the ends of
/// all are logged.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn all_flows_at_start_are_counted() -> Result<()> {
    const FLOWS: u32 = 20_000;
    let single = SingleNs::new()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    let settings = "event_mask=5\nhash_enable=1\nhash_max_entries=1000";
    let daemon = flowlog(single.namespace(), settings)?;
    daemon.wait_log("20000 flows existed at start, of which 1000 are kept (hash_max_entries)")?;
    single.namespace().flush_conntrack()?;
    let lines = daemon.wait_lines("their ends", |lines| lines.len() >= FLOWS as usize)?;
    ensure_equal("ends", &burst_lines("DESTROY", 4000, 0..FLOWS), &uncounted(&lines))
}
