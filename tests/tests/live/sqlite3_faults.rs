//! SQLITE3 on a disk that is slow, full or fails, with databases that are locked, damaged or removed
//! beneath it, and under a clock that is set: other stacks have every line in time, the daemon ends in time, and what was made is written or counted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::{Daemon, Finished, Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset, totals};
use tests::metrics::{ADDRESS, get};
use tests::poll;
use tests::slow_disk::SlowDisk;
use tests::sqlite::{ask, count};

use super::archive_gaps::faketime;
use super::disk_full::SmallDisk;

const FLOWS: u32 = 1200;
/// Flows made at once.
const PART: u32 = 300;
/// How long the other stack may take for its lines.
const IN_TIME: Duration = Duration::from_secs(5);
/// How long the daemon may take to end.
const END: Duration = Duration::from_secs(8);

fn config() -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nmetrics={ADDRESS}\n\
         stack=ct1:NFCT,db1:SQLITE3\n\
         stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\nevent_mask=1\nhash_enable=0\naccept_dst_filter=198.19.0.0/16\n{ROOMY}[db1]\ndb=\"@DIR@/db/flow.db\"\nsync=1\n\
         [emu1]\nfile=\"@DIR@/flows.log\"\nsync=1\n"
    )
}

fn launch(single: &SingleNs) -> Result<Launch<'_>> {
    let launch = Launch::new(Program::Flowlog, single.namespace(), &config())?;
    fs::create_dir(launch.dir().join("db"))?;
    Ok(launch)
}

/// Makes all flows; the other stack has them in time, and `/healthz` answers.
fn make(single: &SingleNs, daemon: &Daemon) -> Result<()> {
    let begin = Instant::now();
    for part in 0..FLOWS / PART {
        udp_burst(single, 4000, part * PART, PART)?;
    }
    daemon.wait_lines("the other stack", |lines| lines.len() >= FLOWS as usize)?;
    ensure!(begin.elapsed() < IN_TIME, "its lines took {:?}", begin.elapsed());
    let asked = Instant::now();
    get(single.namespace(), ADDRESS, "/healthz")?;
    ensure!(asked.elapsed() < Duration::from_secs(1), "/healthz took {:?}", asked.elapsed());
    Ok(())
}

/// Ends the daemon in time; what was made is in the database or counted.
fn stop(daemon: Daemon) -> Result<(Finished, u64)> {
    let begin = Instant::now();
    let finished = daemon.stop()?;
    ensure!(begin.elapsed() < END, "its end took {:?}", begin.elapsed());
    let lines = burst_lines("NEW", 4000, 0..FLOWS);
    ensure_equal("lines", &lines, &multiset(&finished.lines))?;
    let totals = totals(&finished.log);
    let get = |name: &str| totals.get(&format!("sqlite3.{name}")).copied().context("no total");
    let (written, lost, unsure) = (get("records")?, get("lost_records")?, get("unsure_records")?);
    ensure!(written + lost + unsure == u64::from(FLOWS), "{totals:?}");
    let rows = count(&finished.path("db/flow.db"), "flow")? as u64;
    ensure!((written..=written + unsure).contains(&rows), "{rows} rows: {totals:?}");
    Ok((finished, lost + unsure))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_slow_disk_delays_rows_only() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SlowDisk::new()?;
    let mut launch = launch(&single)?;
    for (name, value) in disk.environment("flow.db") {
        launch = launch.environment(name, &value);
    }
    let daemon = launch.start()?;
    let db = daemon.path("db/flow.db");
    disk.slow_down(Duration::from_secs(60))?;
    make(&single, &daemon)?;
    ensure!(count(&db, "flow")? < FLOWS as usize, "the disk was not slow");
    disk.speed_up()?;
    poll::until("all rows", || Ok((count(&db, "flow")? == FLOWS as usize).then_some(())))?;
    let (_, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    Ok(())
}

/// The disk stays slow to the end.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_exit_waits_no_longer_for_a_slow_disk() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SlowDisk::new()?;
    let mut launch = launch(&single)?;
    for (name, value) in disk.environment("flow.db") {
        launch = launch.environment(name, &value);
    }
    let daemon = launch.start()?;
    disk.slow_down(Duration::from_secs(60))?;
    make(&single, &daemon)?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost > 0, "nothing was slow");
    ensure!(finished.log.contains("are lost at exit"), "{}", finished.log);
    Ok(())
}

/// Holds the lock of a database until its input is closed.
fn lock(db: &Path, begin: &str) -> Result<Child> {
    let mut locker = Command::new("sqlite3");
    let locker = locker.arg(db).stdin(Stdio::piped());
    let mut locker = locker.stdout(Stdio::piped()).spawn()?;
    let input = locker.stdin.as_mut().context("no standard input")?;
    input.write_all(format!("{begin}; SELECT 'held';\n").as_bytes())?;
    locker.stdout.as_mut().context("no output")?.read_exact(&mut [0; 5])?;
    Ok(locker)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_exit_waits_no_longer_for_a_lock() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single)?.start()?;
    let mut locker = lock(&daemon.path("db/flow.db"), "BEGIN IMMEDIATE")?;
    make(&single, &daemon)?;
    daemon.wait_log("cannot be written: database is locked; another process writes it")?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost == u64::from(FLOWS), "{lost} lost");
    ensure!(finished.log.contains("1200 records for "), "{}", finished.log);
    drop(locker.stdin.take());
    locker.wait()?;
    Ok(())
}

/// Removed with its directory while rows come: made anew at once, and the others go on.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_removed_directory_is_made_anew() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single)?.start()?;
    let db = daemon.path("db/flow.db");
    poll::until("its beginning", || {
        Ok((count(&db, "coverage").unwrap_or_default() > 0).then_some(()))
    })?;
    fs::remove_dir_all(daemon.path("db"))?;
    let begin = Instant::now();
    poll::until("a new database", || Ok(db.exists().then_some(())))?;
    ensure!(begin.elapsed() < Duration::from_secs(2), "after {:?}", begin.elapsed());
    daemon.wait_log("it was removed, or replaced by another file")?;
    make(&single, &daemon)?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    let totals = totals(&finished.log);
    ensure!(totals.get("sqlite3.replaced_files") == Some(&1), "{totals:?}");
    Ok(())
}

/// Damaged while flowlog was away: found with the first rows.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_damaged_database_is_set_aside() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single)?;
    let db = launch.dir().join("db/flow.db");
    // As flowlog makes it, with more than a page of rows.
    let first = Launch::new(
        Program::Flowlog,
        single.namespace(),
        &config().replace("@DIR@/db/flow.db", &db.to_string_lossy()),
    )?;
    let first = first.start()?;
    udp_burst(&single, 4000, 5000, 300)?;
    poll::until("rows", || Ok((count(&db, "flow")? == 300).then_some(())))?;
    first.stop()?;
    single.namespace().flush_conntrack()?;
    let file = fs::OpenOptions::new().write(true).open(&db)?;
    let length = file.metadata()?.len();
    file.write_all_at(&vec![0xee; length as usize - 4096], 4096)?;
    let daemon = launch.start()?;
    make(&single, &daemon)?;
    poll::until("all rows", || {
        Ok((count(&db, "flow").unwrap_or_default() == FLOWS as usize).then_some(()))
    })?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    ensure!(finished.log.contains("flow.db was damaged. It is "), "{}", finished.log);
    let totals = totals(&finished.log);
    ensure!(totals.get("sqlite3.set_aside_files") == Some(&1), "{totals:?}");
    ensure!(ask(&finished.path("db/flow.db"), "PRAGMA integrity_check")? == ["ok"]);
    Ok(())
}

/// What `/healthz` says.
fn health(single: &SingleNs) -> Result<String> {
    Ok(get(single.namespace(), ADDRESS, "/healthz")?.1)
}

/// What `flowlog check` says of a configuration.
fn check(config: &Path) -> Result<String> {
    let mut check = Command::new(Program::Flowlog.path()?);
    let output = check.args(["check", "-c"]).arg(config).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process holds the lock of a database that has not flowlog's tables yet.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_locked_database_does_not_stop_the_start() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = launch(&single)?;
    let db = launch.dir().join("db/flow.db");
    ask(&db, "CREATE TABLE mine (a)")?;
    let mut locker = lock(&db, "BEGIN EXCLUSIVE")?;
    let said = check(&launch.dir().join("ulogd.conf"))?;
    let holder = format!("process {} (sqlite3) holds its lock; flowlog starts", locker.id());
    ensure!(said.contains(&holder), "{said}");
    let daemon = launch.start()?;
    make(&single, &daemon)?;
    let said = health(&single)?;
    ensure!(said.contains("another process writes it"), "{said}");
    drop(locker.stdin.take());
    locker.wait()?;
    poll::until("all rows", || {
        Ok((count(&db, "flow").unwrap_or_default() == FLOWS as usize).then_some(()))
    })?;
    ensure!(health(&single)? == "ok\n");
    let (_, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    Ok(())
}

/// The disk of a new database is full at start.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_full_disk_does_not_stop_the_start() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(8 << 20)?;
    let filler = disk.fill(4096)?;
    let db = disk.path("flow.db");
    let text = config().replace("@DIR@/db/flow.db", &db.to_string_lossy());
    let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
    let said = check(&launch.dir().join("ulogd.conf"))?;
    ensure!(said.contains("bytes left; flowlog starts and awaits it; make room"), "{said}");
    let daemon = launch.start()?;
    make(&single, &daemon)?;
    let said = health(&single)?;
    ensure!(said.contains("make room"), "{said}");
    fs::remove_file(filler)?;
    poll::until("all rows", || {
        Ok((count(&db, "flow").unwrap_or_default() == FLOWS as usize).then_some(()))
    })?;
    let finished = daemon.stop()?;
    let totals = totals(&finished.log);
    ensure!(totals.get("sqlite3.records") == Some(&u64::from(FLOWS)), "{totals:?}");
    ensure!(totals.get("sqlite3.lost_records") == Some(&0), "{totals:?}");
    Ok(())
}

/// Launches it with its database on a disk that can fail.
fn on(disk: &SlowDisk, single: &SingleNs) -> Result<Daemon> {
    let mut launch = launch(single)?;
    for (name, value) in disk.environment("flow.db") {
        launch = launch.environment(name, &value);
    }
    launch.start()
}

/// Rows of a commit whose fdatasync failed do not count as written; they are written again.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_sync_that_fails_is_not_taken_for_written() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SlowDisk::new()?;
    let daemon = on(&disk, &single)?;
    let db = daemon.path("db/flow.db");
    udp_burst(&single, 4000, 0, PART)?;
    poll::until("the first rows", || Ok((count(&db, "flow")? == PART as usize).then_some(())))?;
    disk.fail_once()?;
    for part in 1..FLOWS / PART {
        udp_burst(&single, 4000, part * PART, PART)?;
    }
    daemon.wait_log("flow.db cannot be written: disk I/O error")?;
    ensure!(disk.has_failed(), "no sync has failed");
    daemon.wait_log("flow.db can be written again")?;
    poll::until("all rows", || Ok((count(&db, "flow")? == FLOWS as usize).then_some(())))?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    let totals = totals(&finished.log);
    ensure!(totals.get("sqlite3.errors").is_some_and(|errors| *errors > 0), "{totals:?}");
    Ok(())
}

/// A disk that fails while the daemon ends is tried until the deadline.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_exit_tries_a_disk_that_fails_again() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SlowDisk::new()?;
    let daemon = on(&disk, &single)?;
    disk.fail()?;
    make(&single, &daemon)?;
    daemon.wait_log("flow.db cannot be written: disk I/O error")?;
    daemon.process.signal(Signal::SIGTERM)?;
    poll::until("an attempt at the exit", || {
        let log = daemon.log();
        let after = log.split_once("Terminal signal received").map(|(_, after)| after.to_owned());
        Ok(after.is_some_and(|after| after.contains("cannot be written")).then_some(()))
    })?;
    disk.work()?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    ensure!(ask(&finished.path("db/flow.db"), "PRAGMA integrity_check")? == ["ok"]);
    Ok(())
}

/// It fails to the end: what may be on disk is unsure, not lost.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_exit_counts_what_a_failing_disk_may_have() -> Result<()> {
    let single = SingleNs::new()?;
    let disk = SlowDisk::new()?;
    let daemon = on(&disk, &single)?;
    disk.fail()?;
    make(&single, &daemon)?;
    daemon.wait_log("flow.db cannot be written: disk I/O error")?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost > 0, "the disk did not fail\n{}", finished.log);
    let unsure = totals(&finished.log).get("sqlite3.unsure_records").copied();
    ensure!(unsure.is_some_and(|unsure| unsure > 0), "{}", finished.log);
    Ok(())
}

/// The clock is set forward and back: no time that it has left out, or that is to come, is
/// covered.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_clock_that_is_set_ends_a_run() -> Result<()> {
    const HOUR: i64 = 3600;
    let single = SingleNs::new()?;
    let launch = launch(&single)?;
    let clock = launch.dir().join("clock");
    fs::write(&clock, "+0")?;
    let daemon = launch
        .environment("LD_PRELOAD", &faketime()?)
        .environment("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy())
        .environment("FAKETIME_NO_CACHE", "1")
        .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .start()?;
    let db = daemon.path("db/flow.db");
    let runs = |condition: &str| count(&db, &format!("coverage WHERE kind = 'run' {condition}"));
    let has = |what: &str, number: usize, condition: &str| {
        poll::until(what, || Ok((runs(condition).unwrap_or_default() == number).then_some(())))
    };
    let ended = "AND until > since";
    has("a covered time", 1, ended)?;
    fs::write(&clock, "+7200")?;
    has("the time of the new clock", 2, ended)?;
    let apart = format!("AND since - (SELECT min(until) FROM coverage) > {HOUR} * 1000000000");
    has("no time between", 1, &apart)?;
    fs::write(&clock, "+0")?;
    has("the time of the old clock", 3, "")?;
    // What the clock has shown in advance is not covered when it comes.
    has("no time to come", 0, "AND until / 1000000000 > unixepoch()")?;
    make(&single, &daemon)?;
    let (finished, lost) = stop(daemon)?;
    ensure!(lost == 0, "{lost} lost");
    let db = finished.path("db/flow.db");
    let future = count(&db, "coverage WHERE until / 1000000000 > unixepoch()")?;
    ensure!(future == 0, "{:?}", ask(&db, "SELECT * FROM coverage")?);
    Ok(())
}
