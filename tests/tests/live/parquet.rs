//! PARQUET: what DuckDB and pyarrow read is what LOGEMU writes beside it, and neither SIGKILL nor a
//! full disk, HUP or a name that is gone loses a record or writes one twice.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{destination, udp_burst};
use tests::daemon::{Daemon, Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset, tagged, totals};
use tests::python::{self, duckdb};
use tests::{poll, traffic};

use super::disk_full::SmallDisk;

fn config(ct: &str, keys: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,arc1:PARQUET\n\
         stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [ct1]\n{ct}\n{ROOMY}[emu1]\nfile=\"@DIR@/flows.log\"\n\
         [arc1]\ndirectory=\"@DIR@/archive\"\n{keys}\n"
    )
}

const NEW: &str = "event_mask=1\nhash_enable=0";

/// Rows of TCP and UDP as LOGEMU writes them.
const LINE: &str = "\
SELECT '[' || upper(kind) || '] ORIG: SRC=' || orig_src || ' DST=' || orig_dst || proto \
    || ' SPT=' || orig_sport || ' DPT=' || orig_dport \
    || ' PKTS=' || coalesce(orig_packets, 0) || ' BYTES=' || coalesce(orig_bytes, 0) \
    || ' , REPLY: SRC=' || coalesce(nat_dst, orig_dst) || ' DST=' || coalesce(nat_src, orig_src) \
    || proto || ' SPT=' || coalesce(nat_dport, orig_dport) \
    || ' DPT=' || coalesce(nat_sport, orig_sport) || ' PKTS=' || coalesce(reply_packets, 0) \
    || ' BYTES=' || coalesce(reply_bytes, 0) || ' ' \
FROM (SELECT *, CASE protocol WHEN 6 THEN ' PROTO=TCP' ELSE ' PROTO=UDP' END AS proto FROM 'FILES') \
WHERE protocol IN (6, 17)";

/// The same sums by pyarrow, without DuckDB.
const SUMS: &str = "\
import pyarrow.dataset, pyarrow.compute as pc, sys
table = pyarrow.dataset.dataset(sys.argv[1], format='parquet').to_table()
text = table.schema.field('orig_src').type
assert pyarrow.types.is_dictionary(text) and pyarrow.types.is_string(text.value_type), text
assert str(table.schema.field('time').type) == 'timestamp[ns, tz=UTC]'
for column in ['orig_packets', 'orig_bytes', 'reply_packets', 'reply_bytes']:
    print(pc.sum(table[column]).as_py() or 0)
print(table.num_rows)";

fn all(directory: &Path) -> String {
    directory.join("*.parquet").display().to_string()
}

/// The archive has a row for each of these flows of a burst, and no other.
pub(super) fn ensure_flows(directory: &Path, flows: Range<u32>) -> Result<()> {
    let sql = format!("SELECT orig_dst || ':' || orig_dport FROM '{}'", all(directory));
    ensure_equal("flows", &multiset(flows.map(destination)), &multiset(duckdb(&sql)?))
}

/// Records that wait in the spool.
fn spooled(dir: &Path) -> Result<u64> {
    let output = Command::new("sqlite3")
        .arg(dir.join("spool/spool.db"))
        .arg("SELECT ifnull(sum(records), 0) FROM batch")
        .output()
        .context("sqlite3")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(super) fn wait_spooled(dir: &Path, records: u64) -> Result<()> {
    poll::until("records in the spool", || Ok((spooled(dir)? >= records).then_some(())))
        .with_context(|| format!("{:?} of {records}", spooled(dir)))
}

/// No file that is not whole, and nothing left in the spool.
fn ensure_settled(dir: &Path) -> Result<()> {
    ensure!(spooled(dir)? == 0, "{} records are left in the spool", spooled(dir)?);
    let left = dir.join("archive/.flowlog.parquet.tmp");
    ensure!(!left.exists(), "{} is left", left.display());
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn others_read_what_logemu_writes_beside_it() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    lab.set_accounting(true)?;
    let text = config("event_mask=5\nhash_enable=0", "rotate_interval=1s");
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let flows = traffic::mix(&lab, 40_000)?.len();
    lab.router().expire_conntrack()?;
    daemon.wait_lines("ends", |lines| tagged(lines, "DESTROY").len() >= flows)?;
    let finished = daemon.stop()?;
    let archive = finished.path("archive");
    ensure_settled(finished.path(".").as_path())?;

    let ported =
        finished.lines.iter().filter(|line| line.has("PROTO=TCP") || line.has("PROTO=UDP"));
    let expected = multiset(ported.map(|line| &line.text));
    ensure!(expected.values().sum::<usize>() > flows, "hardly any TCP and UDP: {expected:?}");
    ensure_equal("lines", &expected, &multiset(duckdb(&LINE.replace("FILES", &all(&archive)))?))?;

    // Counters of both directions stand in turn.
    let sum = |key, direction| {
        let both = finished.lines.iter().map(|line| line.numbers(key));
        both.filter_map(|numbers| numbers.get(direction).copied()).sum::<u64>()
    };
    let sums = [sum("PKTS", 0), sum("BYTES", 0), sum("PKTS", 1), sum("BYTES", 1)];
    let rows = finished.lines.len() as u64;
    let expected: Vec<_> = sums.into_iter().chain([rows]).map(|sum| sum.to_string()).collect();
    let by_pyarrow = python::run(SUMS, &archive.to_string_lossy())?;
    ensure!(by_pyarrow == expected, "pyarrow: {by_pyarrow:?}, LOGEMU: {expected:?}");

    let kinds = duckdb(&format!(
        "SELECT count(*) FILTER (nat_src IS NOT NULL) > 0, count(*) FILTER (orig_src LIKE '%:%') > 0, \
         count(*) FILTER (protocol = 1 AND icmp_type = 8) > 0, count(*) FILTER (zone = 7) > 0, \
         count(*) FILTER (helper = 'ftp') > 0, count(*) FILTER (state IS NOT NULL) > 0, \
         count(DISTINCT host), count(*) FILTER (time::TIMESTAMPTZ NOT BETWEEN now() - INTERVAL 1 HOUR AND now()) \
         FROM '{}'",
        all(&archive)
    ))?;
    ensure!(kinds == ["True|True|True|True|True|True|1|0"], "{kinds:?}");
    ensure_covers_all(&archive)?;
    ensure_the_page_can_be_followed(&archive)
}

/// DuckDB understands what the page asks it.
fn ensure_the_page_can_be_followed(archive: &Path) -> Result<()> {
    const PAGE: &str = include_str!("../../../docs/parquet.md");
    let blocks: Vec<&str> = PAGE.split("```sql\n").skip(1).collect();
    ensure!(blocks.len() == 2, "{} questions", blocks.len());
    for block in blocks {
        let question = block.split("```").next().unwrap_or_default();
        let ours = question.replace("/var/lib/flowlog/archive", &archive.to_string_lossy());
        ensure!(ours != question, "it asks nobody: {question}");
        duckdb(&ours)?;
    }
    Ok(())
}

/// The times of the files follow each other, and there was more than one.
fn ensure_covers_all(archive: &Path) -> Result<()> {
    let sql = "SELECT file_name, decode(key), decode(value) FROM parquet_kv_metadata('FILES') \
               WHERE decode(key) IN ('flowlog.from', 'flowlog.to') ORDER BY ALL";
    let rows = duckdb(&sql.replace("FILES", &all(archive)))?;
    let times: Vec<u64> = rows
        .iter()
        .map(|row| row.rsplit('|').next().unwrap_or_default().parse().context("no number"))
        .collect::<Result<_>>()?;
    ensure!(times.len() >= 4, "one file only: {rows:?}");
    for (before, after) in times.chunks_exact(2).zip(times.chunks_exact(2).skip(1)) {
        ensure!(before[0] <= before[1] && after[0] <= before[1], "a gap in {rows:?}");
    }
    // The first files are closed before it is known of any time that all of it has come.
    ensure!(times.first() < times.last(), "nothing is covered: {rows:?}");
    Ok(())
}

/// A daemon whose directories stay when it is killed.
fn start(single: &SingleNs, dir: &Path, keys: &str) -> Result<Daemon> {
    let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
    let text = config(NEW, keys)
        .replace("@DIR@/spool", &at("spool"))
        .replace("@DIR@/archive", &at("archive"));
    Launch::new(Program::Flowlog, single.namespace(), &text)?.start()
}

/// Killed with records that no file has, and again while files are closed each second.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_kill_loses_nothing_and_writes_nothing_twice() -> Result<()> {
    let single = SingleNs::new()?;
    let dir = tempfile::Builder::new().prefix("flowlog-parquet-").tempdir()?;
    let mut daemon = start(&single, dir.path(), "")?;
    udp_burst(&single, 4000, 0, 5000)?;
    wait_spooled(dir.path(), 5000)?;
    daemon.process.signal(Signal::SIGKILL)?;
    daemon.process.wait()?;
    ensure!(dir.path().join("archive/.flowlog.parquet.tmp").exists(), "nothing was begun");
    const EACH: u32 = 3000;
    for round in 0..4 {
        let first = 5000 + round * EACH;
        let mut daemon = start(&single, dir.path(), "rotate_interval=1s")?;
        let before = totals_written(dir.path());
        udp_burst(&single, 4000, first, EACH)?;
        // Either in the spool or in a file already.
        poll::until("records on disk", || {
            let there = spooled(dir.path())? + totals_written(dir.path());
            Ok((there >= u64::from(first + EACH)).then_some(()))
        })
        .with_context(|| format!("{before} rows before, {}", totals_written(dir.path())))?;
        daemon.process.signal(Signal::SIGKILL)?;
        daemon.process.wait()?;
    }
    let finished = start(&single, dir.path(), "")?.stop()?;
    ensure_settled(dir.path())?;
    ensure_flows(&dir.path().join("archive"), 0..5000 + 4 * EACH)?;
    let totals = totals(&finished.log);
    ensure!(totals.get("parquet.lost_records") == Some(&0), "{totals:?}");
    Ok(())
}

/// Rows of closed files.
fn totals_written(dir: &Path) -> u64 {
    let sql = format!("SELECT count(*) FROM '{}'", all(&dir.join("archive")));
    // There may be no file yet.
    duckdb(&sql).ok().and_then(|rows| rows.concat().parse().ok()).unwrap_or(0)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn records_wait_for_room() -> Result<()> {
    const DISK: usize = 1 << 20;
    let single = SingleNs::new()?;
    let disk = SmallDisk::new(DISK)?;
    let at = disk.path("archive").to_string_lossy().into_owned();
    let text = config(NEW, "rotate_interval=1s").replace("@DIR@/archive", &at);
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    let filler = disk.fill(8 << 10)?;
    udp_burst(&single, 4000, 0, 20_000)?;
    daemon.wait_log("No space left on device (os error 28); make room")?;
    daemon.wait_lines("the other stack", |lines| lines.len() == 20_000)?;
    fs::remove_file(filler)?;
    daemon.wait_log("arc1:PARQUET works again")?;
    poll::until("all rows", || Ok((totals_written(&disk.path("")) == 20_000).then_some(())))?;
    let finished = daemon.stop()?;
    ensure_flows(&disk.path("archive"), 0..20_000)?;
    let totals = totals(&finished.log);
    ensure!(totals.get("parquet.lost_records") == Some(&0), "{totals:?}");
    ensure!(totals.get("parquet.dropped_records") == Some(&0), "{totals:?}");
    ensure!(totals.get("parquet.errors").is_some_and(|errors| *errors > 0), "{totals:?}");
    Ok(())
}

/// HUP closes the file, also without root; old files go.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn hup_closes_the_file_and_old_ones_go() -> Result<()> {
    let single = SingleNs::new()?;
    for args in [&[][..], &["-u", "nobody"]] {
        let text = config(NEW, "keep_bytes=1");
        let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?.args(args);
        let daemon = launch.start()?;
        let archive = daemon.path("archive");
        udp_burst(&single, 4000, 0, 100)?;
        wait_spooled(&daemon.path("."), 100)?;
        daemon.process.signal(Signal::SIGHUP)?;
        poll::until("a file", || Ok((rows_of(&archive) == 100).then_some(())))?;
        let owner = if args.is_empty() { 0 } else { 65534 };
        for entry in fs::read_dir(&archive)? {
            let entry = entry?;
            ensure!(entry.metadata()?.uid() == owner, "{entry:?}: {:?}", entry.metadata()?);
        }
        udp_burst(&single, 4000, 100, 50)?;
        let finished = daemon.stop()?;
        // The newest stays.
        ensure_flows(&finished.path("archive"), 100..150)?;
        let removed = finished.log.contains("1 old files, ");
        ensure!(removed, "{}", finished.log);
        single.namespace().flush_conntrack()?;
    }
    Ok(())
}

fn rows_of(archive: &Path) -> u64 {
    let parent = archive.parent().unwrap_or(archive);
    totals_written(parent)
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_directory_that_cannot_be_is_refused() -> Result<()> {
    let single = SingleNs::new()?;
    let text = config(NEW, "").replace("@DIR@/archive", "@DIR@/no/archive");
    let finished = Launch::new(Program::Flowlog, single.namespace(), &text)?.run()?;
    ensure!(finished.code == Some(1), "exit {:?}", finished.code);
    let said = format!("{}{}", finished.log, finished.stderr);
    ensure!(said.contains("/no/archive cannot be written: No such file"), "{said}");
    ensure!(said.contains("make the directory that it is in"), "{said}");
    Ok(())
}
