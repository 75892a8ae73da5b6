//! Outputs whose reader is not there, stalls, or goes away: a FIFO and standard output. Nothing
//! waits for them: the other stack has every record, /healthz answers, TERM ends the daemon, and
//! what was not read is counted.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Finished, Launch, Program};
use tests::lab::SingleNs;
use tests::lines::totals;
use tests::metrics::{ADDRESS, get};
use tests::namespace::Namespace;
use tests::poll;
use tests::process::Guarded;

/// What the end of a daemon may take, on a busy machine.
const END: Duration = Duration::from_secs(3);
/// Lines of a flow are about 190 bytes long: more than a pipe and the buffer hold.
const FLOWS: u32 = 1200;

/// LOGEMU with these keys, and JSON beside it.
pub(super) fn config(emu: &str, json: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nmetrics=\"{ADDRESS}\"\n\
         stack=ct1:NFCT,ip2str1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         stack=ct1:NFCT,json1:JSON\n\
         [ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n\
         netlink_socket_buffer_size=8388608\nnetlink_socket_buffer_maxsize=33554432\n\
         [emu1]\n{emu}\n[json1]\nschema=\"full\"\n{json}\n"
    )
}

/// Whole lines of a text that hold no report of a loss.
fn count(text: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(text);
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    lines.filter(|line| line.contains("198.19.")).count() as u64
}

/// Waits until a file of the daemon has that number of records.
pub(super) fn wait_lines(daemon: &Daemon, file: &str, lines: u32) -> Result<()> {
    poll::until(&format!("{lines} lines in {file}"), || {
        Ok((count(daemon.text(file).as_bytes()) == u64::from(lines)).then_some(()))
    })
    .with_context(|| format!("{} lines\n{}", count(daemon.text(file).as_bytes()), daemon.log()))
}

/// What /healthz says. It and /metrics answer at once.
pub(super) fn health(namespace: &Namespace) -> Result<String> {
    get(namespace, ADDRESS, "/metrics")?;
    Ok(get(namespace, ADDRESS, "/healthz")?.1)
}

/// Ends the daemon, at once.
pub(super) fn stop(daemon: Daemon) -> Result<Finished> {
    let start = Instant::now();
    let finished = daemon.stop()?;
    ensure!(start.elapsed() < END, "TERM took {:?}\n{}", start.elapsed(), finished.log);
    ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
    Ok(finished)
}

/// A total of the daemon.
pub(super) fn total(finished: &Finished, name: &str) -> Result<u64> {
    totals(&finished.log).get(name).copied().with_context(|| format!("{name}\n{}", finished.log))
}

/// Opens a FIFO for reading, and does not read.
fn open_fifo(path: &Path) -> Result<File> {
    Ok(OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?)
}

/// What there is to read: up to the end, as nobody writes any more.
fn drain(mut reader: File) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    reader.read_to_end(&mut text)?;
    Ok(text)
}

fn launch<'n>(single: &'n SingleNs, emu: &str, json: &str) -> Result<Launch<'n>> {
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config(emu, json))?;
    mkfifo(&launch.dir().join("pipe"), Mode::from_bits_truncate(0o600))?;
    Ok(launch)
}

const FIFO: &str = "file=\"@DIR@/pipe\"\nbuffer_max_bytes=65536";
const BESIDE: &str = "file=\"@DIR@/flows.json\"\nsync=1";

/// It starts without one, says so, and loses what the buffer does not hold.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_fifo_that_has_no_reader_is_awaited() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, FIFO, BESIDE)?.start()?;
    daemon.wait_log("pipe has no reader")?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    wait_lines(&daemon, "flows.json", FLOWS)?;
    let health = health(single.namespace())?;
    ensure!(health.contains("/pipe") && health.contains("start what reads it"), "{health}");
    let finished = stop(daemon)?;
    ensure!(total(&finished, "logemu.lines")? == 0, "{}", finished.log);
    ensure!(total(&finished, "logemu.lost_lines")? >= u64::from(FLOWS), "{}", finished.log);
    ensure!(finished.log.contains("are lost at exit"), "{}", finished.log);
    let said = finished.log.matches("has no reader").count();
    ensure!(said == 1, "said {said} times\n{}", finished.log);
    Ok(())
}

/// What waited for the reader is read by it, whole.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_reader_that_comes_late_gets_what_waited() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single, "file=\"@DIR@/pipe\"", BESIDE)?.start()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    wait_lines(&daemon, "flows.json", FLOWS)?;
    let copy = format!("exec cat {0}/pipe >{0}/copy", daemon.path("").display());
    let mut reader = Guarded::spawn(Command::new("sh").args(["-c", &copy]))?;
    wait_lines(&daemon, "copy", FLOWS)?;
    let finished = stop(daemon)?;
    reader.wait()?;
    ensure!(total(&finished, "logemu.lines")? == u64::from(FLOWS), "{}", finished.log);
    ensure!(total(&finished, "logemu.lost_lines")? == 0, "{}", finished.log);
    Ok(())
}

/// The reader goes, then HUP, then TERM: none of them waits for another reader.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn hup_without_a_reader_waits_for_none() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single, FIFO, BESIDE)?;
    let reader = open_fifo(&launch.dir().join("pipe"))?;
    let daemon = launch.start()?;
    udp_burst(&single, 4000, 0, 100)?;
    wait_lines(&daemon, "flows.json", 100)?;
    let mut text = Vec::new();
    poll::until("the lines", || {
        let mut part = [0; 65536];
        if let Ok(length) = (&reader).read(&mut part) {
            text.extend_from_slice(&part[..length]);
        }
        Ok((count(&text) == 100).then_some(()))
    })?;
    poll::until("their count", || {
        let page = tests::metrics::scrape(single.namespace())?;
        let waiting = tests::metrics::sum(&page, "flowlog_sink_buffer_bytes", "sink=\"emu1\"")?;
        Ok((waiting == 0.0).then_some(()))
    })?;
    drop(reader);
    daemon.process.signal(Signal::SIGHUP)?;
    udp_burst(&single, 4000, 100, 100)?;
    wait_lines(&daemon, "flows.json", 200)?;
    daemon.wait_log("its reader has gone")?;
    daemon.process.signal(Signal::SIGHUP)?;
    health(single.namespace())?;
    let finished = stop(daemon)?;
    ensure!(total(&finished, "logemu.lines")? == 100, "{}", finished.log);
    ensure!(total(&finished, "logemu.lost_lines")? == 100, "{}", finished.log);
    Ok(())
}

/// It has the FIFO open and sleeps.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_reader_that_stalls_costs_other_stacks_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single, FIFO, BESIDE)?;
    let reader = open_fifo(&launch.dir().join("pipe"))?;
    let daemon = launch.start()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    wait_lines(&daemon, "flows.json", FLOWS)?;
    health(single.namespace())?;
    let finished = stop(daemon)?;
    let text = drain(reader)?;
    ensure!(text.ends_with(b"\n"), "a line is torn");
    let (written, lost) =
        (total(&finished, "logemu.lines")?, total(&finished, "logemu.lost_lines")?);
    ensure!(count(&text) == written, "{} read, {written} counted", count(&text));
    ensure!(lost > 0 && written + lost == u64::from(FLOWS), "{written} written, {lost} lost");
    Ok(())
}

/// Standard output is a pipe that others share, who must not find it changed.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn standard_output_that_nobody_reads_costs_other_stacks_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let json = "mode=\"stdout\"\nbuffer_max_bytes=65536";
    let launch = launch(&single, "file=\"@DIR@/flows.log\"\nsync=1", json)?;
    let pipe = launch.dir().join("pipe");
    let reader = open_fifo(&pipe)?;
    let script = format!("exec \"$@\" >{}", pipe.display());
    let daemon = launch.wrapped_by(&["sh", "-c", &script, "sh"]).start()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    wait_lines(&daemon, "flows.log", FLOWS)?;
    health(single.namespace())?;
    let flags = fs::read_to_string(format!("/proc/{}/fdinfo/1", daemon.process.pid()))?;
    let flags = flags.lines().find_map(|line| line.strip_prefix("flags:")).context("no flags")?;
    let flags = i32::from_str_radix(flags.trim(), 8)?;
    ensure!(flags & nix::libc::O_NONBLOCK == 0, "standard output was made non-blocking");
    let finished = stop(daemon)?;
    let text = drain(reader)?;
    ensure!(text.ends_with(b"\n"), "a record is torn");
    let (written, lost) =
        (total(&finished, "json.records")?, total(&finished, "json.lost_records")?);
    ensure!(count(&text) == written, "{} read, {written} counted", count(&text));
    ensure!(lost > 0 && written + lost == u64::from(FLOWS), "{written} written, {lost} lost");
    Ok(())
}
