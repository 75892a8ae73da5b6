//! Every bit of `event_mask` that netlink can tell: which lines it gives for which flows, how tags
//! are joined, and that no multicast group is joined that the mask does not need.

use anyhow::{Result, ensure};
use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::tags::Often::{Once, Repeatedly};
use tests::tags::{ALL, ASSURED, HELPED, REPLIED, Tagged, UNHELPED, ensure_tagged};
use tests::traffic;

use super::flowlog;

/// A mask, the groups it may join (bit n for group n + 1) and the lines it gives.
struct Case {
    mask: u32,
    groups: u32,
    lines: &'static [Tagged],
}

/// `hash_enable=0`: each message speaks for itself.
const STATELESS: [Case; 11] = [
    Case { mask: 0x01, groups: 0x01, lines: &[("NEW", ALL, Once)] },
    Case { mask: 0x02, groups: 0x02, lines: &[("UPDATE", REPLIED, Repeatedly)] },
    Case { mask: 0x04, groups: 0x04, lines: &[("DESTROY", ALL, Once)] },
    Case { mask: 0x08, groups: 0x02, lines: &[("ASSURED", ASSURED, Repeatedly)] },
    Case { mask: 0x10, groups: 0x02, lines: &[("CONFIRMED", REPLIED, Repeatedly)] },
    Case {
        mask: 0x18,
        groups: 0x02,
        lines: &[("CONFIRMED", REPLIED, Repeatedly), ("CONFIRMED|ASSURED", ASSURED, Repeatedly)],
    },
    Case { mask: 0x40, groups: 0x03, lines: &[("HELPER", HELPED, Repeatedly)] },
    Case {
        mask: 0x41,
        groups: 0x03,
        lines: &[
            ("NEW", UNHELPED, Once),
            ("NEW|HELPER", HELPED, Once),
            // Updates of the same connection show its helper too.
            ("HELPER", HELPED, Repeatedly),
        ],
    },
    Case {
        mask: 0x0d,
        groups: 0x07,
        lines: &[("NEW", ALL, Once), ("ASSURED", ASSURED, Repeatedly), ("DESTROY", ALL, Once)],
    },
    Case { mask: 0x80, groups: 0x00, lines: &[] },
    Case { mask: 0x00, groups: 0x00, lines: &[] },
];

/// `hash_enable=1`: the table knows what was told before. Destroys are always needed, to forget.
const STATEFUL: [Case; 8] = [
    Case { mask: 0x01, groups: 0x05, lines: &[] },
    Case { mask: 0x02, groups: 0x06, lines: &[] },
    Case { mask: 0x04, groups: 0x04, lines: &[("DESTROY", ALL, Once)] },
    Case { mask: 0x08, groups: 0x06, lines: &[("ASSURED", ASSURED, Once)] },
    Case { mask: 0x10, groups: 0x06, lines: &[("CONFIRMED", REPLIED, Once)] },
    Case {
        mask: 0x18,
        groups: 0x06,
        lines: &[("CONFIRMED", REPLIED, Once), ("ASSURED", ASSURED, Once)],
    },
    Case { mask: 0x40, groups: 0x07, lines: &[("HELPER", HELPED, Once)] },
    Case {
        mask: 0x15,
        groups: 0x07,
        lines: &[("CONFIRMED", REPLIED, Once), ("DESTROY", ALL, Once)],
    },
];

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn each_bit_without_a_table() -> Result<()> {
    check(0, &STATELESS)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn each_bit_with_a_table() -> Result<()> {
    check(1, &STATEFUL)
}

/// All masks listen to the same mix.
fn check(hash: u32, cases: &[Case]) -> Result<()> {
    let lab = Lab::new()?;
    let mut daemons = Vec::new();
    for case in cases {
        let settings = format!("event_mask={:#x}\nhash_enable={hash}", case.mask);
        let daemon = flowlog(lab.router(), &settings)?;
        ensure_groups(&lab, &daemon, case)?;
        daemons.push(daemon);
    }
    let flows = traffic::mix(&lab, 30_000)?;
    lab.router().expire_conntrack()?;
    for (case, daemon) in cases.iter().zip(daemons) {
        let what = format!("hash_enable={hash} event_mask={:#04x}", case.mask);
        let finished = daemon.stop()?;
        ensure!(finished.code == Some(0), "{what}: exit {:?}", finished.code);
        ensure_tagged(&what, &finished.lines, &flows, case.lines)?;
        if case.mask & 0x80 != 0 {
            let told = finished.log.to_lowercase().contains("garbage");
            ensure!(told, "{what}: not told that netlink cannot say it\n{}", finished.log);
        }
    }
    Ok(())
}

fn ensure_groups(lab: &Lab, daemon: &Daemon, case: &Case) -> Result<()> {
    let sockets = daemon.process.netlink_sockets(lab.router())?;
    let joined = sockets.iter().fold(0, |all, socket| all | socket.groups);
    ensure!(joined == case.groups, "event_mask={:#x} joined groups {joined:#x}", case.mask);
    Ok(())
}

/// The FTP control connection announces a data connection: an expectation comes and goes.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn expectations() -> Result<()> {
    let lab = Lab::new()?;
    let cases = [(0, 0x38), (1, 0x3c)];
    let mut daemons = Vec::new();
    for (hash, groups) in cases {
        let daemon = flowlog(lab.router(), &format!("event_mask=0x20\nhash_enable={hash}"))?;
        ensure_groups(&lab, &daemon, &Case { mask: 0x20, groups, lines: &[] })?;
        daemons.push(daemon);
    }
    let flows = traffic::mix(&lab, 31_000)?;
    let (control, data) = (&flows[flows.len() - 2], &flows[flows.len() - 1]);
    ensure!(control.helper, "the FTP flows are the last of the mix");
    for daemon in daemons {
        let lines = daemon.stop()?.lines;
        for action in ["ACTION=new", "ACTION=destroy"] {
            let told = lines.iter().filter(|line| line.has(action)).count();
            ensure!(told == 1, "{told} lines with {action} in {lines:#?}");
        }
        for line in &lines {
            ensure!(line.tag() == "EXPECT", "{line}");
            ensure!(line.has(&format!("MASTER: {}", control.orig)), "{line}");
            ensure!(line.has(&format!(" DPT={} ", data.orig.detail.1)), "{line}");
        }
    }
    Ok(())
}
