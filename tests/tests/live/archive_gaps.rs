//! An archive says what it does not have, and `flowlog who` denies no flow that it does not know
//! of: where the spool overflows or cannot be written, and while the clock is set.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::burst::{destination, udp_burst};
use tests::chaos::shim::{CONTROL, Shim};
use tests::daemon::{Daemon, Finished, Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::lines::{tagged, totals};
use tests::poll;
use tests::python::duckdb;
use tests::sqlite;

use super::disk_full::SmallDisk;
use super::parquet::{ensure_flows, wait_spooled};

/// Without beginnings of their own: netlink, new flows only.
fn config(global: &str, keys: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n{global}\n\
         stack=ct1:NFCT,arc1:PARQUET\n\
         stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\nevent_mask=1\nhash_enable=0\n{ROOMY}[emu1]\nfile=\"@DIR@/flows.log\"\n\
         [arc1]\n{keys}\n"
    )
}

/// This moment, as `--from` and `--to` take it.
fn now() -> Result<String> {
    let date = Command::new("date").args(["-u", "+%FT%T.%NZ"]).output()?;
    Ok(String::from_utf8(date.stdout)?.trim().to_owned())
}

/// An answer: the exit code and the object.
fn who(flow: u32, [from, to]: [&str; 2], archive: &Path) -> Result<(Option<i32>, Value)> {
    let mut command = Command::new(Program::Flowlog.path()?);
    command.arg("who").arg(destination(flow).to_string());
    command.args(["--from", from, "--to", to, "--json"]).arg(archive);
    let output = command.output().context("flowlog who")?;
    let object = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((output.status.code(), object))
}

/// The same as a person reads it.
fn who_says(flow: u32, [from, to]: [&str; 2], archive: &Path) -> Result<String> {
    let mut command = Command::new(Program::Flowlog.path()?);
    command.arg("who").arg(destination(flow).to_string()).args(["--from", from, "--to", to]);
    Ok(String::from_utf8(command.arg(archive).output()?.stdout)?)
}

/// The archive is full, and the spool overflows; then there is room.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_found_no_room_is_not_denied() -> Result<()> {
    const FLOWS: u32 = 20_000;
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(1 << 20)?;
    let archive = disk.path("archive");
    let keys = format!("directory=\"{}\"\nrotate_interval=1s", archive.display());
    let text = config("spool_dir=\"@DIR@/spool\"\nspool_max_bytes=1048576", &keys);
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    let filler = disk.fill(4 << 10)?;
    let begin = now()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    daemon.wait_lines("the other stack", |lines| lines.len() == FLOWS as usize)?;
    let end = now()?;
    daemon.wait_log("No space left on device (os error 28); make room")?;
    fs::remove_file(filler)?;
    daemon.process.signal(Signal::SIGHUP)?;
    daemon.wait_log("arc1:PARQUET works again")?;
    let finished = daemon.stop()?;
    let dropped = totals(&finished.log).get("parquet.dropped_records").copied();
    let dropped = dropped.filter(|dropped| *dropped > 0).context("nothing was dropped")?;
    // Each is there or counted.
    let sql = format!("SELECT count(*) FROM '{}/*.parquet'", archive.display());
    let rows: u64 = duckdb(&sql)?.concat().parse()?;
    ensure!(rows + dropped == u64::from(FLOWS), "{rows} are there, {dropped} dropped");
    // The oldest found no room, unless they were being written just then; the newest are there.
    for (flow, found) in [(0, 0..=1), (FLOWS - 1, 1..=1)] {
        let (code, answer) = who(flow, [&begin, &end], &archive)?;
        let connections = answer["connections"].as_array().map_or(0, Vec::len);
        let known = code == Some(3) && found.contains(&connections);
        ensure!(known, "flow {flow}: {code:?} {answer}");
        ensure!(answer["unknown"] == Value::Array(Vec::new()), "all is covered: {answer}");
        let missing = answer["missing"].as_array().context("nothing is missing")?;
        let records = missing.iter().filter_map(|gap| gap["records"].as_u64()).sum::<u64>();
        ensure!(records == dropped, "{records} of {dropped} are missing: {answer}");
        ensure!(missing.iter().all(|gap| gap["reason"] == "dropped"), "{answer}");
    }
    let text = who_says(0, [&begin, &end], &archive)?;
    ensure!(text.contains("\nIncomplete: "), "{text}");
    ensure!(text.contains(" found no room in the spool, and are not in "), "{text}");
    // Afterwards all is known again.
    let after = now()?;
    let (code, answer) = who(0, [&end, &after], &archive)?;
    let unknown = answer["unknown"].as_array().map_or(0, Vec::len);
    ensure!(code == Some(3) && unknown == 1, "the daemon has ended: {code:?} {answer}");
    Ok(())
}

/// The spool's disk is full, so that records wait in memory, while files are closed.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_waits_in_memory_is_not_denied() -> Result<()> {
    const FLOWS: u32 = 2000;
    for room_again in [true, false] {
        let single = SingleNs::new()?;
        let disk = SmallDisk::new(1 << 20)?;
        let global = format!("spool_dir=\"{}\"", disk.path("spool").display());
        let keys = "directory=\"@DIR@/archive\"\nrotate_interval=1s";
        let daemon =
            Launch::new(Program::Flowlog, single.namespace(), &config(&global, keys))?.start()?;
        let archive = daemon.path("archive");
        let before = now()?;
        wait_covered(&archive, &before)?;
        let filler = fill_up(&disk)?;
        // The spool's log may have some room left.
        let mut early = 0;
        poll::until("records to wait in memory", || {
            udp_burst(&single, 5000, FLOWS + early, 200)?;
            early += 200;
            Ok(daemon.log().contains("records wait in memory").then_some(()))
        })?;
        let begin = now()?;
        udp_burst(&single, 4000, 0, FLOWS)?;
        let all = (early + FLOWS) as usize;
        daemon.wait_lines("the other stack", |lines| lines.len() == all)?;
        let end = now()?;
        daemon.process.signal(Signal::SIGHUP)?;
        daemon.wait_log("files are opened anew")?;
        // Longer than a file is open.
        let later = wait_until_after(&end, 3)?;
        ensure_not_known(&archive, [&begin, &end])?;
        ensure_not_known(&archive, [&begin, &later])?;
        if room_again {
            fs::remove_file(&filler)?;
            wait_covered(&archive, &end)?;
            let (code, answer) = who(7, [&begin, &end], &archive)?;
            ensure!(code == Some(0), "{code:?} {answer}");
            daemon.stop()?;
            continue;
        }
        let finished = daemon.stop()?;
        let lost = totals(&finished.log).get("parquet.lost_records").copied();
        let lost = lost.filter(|lost| *lost > 0).with_context(|| finished.log.clone())?;
        let archive = finished.path("archive");
        ensure_not_known(&archive, [&begin, &end])?;
        // What a full disk has kept in the spool goes into the archive with the next run, each
        // record once: then each is there or counted.
        fs::remove_file(&filler)?;
        let keys = format!("directory=\"{}\"", archive.display());
        let text = config(&global, &keys);
        Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?.stop()?;
        let spooled = "SELECT ifnull(sum(records), 0) FROM batch";
        let spooled = sqlite::ask(&disk.path("spool/spool.db"), spooled)?.concat();
        ensure!(spooled == "0", "{spooled} are left in the spool");
        let rows: u64 = rows_of(&archive)?.parse()?;
        ensure!(rows + lost == all as u64, "{all} were made: {rows} rows, {lost} lost");
        ensure_not_known(&archive, [&begin, &end])?;
    }
    Ok(())
}

/// The daemon stands still for longer than anything that it waits for, while its socket
/// overflows: what it notices at last was lost long before.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_was_lost_while_it_stood_still_is_not_denied() -> Result<()> {
    const FLOWS: u32 = 5000;
    let single = SingleNs::new()?;
    let text = "[global]\nlogfile=\"@DIR@/daemon.log\"\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,arc1:PARQUET\nstack=ct1:NFCT,db1:SQLITE3\n\
         [ct1]\nevent_mask=1\nhash_enable=0\ncapture=netlink\n\
         netlink_socket_buffer_size=65536\nnetlink_socket_buffer_maxsize=65536\n\
         [arc1]\ndirectory=\"@DIR@/archive\"\nrotate_interval=1s\n\
         [db1]\ndb=\"@DIR@/flow.db\"\n";
    let daemon = Launch::new(Program::Flowlog, single.namespace(), text)?.start()?;
    let archives = [daemon.path("archive"), daemon.path("flow.db")];
    let before = now()?;
    wait_covered(&archives[0], &before)?;
    daemon.process.freeze()?;
    let begin = now()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    let end = now()?;
    wait_until_after(&end, 12)?;
    daemon.process.thaw()?;
    daemon.wait_log(" events lost by netlink ")?;
    let after = now()?;
    for archive in &archives {
        poll::until("the time to be covered", || {
            let (_, answer) = who(FLOWS - 1, [&after, &after], archive)?;
            Ok(answer["unknown"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })?;
        let (code, answer) = who(FLOWS - 1, [&begin, &end], archive)?;
        let connections = answer["connections"].as_array().map_or(0, Vec::len);
        ensure!(code == Some(3) && connections == 0, "{}: {code:?} {answer}", archive.display());
        ensure!(answer["unknown"] == Value::Array(Vec::new()), "all is covered: {answer}");
        let missing = answer["missing"].as_array().context("nothing is missing")?;
        let lost = missing.iter().any(|gap| gap["source"] == "netlink" && gap["reason"] == "lost");
        ensure!(lost, "{}: {answer}", archive.display());
    }
    daemon.stop()?;
    Ok(())
}

/// Waits until files cover that moment.
fn wait_covered(archive: &Path, moment: &str) -> Result<()> {
    poll::until("files that cover it", || {
        let covered = archive.exists() && fs::read_dir(archive)?.flatten().any(is_closed);
        let answer = if covered { Some(who(7, [moment, moment], archive)?) } else { None };
        let known = answer
            .is_some_and(|(_, answer)| answer["unknown"].as_array().is_some_and(Vec::is_empty));
        Ok(known.then_some(()))
    })
}

/// How many rows an archive has.
fn rows_of(archive: &Path) -> Result<String> {
    let files = archive.join("*.parquet");
    Ok(duckdb(&format!("SELECT count(*) FROM '{}'", files.display()))?.concat())
}

fn is_closed(entry: fs::DirEntry) -> bool {
    entry.path().extension().is_some_and(|end| end == "parquet")
}

/// The last flow of the burst is neither found nor denied.
fn ensure_not_known(archive: &Path, span: [&str; 2]) -> Result<()> {
    let (code, answer) = who(1999, span, archive)?;
    let unknown = answer["unknown"].as_array().map_or(0, Vec::len);
    ensure!(code == Some(3) && unknown > 0, "{code:?} {answer}");
    Ok(())
}

/// Nothing can be written there any more.
pub(super) fn fill_up(disk: &SmallDisk) -> Result<PathBuf> {
    let path = disk.path("filler");
    let mut file = File::create(&path)?;
    for size in [4096, 512, 1] {
        while file.write(&vec![0; size]).is_ok() {}
    }
    Ok(path)
}

/// Waits until a number of seconds after that moment; returns the new one.
fn wait_until_after(moment: &str, seconds: u32) -> Result<String> {
    let script = format!("test $(date +%s) -gt $(($(date -d '{moment}' +%s) + {seconds}))");
    poll::until("some seconds to pass", || {
        Ok(Command::new("sh").args(["-c", &script]).status()?.success().then_some(()))
    })?;
    now()
}

/// The library that sets the clock of a process. The program of that name starts another process,
/// which a signal to it does not reach.
pub(super) fn faketime() -> Result<String> {
    let library = fs::read_dir("/usr/lib")?
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists());
    let library = library.context("libfaketime is missing: apt-get install faketime")?;
    Ok(library.to_string_lossy().into_owned())
}

/// A daemon whose clock is set by what stands in a file.
struct Set {
    daemon: Daemon,
    clock: PathBuf,
}

impl Set {
    fn start(single: &SingleNs, keys: &str) -> Result<Self> {
        let keys = format!("directory=\"@DIR@/archive\"\n{keys}");
        let text = config("spool_dir=\"@DIR@/spool\"", &keys);
        let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
        let clock = launch.dir().join("clock");
        fs::write(&clock, "+0")?;
        let daemon = launch
            .environment("LD_PRELOAD", &faketime()?)
            .environment("FAKETIME_TIMESTAMP_FILE", &clock.to_string_lossy())
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start()?;
        Ok(Self { daemon, clock })
    }

    fn set(&self, by: &str) -> Result<()> {
        fs::write(&self.clock, by)?;
        self.daemon.wait_log("the clock was set: ")
    }

    fn closed(&self) -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(self.daemon.path("archive"))?;
        let mut files: Vec<_> =
            entries.flatten().filter(|entry| is_closed_name(&entry.path())).collect();
        files.sort_by_key(fs::DirEntry::path);
        Ok(files.iter().map(fs::DirEntry::path).collect())
    }

    /// Ends it, whose archive and whose other stack must have each of `flows`, which all began.
    fn end_with(self, flows: usize) -> Result<Finished> {
        let finished = self.daemon.stop()?;
        ensure!(finished.code == Some(0), "exit {:?}\n{}", finished.code, finished.log);
        let lines = tagged(&finished.lines, "NEW").len();
        ensure!(lines == flows, "{lines} lines of {flows}\n{}", finished.log);
        let rows = rows_of(&finished.path("archive"))?;
        ensure!(rows == flows.to_string(), "{rows} rows of {flows}\n{}", finished.log);
        Ok(finished)
    }

    fn wait_closed(&self, count: usize) -> Result<Vec<PathBuf>> {
        poll::until("closed files", || {
            let files = self.closed()?;
            Ok((files.len() >= count).then_some(files))
        })
    }
}

fn is_closed_name(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "parquet")
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_clock_that_is_set_forward_removes_no_files() -> Result<()> {
    let single = SingleNs::new()?;
    let set = Set::start(&single, "rotate_interval=1s\nkeep_for=1d")?;
    udp_burst(&single, 4000, 0, 10)?;
    let before = set.wait_closed(5)?;
    set.set("+2d")?;
    set.daemon.process.signal(Signal::SIGHUP)?;
    udp_burst(&single, 4000, 10, 10)?;
    let after = set.wait_closed(before.len() + 5)?;
    ensure!(before.iter().all(|file| after.contains(file)), "{before:?} {after:?}");
    let finished = set.end_with(20)?;
    ensure!(!finished.log.contains("were removed from"), "{}", finished.log);
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_clock_that_is_set_back_stops_no_rotation() -> Result<()> {
    let single = SingleNs::new()?;
    let set = Set::start(&single, "rotate_interval=1s")?;
    udp_burst(&single, 4000, 0, 10)?;
    let before = set.wait_closed(3)?;
    set.set("-1h")?;
    udp_burst(&single, 4000, 10, 10)?;
    let after = set.wait_closed(before.len() + 4)?;
    // Names go on behind those of before.
    ensure!(after[..before.len()] == before[..], "{before:?} {after:?}");
    set.end_with(20).map(drop)
}

/// The directory goes, with the file that is being written.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_directory_that_is_removed_is_made_again() -> Result<()> {
    let single = SingleNs::new()?;
    let text = config("spool_dir=\"@DIR@/spool\"", "directory=\"@DIR@/archive\"");
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    let archive = daemon.path("archive");
    let begin = now()?;
    udp_burst(&single, 4000, 0, 100)?;
    poll::until("an open file", || {
        Ok(archive.join(".flowlog.parquet.tmp").exists().then_some(()))
    })?;
    let end = now()?;
    fs::remove_dir_all(&archive)?;
    daemon.wait_log("it was removed or replaced while flowlog wrote there")?;
    poll::until("the directory", || Ok(archive.exists().then_some(())))?;
    let finished = daemon.stop()?;
    let (code, answer) = who(99, [&begin, &end], &finished.path("archive"))?;
    ensure!(code == Some(0), "{code:?} {answer}");
    let totals = totals(&finished.log);
    ensure!(totals.get("parquet.errors") == Some(&1), "{totals:?}");
    ensure!(totals.get("parquet.replaced_files") == Some(&1), "{totals:?}");
    ensure!(totals.get("parquet.lost_records") == Some(&0), "{totals:?}");
    ensure!(finished.log.contains("archive was removed or replaced: it is opened anew"));
    Ok(())
}

/// The sync of a file that is being closed fails: its records are written to another.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_sync_of_an_archive_that_fails_loses_nothing() -> Result<()> {
    const FLOWS: u32 = 2000;
    let single = SingleNs::new()?;
    let text = config("spool_dir=\"@DIR@/spool\"", "directory=\"@DIR@/archive\"");
    let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?;
    let shim = Shim::build(launch.dir())?;
    let daemon = launch
        .environment("LD_PRELOAD", &shim.library().to_string_lossy())
        .environment(CONTROL, &shim.control().to_string_lossy())
        .start()?;
    let begin = now()?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    daemon.wait_lines("the other stack", |lines| lines.len() == FLOWS as usize)?;
    wait_spooled(daemon.path(".").as_path(), FLOWS.into())?;
    let end = now()?;
    // Nothing else is synced then.
    for syncs in 1..=2 {
        shim.fail_syncs(1)?;
        daemon.process.signal(Signal::SIGHUP)?;
        poll::until("a sync that fails", || Ok((shim.failed()?.1 >= syncs).then_some(())))?;
    }
    daemon.wait_log("cannot be written: Input/output error")?;
    daemon.wait_log("arc1:PARQUET works again")?;
    let finished = daemon.stop()?;
    let archive = finished.path("archive");
    ensure_flows(&archive, 0..FLOWS)?;
    let (code, answer) = who(FLOWS - 1, [&begin, &end], &archive)?;
    ensure!(code == Some(0), "{code:?} {answer}");
    let totals = totals(&finished.log);
    for loss in ["lost", "dropped", "refused", "unsure"] {
        ensure!(totals.get(&format!("parquet.{loss}_records")) == Some(&0), "{totals:?}");
    }
    Ok(())
}
