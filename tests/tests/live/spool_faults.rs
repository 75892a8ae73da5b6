//! A spool that is damaged, removed, or on a full disk: the daemon starts and goes on, other stacks
//! have every line, and what was made is in the spool or counted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, uncounted_burst};
use tests::chaos::shim::{CONTROL, Shim};
use tests::daemon::{Daemon, Finished, Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset, totals};
use tests::metrics::{ADDRESS, get, scrape, sum};
use tests::poll;
use tests::sqlite::{ask, count};

use super::archive_gaps::fill_up;
use super::disk_full::SmallDisk;

const FLOWS: u32 = 1200;
/// A fault may go unnoticed for that long.
const NOTICED: Duration = Duration::from_secs(2);

/// Nothing listens for NATS, so that all stays in the spool.
fn config(spool: &Path, keys: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nmetrics={ADDRESS}\n\
         spool_dir=\"{}\"\nstack=ct1:NFCT,nats1:NATS\n\
         stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n{ROOMY}\
         [emu1]\nfile=\"@DIR@/flows.log\"\n[nats1]\nstream=FLOWS\n{keys}\n",
        spool.display()
    )
}

fn start(single: &SingleNs, spool: &Path, keys: &str) -> Result<Daemon> {
    Launch::new(Program::Flowlog, single.namespace(), &config(spool, keys))?.start()
}

fn metric(single: &SingleNs, name: &str) -> Result<u64> {
    Ok(sum(&scrape(single.namespace())?, name, "sink=\"nats1\"")? as u64)
}

fn wait_for(single: &SingleNs, name: &str, value: u32) -> Result<()> {
    poll::until(name, || Ok((metric(single, name)? >= value.into()).then_some(())))
}

fn stop(daemon: Daemon, flows: std::ops::Range<u32>) -> Result<Finished> {
    let begin = Instant::now();
    let finished = daemon.stop()?;
    ensure!(begin.elapsed() < Duration::from_secs(8), "its end took {:?}", begin.elapsed());
    ensure_equal("lines", &burst_lines("NEW", 4000, flows), &multiset(&finished.lines))?;
    Ok(finished)
}

fn of(finished: &Finished, name: &str) -> u64 {
    totals(&finished.log).get(&format!("nats.{name}")).copied().unwrap_or_default()
}

fn directory() -> Result<(tempfile::TempDir, PathBuf)> {
    let dir = tempfile::Builder::new().prefix("flowlog-spool-").tempdir()?;
    let spool = dir.path().join("spool");
    Ok((dir, spool))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_damaged_spool_is_set_aside() -> Result<()> {
    let single = SingleNs::new()?;
    let (_dir, spool) = directory()?;
    let daemon = start(&single, &spool, "")?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
    stop(daemon, 0..FLOWS)?;
    let file = fs::OpenOptions::new().write(true).open(spool.join("spool.db"))?;
    file.write_all_at(&[0xee; 8192], 0)?;
    let daemon = start(&single, &spool, "")?;
    uncounted_burst(&single, 4000, FLOWS, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
    let finished = stop(daemon, FLOWS..2 * FLOWS)?;
    ensure!(finished.log.contains("was damaged or replaced, and is "), "{}", finished.log);
    // What it held was noted beside it.
    ensure!(finished.log.contains("0 records are in it, 1200 are lost"), "{}", finished.log);
    ensure!(of(&finished, "set_aside_files") == 1);
    ensure!(of(&finished, "lost_records") == u64::from(FLOWS), "{}", finished.log);
    ensure!(finished.log.contains("1200 records for nats1:NATS wait in "), "{}", finished.log);
    Ok(())
}

/// Its records are still held open, and go into the new one: they do wait for the next start.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_removed_spool_is_made_anew() -> Result<()> {
    let single = SingleNs::new()?;
    let (_dir, spool) = directory()?;
    let daemon = start(&single, &spool, "")?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
    fs::remove_dir_all(&spool)?;
    let begin = Instant::now();
    daemon
        .wait_log("spool.db was removed. A new one is begun: 1200 records are in it, 0 are lost")?;
    ensure!(begin.elapsed() < NOTICED, "after {:?}", begin.elapsed());
    uncounted_burst(&single, 4000, FLOWS, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", 2 * FLOWS)?;
    let finished = stop(daemon, 0..2 * FLOWS)?;
    ensure!(of(&finished, "replaced_files") == 1 && of(&finished, "lost_records") == 0);
    let daemon = start(&single, &spool, "")?;
    let waits = metric(&single, "flowlog_sink_spool_records")?;
    ensure!(waits == u64::from(2 * FLOWS), "{waits} records are in the spool");
    daemon.stop()?;
    Ok(())
}

/// Nothing can be made in its place: `/healthz` says so, and the end counts what it held.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_ends_with_a_removed_spool_is_counted() -> Result<()> {
    let single = SingleNs::new()?;
    let (dir, _) = directory()?;
    let above = dir.path().join("above");
    fs::create_dir(&above)?;
    let daemon = start(&single, &above.join("spool"), "")?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
    fs::remove_dir_all(&above)?;
    poll::within(NOTICED, "it in /healthz", || {
        let (_, page) = get(single.namespace(), ADDRESS, "/healthz")?;
        Ok(page.contains("spool.db was removed: ").then_some(()))
    })?;
    let finished = stop(daemon, 0..FLOWS)?;
    ensure!(of(&finished, "lost_records") == u64::from(FLOWS), "{}", finished.log);
    ensure!(!finished.log.contains("for the next start"), "{}", finished.log);
    Ok(())
}

/// Its directory goes, and comes back as it was: it is in its place again.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_spool_that_comes_back_is_attached_again() -> Result<()> {
    let single = SingleNs::new()?;
    let (dir, _) = directory()?;
    let (above, away) = (dir.path().join("above"), dir.path().join("away"));
    fs::create_dir(&above)?;
    let daemon = start(&single, &above.join("spool"), "")?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
    fs::rename(&above, &away)?;
    daemon.wait_log("spool.db was removed: ")?;
    uncounted_burst(&single, 4000, FLOWS, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", 2 * FLOWS)?;
    fs::rename(&away, &above)?;
    poll::within(NOTICED, "that it is back", || {
        Ok(daemon.log().contains("spool.db is in its place again").then_some(()))
    })?;
    let (_, page) = get(single.namespace(), ADDRESS, "/healthz")?;
    ensure!(!page.contains("was removed"), "{page}");
    let finished = stop(daemon, 0..2 * FLOWS)?;
    ensure!(of(&finished, "lost_records") == 0, "{}", finished.log);
    ensure!(finished.log.contains("2400 records for nats1:NATS wait in "), "{}", finished.log);
    Ok(())
}

/// A sync of the spool fails: the records are written once more.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_sync_of_the_spool_that_fails_loses_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let (dir, spool) = directory()?;
    let shim = Shim::build(dir.path())?;
    let mut daemon = Launch::new(Program::Flowlog, single.namespace(), &config(&spool, ""))?
        .environment("LD_PRELOAD", &shim.library().to_string_lossy())
        .environment(CONTROL, &shim.control().to_string_lossy())
        .start()?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
    shim.fail_syncs(3)?;
    uncounted_burst(&single, 4000, FLOWS, FLOWS)?;
    daemon.wait_log("spool.db: disk I/O error; see what the kernel says of the disk")?;
    wait_for(&single, "flowlog_sink_spooled_records_total", 2 * FLOWS)?;
    daemon.wait_log("spool.db can be written again")?;
    let (_, failed) = shim.failed()?;
    ensure!(failed == 3, "{failed} syncs have failed");
    daemon.process.signal(Signal::SIGKILL)?;
    daemon.process.wait()?;
    let daemon = start(&single, &spool, "")?;
    let waits = metric(&single, "flowlog_sink_spool_records")?;
    let lost = metric(&single, "flowlog_sink_lost_records_total")?;
    ensure!((waits, lost) == (u64::from(2 * FLOWS), 0), "{waits} are in the spool, {lost} lost");
    daemon.stop()?;
    Ok(())
}

/// Records wait in memory, and `/healthz` says so; what does not fit, and what waits at the end, is
/// counted.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_spool_on_a_full_disk_loses_nothing_uncounted() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(300 << 10)?;
    let daemon = start(&single, &disk.path("spool"), "buffer_max_bytes=200000")?;
    for part in 0..10 {
        uncounted_burst(&single, 4000, part * FLOWS, FLOWS)?;
    }
    poll::until("it in /healthz", || {
        let (_, page) = get(single.namespace(), ADDRESS, "/healthz")?;
        Ok((page.contains("spool.db: ") && page.contains("make room")).then_some(()))
    })?;
    let flows = 10 * FLOWS;
    daemon.wait_lines("the other stack", |lines| lines.len() >= flows as usize)?;
    daemon.wait_log(" records wait in memory")?;
    ensure!(metric(&single, "flowlog_sink_lost_records_total")? > 0, "the buffer has no end");
    let finished = stop(daemon, 0..flows)?;
    let (spooled, lost) = (of(&finished, "spooled_records"), of(&finished, "lost_records"));
    ensure!(spooled + lost == u64::from(flows), "{spooled} spooled, {lost} lost");
    Ok(())
}

/// A full disk is tried with backoff, reported once, and found to have room again within a second.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn room_for_the_spool_is_noticed_soon() -> Result<()> {
    // Attempts to reach NATS are among them.
    const MOST: u64 = 25;
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(32 << 20)?;
    let daemon = start(&single, &disk.path("spool"), "")?;
    uncounted_burst(&single, 4000, 0, 1)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", 1)?;
    let filler = fill_up(&disk)?;
    // A chunk each tenth of a second.
    let begin = Instant::now();
    let mut flows = 1;
    while begin.elapsed() < Duration::from_secs(5) {
        uncounted_burst(&single, 4000, flows, 30)?;
        flows += 30;
        let made = flows as usize;
        daemon.wait_lines("the other stack", |lines| lines.len() >= made)?;
    }
    let errors = metric(&single, "flowlog_sink_errors_total")?;
    ensure!((1..=MOST).contains(&errors), "{errors} attempts in {:?}", begin.elapsed());
    fs::remove_file(filler)?;
    let freed = Instant::now();
    wait_for(&single, "flowlog_sink_spooled_records_total", flows)?;
    ensure!(freed.elapsed() < NOTICED, "room was noticed after {:?}", freed.elapsed());
    let finished = stop(daemon, 0..flows)?;
    ensure!(of(&finished, "lost_records") == 0, "{}", finished.log);
    let reports = finished.log.matches(" records wait in memory").count();
    ensure!(reports == 1, "{reports} reports\n{}", finished.log);
    Ok(())
}

/// Its disk is full before there is a file, so that none can be made.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_spool_on_a_full_disk_does_not_stop_the_start() -> Result<()> {
    for room_again in [true, false] {
        let single = SingleNs::new()?;
        let disk = SmallDisk::new(1 << 20)?;
        let spool = disk.path("spool");
        fs::create_dir(&spool)?;
        let filler = fill_up(&disk)?;
        let daemon = start(&single, &spool, "")?;
        uncounted_burst(&single, 4000, 0, FLOWS)?;
        daemon.wait_lines("the other stack", |lines| lines.len() == FLOWS as usize)?;
        let (_, said) = get(single.namespace(), ADDRESS, "/healthz")?;
        ensure!(said.contains("nats1:NATS") && said.contains("make room"), "{said}");
        if room_again {
            fs::remove_file(&filler)?;
            wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS)?;
        }
        let finished = stop(daemon, 0..FLOWS)?;
        ensure!(finished.log.contains("opens it as soon as that is possible"), "{}", finished.log);
        let lost = if room_again { 0 } else { u64::from(FLOWS) };
        ensure!(of(&finished, "lost_records") == lost, "{}", finished.log);
    }
    Ok(())
}

/// Another process holds its lock at the start, and until after the end.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_exit_does_not_wait_for_a_spool_that_is_locked() -> Result<()> {
    let single = SingleNs::new()?;
    let (_dir, spool) = directory()?;
    start(&single, &spool, "")?.stop()?;
    let db = spool.join("spool.db");
    // So that the lock keeps others from reading it as well.
    ask(&db, "PRAGMA journal_mode = DELETE")?;
    let mut locker = Command::new("sqlite3");
    let locker = locker.arg(&db).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut locker = locker.spawn()?;
    let mut input = locker.stdin.take().context("no standard input")?;
    input.write_all(b"BEGIN EXCLUSIVE; SELECT 'held';\n")?;
    locker.stdout.as_mut().context("no output")?.read_exact(&mut [0; 5])?;
    let daemon = start(&single, &spool, "")?;
    uncounted_burst(&single, 4000, 0, FLOWS)?;
    daemon.wait_lines("the other stack", |lines| lines.len() == FLOWS as usize)?;
    let (_, said) = get(single.namespace(), ADDRESS, "/healthz")?;
    ensure!(said.contains("spool.db: ") && said.contains("another process has it open"), "{said}");
    // Within 8 s.
    let finished = stop(daemon, 0..FLOWS)?;
    ensure!(finished.log.contains("1200 records for nats1:NATS could not be spooled"));
    let (spooled, lost) = (of(&finished, "spooled_records"), of(&finished, "lost_records"));
    ensure!((spooled, lost) == (0, u64::from(FLOWS)), "{spooled} spooled, {lost} lost");
    // The end of its input ends it.
    drop(input);
    locker.wait()?;
    ensure!(count(&db, "batch")? == 0, "what is in the spool was counted as lost");
    Ok(())
}

/// The disk has room for a part of a copy: none is begun, as it would take the room of others.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_damaged_spool_is_copied_when_there_is_room() -> Result<()> {
    const ALL: u32 = 10 * FLOWS;
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(64 << 20)?;
    let spool = disk.path("spool");
    let daemon = start(&single, &spool, "")?;
    for part in 0..10 {
        uncounted_burst(&single, 4000, part * FLOWS, FLOWS)?;
    }
    wait_for(&single, "flowlog_sink_spooled_records_total", ALL)?;
    stop(daemon, 0..ALL)?;
    // Of its index: what it held is noted beside it, and all of it can be read.
    let db = spool.join("spool.db");
    let sql = "SELECT (rootpage - 1) * 16384 FROM sqlite_schema WHERE name = 'batch_amounts'";
    let page: u64 = ask(&db, sql)?.concat().parse()?;
    fs::OpenOptions::new().write(true).open(&db)?.write_all_at(&[0xee; 16384], page)?;
    let filler = fill_up(&disk)?;
    // There is room for some of it.
    let less = fs::metadata(&filler)?.len() - (512 << 10);
    fs::OpenOptions::new().write(true).open(&filler)?.set_len(less)?;
    let daemon = start(&single, &spool, "")?;
    let begin = Instant::now();
    while begin.elapsed() < NOTICED {
        ensure!(!spool.join("spool.db.flowlog-new").exists(), "another one is begun");
        std::thread::sleep(Duration::from_millis(1));
    }
    let (_, said) = get(single.namespace(), ADDRESS, "/healthz")?;
    let named = "spool.db is damaged, and cannot be replaced: ";
    ensure!(said.contains(named) && said.contains("make room"), "{said}");
    fs::remove_file(&filler)?;
    uncounted_burst(&single, 4000, ALL, FLOWS)?;
    wait_for(&single, "flowlog_sink_spooled_records_total", FLOWS).with_context(|| daemon.log())?;
    let finished = stop(daemon, ALL..ALL + FLOWS)?;
    ensure!(finished.log.contains("12000 records are in it, 0 are lost"), "{}", finished.log);
    ensure!(finished.log.contains("13200 records for nats1:NATS wait in "), "{}", finished.log);
    ensure!(of(&finished, "lost_records") == 0 && of(&finished, "set_aside_files") == 1);
    Ok(())
}
