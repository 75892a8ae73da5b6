//! A database of SQLite as Debian's `sqlite3` reads it, another version than the one in flowlog.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// ulogd2's doc/sqlite3.table, and what else its NFCT and IP2STR provide.
pub const ULOG_CT: &str = "CREATE TABLE ulog_ct (flow_start_sec integer, flow_start_usec integer, \
    flow_end_sec integer, flow_end_usec integer, orig_ip_saddr integer, orig_ip_daddr integer, \
    orig_l4_sport integer, orig_l4_dport integer, orig_ip_protocol integer, icmp_type integer, \
    icmp_code integer, orig_raw_pktlen integer, orig_raw_pktcount integer, \
    reply_raw_pktlen integer, reply_raw_pktcount integer, ct_mark integer, ct_id integer, \
    ct_event integer, reply_ip_saddr integer, reply_ip_daddr integer, reply_l4_sport integer, \
    reply_l4_dport integer, reply_ip_protocol integer, orig_ip_saddr_str text, \
    orig_ip_daddr_str text, reply_ip_saddr_str text, reply_ip_daddr_str text, \
    oob_family integer, oob_protocol integer)";

/// What `sqlite3` answers, a row a line.
///
/// # Errors
/// It is missing, or refuses the statement.
pub fn ask(db: &Path, sql: &str) -> Result<Vec<String>> {
    // ulogd2 writes with its database locked, and holds up whoever asks.
    let mut command = Command::new("sqlite3");
    command.args(["-cmd", ".timeout 10000"]).arg(db).arg(sql);
    let output = command.output().context("sqlite3")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {sql}: {error}", db.display());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The rows of a table.
///
/// # Errors
/// As [`ask`].
pub fn count(db: &Path, table: &str) -> Result<usize> {
    Ok(ask(db, &format!("SELECT count(*) FROM {table}"))?.concat().parse()?)
}
