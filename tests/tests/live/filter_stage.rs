//! FILTER: real flows through an expression, with and without the kernel's help.

use anyhow::{Result, ensure};
use tests::daemon::{Daemon, Launch, Program};
use tests::lab::Lab;
use tests::lines::{ensure_equal, multiset, totals};
use tests::packet::protocol;
use tests::traffic::{self, Flow};

const FILTERED: &str = "stack=ct1:NFCT,f1:FILTER,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU";
const BESIDE: &str = "stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu2:LOGEMU";

/// A stack with an expression, and others of the same source.
fn config(expression: &str, others: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n{FILTERED}\n{others}\n\
         [ct1]\ncapture=netlink\nevent_mask=1\nhash_enable=0\n[f1]\nexpr=\"{expression}\"\n\
         [emu1]\nfile=\"@DIR@/flows.log\"\nsync=1\n[emu2]\nfile=\"@DIR@/all.log\"\nsync=1\n"
    )
}

/// An expression, the flows that it is true of, and whether all of it is asked of the kernel.
type Case = (&'static str, fn(&Flow) -> bool, bool);

const CASES: [Case; 5] = [
    ("proto == 'udp'", |flow| flow.orig.protocol == protocol::UDP, true),
    ("src.ip.is_v6()", |flow| flow.orig.source.is_ipv6(), true),
    (
        "dst.ip == '10.77.1.1' && proto in ['tcp', 'udp']",
        |flow| flow.orig.destination.to_string() == "10.77.1.1",
        true,
    ),
    (
        "dst.ip != reply.src && !dst.ip.is_v6()",
        |flow| !flow.orig.source.is_ipv6() && flow.orig.destination != flow.reply.source,
        false,
    ),
    ("cause == 'early_drop'", |_| false, false),
];

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn real_flows_through_an_expression() -> Result<()> {
    let lab = Lab::new()?;
    let mut daemons = Vec::new();
    for (expression, holds, pushed) in CASES {
        for others in ["", BESIDE] {
            let text = config(expression, others);
            let daemon = Daemon::start(Program::Flowlog, lab.router(), &text)?;
            daemons.push((expression, holds, pushed && others.is_empty(), daemon));
        }
    }
    let flows = traffic::mix(&lab, 41_000)?;
    for (expression, holds, pushed, daemon) in daemons {
        let wanted = multiset(flows.iter().filter(|flow| holds(flow)).map(|flow| flow.line("NEW")));
        let finished = daemon.stop()?;
        ensure_equal(expression, &wanted, &multiset(&finished.lines))?;
        let totals = totals(&finished.log);
        let (selected, refused) = (totals["filter.selected"], totals["filter.refused"]);
        let count = wanted.values().sum::<usize>() as u64;
        ensure!(selected == count, "{expression}: {selected} of {count} selected");
        ensure!(totals["filter.divisions_by_zero"] + totals["filter.overflows"] == 0);
        // What the kernel is asked takes no room in the queue.
        let received = totals["netlink.messages"];
        ensure!(received == selected + refused, "{expression}: {received} received");
        ensure!(!pushed || refused == 0, "{expression}: {refused} were not refused by the kernel");
        ensure!(pushed || received >= flows.len() as u64, "{expression}: only {received} received");
    }
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_mistake_keeps_it_from_starting() -> Result<()> {
    let lab = Lab::new()?;
    let text = config("dst.prot == 80", "");
    let finished = Launch::new(Program::Flowlog, lab.router(), &text)?.run()?;
    ensure!(finished.code == Some(2), "{:?}", finished.code);
    let told = format!("{}{}", finished.stderr, finished.log);
    let place =
        "column 1, at `dst.prot == 80`: there is no field `dst.prot`; did you mean `dst.port`?";
    ensure!(told.contains(place), "{told}");
    Ok(())
}
