//! What flowlog says that it has logged and lost: from its metrics while it runs, from the totals
//! in its log when it has ended. Names of metrics and totals stand here only. An account is kept for
//! each sink, by its id.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use anyhow::Result;

use super::stacks::{Source, Stack};
use crate::lines;
use crate::metrics::samples;

/// What one account counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sink {
    /// Records that a sink took.
    pub written: u64,
    /// Lost, most because a buffer was full.
    pub lost: u64,
    /// Dropped, because the spool was full.
    pub dropped: u64,
    /// Refused by the destination.
    pub refused: u64,
    /// Written, but perhaps not kept.
    pub unsure: u64,
    /// Sent again.
    pub repeated: u64,
}

impl Sink {
    /// Records that are counted as missing for sure.
    pub fn missing(&self) -> u64 {
        self.lost + self.dropped + self.refused
    }
}

impl AddAssign for Sink {
    fn add_assign(&mut self, other: Self) {
        self.written += other.written;
        self.lost += other.lost;
        self.dropped += other.dropped;
        self.refused += other.refused;
        self.unsure += other.unsure;
        self.repeated += other.repeated;
    }
}

/// All accounts, and events that each source lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By the name of the account.
    pub sinks: BTreeMap<String, Sink>,
    /// Events that a source lost, by its id.
    pub lost: BTreeMap<String, u64>,
    /// Events that a source handed to its stacks, by its id.
    pub events: BTreeMap<String, u64>,
    /// Reports of losses that a source handed to its stacks, by its id.
    pub reports: BTreeMap<String, u64>,
}

impl AddAssign<&Self> for Counters {
    fn add_assign(&mut self, other: &Self) {
        for (name, sink) in &other.sinks {
            *self.sinks.entry(name.clone()).or_default() += *sink;
        }
        for (mine, theirs) in [
            (&mut self.lost, &other.lost),
            (&mut self.events, &other.events),
            (&mut self.reports, &other.reports),
        ] {
            for (name, count) in theirs {
                *mine.entry(name.clone()).or_default() += count;
            }
        }
    }
}

/// The account of a stack: the id of its sink.
pub fn account(stack: &Stack) -> String {
    format!("{}1", stack.name)
}

/// Metrics of sinks, and the field of each.
const METRICS: [(&str, Field); 6] = [
    ("flowlog_sink_written_records_total", |sink| &mut sink.written),
    ("flowlog_sink_lost_records_total", |sink| &mut sink.lost),
    ("flowlog_sink_dropped_records_total", |sink| &mut sink.dropped),
    ("flowlog_sink_refused_records_total", |sink| &mut sink.refused),
    ("flowlog_sink_unsure_records_total", |sink| &mut sink.unsure),
    ("flowlog_sink_repeated_records_total", |sink| &mut sink.repeated),
];
/// Totals in the log: what stands between the name of the plugin and the unit.
const TOTALS: [(&str, Field); 6] = [
    ("", |sink| &mut sink.written),
    ("lost", |sink| &mut sink.lost),
    ("dropped", |sink| &mut sink.dropped),
    ("refused", |sink| &mut sink.refused),
    ("unsure", |sink| &mut sink.unsure),
    ("repeated", |sink| &mut sink.repeated),
];
/// What records are called in totals.
const UNITS: [&str; 3] = ["lines", "records", "messages"];
/// How /healthz begins when the thread that reads events has not answered; the numbers then have
/// nothing of the sources.
pub const STANDS_STILL: &str = "the engine has not answered for ";
/// The label with the account.
const LABEL: &str = "sink";

type Field = fn(&mut Sink) -> &mut u64;

/// The value of a label.
fn label<'s>(sample: &'s str, name: &str) -> Option<&'s str> {
    let (_, rest) = sample.split_once('{')?;
    let at = rest.find(&format!("{name}=\""))?;
    rest[at..].split('"').nth(1)
}

impl Counters {
    /// What a scrape says.
    ///
    /// # Errors
    /// It is torn.
    pub fn of_page(page: &str) -> Result<Self> {
        let mut counters = Self::default();
        for (sample, value) in samples(page)? {
            let value = value as u64;
            let metric = sample.split('{').next().unwrap_or_default();
            let source = label(sample, "source").unwrap_or_default();
            let of_source = match metric {
                "flowlog_lost_events_total" => Some(&mut counters.lost),
                "flowlog_events_total" => Some(&mut counters.events),
                "flowlog_loss_reports_total" => Some(&mut counters.reports),
                _ => None,
            };
            if let Some(sum) = of_source {
                *sum.entry(source.to_owned()).or_default() += value;
            }
            let field = METRICS.iter().find(|(name, _)| *name == metric);
            if let (Some((_, field)), Some(name)) = (field, label(sample, LABEL)) {
                *field(counters.sinks.entry(name.to_owned()).or_default()) += value;
            }
        }
        Ok(counters)
    }

    /// What the totals in a log say of the sinks of these stacks; of sources they say nothing.
    pub fn of_log(log: &str, stacks: &[Stack]) -> Self {
        let mut counters = Self::default();
        for (total, value) in lines::totals(log) {
            let name = total.split('{').next().unwrap_or_default();
            let Some((plugin, what)) = name.split_once('.') else { continue };
            let Some(what) = UNITS.iter().find_map(|unit| what.strip_suffix(unit)) else {
                continue;
            };
            let what = what.trim_end_matches('_');
            // The sum of several sinks is of no interest.
            let mut alike = stacks.iter().filter(|one| one.plugin.eq_ignore_ascii_case(plugin));
            let account = match (label(&total, LABEL), alike.next(), alike.next()) {
                (Some(sink), ..) => sink.to_owned(),
                (None, Some(only), None) => account(only),
                _ => continue,
            };
            if let Some((_, field)) = TOTALS.iter().find(|(name, _)| *name == what) {
                *field(counters.sinks.entry(account).or_default()) += value;
            }
        }
        counters
    }

    /// Whether they have everything: the thread that reads events has answered.
    pub fn is_whole(&self) -> bool {
        !self.events.is_empty()
    }

    /// Events that a source lost.
    pub fn lost_by(&self, source: Source) -> u64 {
        self.lost.get(source.id()).copied().unwrap_or_default()
    }

    /// Records of losses that each stack of a source gets.
    pub fn reports_of(&self, source: Source) -> u64 {
        self.reports.get(source.id()).copied().unwrap_or_default()
    }

    /// Events that a source handed on or lost.
    pub fn known_to(&self, source: Source) -> u64 {
        self.events.get(source.id()).copied().unwrap_or_default() + self.lost_by(source)
    }
}

/// Records and bytes that wait somewhere: in the spool, or in memory for a peer or a disk.
///
/// # Errors
/// The page is torn.
pub fn waiting(page: &str) -> Result<Vec<String>> {
    const GAUGES: [&str; 2] = ["flowlog_sink_spool_records", "flowlog_sink_buffer_bytes"];
    let is_gauge = |sample: &str| GAUGES.contains(&sample.split('{').next().unwrap_or_default());
    let all = samples(page)?;
    let waits = all.iter().filter(|(sample, value)| is_gauge(sample) && **value > 0.0);
    Ok(waits.map(|(sample, value)| format!("{sample} {value}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::stacks::ALL;

    fn stacks(names: &[&str]) -> Vec<Stack> {
        ALL.into_iter().filter(|stack| names.contains(&stack.name)).collect()
    }

    #[test]
    fn metrics_and_totals_say_the_same() -> Result<()> {
        const JFILE: &str = "{source=\"ct1\",stack=\"1\",sink=\"jfile1\",plugin=\"JSON\"}";
        const NATS: &str = "{source=\"ct1\",stack=\"3\",sink=\"nats1\",plugin=\"NATS\"}";
        let page = format!(
            "# HELP x\nflowlog_sink_lost_records_total{JFILE} 3\n\
             flowlog_sink_written_records_total{JFILE} 10\n\
             flowlog_sink_dropped_records_total{NATS} 4\n\
             flowlog_lost_events_total{{source=\"ct1\"}} 7\n\
             flowlog_events_total{{source=\"ct1\",kind=\"new\",cause=\"none\"}} 10\n\
             flowlog_events_total{{source=\"ct1\",kind=\"destroy\",cause=\"untold\"}} 9\n\
             flowlog_sink_buffer_bytes{JFILE} 5\nflowlog_sink_spool_records{NATS} 0\n"
        );
        let counters = Counters::of_page(&page)?;
        assert_eq!(counters.known_to(Source::Events), 26);
        assert_eq!(waiting(&page)?.len(), 1);
        // As stats/sink.rs of flowlog writes them.
        let log = "<5> total json.lost_records: 8 records\n<5> total json.records: 10 records\n\
            <5> total json.lost_records{source=\"ct1\",stack=\"1\",sink=\"jfile1\"}: 3 records\n\
            <5> total json.records{source=\"ct1\",stack=\"1\",sink=\"jfile1\"}: 10 records\n\
            <5> total json.bytes: 99 bytes\n<5> total nats.dropped_records: 4 records\n\
            <5> total netlink.lost: 7 messages\n<5> total nats.spooled_records: 9 records\n";
        let totals = Counters::of_log(log, &stacks(&["jfile", "junix", "nats"]));
        assert_eq!(totals.sinks, counters.sinks);
        assert_eq!(totals.sinks["jfile1"].missing() + totals.sinks["nats1"].missing(), 7);
        Ok(())
    }

    #[test]
    fn accounts_are_the_ids_of_the_configuration() {
        let places = crate::chaos::stacks::Places {
            places: &[],
            spool: std::path::Path::new("/"),
            inner: "",
        };
        let text = crate::chaos::stacks::configuration(&ALL, &places);
        for stack in &ALL {
            assert!(text.contains(&format!(",{}:{}\n", account(stack), stack.plugin)));
        }
    }

    #[test]
    fn two_runs_add_up() {
        let log =
            "<5> total syslog.messages: 2 messages\n<5> total syslog.lost_messages: 1 messages\n";
        let stacks = stacks(&["stcp"]);
        let mut sum = Counters::of_log(log, &stacks);
        sum += &Counters::of_log(log, &stacks);
        assert_eq!((sum.sinks["stcp1"].written, sum.sinks["stcp1"].lost), (4, 2));
    }
}
