//! IPFIX: what collectors understand that are not ours is what was made, addresses of both
//! families, NAT, counters of both directions and times; and nothing is lost by collectors that go
//! away or by SIGKILL. What was made is told by JSON in a stack beside it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{destination, udp_burst};
use tests::collector::{Nfacctd, Nfcapd, TcpCollector, TlsCollector, dumped, leave_untracked};
use tests::daemon::{Daemon, Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, totals};
use tests::poll;
use tests::traffic;

use self::told::{NAMES, NAT, Told, from_csv, from_dump, from_nfacctd, from_nfdump, logged, texts};

mod told;

fn config(ct: &str, ipfix: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,json1:JSON\nstack=ct1:NFCT,ipfix1:IPFIX\n\
         [ct1]\n{ct}\n{ROOMY}[json1]\nfile=\"@DIR@/flows.json\"\nschema=full\nsync=1\n\
         [ipfix1]\n{ipfix}\n"
    )
}

/// A lab in which the kernel counts and takes times.
fn lab() -> Result<Lab> {
    let lab = Lab::new()?;
    lab.set_accounting(true)?;
    lab.router().set_sysctls(&[("net/netfilter/nf_conntrack_timestamp", 1)])?;
    leave_untracked(lab.router())?;
    Ok(lab)
}

/// Makes the mix, waits until each of its flows has ended, and ends flowlog: what JSON has told.
fn make(lab: &Lab, daemon: Daemon, each: usize) -> Result<Vec<Told>> {
    let flows = traffic::mix(lab, 40_000)?.len();
    lab.router().expire_conntrack()?;
    let lines = || daemon.text("flows.json").lines().count();
    poll::until("all records", || Ok((lines() >= flows * each).then_some(())))
        .with_context(|| format!("{} of {flows}", lines()))?;
    let finished = daemon.stop()?;
    let totals = totals(&finished.log);
    let sent = totals.get("ipfix.records");
    ensure!(sent == Some(&((flows * each) as u64)), "{sent:?} were sent: {}", finished.log);
    ensure!(finished.log.contains("total ipfix.lost_records: 0 "), "{}", finished.log);
    let text = finished.text("flows.json");
    text.lines().map(|line| Ok(logged(&serde_json::from_str(line)?))).collect()
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn nfcapd_gives_back_the_flows() -> Result<()> {
    let lab = lab()?;
    let collector = Nfcapd::start(lab.router())?;
    let text = config("event_mask=5\nhash_enable=0", "proto=udp\nmtu=512");
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let mut made = make(&lab, daemon, 2)?;
    let captured = collector.stop()?;
    ensure!(captured.sequence_errors == 0, "{} sequence errors", captured.sequence_errors);
    let got: Vec<_> = captured.records.iter().map(from_nfdump).collect();
    for told in &mut made {
        // What nfdump 1.7.1 does not know.
        if told["src"].contains(':') {
            told.remove("nat_src");
            told.remove("nat_dst");
        }
    }
    let names = [&NAMES[..], &NAT, &["nat_event"]].concat();
    ensure_equal("nfdump's JSON", &texts(&made, &names), &texts(&got, &names))?;
    let translated = got.iter().filter(|told| !told["nat_sport"].is_empty()).count();
    ensure!(translated >= 6, "{translated} records with NAT");

    let rows: Vec<_> = captured.rows.iter().map(|row| from_csv(row)).collect();
    for told in &mut made {
        for name in ["first", "last"] {
            told.entry(name).and_modify(|time| time.truncate(19));
        }
    }
    let names = ["src", "dst", "first", "last", "packets", "bytes", "reply_packets", "reply_bytes"];
    ensure_equal("nfdump's CSV", &texts(&made, &names), &texts(&rows, &names))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn nfacctd_gives_back_the_flows() -> Result<()> {
    let lab = lab()?;
    let collector = Nfacctd::start(lab.router())?;
    let text = config("event_mask=5\nhash_enable=1", "proto=udp\nnat_events=0");
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let mut made = make(&lab, daemon, 1)?;
    let got: Vec<_> = collector.stop_with(made.len())?.iter().map(from_nfacctd).collect();
    for told in &mut made {
        told.remove("nat_event");
        if matches!(told["protocol"].as_str(), "1" | "58") {
            told.extend([("sport", "0".to_owned()), ("dport", "0".to_owned())]);
        }
    }
    let names = [&NAMES[..], &NAT, &["nat_event", "event", "reason"]].concat();
    ensure_equal("nfacctd's JSON", &texts(&made, &names), &texts(&got, &names))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tcp_libfixbuf_gives_back_the_flows() -> Result<()> {
    let lab = lab()?;
    let collector = TcpCollector::start(lab.router())?;
    let text = config("event_mask=5\nhash_enable=0", "");
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let made = make(&lab, daemon, 2)?;
    let streams = collector.stop()?;
    ensure!(streams.len() == 1, "{} connections", streams.len());
    let got = dumped(&streams[0])?;
    let got = got.iter().map(|fields| from_dump(fields)).collect::<Result<Vec<_>>>()?;
    let names = [&NAMES[..], &NAT, &["nat_event", "event", "reason"]].concat();
    ensure_equal("libfixbuf's records", &texts(&made, &names), &texts(&got, &names))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tls_libfixbuf_gives_back_the_flows() -> Result<()> {
    let lab = lab()?;
    let collector = TlsCollector::start(lab.router())?;
    let keys = format!("tls=1\ntls_ca=\"{}\"", collector.authority().display());
    let text = config("event_mask=5\nhash_enable=1", &keys);
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let made = make(&lab, daemon, 1)?;
    let got = dumped(&collector.stop()?)?;
    let got = got.iter().map(|fields| from_dump(fields)).collect::<Result<Vec<_>>>()?;
    ensure_equal("libfixbuf's records", &texts(&made, &NAMES), &texts(&got, &NAMES))
}

/// Flows of a burst.
const FLOWS: u32 = 100_000;
const SOURCE_PORT: u16 = 4000;

fn burst_config(spool: &str, ipfix: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"{spool}\"\n\
         stack=ct1:NFCT,ipfix1:IPFIX\n\
         [ct1]\nevent_mask=1\nhash_enable=0\n{ROOMY}\
         [ipfix1]\n{ipfix}\n"
    )
}

/// The flows of a burst that a stream has, each once, however often it came.
fn destinations(stream: &[u8], seen: &mut BTreeSet<String>) -> Result<usize> {
    let records = dumped(stream)?;
    for fields in &records {
        let told = from_dump(fields)?;
        ensure!(told["sport"] == SOURCE_PORT.to_string(), "{told:?}");
        seen.insert(format!("{}:{}", told["dst"], told["dport"]));
    }
    Ok(records.len())
}

/// A stream up to its last whole message: a collector that was ended has read no further.
fn whole(stream: &[u8]) -> &[u8] {
    let mut end = 0;
    while let Some(length) = stream.get(end + 2..end + 4) {
        let next = end + usize::from(u16::from_be_bytes([length[0], length[1]]));
        if next > stream.len() {
            break;
        }
        end = next;
    }
    &stream[..end]
}

/// The collector goes away for 5 s while flows are made, and flowlog is killed.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_tcp_nothing_is_lost() -> Result<()> {
    let single = SingleNs::new()?;
    leave_untracked(single.namespace())?;
    let spool = tempfile::Builder::new().prefix("flowlog-spool-").tempdir()?;
    let text = burst_config(&spool.path().to_string_lossy(), "");
    let start = || Launch::new(Program::Flowlog, single.namespace(), &text)?.start();
    let spooled = |daemon: &Daemon, records: u64| {
        poll::until("the spool to have them", || {
            daemon.process.signal(Signal::SIGUSR1)?;
            sleep(Duration::from_millis(200));
            let count = totals(&daemon.log()).get("ipfix.spooled_records").copied();
            Ok((count == Some(records)).then_some(()))
        })
    };
    let step = FLOWS / 4;
    let mut streams = Vec::new();
    let collector = TcpCollector::start(single.namespace())?;
    let mut daemon = start()?;
    udp_burst(&single, SOURCE_PORT, 0, step)?;
    poll::until("the first records", || Ok((collector.received() > 0).then_some(())))?;
    // In the midst of it.
    streams.extend(collector.stop()?);
    udp_burst(&single, SOURCE_PORT, step, step)?;
    sleep(Duration::from_secs(5));
    spooled(&daemon, u64::from(2 * step))?;
    let collector = TcpCollector::start(single.namespace())?;
    daemon.wait_log("ipfix1:IPFIX works again")?;
    udp_burst(&single, SOURCE_PORT, 2 * step, step)?;
    spooled(&daemon, u64::from(3 * step))?;
    daemon.process.signal(Signal::SIGKILL)?;
    daemon.process.wait()?;
    let daemon = start()?;
    udp_burst(&single, SOURCE_PORT, 3 * step, step)?;
    spooled(&daemon, u64::from(step))?;
    let finished = daemon.stop()?;
    ensure!(finished.log.contains("total ipfix.lost_records: 0 "), "{}", finished.log);
    streams.extend(collector.stop()?);
    let (mut seen, mut records) = (BTreeSet::new(), 0);
    for stream in &streams {
        records += destinations(whole(stream), &mut seen)?;
    }
    ensure!(streams.len() >= 3 && records >= FLOWS as usize, "{records} on {}", streams.len());
    let made: BTreeSet<_> = (0..FLOWS).map(|number| destination(number).to_string()).collect();
    ensure!(seen == made, "{} of {FLOWS} flows, {records} records", seen.len());
    Ok(())
}

/// Over UDP a collector that is away refuses, and a datagram that was refused goes out again.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn over_udp_flows_wait_for_the_collector() -> Result<()> {
    let flows = 20_000;
    let single = SingleNs::new()?;
    leave_untracked(single.namespace())?;
    let text = burst_config("@DIR@/spool", "proto=udp");
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    udp_burst(&single, SOURCE_PORT, 0, flows)?;
    daemon.wait_log("the collector udp://127.0.0.1:4739 does not take records")?;
    let collector = Nfcapd::start(single.namespace())?;
    daemon.wait_log("ipfix1:IPFIX works again")?;
    poll::until("the spool to be empty", || {
        daemon.process.signal(Signal::SIGUSR1)?;
        sleep(Duration::from_millis(200));
        let sent = totals(&daemon.log()).get("ipfix.records").copied().unwrap_or_default();
        Ok((sent >= u64::from(flows)).then_some(()))
    })?;
    daemon.stop()?;
    let captured = collector.stop()?;
    let seen: BTreeSet<_> = captured
        .records
        .iter()
        .map(from_nfdump)
        .map(|told| format!("{}:{}", told["dst"], told["dport"]))
        .collect();
    let made: BTreeSet<_> = (0..flows).map(|number| destination(number).to_string()).collect();
    ensure!(seen == made, "{} of {flows} flows", seen.len());
    Ok(())
}

/// The same flows by both at once, with their cost. ulogd2 2.0.8 keeps what does not fill a message
/// until it ends, and then drops it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn ulogd_sends_no_more_and_costs_more() -> Result<()> {
    const ROUNDS: u32 = 10;
    const ROUND: u32 = 4000;
    let single = SingleNs::new()?;
    leave_untracked(single.namespace())?;
    let other = Ipv4Addr::new(127, 0, 0, 2);
    let mut sent = Vec::new();
    let mut running = Vec::new();
    for (program, at) in [(Program::Flowlog, Ipv4Addr::LOCALHOST), (Program::Ulogd, other)] {
        let collector = Nfcapd::start_at(single.namespace(), at)?;
        let keys = format!("oid=1\nhost=\"{at}\"\nproto=\"udp\"\nmtu=1400");
        let text = burst_config("@DIR@/spool", &keys);
        let text = match program {
            Program::Flowlog => text,
            Program::Ulogd => text.replace("spool_dir", "#spool_dir"),
        };
        let daemon = Launch::new(program, single.namespace(), &text)?.start()?;
        let before = daemon.process.cpu_time()?;
        running.push((program, collector, daemon, before));
    }
    for round in 0..ROUNDS {
        udp_burst(&single, SOURCE_PORT, round * ROUND, ROUND)?;
        // Both have their turn, so that neither loses any.
        sleep(Duration::from_millis(300));
    }
    sleep(Duration::from_secs(1));
    for (program, collector, daemon, before) in running {
        let cost = daemon.process.cpu_time()? - before;
        daemon.stop()?;
        let flows: BTreeSet<_> = collector
            .stop()?
            .records
            .iter()
            .map(from_nfdump)
            .map(|told| format!("{}:{}", told["dst"], told["dport"]))
            .collect();
        eprintln!("{program:?}: {} flows, {:?} each", flows.len(), cost / (ROUNDS * ROUND));
        sent.push((flows, cost));
    }
    let [(ours, our_cost), (theirs, their_cost)] = &sent[..] else { unreachable!() };
    let made: BTreeSet<_> =
        (0..ROUNDS * ROUND).map(|number| destination(number).to_string()).collect();
    ensure!(*ours == made, "{} of {} flows", ours.len(), made.len());
    ensure!(theirs.is_subset(&made) && theirs.len() > made.len() / 2, "{} of theirs", theirs.len());
    ensure!(our_cost < their_cost, "{our_cost:?}, and ulogd2 {their_cost:?}");
    Ok(())
}
