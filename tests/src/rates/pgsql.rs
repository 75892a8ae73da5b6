//! PGSQL: one server as it is installed, for all in turn.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Case, FEW, MANY, Rate, Sink};
use crate::daemon::{Daemon, Finished, Program};
use crate::lab::SingleNs;
use crate::postgres::{Postgres, ulogd_keys, ulogd_schema};

/// Measures ulogd2 and flowlog; the last of ulogd2 on a server that does not wait for its disk.
///
/// # Errors
/// One does not run, or rows are missing.
pub fn measure() -> Result<Vec<Rate>> {
    let server = Postgres::new(None)?;
    server.run("CREATE SCHEMA own AUTHORIZATION flowlog")?;
    let cases = [
        ("ulogd2, INSERT_CT", Program::Ulogd, "theirs", "INSERT_CT", FEW),
        ("flowlog, INSERT_CT", Program::Flowlog, "by_function", "INSERT_CT", MANY),
        ("flowlog, INSERT", Program::Flowlog, "by_copy", "INSERT", MANY),
        ("flowlog, own tables", Program::Flowlog, "own", "INSERT", MANY),
        (
            "ulogd2, INSERT_CT, `synchronous_commit=off`",
            Program::Ulogd,
            "unsynced",
            "INSERT_CT",
            10 * FEW,
        ),
    ];
    let measured = cases.into_iter().map(|(name, program, schema, procedure, flows)| {
        if schema == "unsynced" {
            server.run("ALTER ROLE flowlog SET synchronous_commit = off")?;
        }
        let mut tables = Tables { server: &server, schema, procedure };
        if !tables.are_own() {
            ulogd_schema(&server, schema)?;
        }
        let single = SingleNs::new()?;
        let case = Case { name, program, flows, single: &single };
        case.measure(&mut tables).context(name)
    });
    measured.collect()
}

/// Tables in a schema of their own.
struct Tables<'s> {
    server: &'s Postgres<'s>,
    schema: &'static str,
    procedure: &'static str,
}

impl Tables<'_> {
    fn are_own(&self) -> bool {
        self.schema == "own"
    }

    fn count(&self) -> Result<u64> {
        let table = if self.are_own() { "flow" } else { "ulog2_ct" };
        self.server.number(&format!("SELECT count(*) FROM {}.{table}", self.schema))
    }
}

impl Sink for Tables<'_> {
    fn stages(&self) -> &'static str {
        "ip2str1:IP2STR,sink1:PGSQL"
    }

    fn keys(&self) -> String {
        ulogd_keys(self.server, self.schema, self.procedure)
    }

    fn arrived(&self, _daemon: &Daemon) -> Result<u64> {
        self.count()
    }

    fn cpu_time(&self) -> Result<Option<Duration>> {
        self.server.cpu_time().map(Some)
    }

    /// Bytes with indexes.
    fn result(&mut self, _finished: &Finished) -> Result<(u64, u64)> {
        let bytes = if self.are_own() {
            self.server.own_bytes(self.schema)?
        } else {
            let size = format!("SELECT pg_total_relation_size('{}.ulog2_ct')", self.schema);
            self.server.number(&size)?
        };
        Ok((self.count()?, bytes))
    }
}
