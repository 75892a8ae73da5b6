//! SQLITE3 on a disk that is slow, and with databases that are damaged or removed beneath it: other
//! stacks have every line in time, the daemon ends in time, and what was made is written or counted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::burst::{burst_lines, udp_burst};
use tests::daemon::{Daemon, Finished, Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::lines::{ensure_equal, multiset, totals};
use tests::metrics::{ADDRESS, get};
use tests::poll;
use tests::slow_disk::SlowDisk;
use tests::sqlite::{ask, count};

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
fn lock(daemon: &Daemon) -> Result<Child> {
    let mut locker = Command::new("sqlite3");
    let locker = locker.arg(daemon.path("db/flow.db")).stdin(Stdio::piped());
    let mut locker = locker.stdout(Stdio::piped()).spawn()?;
    let input = locker.stdin.as_mut().context("no standard input")?;
    input.write_all(b"BEGIN IMMEDIATE; SELECT 'held';\n")?;
    locker.stdout.as_mut().context("no output")?.read_exact(&mut [0; 5])?;
    Ok(locker)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn an_exit_waits_no_longer_for_a_lock() -> Result<()> {
    let single = SingleNs::new()?;
    let daemon = launch(&single)?.start()?;
    let mut locker = lock(&daemon)?;
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
