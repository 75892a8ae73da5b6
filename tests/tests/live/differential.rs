//! flowlog against ulogd2 2.0.8: both in the router's namespace on the same traffic write the
//! same lines, whatever the order and the time prefix. The traffic is known too, so that both
//! being wrong in the same way, or silent, does not pass.

use anyhow::{Result, bail, ensure};
use tests::daemon::{Daemon, Finished, Program, ROOMY, config};
use tests::lab::Lab;
use tests::lines::{Line, Multiset, ensure_equal, multiset, tagged};
use tests::traffic::{self, Flow};

/// hash_enable and event_mask of each pair of loggers; all of them listen at the same time.
const SETTINGS: [(u32, u32); 9] =
    [(0, 1), (0, 4), (0, 5), (1, 1), (1, 4), (1, 5), (0, 3), (0, 7), (1, 7)];

/// The ulogd2 half, by which the mix and the reference are known to be right.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn ulogd_writes_what_the_mix_made() -> Result<()> {
    let lab = Lab::new()?;
    let settings = format!("event_mask=5\nhash_enable=0\n{ROOMY}");
    let ulogd = Daemon::start(Program::Ulogd, lab.router(), &config(&settings, "sync=1"))?;
    let flows = traffic::mix(&lab, 40_000)?;
    lab.router().expire_conntrack()?;
    ulogd.wait_lines("two lines for each flow", |lines| lines.len() >= 2 * flows.len())?;
    check_known("ulogd2", 0, 5, &ulogd.stop()?.lines, &flows, true)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_lines_as_ulogd_with_accounting() -> Result<()> {
    same_lines_as_ulogd(true)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_lines_as_ulogd_without_accounting() -> Result<()> {
    same_lines_as_ulogd(false)
}

fn same_lines_as_ulogd(accounting: bool) -> Result<()> {
    let lab = Lab::new()?;
    lab.set_accounting(accounting)?;
    let mut pairs = Vec::new();
    for (hash, mask) in SETTINGS {
        let settings = format!("event_mask={mask}\nhash_enable={hash}\n{ROOMY}");
        let start = |program| Daemon::start(program, lab.router(), &config(&settings, "sync=1"));
        pairs.push((hash, mask, start(Program::Ulogd)?, start(Program::Flowlog)?));
    }
    let flows = traffic::mix(&lab, 40_000)?;
    lab.router().expire_conntrack()?;
    for (hash, mask, ulogd, flowlog) in pairs {
        let what = format!("hash_enable={hash} event_mask={mask} accounting={accounting}");
        let expected = known_tags(hash, mask).len() * flows.len();
        let both = [("ulogd2", ulogd), ("flowlog", flowlog)].map(|(name, daemon)| {
            let enough = |lines: &[Line]| without_updates(lines).len() >= expected;
            daemon.wait_lines(&format!("{expected} lines of {name}, {what}"), enough)?;
            daemon.stop()
        });
        let [ulogd, flowlog]: [Result<Finished>; 2] = both;
        let (ulogd, flowlog) = (ulogd?, flowlog?);
        ensure!(flowlog.code == Some(0), "{what}: exit {:?}\n{}", flowlog.code, flowlog.log);
        check_known(&format!("ulogd2, {what}"), hash, mask, &ulogd.lines, &flows, accounting)?;
        ensure_equal(&what, &multiset(&ulogd.lines), &without_updates_set(&flowlog.lines))?;
        let updates = tagged(&flowlog.lines, "UPDATE").len();
        let wanted = hash == 0 && mask & 2 != 0;
        ensure!((updates > 0) == wanted, "{what}: {updates} UPDATE lines");
    }
    Ok(())
}

/// The tags that ulogd2 writes once for each flow, its matrix of hash_enable and event_mask.
fn known_tags(hash: u32, mask: u32) -> Vec<&'static str> {
    let mut tags = Vec::new();
    if hash == 0 && mask & 1 != 0 {
        tags.push("NEW");
    }
    if mask & 4 != 0 {
        tags.push("DESTROY");
    }
    tags
}

/// Checks lines against the traffic itself: one for each flow and tag, addresses, ports and
/// translation as sent, and counters where there must be some and nowhere else.
fn check_known(
    what: &str,
    hash: u32,
    mask: u32,
    lines: &[Line],
    flows: &[Flow],
    accounting: bool,
) -> Result<()> {
    let tags = known_tags(hash, mask);
    let expected = multiset(tags.iter().flat_map(|tag| flows.iter().map(|flow| flow.line(tag))));
    let uncounted = multiset(lines.iter().map(Line::without_counters));
    ensure_equal(&format!("{what}, counters aside"), &expected, &uncounted)?;
    for line in lines {
        let [sent, answered] = line.numbers("PKTS")[..] else {
            bail!("{what}: not two counters in {line}");
        };
        let counts = accounting && line.tag() == "DESTROY";
        ensure!((sent > 0) == counts, "{what}: {line}");
        ensure!(counts || answered == 0, "{what}: {line}");
        ensure!(line.numbers("BYTES").iter().sum::<u64>() >= 20 * (sent + answered), "{line}");
    }
    Ok(())
}

fn without_updates(lines: &[Line]) -> Vec<&Line> {
    lines.iter().filter(|line| line.tag() != "UPDATE").collect()
}

fn without_updates_set(lines: &[Line]) -> Multiset {
    multiset(without_updates(lines))
}
