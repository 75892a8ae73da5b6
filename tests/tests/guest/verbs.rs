//! The verbs that an operator asks, on one mass of mixed flows: each knows every flow.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::daemon::Program;
use tests::lab::Lab;
use tests::lines;
use tests::mass::kind::Kind;
use tests::mass::tally::Tally;
use tests::mass::{Mass, mass};
use tests::packet::protocol;
use tests::traffic::{Flow, Reach, Tuple};
use tests::watch::Watch;

use super::by_ebpf;

const FLOWS: u32 = 3_000;
/// What watch shows of them is as much as a file of a few megabytes.
const WATCH: &str = "-o json --event new,destroy --capture ebpf --netns";

#[test]
#[cfg_attr(not(feature = "guest"), ignore = "runs in a guest: cargo xtask test")]
fn each_verb_knows_every_flow() -> Result<()> {
    by_ebpf(|| {
        let lab = Lab::new()?;
        lab.add_mass_rules()?;
        // None ends before the table is listed.
        lab.set_flow_timeout(600)?;
        let router = lab.router();
        check(&lab)?;
        let watch = Watch::start(router, &format!("{WATCH} {}", router.name()))?;
        let mass = mass(&lab, FLOWS)?;
        list(&lab)?;
        router.flush_conntrack()?;
        watch.wait_lines("the ends", |lines| {
            let ends = lines.iter().filter(|line| line.contains("\"event\":\"destroy\""));
            ends.count() >= FLOWS as usize
        })?;
        let watched = watch.end(Signal::SIGINT)?;
        ensure!(watched.summary()?[2] == 0, "{}", watched.stderr);
        ensure_all_watched(&mass, &watched.lines)
    })
}

/// eBPF can be had, by both ways, and the router tracks.
fn check(lab: &Lab) -> Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(
        b"[global]\nstack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
          [ct1]\ncapture=ebpf\nnetns=self\n[emu1]\nfile=\"/tmp/flowlog.log\"\n",
    )?;
    let mut command = lab.router().command(Program::Flowlog.path()?);
    let output = command.args(["check", "--json", "-c"]).arg(file.path()).output()?;
    let report: Value = serde_json::from_slice(&output.stdout)?;
    ensure!(output.status.code() == Some(0), "{}: {report:#}", output.status);
    let host = report["host"].as_array().context("no host")?;
    let ways = host.iter().filter(|finding| finding["name"] == "eBPF");
    ensure!(
        ways.clone().count() == 2 && ways.clone().all(|way| way["state"] == "ok"),
        "{report:#}"
    );
    let lines = report["lines"].as_array().context("no lines")?;
    ensure!(lines.len() == 7 && lines.iter().all(|line| line["verdict"] == "taken"), "{report:#}");
    Ok(())
}

/// As many entries as the kernel counts: the resets have gone, all others live.
fn list(lab: &Lab) -> Result<()> {
    let router = lab.router();
    let mut command = Command::new(Program::Flowlog.path()?);
    let output = command.args(["list", "-o", "json", "--netns", router.name()]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let entries = String::from_utf8(output.stdout)?.lines().count() as u64;
    let counted = router.conntrack_count()?;
    ensure!(entries == counted, "{entries} entries, the kernel counts {counted}");
    let living = FLOWS - of_kind(Kind::TcpRefused);
    ensure!(entries == u64::from(living), "{entries} entries, {living} were made");
    Ok(())
}

/// Each flow has begun and ended once, in both directions as they were made, and for the reason
/// that there was.
fn ensure_all_watched(mass: &Mass, events: &[String]) -> Result<()> {
    let mut tally = Tally::new(mass);
    let mut causes: BTreeMap<String, u32> = BTreeMap::new();
    for event in events {
        let event: Value = serde_json::from_str(event).context(event.clone())?;
        let tag = event["event"].as_str().context("no event")?.to_uppercase();
        if let Some(cause) = event["cause"].as_str() {
            *causes.entry(cause.to_owned()).or_default() += 1;
        }
        let line = format!("Jan  1 00:00:00 vm {}\n", flow(&event)?.line(&tag));
        lines::parse(&line)?.into_iter().for_each(|line| tally.add(line));
    }
    tally.ensure_each_once("NEW")?;
    tally.ensure_each_once("DESTROY")?;
    tally.ensure_no_others()?;
    let refused = of_kind(Kind::TcpRefused);
    let expected = [("flushed", FLOWS - refused), ("reset", refused)];
    let expected = expected.map(|(cause, count)| (cause.to_owned(), count));
    ensure!(causes == BTreeMap::from(expected.clone()), "{causes:?}, not {expected:?}");
    Ok(())
}

fn flow(event: &Value) -> Result<Flow> {
    let number = event["protocol"]["number"].as_u64().context("no protocol")?;
    let number = u8::try_from(number)?;
    let tuple = |name: &str| -> Result<Tuple> {
        let tuple = &event[name];
        let address = |key: &str| -> Result<IpAddr> {
            tuple[key]
                .as_str()
                .with_context(|| format!("no {key} in {event}"))?
                .parse()
                .context("IP")
        };
        let value = |key: &str| tuple[key].as_u64().unwrap_or(0) as u16;
        Ok(Tuple {
            source: address("src")?,
            destination: address("dst")?,
            protocol: number,
            detail: match number {
                protocol::ICMP => (value("type"), value("code")),
                protocol::ICMPV6 => (0, 0),
                _ => (value("sport"), value("dport")),
            },
        })
    };
    let (orig, mut reply) = (tuple("orig")?, tuple("reply")?);
    if number == protocol::ICMP {
        // A line repeats type and code of the original direction.
        reply.detail = orig.detail;
    }
    Ok(Flow { orig, reply, reach: Reach::Replied, helper: false })
}

/// How many flows are of that kind.
fn of_kind(kind: Kind) -> u32 {
    (0..FLOWS).filter(|number| Kind::of(*number) == kind).count() as u32
}
