//! SQLITE3: the rows of ulogd2 in its table on the same traffic, all that is known in flowlog's own
//! tables, and nothing lost or torn by locks, full disks, rotation and SIGKILL. The databases are
//! read by Debian's `sqlite3`, another version than the one in flowlog.

use std::fs;
use std::io::{Read as _, Write as _};
use std::ops::Range;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::{burst_lines, destination, udp_burst};
use tests::daemon::{Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset, totals};
use tests::poll;
use tests::sqlite::{ULOG_CT, ask, count};
use tests::traffic;

use super::disk_full::SmallDisk;

fn config(stages: &str, ct: &str, keys: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nstack=ct1:NFCT,{stages}db1:SQLITE3\n\
         [ct1]\n{ct}\n{ROOMY}[db1]\ndb=\"@DIR@/flow.db\"\n{keys}\n"
    )
}

const NEW: &str = "event_mask=1\nhash_enable=0";

/// These databases, all of them whole, have a row for each flow of a burst, and no other.
fn ensure_flows(databases: &[&Path], flows: Range<u32>) -> Result<()> {
    let mut rows = Vec::new();
    for db in databases {
        rows.extend(ask(db, "SELECT orig_dst || ':' || orig_dport FROM flow")?);
        let check = ask(db, "PRAGMA integrity_check")?.concat();
        ensure!(check == "ok", "{}: {check}", db.display());
    }
    ensure_equal("flows", &multiset(flows.map(destination)), &multiset(rows))
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_rows_as_ulogd() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    lab.set_accounting(true)?;
    lab.router().set_sysctls(&[("net/netfilter/nf_conntrack_timestamp", 1)])?;
    let mut pairs = Vec::new();
    for (ct, each) in [("event_mask=5\nhash_enable=0", 2), ("event_mask=5\nhash_enable=1", 1)] {
        let text = config("ip1:IP2STR,", ct, "table=ulog_ct");
        let start = |program| {
            let launch = Launch::new(program, lab.router(), &text)?;
            ask(&launch.dir().join("flow.db"), ULOG_CT)?;
            launch.start()
        };
        pairs.push((ct, each, start(Program::Ulogd)?, start(Program::Flowlog)?));
    }
    let flows = traffic::mix(&lab, 40_000)?.len();
    lab.router().expire_conntrack()?;
    // ulogd2 2.0.8 has IPv6 addresses as a garbage of numbers, and leaves half of it in the IPv4
    // ones that follow. Beginnings are told by each at its own time.
    let columns = "CASE oob_family WHEN 2 THEN orig_ip_saddr & 0xffffffff END, \
                   CASE oob_family WHEN 2 THEN orig_ip_daddr & 0xffffffff END, \
                   CASE oob_family WHEN 2 THEN reply_ip_saddr & 0xffffffff END, \
                   CASE oob_family WHEN 2 THEN reply_ip_daddr & 0xffffffff END, \
                   flow_start_sec > 1600000000, flow_start_usec BETWEEN 0 AND 999999, \
                   flow_end_sec, flow_end_usec, orig_l4_sport, orig_l4_dport, orig_ip_protocol, \
                   icmp_type, icmp_code, orig_raw_pktlen, orig_raw_pktcount, reply_raw_pktlen, \
                   reply_raw_pktcount, ct_mark, ct_id, ct_event, reply_l4_sport, reply_l4_dport, \
                   reply_ip_protocol, orig_ip_saddr_str, orig_ip_daddr_str, reply_ip_saddr_str, \
                   reply_ip_daddr_str, oob_family, oob_protocol";
    for (ct, each, ulogd, flowlog) in pairs {
        let mut sets = Vec::new();
        for (name, daemon) in [("ulogd2", ulogd), ("flowlog", flowlog)] {
            let db = daemon.path("flow.db");
            poll::until("rows", || Ok((count(&db, "ulog_ct")? >= flows * each).then_some(())))
                .with_context(|| format!("{name}, {ct}: {:?}", count(&db, "ulog_ct")))?;
            let finished = daemon.stop()?;
            let db = finished.path("flow.db");
            sets.push(multiset(ask(&db, &format!("SELECT {columns} FROM ulog_ct"))?));
        }
        ensure!(sets[0].values().sum::<usize>() == flows * each, "{ct}: {:?}", sets[0]);
        ensure_equal(ct, &sets[0], &sets[1])?;
    }
    Ok(())
}

/// Each flow of the mix has its beginning and its end, with both tuples, and a record id that no
/// other record has.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn own_tables_have_all_that_was_made() -> Result<()> {
    let lab = Lab::new()?;
    lab.add_variety()?;
    let text = config("", "event_mask=0x7f\nhash_enable=0", "");
    let daemon = Launch::new(Program::Flowlog, lab.router(), &text)?.start()?;
    let flows = traffic::mix(&lab, 40_000)?;
    lab.router().expire_conntrack()?;
    let db = daemon.path("flow.db");
    let ends = "flow WHERE kind = 'destroy'";
    poll::until("the end of each", || Ok((count(&db, ends)? >= flows.len()).then_some(())))?;
    let finished = daemon.stop()?;
    let db = finished.path("flow.db");
    for kind in ["new%", "destroy"] {
        let rows = ask(
            &db,
            &format!(
                "SELECT orig_src || ' ' || orig_dst || ' ' || protocol || ' ' || reply_src || ' ' \
                 || reply_dst || ' ' || (nat <> 0) FROM flow WHERE kind LIKE '{kind}'"
            ),
        )?;
        let expected = multiset(flows.iter().map(|flow| {
            let traffic::Flow { orig, reply, .. } = flow;
            let ports = |tuple: &traffic::Tuple| (tuple.detail.1, tuple.detail.0);
            let same = orig.source == reply.destination
                && orig.destination == reply.source
                && (orig.protocol == 1 || orig.protocol == 58 || ports(orig) == reply.detail);
            format!(
                "{} {} {} {} {} {}",
                orig.source,
                orig.destination,
                orig.protocol,
                reply.source,
                reply.destination,
                u8::from(!same)
            )
        }));
        ensure_equal(kind, &expected, &multiset(rows))?;
    }
    let ids =
        ask(&db, "SELECT count(*), count(DISTINCT record_id), min(length(record_id)) FROM flow")?;
    let ids: Vec<&str> = ids[0].split('|').collect();
    ensure!(ids[0] == ids[1] && ids[2] == "32", "{ids:?}");
    ensure!(count(&db, "expectation WHERE helper = 'ftp'")? > 0, "no expectation");
    let known = "flow WHERE zone = 7 OR mark = 42 OR labels IS NOT NULL OR state IS NOT NULL";
    ensure!(count(&db, known)? > 0, "none has zone, mark, labels or state");
    Ok(())
}

/// Killed in the midst of a burst: transactions are whole or not there, and it goes on.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_kill_tears_nothing() -> Result<()> {
    let single = SingleNs::new()?;
    let dir = tempfile::Builder::new().prefix("flowlog-kill-").tempdir()?;
    let db = dir.path().join("kept.db");
    let text = config("", NEW, "").replace("@DIR@/flow.db", db.to_str().context("no text")?);
    let mut before = 0;
    for round in 0..3 {
        let mut daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
        udp_burst(&single, 4000, round * 5000, 5000)?;
        poll::until("some rows", || Ok((count(&db, "flow")? > before).then_some(())))?;
        daemon.process.signal(Signal::SIGKILL)?;
        daemon.process.wait()?;
        let check = ask(&db, "PRAGMA integrity_check")?.concat();
        ensure!(check == "ok", "{check}");
        let after = count(&db, "flow")?;
        ensure!(after > before && after <= 5000 * (round as usize + 1), "{before}, then {after}");
        ensure!(count(&db, "flow WHERE orig_dport IS NULL")? == 0);
        before = after;
    }
    Ok(())
}

/// Another process holds the lock: the other stack goes on, rows wait.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_lock_of_others_delays_rows_only() -> Result<()> {
    let single = SingleNs::new()?;
    let text = config("", NEW, "").replace(
        "[ct1]",
        "stack=ct1:NFCT,ip1:IP2STR,print1:PRINTFLOW,emu1:LOGEMU\n\
         [emu1]\nfile=\"@DIR@/flows.log\"\nsync=1\n[ct1]",
    );
    let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
    let db = daemon.path("flow.db");
    let mut locker = Command::new("sqlite3");
    let mut locker = locker.arg(&db).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = locker.stdin.take().context("no standard input")?;
    input.write_all(b"BEGIN IMMEDIATE; SELECT 'held';\n")?;
    let mut said = [0; 5];
    locker.stdout.as_mut().context("no output")?.read_exact(&mut said)?;
    for round in 0..4 {
        udp_burst(&single, 4000, round * 50, 50)?;
    }
    daemon.wait_lines("the other stack", |lines| lines.len() == 200)?;
    daemon.wait_log("cannot be written: database is locked; another process writes it")?;
    ensure!(count(&db, "flow")? < 200, "nothing was locked");
    // The end of its input ends it.
    drop(input);
    locker.wait()?;
    poll::until("all rows", || Ok((count(&db, "flow")? == 200).then_some(())))?;
    let finished = daemon.stop()?;
    ensure_flows(&[&finished.path("flow.db")], 0..200)?;
    ensure_equal("lines", &burst_lines("NEW", 4000, 0..200), &multiset(&finished.lines))?;
    let totals = totals(&finished.log);
    ensure!(totals.get("sqlite3.lost_records") == Some(&0), "{totals:?}");
    ensure!(totals.get("sqlite3.records") == Some(&200), "{totals:?}");
    Ok(())
}

#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn rows_wait_for_room() -> Result<()> {
    const DISK: usize = 16 << 20;
    let single = SingleNs::new()?;
    for sync in ["sync=0", "sync=1"] {
        let disk = SmallDisk::new(DISK)?;
        let db = disk.path("flow.db");
        let text = config("", NEW, sync).replace("@DIR@/flow.db", db.to_str().context("no text")?);
        let daemon = Launch::new(Program::Flowlog, single.namespace(), &text)?.start()?;
        let filler = disk.fill(400 << 10)?;
        for round in 0..20 {
            udp_burst(&single, 4000, round * 150, 150)?;
        }
        daemon.wait_log("cannot be written")?;
        ensure!(count(&db, "flow")? < 3000, "the disk was not full");
        fs::remove_file(filler)?;
        poll::until("all rows", || Ok((count(&db, "flow")? == 3000).then_some(())))?;
        let finished = daemon.stop()?;
        ensure_flows(&[&db], 0..3000)?;
        let totals = totals(&finished.log);
        ensure!(totals.get("sqlite3.lost_records") == Some(&0), "{totals:?}");
        single.namespace().flush_conntrack()?;
    }
    Ok(())
}

/// Renamed, then HUP, also without root: no row is in neither file, and both are whole.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn hup_begins_a_new_database() -> Result<()> {
    let single = SingleNs::new()?;
    for args in [&[][..], &["-u", "nobody"]] {
        let text = config("", NEW, "");
        let launch = Launch::new(Program::Flowlog, single.namespace(), &text)?.args(args);
        let daemon = launch.start()?;
        let db = daemon.path("flow.db");
        let owners = || -> Result<Vec<u32>> {
            let files = ["flow.db", "flow.db-wal", "flow.db-shm"];
            files.iter().map(|name| Ok(fs::metadata(daemon.path(name))?.uid())).collect()
        };
        let owner = if args.is_empty() { 0 } else { 65534 };
        ensure!(owners()? == [owner; 3], "owned by {:?}", owners()?);
        udp_burst(&single, 4000, 0, 100)?;
        poll::until("rows before", || Ok((count(&db, "flow")? == 100).then_some(())))?;
        let old = daemon.path("flow.db.1");
        fs::rename(&db, &old)?;
        udp_burst(&single, 4000, 100, 100)?;
        daemon.process.signal(Signal::SIGHUP)?;
        poll::until("the new file", || Ok(db.exists().then_some(())))?;
        udp_burst(&single, 4000, 200, 100)?;
        let finished = daemon.stop()?;
        let (db, old) = (finished.path("flow.db"), finished.path("flow.db.1"));
        for name in ["-wal", "-shm", "-wal.left"] {
            ensure!(!finished.path(&format!("flow.db{name}")).exists(), "flow.db{name} is left");
        }
        let before = count(&old, "flow")?;
        ensure!(before >= 100 && count(&db, "flow")? >= 100, "{before} rows in the old file");
        ensure_flows(&[&db, &old], 0..300)?;
        single.namespace().flush_conntrack()?;
    }
    Ok(())
}

/// flowlog refuses what it cannot use, with the remedy.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn what_is_no_database_is_refused() -> Result<()> {
    let single = SingleNs::new()?;
    let launch = || Launch::new(Program::Flowlog, single.namespace(), &config("", NEW, ""));
    let refused = launch()?;
    fs::write(refused.dir().join("flow.db"), "some text\n".repeat(1000))?;
    let finished = refused.run()?;
    ensure!(finished.code == Some(1), "exit {:?}", finished.code);
    let said = format!("{}{}", finished.log, finished.stderr);
    ensure!(said.contains("is not a database; it is another file: move it away"), "{said}");
    Ok(())
}
