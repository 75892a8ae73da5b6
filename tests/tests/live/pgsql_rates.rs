//! How fast PGSQL is beside ulogd2's, in one run on one server. The numbers of docs/performance.md:
//!
//! ```text
//! cargo test -p tests --test live --features live -- --nocapture ten_times_as_fast
//! ```

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tests::burst::udp_burst;
use tests::daemon::{Daemon, Launch, Program, ROOMY};
use tests::lab::SingleNs;
use tests::metrics::{self, ADDRESS, scrape};
use tests::poll;
use tests::postgres::Postgres;

use super::pgsql_ulogd::{ulogd_config, ulogd_schema};

const CT: &str = "event_mask=1\nhash_enable=0";
/// What the generator makes at once.
const PART: u32 = 10_000;
/// How long a logger may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A logger, and how it writes.
struct Case {
    name: &'static str,
    program: Program,
    /// Of its tables.
    schema: &'static str,
    procedure: &'static str,
    rows: u32,
}

/// What it costs.
struct Rate {
    name: &'static str,
    rows: u32,
    elapsed: Duration,
    daemon: Duration,
    server: Duration,
    bytes: u64,
}

impl Rate {
    fn per_second(&self) -> f64 {
        f64::from(self.rows) / self.elapsed.as_secs_f64()
    }

    fn words(&self) -> String {
        let each = |time: Duration| time.as_secs_f64() * 1e6 / f64::from(self.rows);
        format!(
            "| {} | {} | {:.0} | {:.1} | {:.1} | {} |\n",
            self.name,
            self.rows,
            self.per_second(),
            each(self.daemon),
            each(self.server),
            self.bytes / u64::from(self.rows)
        )
    }
}

impl Case {
    fn config(&self, server: &Postgres<'_>) -> String {
        let text = ulogd_config(server, CT, self.schema, self.procedure);
        if self.program == Program::Ulogd {
            // All that it gets fits into its queue.
            let large =
                "netlink_socket_buffer_size=67108863\nnetlink_socket_buffer_maxsize=67108864\n";
            return text.replace(ROOMY, large);
        }
        text.replace("#spool_dir", "spool_dir")
            .replace("[global]\n", &format!("[global]\nmetrics={ADDRESS}\n"))
    }

    /// Runs it on the beginnings of flows, until the server has all of them.
    fn measure(&self, server: &Postgres<'_>) -> Result<Rate> {
        let single = SingleNs::new()?;
        let daemon =
            Launch::new(self.program, single.namespace(), &self.config(server))?.start()?;
        let before = server.cpu_time()?;
        let begin = Instant::now();
        for part in 0..self.rows / PART {
            udp_burst(&single, 4000, part * PART, PART)?;
        }
        let done = || Ok(self.is_done(&daemon, &single, server)?.then_some(()));
        poll::within(PATIENCE, self.name, done).with_context(|| daemon.log())?;
        let rate = Rate {
            name: self.name,
            rows: self.rows,
            elapsed: begin.elapsed(),
            daemon: daemon.process.cpu_time()?,
            server: server.cpu_time()?.saturating_sub(before),
            bytes: server.number(&self.size())?,
        };
        daemon.stop()?;
        Ok(rate)
    }

    fn is_done(&self, daemon: &Daemon, single: &SingleNs, server: &Postgres<'_>) -> Result<bool> {
        let rows = u64::from(self.rows);
        if self.program == Program::Flowlog {
            let page = scrape(single.namespace())?;
            return Ok(metrics::sum(&page, "flowlog_written_lines_total", "pgsql")? >= rows as f64);
        }
        let sockets = daemon.process.netlink_sockets(single.namespace())?;
        ensure!(sockets.iter().all(|socket| socket.drops == 0), "its queue was too small");
        // To ask costs the server a session.
        std::thread::sleep(Duration::from_millis(500));
        let last = format!("SELECT last_value FROM {}.ulog2_ct__ct_id_seq", self.schema);
        Ok(server.number(&last)? >= rows)
    }

    /// What asks for the bytes of the table, indexes included.
    fn size(&self) -> String {
        let schema = self.schema;
        if schema == "own" {
            return "SELECT sum(pg_total_relation_size(inhrelid)) FROM pg_inherits \
                    WHERE inhparent = 'own.flow'::regclass"
                .to_owned();
        }
        format!("SELECT pg_total_relation_size('{schema}.ulog2_ct')")
    }
}

/// At least ten times ulogd2's rate, into the same table and into flowlog's own.
#[test]
#[cfg_attr(not(feature = "live"), ignore = "needs root and network namespaces: cargo xtask test")]
fn ten_times_as_fast_as_ulogd() -> Result<()> {
    let server = Postgres::new(None)?;
    server.run("CREATE SCHEMA own AUTHORIZATION flowlog")?;
    let ulogd = |name, schema| {
        let (program, procedure) = (Program::Ulogd, "INSERT_CT");
        Case { name, program, schema, procedure, rows: 2 * PART }
    };
    let flowlog = |name, schema, procedure| Case {
        name,
        program: Program::Flowlog,
        schema,
        procedure,
        rows: 20 * PART,
    };
    let cases = [
        ulogd("ulogd2, INSERT_CT", "theirs"),
        flowlog("flowlog, INSERT_CT", "by_function", "INSERT_CT"),
        flowlog("flowlog, INSERT", "by_copy", "INSERT"),
        flowlog("flowlog, own tables", "own", "INSERT"),
        ulogd("ulogd2, INSERT_CT, synchronous_commit=off", "unsynced"),
    ];
    let mut rates = Vec::new();
    for case in &cases {
        if case.schema == "unsynced" {
            server.run("ALTER ROLE flowlog SET synchronous_commit = off")?;
        }
        if case.schema != "own" {
            ulogd_schema(&server, case.schema)?;
        }
        rates.push(case.measure(&server).with_context(|| case.name)?);
    }
    let words: String = rates.iter().map(Rate::words).collect();
    println!(
        "| | rows | rows per second | CPU µs per row | of the server | bytes per row |\n\
         |---|--:|--:|--:|--:|--:|\n{words}"
    );
    for ours in &rates[2..4] {
        let times = ours.per_second() / rates[0].per_second();
        ensure!(times >= 10.0, "{}: {times:.1} times as fast", ours.name);
    }
    Ok(())
}
