//! PGSQL into a table of ulogd2: its rows on the same traffic by each way that its examples name,
//! and rows that the table refuses.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::burst::udp_burst;
use tests::daemon::{Launch, Program, ROOMY};
use tests::lab::{Lab, SingleNs};
use tests::lines::{ensure_equal, multiset, totals};
use tests::poll;
use tests::postgres::{Postgres, keys, ulogd_keys, ulogd_schema};
use tests::shipping::Site;
use tests::traffic;

/// A configuration that both understand; `#spool_dir` is for flowlog.
fn ulogd_config(server: &Postgres<'_>, ct: &str, schema: &str, procedure: &str) -> String {
    format!(
        "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\nspool_dir=\"@DIR@/spool\"\n\
         stack=ct1:NFCT,ip2str1:IP2STR,pgsql1:PGSQL\n[ct1]\n{ct}\n{ROOMY}[pgsql1]\n{}",
        ulogd_keys(server, schema, procedure)
    )
    .replace("spool_dir", "#spool_dir")
}

/// The same rows on the same traffic, by each way that its examples name.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn same_rows_as_ulogd() -> Result<()> {
    const WAYS: [(&str, &str, u64); 4] = [
        ("event_mask=5\nhash_enable=1", "INSERT", 1),
        ("event_mask=5\nhash_enable=1", "INSERT_CT", 1),
        ("event_mask=5\nhash_enable=0", "INSERT", 2),
        ("event_mask=5\nhash_enable=0", "INSERT_OR_REPLACE_CT", 1),
    ];
    let lab = Lab::new()?;
    lab.add_variety()?;
    lab.set_accounting(true)?;
    lab.router().set_sysctls(&[("net/netfilter/nf_conntrack_timestamp", 1)])?;
    let server = Postgres::new(None)?;
    let mut runs = Vec::new();
    for (way, (ct, procedure, each)) in WAYS.into_iter().enumerate() {
        for (name, program) in [("ulogd", Program::Ulogd), ("flowlog", Program::Flowlog)] {
            let schema = format!("{name}{way}");
            ulogd_schema(&server, &schema)?;
            let mut text = ulogd_config(&server, ct, &schema, procedure);
            if program == Program::Flowlog {
                text = text.replace("#spool_dir", "spool_dir");
            }
            runs.push((
                schema,
                procedure,
                each,
                Launch::new(program, lab.router(), &text)?.start()?,
            ));
        }
    }
    let flows = traffic::mix(&lab, 40_000)?;
    lab.router().expire_conntrack()?;
    // INSERT_OR_REPLACE_CT compares ports, and finds no beginning where there are none.
    let found = |protocol| matches!(protocol, 1 | 6 | 17 | 33 | 132 | 136);
    let replaced = flows.iter().filter(|flow| found(flow.orig.protocol)).count() as u64;
    let flows = flows.len() as u64;
    let columns = "oob_family, orig_ip_saddr_str, orig_ip_daddr_str, orig_ip_protocol, \
                   orig_l4_sport, orig_l4_dport, orig_raw_pktlen, orig_raw_pktcount, \
                   reply_ip_saddr_str, reply_ip_daddr_str, reply_ip_protocol, reply_l4_sport, \
                   reply_l4_dport, reply_raw_pktlen, reply_raw_pktcount, icmp_code, icmp_type, \
                   ct_mark, flow_start_sec > 1600000000, flow_start_usec BETWEEN 0 AND 999999, \
                   flow_end_sec, flow_end_usec, ct_event";
    let mut sets = Vec::new();
    for (schema, procedure, each, daemon) in runs {
        let ends = if procedure == "INSERT_OR_REPLACE_CT" { replaced } else { flows };
        let count = format!("SELECT count(*) FROM {schema}.ulog2_ct");
        let ended = format!("{count} WHERE ct_event = 4");
        poll::until(&schema, || {
            let all = server.number(&count)? >= flows * each && server.number(&ended)? >= ends;
            Ok(all.then_some(()))
        })
        .with_context(|| daemon.log())?;
        daemon.stop()?;
        sets.push(multiset(
            server.ask("flowlog", &format!("SELECT {columns} FROM {schema}.ulog2_ct"))?,
        ));
        ensure!(server.number(&count)? == flows * each, "{schema}");
    }
    for (way, pair) in sets.chunks(2).enumerate() {
        ensure_equal(WAYS[way].1, &pair[0], &pair[1])?;
    }
    Ok(())
}

/// Rows that its table does not take are found among many, and counted; those that are there
/// already are passed over.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn rows_that_are_refused_are_counted() -> Result<()> {
    let single = SingleNs::new()?;
    let server = Postgres::new(None)?;
    server.run(
        "CREATE TABLE ulog2_ct (_ct_id serial, orig_l4_sport integer, orig_l4_dport integer \
         CHECK (orig_l4_dport <> 1024), orig_ip_daddr_str text, ct_event smallint); \
         ALTER TABLE ulog2_ct OWNER TO flowlog",
    )?;
    let site = Site::new(&single)?;
    let keys = format!("{}\ntable=ulog2_ct\nprocedure=INSERT", keys(&server));
    let daemon = site.daemon("PGSQL", &keys)?;
    // Of the first 65536 flows each has another address and port 1024.
    udp_burst(&single, 4000, 0, 3)?;
    udp_burst(&single, 4000, 1 << 16, 3000)?;
    site.wait_spooled(3003)?;
    site.wait_delivered()?;
    let log = daemon.stop()?.log;
    let totals = totals(&log);
    ensure!(totals.get("pgsql.refused_records") == Some(&3), "{totals:?}");
    ensure!(totals.get("pgsql.records") == Some(&3000), "{totals:?}");
    ensure!(log.contains("violates check constraint"), "{log}");
    ensure!(server.number("SELECT count(*) FROM ulog2_ct")? == 3000);
    Ok(())
}

/// A table that refuses whatever comes is for somebody to mend; nothing is thrown away for it.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn a_table_that_refuses_all_is_waited_for() -> Result<()> {
    const FLOWS: u32 = 1500;
    let single = SingleNs::new()?;
    let mut server = Postgres::new(None)?;
    server.run(
        "CREATE TABLE ulog2_ct (_ct_id serial, orig_l4_dport integer CONSTRAINT nothing_fits CHECK (false)); \
         ALTER TABLE ulog2_ct OWNER TO flowlog",
    )?;
    let keys = format!("{}\ntable=ulog2_ct\nprocedure=INSERT", keys(&server));
    // All of it comes in one batch then.
    server.stop(false)?;
    let site = Site::new(&single)?;
    let daemon = site.daemon("PGSQL", &keys)?;
    udp_burst(&single, 4000, 0, FLOWS)?;
    site.wait_spooled(FLOWS)?;
    server.start()?;
    daemon.wait_log("more than 1000 rows of a batch are refused")?;
    ensure!(site.metric("flowlog_sink_spool_records")? == u64::from(FLOWS), "something has left");
    server.run("ALTER TABLE ulog2_ct DROP CONSTRAINT nothing_fits")?;
    daemon.process.signal(Signal::SIGHUP)?;
    site.wait_delivered()?;
    let totals = totals(&daemon.stop()?.log);
    ensure!(totals.get("pgsql.refused_records") == Some(&0), "{totals:?}");
    ensure!(server.number("SELECT count(*) FROM ulog2_ct")? == u64::from(FLOWS));
    Ok(())
}
