//! flowlog and ulogd2, each in turn on the beginnings of new UDP flows over netlink, into the same
//! kind of sink: how many rows a second arrive there, and what a row costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::burst::udp_burst;
use crate::collector::leave_untracked;
use crate::daemon::{Daemon, Finished, Launch, Program};
use crate::lab::SingleNs;
use crate::metrics::{self, ADDRESS};
use crate::poll;

pub mod ipfix;
pub mod pgsql;
pub mod sqlite3;

/// Flows made at once.
const PART: u32 = 5000;
/// A queue of a netlink socket that is roomy, and what may be in it before more flows are made, so
/// that nobody loses any and nobody waits for the load.
const ROOM: &str = "netlink_socket_buffer_size=67108863\nnetlink_socket_buffer_maxsize=67108864\n";
const QUEUED: u64 = 24 << 20;
/// How often it is asked what has arrived, and after how long nothing more is expected.
const LOOK: Duration = Duration::from_millis(10);
const QUIET: Duration = Duration::from_secs(2);
/// How long a logger may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Rows of a logger that waits for the disk with each of them, and of the others.
const FEW: u32 = 4000;
const MANY: u32 = 200_000;

/// A sink of a logger, and its far side.
trait Sink {
    /// The stages before it and it, and its section.
    fn stages(&self) -> &'static str;
    /// The keys of its section; `@DIR@` is the logger's directory.
    fn keys(&self) -> String;
    /// Makes ready what the logger expects in its directory.
    fn prepare(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }
    /// How much has arrived from ulogd2, or from both.
    fn arrived(&self, daemon: &Daemon) -> Result<u64>;
    /// Whether that is known of flowlog too, which else tells itself what was acknowledged.
    fn sees_all(&self) -> bool {
        false
    }
    /// Whether that is everything, if it tells.
    fn is_all(&self, arrived: u64, rows: u32) -> bool {
        arrived >= u64::from(rows)
    }
    /// Processor time of the server, if there is one.
    fn cpu_time(&self) -> Result<Option<Duration>> {
        Ok(None)
    }
    /// Rows and bytes that are there now that the logger has ended.
    fn result(&mut self, finished: &Finished) -> Result<(u64, u64)>;
}

/// What a logger gave, and what it cost.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// The logger, and how it writes.
    pub name: &'static str,
    /// Flows that were made.
    pub flows: u32,
    /// Rows that arrived.
    pub rows: u64,
    /// From the first flow to the last row.
    pub elapsed: Duration,
    /// Processor time of the logger.
    pub logger: Duration,
    /// Of the server.
    pub server: Option<Duration>,
    /// Bytes of all rows on the server's disk or, where there is none, on the wire.
    pub bytes: u64,
}

impl Rate {
    /// The first lines of a table of them.
    pub const HEAD: &'static str = "| | flows | rows | rows per second | CPU µs per row | of the \
                                    server | bytes per row |\n|---|--:|--:|--:|--:|--:|--:|\n";

    /// Rows a second.
    pub fn per_second(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64()
    }

    /// Processor time of a row in seconds, the server's included.
    pub fn cpu_per_row(&self) -> f64 {
        (self.logger + self.server.unwrap_or_default()).as_secs_f64() / self.rows as f64
    }

    /// A line of that table.
    pub fn line(&self) -> String {
        let each = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e6 / self.rows as f64);
        format!(
            "| {} | {} | {} | {:.0} | {} | {} | {:.0} |\n",
            self.name,
            self.flows,
            self.rows,
            self.per_second(),
            each(self.logger),
            self.server.map_or_else(|| "–".to_owned(), each),
            self.bytes as f64 / self.rows as f64
        )
    }
}

/// A logger in a namespace.
struct Case<'s> {
    name: &'static str,
    program: Program,
    flows: u32,
    single: &'s SingleNs,
}

impl Case<'_> {
    fn config(&self, sink: &dyn Sink) -> String {
        let own = match self.program {
            Program::Flowlog => format!("spool_dir=\"@DIR@/spool\"\nmetrics={ADDRESS}\n"),
            Program::Ulogd => String::new(),
        };
        format!(
            "[global]\nlogfile=\"@DIR@/daemon.log\"\nloglevel=3\n{own}stack=ct1:NFCT,{}\n\
             [ct1]\nevent_mask=1\nhash_enable=0\n{ROOM}[sink1]\n{}\n",
            sink.stages(),
            sink.keys()
        )
    }

    /// Runs it until all of its rows have arrived.
    fn measure(&self, sink: &mut dyn Sink) -> Result<Rate> {
        let namespace = self.single.namespace();
        // Scrapes and what goes to a collector are no flows.
        leave_untracked(namespace)?;
        // No flow ends while others are made and counted.
        namespace.set_sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", 900)])?;
        let launch = Launch::new(self.program, namespace, &self.config(sink))?;
        sink.prepare(launch.dir())?;
        let daemon = launch.start()?;
        let (server, logger) = (sink.cpu_time()?, daemon.process.cpu_time()?);
        let begin = Instant::now();
        self.feed(&daemon)?;
        let last = self.wait(&daemon, sink).with_context(|| daemon.log())?;
        let logger = daemon.process.cpu_time()? - logger;
        let server = sink.cpu_time()?.zip(server).map(|(after, before)| after - before);
        let (rows, bytes) = sink.result(&daemon.stop()?)?;
        let flows = u64::from(self.flows);
        // ulogd2 drops what does not fill a message of IPFIX.
        let least = if self.program == Program::Flowlog { flows } else { flows - flows / 100 };
        ensure!((least..=flows).contains(&rows), "{}: {rows} rows of {flows}", self.name);
        Ok(Rate {
            name: self.name,
            flows: self.flows,
            rows,
            elapsed: last.duration_since(begin),
            logger,
            server,
            bytes,
        })
    }

    /// Makes the flows, no faster than its queue has room for them.
    fn feed(&self, daemon: &Daemon) -> Result<()> {
        for first in (0..self.flows).step_by(PART as usize) {
            poll::within(PATIENCE, "room in its queue", || {
                Ok((self.queued(daemon)? < QUEUED).then_some(()))
            })?;
            udp_burst(self.single, 4000, first, PART.min(self.flows - first))?;
        }
        Ok(())
    }

    /// Bytes that wait for the logger.
    fn queued(&self, daemon: &Daemon) -> Result<u64> {
        let sockets = daemon.process.netlink_sockets(self.single.namespace())?;
        ensure!(sockets.iter().all(|socket| socket.drops == 0), "its queue was too small");
        Ok(sockets.iter().map(|socket| socket.queued).sum())
    }

    /// Waits until everything has arrived, and returns when it had. While the logger has something
    /// to read nobody is asked: that would cost the far side.
    fn wait(&self, daemon: &Daemon, sink: &dyn Sink) -> Result<Instant> {
        let mut seen = (Instant::now(), 0);
        poll::within(PATIENCE, self.name, || {
            std::thread::sleep(LOOK);
            let arrived = if self.queued(daemon)? > 0 { 0 } else { self.arrived(daemon, sink)? };
            if arrived != seen.1 || arrived == 0 {
                seen = (Instant::now(), arrived);
            }
            let is_quiet = seen.0.elapsed() > QUIET;
            let all = sink.is_all(arrived, self.flows) || is_quiet && self.is_delivered()?;
            Ok(all.then_some(seen.0))
        })
    }

    /// A spool may wait for the disk for longer than that; ulogd2 has none.
    fn is_delivered(&self) -> Result<bool> {
        if self.program == Program::Ulogd {
            return Ok(true);
        }
        let page = metrics::scrape(self.single.namespace())?;
        Ok(metrics::sum(&page, "flowlog_sink_spool_records", "")? == 0.0)
    }

    fn arrived(&self, daemon: &Daemon, sink: &dyn Sink) -> Result<u64> {
        if self.program == Program::Ulogd || sink.sees_all() {
            return sink.arrived(daemon);
        }
        let page = metrics::scrape(self.single.namespace())?;
        Ok(metrics::sum(&page, "flowlog_sink_written_records_total", "")? as u64)
    }
}
