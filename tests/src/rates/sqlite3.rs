//! SQLITE3: a database on the disk of temporary files, new for each.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Case, FEW, MANY, Rate, Sink};
use crate::daemon::{Daemon, Finished, Program};
use crate::lab::SingleNs;
use crate::sqlite::{ULOG_CT, ask, count};

const DB: &str = "flow.db";

/// Measures ulogd2 as it is packaged, and flowlog.
///
/// # Errors
/// One does not run, or rows are missing.
pub fn measure() -> Result<Vec<Rate>> {
    let cases = [
        ("ulogd2, ulog_ct", Program::Ulogd, Some(ULOG_CT), "sync=0", 3 * FEW),
        ("flowlog, ulog_ct", Program::Flowlog, Some(ULOG_CT), "sync=0", MANY),
        ("flowlog, ulog_ct, `sync=1`", Program::Flowlog, Some(ULOG_CT), "sync=1", MANY),
        ("flowlog, own tables", Program::Flowlog, None, "sync=0", MANY),
        ("flowlog, own tables, `sync=1`", Program::Flowlog, None, "sync=1", MANY),
    ];
    let measured = cases.into_iter().map(|(name, program, table, sync, flows)| {
        let single = SingleNs::new()?;
        let case = Case { name, program, flows, single: &single };
        case.measure(&mut Database { program, table, sync }).context(name)
    });
    measured.collect()
}

/// A database.
struct Database {
    program: Program,
    /// What makes ulogd2's table.
    table: Option<&'static str>,
    sync: &'static str,
}

impl Database {
    fn name(&self) -> &'static str {
        if self.table.is_some() { "ulog_ct" } else { "flow" }
    }
}

impl Sink for Database {
    fn stages(&self) -> &'static str {
        "ip2str1:IP2STR,sink1:SQLITE3"
    }

    fn keys(&self) -> String {
        // ulogd2 has no such key.
        let sync = if self.program == Program::Flowlog { self.sync } else { "" };
        format!("db=\"@DIR@/{DB}\"\ntable=ulog_ct\n{sync}")
    }

    fn prepare(&self, dir: &Path) -> Result<()> {
        self.table.map_or(Ok(()), |table| ask(&dir.join(DB), table).map(drop))
    }

    fn arrived(&self, daemon: &Daemon) -> Result<u64> {
        Ok(count(&daemon.path(DB), self.name())? as u64)
    }

    fn result(&mut self, finished: &Finished) -> Result<(u64, u64)> {
        let db = finished.path(DB);
        Ok((count(&db, self.name())? as u64, fs::metadata(&db)?.len()))
    }
}
