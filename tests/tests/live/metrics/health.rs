//! What is lost is seen by somebody who follows docs/metrics.md: in the log, by /healthz and in the
//! numbers; and both pages answer in time, whatever stands still.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Launch, Program};
use tests::lab::SingleNs;
use tests::metrics::{ADDRESS, get, scrape, sum};
use tests::namespace::Namespace;
use tests::poll;
use tests::shipping::Site;
use tests::stopped::Stopped;

use super::served;
use crate::disk_full::SmallDisk;
use crate::nats::place;

/// How long an answer may take.
const IN_TIME: Duration = Duration::from_secs(1);

/// An answer, in time.
fn in_time(namespace: &Namespace, path: &str) -> Result<(String, String)> {
    let begin = Instant::now();
    let answer = get(namespace, ADDRESS, path)?;
    let took = begin.elapsed();
    ensure!(took < IN_TIME, "{path} took {took:?}: {answer:?}");
    Ok(answer)
}

/// Numbers of warnings: of each the records that it names, and those so far.
fn warnings(log: &str, words: &str) -> Result<Vec<(u64, u64)>> {
    let lines = log.lines().filter(|line| line.contains(words));
    lines
        .map(|line| {
            let (before, behind) = line.split_once(words).context("no words")?;
            let more = before.trim_end().rsplit(' ').nth(1).context("no number")?;
            let total = behind.split_once('(').context("no sum")?.1;
            let total = total.split(' ').next().context("no sum")?;
            Ok((more.parse()?, total.parse()?))
        })
        .collect()
}

/// NATS is away and the spool is small: warnings, /healthz and the numbers say so, and the other
/// stack has everything.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn records_dropped_from_a_full_spool_are_seen() -> Result<()> {
    const FLOWS: u32 = 9800;
    const WORDS: &str = "dropped because the spool was full";
    const NAME: &str = "ct1/1/ship1:NATS: ";
    let single = place()?;
    let namespace = single.namespace();
    let mut site = Site::new(&single)?;
    let text = site.config("NATS", "stream=FLOWS");
    let text = text.replacen("spool_dir=", "spool_max_bytes=1048576\nspool_dir=", 1);
    let begin = Instant::now();
    let daemon = Launch::new(Program::Flowlog, namespace, &text)?.start()?;
    site.make(FLOWS)?;
    daemon.wait_log(WORDS)?;
    let log = site.path("flows.log");
    poll::until("the other stack", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        Ok((text.lines().count() >= FLOWS as usize).then_some(()))
    })?;
    let label = "sink=\"ship1\",plugin=\"nats\"";
    let page = poll::until("all records to be in the spool or dropped", || {
        let page = scrape(namespace)?;
        let of = |metric| sum(&page, metric, label);
        let kept = of("flowlog_sink_spool_records")?;
        let dropped = of("flowlog_sink_dropped_records_total")?;
        Ok((kept + dropped == f64::from(FLOWS)).then_some(page))
    })?;
    ensure!(sum(&page, "flowlog_sink_dropped_records_total", label)? > 1000.0, "{page}");
    ensure!(sum(&page, "flowlog_health", "")? == 0.0, "{page}");
    let (status, said) = in_time(namespace, "/healthz")?;
    ensure!(status.contains(" 503 "), "{status} {said}");
    let dropped = said.lines().find(|line| line.starts_with(NAME) && line.contains(WORDS));
    let dropped = dropped.with_context(|| format!("no line of {NAME}: {said}"))?;
    ensure!(dropped.contains("raise spool_max_bytes"), "no remedy: {dropped}");
    let finished = daemon.stop()?;
    let warnings = warnings(&finished.log, WORDS)?;
    let most = begin.elapsed().as_secs() / 10 + 2;
    ensure!(warnings.len() as u64 <= most, "{} warnings: {warnings:?}", warnings.len());
    let sum: u64 = warnings.iter().map(|(more, _)| more).sum();
    let totals = tests::lines::totals(&finished.log);
    let total = totals.get("nats.dropped_records").copied().unwrap_or_default();
    let last = warnings.last().map(|(_, total)| *total);
    ensure!(sum == total && last == Some(total), "{total} dropped, warned of {warnings:?}");
    ensure!(finished.log.contains(NAME), "no instance in {}", finished.log);
    Ok(())
}

/// Two sinks of one plugin, of which one cannot be written, have numbers and findings of their own.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn two_sinks_of_one_plugin_are_told_apart() -> Result<()> {
    const FLOWS: u32 = 500;
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    let stacks = "stack=ct1:NFCT,good:JSON\nstack=ct1:NFCT,bad:JSON\n";
    let text = served("event_mask=1\nhash_enable=0", "")
        .replace("[ct1]", &format!("{stacks}[ct1]"))
        + "[good]\nfile=\"@DIR@/good.json\"\nschema=full\n\
           [bad]\nfile=\"/dev/full\"\nschema=full\nbuffer_max_bytes=4096\n";
    let daemon = Launch::new(Program::Flowlog, namespace, &text)?.start()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    daemon.wait_lines("all lines", |lines| lines.len() == FLOWS as usize)?;
    daemon.wait_log("ct1/3/bad:JSON: ")?;
    let page = scrape(namespace)?;
    let of = |metric, sink: &str| sum(&page, metric, &format!("sink=\"{sink}\",plugin=\"json\""));
    for (sink, written) in [("good", f64::from(FLOWS)), ("bad", 0.0)] {
        let found = of("flowlog_sink_written_records_total", sink)?;
        ensure!(found == written, "{found} written by {sink}: {page}");
    }
    ensure!(of("flowlog_sink_lost_records_total", "good")? == 0.0, "{page}");
    ensure!(of("flowlog_sink_lost_records_total", "bad")? > 100.0, "{page}");
    ensure!(of("flowlog_sink_failing", "bad")? == 1.0, "{page}");
    let (_, said) = in_time(namespace, "/healthz")?;
    ensure!(said.contains("ct1/3/bad:JSON: ") && !said.contains("good"), "{said}");
    ensure!(said.contains("records lost because"), "{said}");
    daemon.stop()?;
    Ok(())
}

/// A disk was full for a while: the log itself says how many of its lines are missing, once it can,
/// and the sum of events that capture lost does not have them.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn lost_lines_stand_in_the_file_that_lost_them() -> Result<()> {
    const FLOWS: usize = 3000;
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    let disk = SmallDisk::new(64 << 10)?;
    let (log, filler) = (disk.path("flows.log"), disk.fill(8192)?);
    let text = served("event_mask=1\nhash_enable=0", "buffer_max_bytes=4096");
    let text = text.replace("@DIR@/flows.log", &log.to_string_lossy());
    let daemon = Launch::new(Program::Flowlog, namespace, &text)?.start()?;
    udp_burst(&single, 4000, 0, FLOWS as u32)?;
    daemon.wait_log("lines lost because they could not be kept")?;
    std::fs::remove_file(filler)?;
    let (lost, written) = poll::until("a line about the loss", || {
        let text = std::fs::read_to_string(&log)?;
        let Some((before, behind)) = text.split_once("[LOST] EVENTS=") else { return Ok(None) };
        let Some((lost, _)) = behind.split_once(" SOURCE=output \n") else { return Ok(None) };
        Ok(Some((lost.parse::<usize>()?, before.matches("[NEW]").count())))
    })?;
    ensure!(lost > 0 && lost + written == FLOWS, "{lost} lost and {written} written");
    let page = scrape(namespace)?;
    ensure!(sum(&page, "flowlog_lost_events_total", "")? == 0.0, "{page}");
    ensure!(sum(&page, "flowlog_sink_loss_reports_total", "")? == 1.0, "{page}");
    ensure!(sum(&page, "flowlog_sink_lost_records_total", "")? == lost as f64, "{page}");
    daemon.stop()?;
    Ok(())
}

/// Servers that take connections and say nothing, and a reader that reads nothing. What an archive
/// holds until its file is closed does not stand still.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn sinks_that_stand_still_are_named() -> Result<()> {
    const SINKS: [&str; 5] = [
        "ct1/1/nats1:NATS",
        "ct1/2/click1:CLICKHOUSE",
        "ct1/3/kafka1:KAFKA",
        "ct1/4/pgsql1:PGSQL",
        "ct1/5/json1:JSON",
    ];
    let single = place()?;
    let namespace = single.namespace();
    // The kernel takes their connections.
    let _servers = namespace.enter(|| {
        let listen = |port| Ok(TcpListener::bind(("127.0.0.1", port))?);
        [4222, 8123, 9092, 5432].into_iter().map(listen).collect::<Result<Vec<_>>>()
    })?;
    let text = format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nmetrics={ADDRESS}\n\
         spool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,nats1:NATS\nstack=ct1:NFCT,click1:CLICKHOUSE\n\
         stack=ct1:NFCT,kafka1:KAFKA\nstack=ct1:NFCT,pgsql1:PGSQL\nstack=ct1:NFCT,json1:JSON\n\
         stack=ct1:NFCT,arch1:PARQUET\n\
         stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\nevent_mask=1\nhash_enable=0\naccept_proto_filter=udp\n\
         [nats1]\nserver=nats://127.0.0.1:4222\nstream=FLOWS\n\
         [click1]\nurl=http://127.0.0.1:8123\nuser=flowlog\n\
         [kafka1]\nbrokers=127.0.0.1:9092\ntopic=flows\n\
         [pgsql1]\nhost=127.0.0.1\nport=5432\n\
         [json1]\nmode=unix\nfile=\"@DIR@/socket\"\nschema=full\n\
         [arch1]\ndirectory=\"@DIR@/archive\"\nrotate_interval=1d\n\
         [emu1]\nfile=\"@DIR@/flows.log\"\n"
    );
    let launch = Launch::new(Program::Flowlog, namespace, &text)?;
    let _reader = UnixListener::bind(launch.dir().join("socket"))?;
    let begin = Instant::now();
    let daemon = launch.start()?;
    // More than a socket holds.
    udp_burst(&single, 4000, 0, 3000)?;
    daemon.wait_lines("the other stack", |lines| lines.len() == 3000)?;
    let said = poll::within(Duration::from_secs(25), "all sinks in /healthz", || {
        let (_, said) = in_time(namespace, "/healthz")?;
        Ok(SINKS.iter().all(|sink| said.contains(sink)).then_some(said))
    })
    .with_context(|| format!("{:?}", get(namespace, ADDRESS, "/healthz")))?;
    let took = begin.elapsed();
    ensure!(took > Duration::from_secs(5), "after {took:?} nothing can stand still: {said}");
    ensure!(took < Duration::from_secs(20), "after {took:?} only: {said}");
    let still = said.lines().filter(|line| line.contains("has stood still for")).count();
    // The others say themselves that nothing is answered.
    ensure!(still >= 1, "{said}");
    let (_, page) = in_time(namespace, "/metrics")?;
    for sink in SINKS {
        let id = sink.split(['/', ':']).nth(2).context("no id")?;
        let label = format!("sink=\"{id}\"");
        let stalled = sum(&page, "flowlog_sink_stalled_seconds", &label)?;
        let failing = sum(&page, "flowlog_sink_failing", &label)?;
        ensure!(stalled >= 10.0 || failing == 1.0, "{sink}: {stalled} s, failing {failing}");
    }
    ensure!(sum(&page, "flowlog_sink_spool_records", "sink=\"arch1\"")? == 3000.0, "{page}");
    for sink in ["arch1", "emu1"] {
        let label = format!("sink=\"{sink}\"");
        ensure!(sum(&page, "flowlog_sink_stalled_seconds", &label)? == 0.0, "{page}");
        ensure!(!said.contains(sink), "{said}");
    }
    daemon.stop()?;
    Ok(())
}

/// Both pages answer in time while the thread that reads events stands still, whatever holds it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_blocked_engine_is_no_silent_one() -> Result<()> {
    let single = SingleNs::new()?;
    let namespace = single.namespace();
    let text = served("event_mask=1\nhash_enable=0", "");
    let daemon = Launch::new(Program::Flowlog, namespace, &text)?.start()?;
    udp_burst(&single, 4000, 0, 50)?;
    daemon.wait_lines("all lines", |lines| lines.len() == 50)?;
    let (status, said) = in_time(namespace, "/healthz")?;
    ensure!(status.contains(" 200 "), "{status} {said}");
    let stopped = Stopped::of(&daemon)?;
    // An answer is good for some milliseconds.
    poll::until("bad health", || {
        Ok(in_time(namespace, "/healthz")?.0.contains(" 503 ").then_some(()))
    })?;
    for _ in 0..3 {
        let (status, said) = in_time(namespace, "/healthz")?;
        ensure!(status.contains(" 503 "), "{status} {said}");
        ensure!(said.starts_with("the engine has not answered for "), "{said}");
        let (status, page) = in_time(namespace, "/metrics")?;
        ensure!(status.contains(" 200 "), "{status}");
        ensure!(sum(&page, "flowlog_health", "")? == 0.0, "{page}");
        ensure!(sum(&page, "flowlog_sink_written_records_total", "")? == 50.0, "{page}");
        super::promtool_accepts(&page)?;
    }
    drop(stopped);
    poll::until("good health", || {
        Ok(in_time(namespace, "/healthz")?.0.contains(" 200 ").then_some(()))
    })?;
    daemon.stop()?;
    Ok(())
}
