//! What each sink counts: one table for all of them, a set of counters for each instance.
//!
//! A sink counts on several threads (the engine's, the spool writer's, its own), so the
//! counters are atomic and clones count together. [`super::Stats`] keeps a clone of each,
//! with the labels under which it is reported.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What is counted of a sink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Measure {
    /// Records that are, or were, on disk in the spool.
    Spooled,
    /// Records that the file, the peer or the destination has taken.
    Records,
    /// Bytes of them, or bytes sent.
    Bytes,
    /// Writes, syncs, connections or transactions that failed and were tried again.
    Errors,
    /// Times that the peer was reached again.
    Reconnects,
    /// Records written or sent once more: the first attempt was not confirmed.
    Repeated,
    /// Records that the destination had already.
    Known,
    /// Records lost, most of them because `buffer_max_bytes` was reached.
    Lost,
    /// Records that left the spool because it was full.
    Dropped,
    /// Records that the destination will never take: they are lost.
    Refused,
    /// Records that were written, and may not have reached the disk or, at exit, the peer.
    Unsure,
    /// Times that the output was removed or replaced beneath the daemon, and opened anew.
    Replaced,
    /// Times that a damaged file was set aside.
    SetAside,
    /// Reports of its own losses that were written to its output.
    LossReports,
}

impl Measure {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 14] = [
        Self::Spooled,
        Self::Records,
        Self::Bytes,
        Self::Errors,
        Self::Reconnects,
        Self::Repeated,
        Self::Known,
        Self::Lost,
        Self::Dropped,
        Self::Refused,
        Self::Unsure,
        Self::Replaced,
        Self::SetAside,
        Self::LossReports,
    ];

    /// The records of which nobody but the counter knows any more.
    pub const LOSSES: [Self; 3] = [Self::Lost, Self::Dropped, Self::Refused];

    /// What the log and /healthz warn of: losses, and what may be one.
    pub const WARNED: [Self; 4] = [Self::Lost, Self::Dropped, Self::Refused, Self::Unsure];

    /// Its name in reports, of a sink whose records are called `noun`.
    pub fn name(self, noun: &str) -> String {
        match self {
            Self::Records => noun.to_owned(),
            Self::Bytes => "bytes".to_owned(),
            Self::Errors => "errors".to_owned(),
            Self::Reconnects => "reconnects".to_owned(),
            Self::Replaced => "replaced_files".to_owned(),
            Self::SetAside => "set_aside_files".to_owned(),
            Self::LossReports => "loss_reports".to_owned(),
            Self::Spooled => format!("spooled_{noun}"),
            Self::Repeated => format!("repeated_{noun}"),
            Self::Known => format!("known_{noun}"),
            Self::Lost => format!("lost_{noun}"),
            Self::Dropped => format!("dropped_{noun}"),
            Self::Refused => format!("refused_{noun}"),
            Self::Unsure => format!("unsure_{noun}"),
        }
    }

    /// Its unit in reports, of a sink whose records are called `noun`.
    pub fn unit(self, noun: &'static str) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Errors => "errors",
            Self::Reconnects => "reconnects",
            Self::Replaced | Self::SetAside => "files",
            Self::LossReports => "reports",
            _ => noun,
        }
    }
}

/// A plugin that ends a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SinkPlugin {
    /// Lines to a file.
    Logemu,
    /// Lines to a syslog daemon.
    Syslog,
    /// JSON objects to a file or a socket.
    Json,
    /// Rows of a SQLite database.
    Sqlite3,
    /// Parquet files.
    Parquet,
    /// PostgreSQL.
    Pgsql,
    /// IPFIX collectors.
    Ipfix,
    /// NATS JetStream.
    Nats,
    /// Kafka.
    Kafka,
    /// ClickHouse.
    Clickhouse,
}

impl SinkPlugin {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 10] = [
        Self::Logemu,
        Self::Syslog,
        Self::Json,
        Self::Sqlite3,
        Self::Parquet,
        Self::Pgsql,
        Self::Ipfix,
        Self::Nats,
        Self::Kafka,
        Self::Clickhouse,
    ];

    /// The plugin, as in a stack.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::Logemu => "LOGEMU",
            Self::Syslog => "SYSLOG",
            Self::Json => "JSON",
            Self::Sqlite3 => "SQLITE3",
            Self::Parquet => "PARQUET",
            Self::Pgsql => "PGSQL",
            Self::Ipfix => "IPFIX",
            Self::Nats => "NATS",
            Self::Kafka => "KAFKA",
            Self::Clickhouse => "CLICKHOUSE",
        }
    }

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Logemu => "logemu",
            Self::Syslog => "syslog",
            Self::Json => "json",
            Self::Sqlite3 => "sqlite3",
            Self::Parquet => "parquet",
            Self::Pgsql => "pgsql",
            Self::Ipfix => "ipfix",
            Self::Nats => "nats",
            Self::Kafka => "kafka",
            Self::Clickhouse => "clickhouse",
        }
    }

    /// What its records are called.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Logemu => "lines",
            Self::Syslog => "messages",
            _ => "records",
        }
    }

    /// It delivers from the spool.
    pub fn is_spooled(self) -> bool {
        !matches!(self, Self::Logemu | Self::Syslog | Self::Json | Self::Sqlite3)
    }

    /// What it can count.
    pub fn measures(self) -> impl Iterator<Item = Measure> {
        Measure::ALL.into_iter().filter(move |measure| match measure {
            Measure::Spooled | Measure::Known | Measure::Dropped => self.is_spooled(),
            Measure::Reconnects => !matches!(self, Self::Logemu | Self::Sqlite3),
            Measure::Refused | Measure::SetAside => self.is_spooled() || self == Self::Sqlite3,
            Measure::Bytes => self != Self::Sqlite3,
            Measure::LossReports => !self.is_spooled() && self != Self::Sqlite3,
            _ => true,
        })
    }
}

/// Which sink of the configuration: the labels of its metrics.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    /// The id of its source.
    pub source: String,
    /// The number of its stack among those of the source, from 1 on.
    pub stack: usize,
    /// The id of its section.
    pub sink: String,
    /// Its plugin.
    pub plugin: SinkPlugin,
}

/// `SOURCE/STACK/SINK:PLUGIN`, as `ct1/2/nats1:NATS`.
impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, stack, sink, plugin } = self;
        write!(f, "{source}/{stack}/{sink}:{}", plugin.plugin())
    }
}

/// Bytes and records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Records.
    pub records: u64,
}

/// Which part of a sink fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The spool cannot be written.
    Spool,
    /// The file, the peer or the destination.
    Destination,
}

/// What is counted of one sink; clones count together, on any thread. Numbers only: no order
/// between them is promised.
#[derive(Clone, Debug, Default)]
pub struct SinkStats(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    counts: [AtomicU64; Measure::ALL.len()],
    /// Bytes and records in memory, on their way to the spool.
    waiting: [AtomicU64; 2],
    /// Bytes and records in the spool.
    kept: [AtomicU64; 2],
    /// What is wrong with the spool, and with the destination.
    troubles: [Mutex<Option<String>>; 2],
    /// Since when the destination owes an answer.
    asked: Mutex<Option<Instant>>,
    /// Why the destination has refused records, in its own words.
    refusal: Mutex<Option<String>>,
}

/// What another thread left behind when it panicked is still whole: these are plain values.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SinkStats {
    /// Adds to a count.
    pub fn add(&self, measure: Measure, n: u64) {
        self.0.counts[measure as usize].fetch_add(n, Ordering::Relaxed);
    }

    /// A count.
    pub fn get(&self, measure: Measure) -> u64 {
        self.0.counts[measure as usize].load(Ordering::Relaxed)
    }

    /// What is on its way to the spool.
    pub fn waiting(&self) -> Amount {
        amount(&self.0.waiting)
    }

    /// What the spool holds.
    pub fn kept(&self) -> Amount {
        amount(&self.0.kept)
    }

    /// More is on its way to the spool.
    pub fn add_waiting(&self, amount: Amount) {
        add(&self.0.waiting, amount);
    }

    /// Less is on its way to the spool.
    pub fn take_waiting(&self, amount: Amount) {
        take(&self.0.waiting, amount);
    }

    /// The spool holds more.
    pub fn add_kept(&self, amount: Amount) {
        add(&self.0.kept, amount);
    }

    /// The spool holds less.
    pub fn take_kept(&self, amount: Amount) {
        take(&self.0.kept, amount);
    }

    /// What is wrong now, if anything is: with the spool, or else with the destination.
    pub fn trouble(&self) -> Option<String> {
        self.0.troubles.iter().find_map(|trouble| lock(trouble).clone())
    }

    /// Notes what is wrong, or that nothing is.
    pub fn set_trouble(&self, part: Part, what: Option<String>) {
        *lock(&self.0.troubles[part as usize]) = what;
    }

    /// The destination is asked for something: it owes an answer, since the first question
    /// that it has not answered.
    pub fn ask(&self) {
        lock(&self.0.asked).get_or_insert_with(Instant::now);
    }

    /// It has answered all, or nobody waits for it any more.
    pub fn answered(&self) {
        *lock(&self.0.asked) = None;
    }

    /// For how long the destination has owed an answer.
    pub fn unanswered(&self) -> Option<Duration> {
        lock(&self.0.asked).map(|since| since.elapsed())
    }

    /// Counts records that the destination will never take, with its reason.
    pub fn add_refused(&self, records: u64, why: &str) {
        *lock(&self.0.refusal) = Some(why.to_owned());
        self.add(Measure::Refused, records);
    }

    /// Why the destination has refused records, the last time.
    pub fn refusal(&self) -> Option<String> {
        lock(&self.0.refusal).clone()
    }

    /// Whether both count the same sink.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

fn amount([bytes, records]: &[AtomicU64; 2]) -> Amount {
    // Who sees that they are gone sees also what was done before they were taken away.
    Amount { bytes: bytes.load(Ordering::Acquire), records: records.load(Ordering::Acquire) }
}

fn add([bytes, records]: &[AtomicU64; 2], amount: Amount) {
    bytes.fetch_add(amount.bytes, Ordering::Relaxed);
    records.fetch_add(amount.records, Ordering::Relaxed);
}

fn take([bytes, records]: &[AtomicU64; 2], amount: Amount) {
    for (counter, less) in [(bytes, amount.bytes), (records, amount.records)] {
        // A number of a damaged file may be too large. The closure never refuses.
        let less = |now: u64| Some(now.saturating_sub(less));
        let _ = counter.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

/// Report lines, `total PLUGIN.NAME: VALUE UNIT`: the sum of all sinks of a plugin, and where
/// there are several also each of them, `total PLUGIN.NAME{source="ct1",…}: VALUE UNIT`.
pub(super) fn totals(sinks: &[(Instance, SinkStats)]) -> Vec<String> {
    let mut lines = Vec::new();
    for plugin in SinkPlugin::ALL {
        let of: Vec<_> = sinks.iter().filter(|(one, _)| one.plugin == plugin).collect();
        if of.is_empty() {
            continue;
        }
        for measure in plugin.measures() {
            let (name, unit) = (measure.name(plugin.noun()), measure.unit(plugin.noun()));
            let mut line = |labels: &str, value: u64| {
                let mut text = String::new();
                // Writing to a string cannot fail.
                let _ = write!(text, "total {}.{name}{labels}: {value} {unit}", plugin.name());
                lines.push(text);
            };
            line("", of.iter().map(|(_, stats)| stats.get(measure)).sum());
            if of.len() > 1 {
                for (Instance { source, stack, sink, .. }, stats) in &of {
                    let labels =
                        format!("{{source=\"{source}\",stack=\"{stack}\",sink=\"{sink}\"}}");
                    line(&labels, stats.get(measure));
                }
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(stack: usize, sink: &str, plugin: SinkPlugin) -> Instance {
        Instance { source: "ct1".to_owned(), stack, sink: sink.to_owned(), plugin }
    }

    #[test]
    fn all_lists_each_at_its_index() {
        for (index, measure) in Measure::ALL.into_iter().enumerate() {
            assert_eq!(index, measure as usize, "{measure:?}");
        }
        for (index, plugin) in SinkPlugin::ALL.into_iter().enumerate() {
            assert_eq!(index, plugin as usize, "{plugin:?}");
            assert_eq!(plugin.plugin().to_lowercase(), plugin.name());
        }
    }

    #[test]
    fn clones_count_together() {
        let stats = SinkStats::default();
        stats.clone().add(Measure::Lost, 3);
        assert_eq!(stats.get(Measure::Lost), 3);
        assert!(stats.is_same(&stats.clone()) && !stats.is_same(&SinkStats::default()));
    }

    #[test]
    fn an_answer_is_owed_since_the_first_question() {
        let stats = SinkStats::default();
        assert_eq!(stats.unanswered(), None);
        stats.ask();
        std::thread::sleep(Duration::from_millis(2));
        stats.ask();
        assert!(stats.unanswered() >= Some(Duration::from_millis(2)));
        stats.answered();
        assert_eq!(stats.unanswered(), None);
    }

    #[test]
    fn an_instance_names_its_source_and_stack() {
        assert_eq!(instance(2, "nats1", SinkPlugin::Nats).to_string(), "ct1/2/nats1:NATS");
    }

    #[test]
    fn one_sink_is_reported_by_its_plugin_two_each_by_its_labels() {
        let (first, second) = (SinkStats::default(), SinkStats::default());
        first.add(Measure::Lost, 3);
        second.add(Measure::Lost, 4);
        let sinks = [(instance(1, "emu1", SinkPlugin::Logemu), first.clone())];
        let lines = totals(&sinks);
        assert!(lines.contains(&"total logemu.lost_lines: 3 lines".to_owned()), "{lines:?}");
        assert_eq!(lines.len(), SinkPlugin::Logemu.measures().count());
        let sinks = [
            (instance(1, "j1", SinkPlugin::Json), first),
            (instance(2, "j2", SinkPlugin::Json), second),
        ];
        let lines = totals(&sinks);
        for line in [
            "total json.lost_records: 7 records",
            "total json.lost_records{source=\"ct1\",stack=\"2\",sink=\"j2\"}: 4 records",
        ] {
            assert!(lines.iter().any(|one| one == line), "{line} in {lines:?}");
        }
    }
}
