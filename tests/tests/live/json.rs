//! JSON: byte for byte that of ulogd2 2.0.8 on the same traffic, times aside that each takes from
//! its own clock; and with `schema=full` as the schema says.

use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{Multiset, ensure_equal, multiset, totals};
use tests::poll;
use tests::traffic;

/// What lies between NFCT and JSON, the keys of both, and how many records a flow has.
struct Case {
    stages: &'static str,
    ct: &'static str,
    json: &'static str,
    zone: &'static str,
    each: usize,
}

const CASES: [Case; 6] = [
    Case {
        stages: "ip1:IP2STR,",
        ct: "event_mask=5\nhash_enable=0",
        json: "",
        zone: "UTC",
        each: 2,
    },
    Case {
        stages: "ip1:IP2STR,",
        ct: "event_mask=5\nhash_enable=1",
        json: "device=\"a\\b/ü <&\"",
        zone: "Asia/Kathmandu",
        each: 1,
    },
    Case {
        stages: "ip1:IP2STR,print1:PRINTFLOW,",
        ct: "event_mask=4\nhash_enable=0",
        json: "eventv1=1\nboolean_label=1",
        zone: "America/St_Johns",
        each: 1,
    },
    Case {
        stages: "",
        ct: "event_mask=1\nhash_enable=0",
        json: "timestamp=0",
        zone: "UTC",
        each: 1,
    },
    Case {
        stages: "ip1:IP2STR,print1:PRINTFLOW,",
        ct: "event_mask=5\nhash_enable=0",
        json: "timestamp=0\neventv1=1",
        zone: "UTC",
        each: 2,
    },
    Case {
        stages: "ip1:IP2STR,",
        ct: "event_mask=5\nhash_enable=0",
        json: "mode=FILE",
        zone: "America/New_York",
        each: 2,
    },
];

fn config(stages: &str, ct: &str, json: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n\
         stack=ct1:NFCT,{stages}json1:JSON\n\
         [ct1]\n{ct}\n{ROOMY}[json1]\nfile=\"@DIR@/flows.json\"\nsync=1\n{json}\n"
    )
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_bytes_as_ulogd_with_accounting() -> Result<()> {
    same_bytes_as_ulogd(true)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_bytes_as_ulogd_without_accounting_and_times() -> Result<()> {
    same_bytes_as_ulogd(false)
}

fn same_bytes_as_ulogd(told: bool) -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    lab.set_accounting(told)?;
    lab.router().set_sysctls(&[("net/netfilter/nf_conntrack_timestamp", i32::from(told))])?;
    let mut pairs = Vec::new();
    for case in &CASES {
        let text = config(case.stages, case.ct, case.json);
        let start =
            |program| Launch::new(program, lab.router(), &text)?.time_zone(case.zone).start();
        pairs.push((case, start(Program::Ulogd)?, start(Program::Flowlog)?));
    }
    let flows = traffic::mix(&lab, 40_000)?.len();
    lab.router().expire_conntrack()?;
    for (case, ulogd, flowlog) in pairs {
        let what = format!("{} {} {} told={told}", case.stages, case.ct, case.json);
        let ulogd = records(ulogd, flows * case.each).with_context(|| format!("ulogd2, {what}"))?;
        let ours = records(flowlog, flows * case.each).with_context(|| what.clone())?;
        let exact = told && case.ct == "event_mask=4\nhash_enable=0";
        let normal = |lines: &[String]| -> Multiset {
            multiset(lines.iter().map(|line| if exact { stamp(line) } else { clocks(line, told) }))
        };
        ensure_equal(&what, &normal(&ulogd), &normal(&ours))?;
    }
    Ok(())
}

/// The records of a logger, which is ended when it has written as many.
fn records(daemon: Daemon, expected: usize) -> Result<Vec<String>> {
    poll::until("records", || {
        Ok((daemon.text("flows.json").lines().count() >= expected).then_some(()))
    })
    .with_context(|| format!("{} so far", daemon.text("flows.json").lines().count()))?;
    let finished = daemon.stop()?;
    let text = finished.text("flows.json");
    ensure!(text.ends_with("}\n"), "torn at its end");
    Ok(text.lines().map(str::to_owned).collect())
}

/// The line with the digits of its time zeroed, the offset left as it is: each logger writes at
/// its own moment.
fn stamp(line: &str) -> String {
    let Some(start) = line.find("timestamp\": \"").map(|at| at + "timestamp\": \"".len()) else {
        return line.to_owned();
    };
    let (front, rest) = line.split_at(start);
    let (time, rest) = rest.split_at("2026-11-21T22:48:18".len());
    let time: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    format!("{front}{time}{rest}")
}

/// As [`stamp`], and the times zeroed that are no kernel's: all without `nf_conntrack_timestamp`,
/// else those of beginnings, but for ends with `hash_enable=0`.
fn clocks(line: &str, told: bool) -> String {
    let mut line = stamp(line);
    for name in ["flow.start.sec", "flow.start.usec", "flow.end.sec", "flow.end.usec"] {
        if told && name.starts_with("flow.end") {
            continue;
        }
        let name = format!("\"{name}\": ");
        if let Some(start) = line.find(&name).map(|at| at + name.len()) {
            let digits = line[start..].find(|c: char| !c.is_ascii_digit()).unwrap_or(0);
            line.replace_range(start..start + digits, "0");
        }
    }
    line
}

/// To a socket of this host both write the same too.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_bytes_as_ulogd_through_a_socket() -> Result<()> {
    const FLOWS: u32 = 50;
    let single = SingleNs::new()?;
    let text = config("ip1:IP2STR,", "event_mask=1\nhash_enable=0", "mode=unix")
        .replace("flows.json", "socket");
    let start = |program| -> Result<(Daemon, std::os::unix::net::UnixStream)> {
        let launch = Launch::new(program, single.namespace(), &text)?;
        let listener = UnixListener::bind(launch.dir().join("socket"))?;
        let daemon = launch.start()?;
        Ok((daemon, listener.accept()?.0))
    };
    let both = [start(Program::Ulogd)?, start(Program::Flowlog)?];
    udp_burst(&single, 4000, 0, FLOWS)?;
    let mut sets = Vec::new();
    for (daemon, mut peer) in both {
        peer.set_read_timeout(Some(poll::PATIENCE))?;
        let mut text = String::new();
        while text.lines().count() < FLOWS as usize || !text.ends_with('\n') {
            let mut part = [0; 4096];
            let length = peer.read(&mut part)?;
            ensure!(length > 0, "closed after {text}");
            write!(text, "{}", String::from_utf8_lossy(&part[..length]))?;
        }
        daemon.stop()?;
        sets.push(multiset(text.lines().map(|line| clocks(line, false))));
    }
    ensure_equal("mode=unix", &sets[0], &sets[1])
}

/// Whatever the kernel tells of the mix, with zones, marks, labels and expectations.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn the_full_record_is_as_the_schema_says() -> Result<()> {
    let schema = serde_json::from_str(include_str!("../../../docs/flow.schema.json"))?;
    let schema = jsonschema::draft202012::new(&schema)?;
    let lab = Lab::new()?;
    lab.add_variety()?;
    for (hash, stages) in [(0, "ip1:IP2STR,print1:PRINTFLOW,"), (1, "")] {
        let ct = format!("event_mask=0x7f\nhash_enable={hash}");
        let text = config(stages, &ct, "schema=full");
        let daemon = Daemon::start(Program::Flowlog, lab.router(), &text)?;
        let flows = traffic::mix(&lab, 40_000 + 100 * hash)?.len();
        lab.router().expire_conntrack()?;
        poll::until("the end of each flow", || {
            let ends = daemon.text("flows.json").matches(r#""destroy""#).count();
            Ok((ends >= flows).then_some(()))
        })?;
        let lines = records(daemon, 0)?;
        for line in &lines {
            let record = serde_json::from_str(line).with_context(|| line.clone())?;
            let faults: Vec<_> = schema.iter_errors(&record).map(|e| e.to_string()).collect();
            ensure!(faults.is_empty(), "{line}\n{faults:#?}");
        }
        for member in
            [r#""zone":7"#, r#""mark":42"#, r#""labels":"#, r#""helper":"ftp""#, r#""state":"#]
        {
            ensure!(lines.iter().any(|line| line.contains(member)), "no record has {member}");
        }
        ensure!(lines.iter().any(|line| line.contains(r#""type":"expectation""#)));
    }
    Ok(())
}

/// A collector that is started anew gets every record, and what does not fit meanwhile is counted.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_collector_that_restarts_loses_nothing_but_what_is_counted() -> Result<()> {
    let single = SingleNs::new()?;
    for (buffer, flows) in [("", 600), ("buffer_max_bytes=65536", 3000)] {
        let json = format!("mode=unix\nschema=full\n{buffer}");
        let text = config("", "event_mask=1\nhash_enable=0", &json).replace("flows.json", "socket");
        let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
        let path = launch.dir().join("socket");
        let listener = UnixListener::bind(&path)?;
        let daemon = launch.start()?;
        let mut records = Vec::new();
        let mut peer = listener.accept()?.0;
        udp_burst(&single, 4000, 0, 100)?;
        read_lines(&mut peer, &mut records, 100)?;
        drop((peer, listener));
        std::fs::remove_file(&path)?;
        udp_burst(&single, 4000, 100, flows)?;
        daemon.wait_log("cannot be reached")?;
        let listener = UnixListener::bind(&path)?;
        let mut peer = listener.accept()?.0;
        udp_burst(&single, 4000, 100 + flows, 1)?;
        let reader = std::thread::spawn(move || -> Result<Vec<String>> {
            let mut rest = String::new();
            peer.read_to_string(&mut rest)?;
            Ok(rest.lines().map(str::to_owned).collect())
        });
        // The last flow is either written or lost: all that there is has been handed on.
        let finished = daemon.stop()?;
        records.extend(reader.join().map_err(|_| anyhow::anyhow!("the reader"))??);
        let totals = totals(&finished.log);
        let lost = totals.get("json.lost_records").copied().unwrap_or_default();
        let different = multiset(&records);
        ensure!(different.values().all(|n| *n == 1), "some came twice");
        ensure!(records.len() as u64 + lost == u64::from(101 + flows), "{totals:?}");
        ensure!((lost > 0) == (flows == 3000), "{totals:?}");
        ensure!(totals.get("json.reconnects") == Some(&1), "{totals:?}");
        single.namespace().flush_conntrack()?;
    }
    Ok(())
}

fn read_lines(peer: &mut impl std::io::Read, into: &mut Vec<String>, count: usize) -> Result<()> {
    let mut text = String::new();
    while text.matches('\n').count() < count {
        let mut part = [0; 4096];
        let length = peer.read(&mut part)?;
        ensure!(length > 0, "closed after {text}");
        text.push_str(&String::from_utf8_lossy(&part[..length]));
    }
    into.extend(text.lines().map(str::to_owned));
    Ok(())
}
