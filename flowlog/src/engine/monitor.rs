//! Looks at every source and sink once a second, so that no loss stays unseen and no sink stands
//! still unseen: warns, and remembers for /healthz. It reads counters only, so that it needs
//! nothing from a sink but that it counts.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tracing::warn;

use self::progress::Progress;
use super::Source;
use crate::plugin::output::Output;
use crate::stats::{Instance, Measure, Part, SinkPlugin, SinkStats, Stats};

mod progress;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often it warns of the same sink.
const WARN_INTERVAL: Duration = Duration::from_secs(10);
/// How long /healthz shows a loss.
const MEMORY: Duration = Duration::from_secs(300);
/// Losses that come closer together are remembered as one.
const COALESCE: Duration = Duration::from_secs(10);
/// From which time without progress on a sink stands still.
const STALLED: Duration = Duration::from_secs(10);
/// How long a sink must have lost nothing before its loss stands in its output.
const SETTLED: Duration = Duration::from_secs(2);

/// What it remembers.
pub(super) struct Monitor {
    due: Instant,
    /// For each, its losses by what lost them.
    sources: Vec<BTreeMap<&'static str, Lost>>,
    sinks: Vec<Watched>,
}

impl Monitor {
    /// For these sources.
    pub(super) fn new(sources: &[Source], stats: &Stats, now: Instant) -> Self {
        let registered = stats.sinks();
        let mut sinks: Vec<Watched> = Vec::new();
        for (index, source) in sources.iter().enumerate() {
            for (instance, output) in source.stacks.each_sink() {
                let found = registered.iter().find(|(one, _)| one == instance);
                let stats = match (found, output) {
                    (Some((_, stats)), _) => stats.clone(),
                    // Two stacks may share one; it is reported under the first.
                    (None, Output::Shipped(shipment)) => shipment.stats().clone(),
                    (None, _) => continue,
                };
                let shared = sinks.iter().any(|sink| sink.stats.is_same(&stats));
                let shows_losses = !shared && source.stacks.shows_losses(instance.stack);
                sinks.push(Watched::new(index, instance.clone(), stats, shared, shows_losses, now));
            }
        }
        let sources = sources.iter().map(|_| BTreeMap::new()).collect();
        Self { due: now + INTERVAL, sources, sinks }
    }

    /// When [`Monitor::tick`] has something to do.
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    /// Looks, if it is time to.
    pub(super) fn tick(&mut self, now: Instant, sources: &mut [Source]) {
        if now < self.due {
            return;
        }
        self.due = now + INTERVAL;
        self.look(now, sources);
        for sink in &mut self.sinks {
            sink.warn(now);
            if let Some(records) = sink.take_settled(now)
                && let Some(source) = sources.get_mut(sink.source)
            {
                source.stacks.report_loss(sink.instance.stack, records);
                sink.stats.add(Measure::LossReports, 1);
            }
        }
    }

    /// Takes the counters as they are now.
    pub(super) fn look(&mut self, now: Instant, sources: &[Source]) {
        for (lost, source) in self.sources.iter_mut().zip(sources) {
            for (by, total) in source.nfct.lost_by() {
                lost.entry(*by).or_default().add(now, *total);
            }
        }
        let outputs = sources.iter().flat_map(|source| source.stacks.each_sink());
        for (instance, output) in outputs {
            if let Some(sink) = self.sinks.iter_mut().find(|sink| sink.instance == *instance) {
                sink.look(now, output);
            }
        }
    }

    /// Warns of what no warning has named yet, however short a time ago the last one was.
    pub(super) fn warn_of_rest(&mut self, now: Instant, sources: &[Source]) {
        self.look(now, sources);
        for sink in &mut self.sinks {
            sink.warned = None;
            sink.warn(now);
        }
    }

    /// For how long a sink has stood still.
    pub(super) fn stalled(&self, instance: &Instance, now: Instant) -> Duration {
        let sink = self.sinks.iter().find(|sink| sink.instance == *instance);
        sink.map_or(Duration::ZERO, |sink| sink.progress.stalled(now, &sink.stats))
    }

    /// A line for each sink that stands still and that `skip` does not name otherwise, and for
    /// each loss of the last minutes.
    pub(super) fn findings(
        &self,
        now: Instant,
        sources: &[Source],
        skip: impl Fn(&Instance) -> bool,
    ) -> Vec<String> {
        let stalled = self.sinks.iter().filter(|sink| !sink.shared && !skip(&sink.instance));
        let stalled = stalled.filter_map(|sink| sink.stalled(now));
        let lost = self.sinks.iter().flat_map(|sink| sink.lost_lately(now));
        let captured = self.sources.iter().zip(sources).flat_map(|(lost, source)| {
            lost.iter().filter_map(|(by, lost)| captured(&source.id, by, lost.lately(now)))
        });
        stalled.chain(lost).chain(captured).collect()
    }
}

/// What a capture lost lately, by what lost it, and what to do.
fn captured(id: &str, by: &str, events: u64) -> Option<String> {
    let (what, remedy) = match by {
        "netns" => (
            "since its netns was made anew",
            "what happened there before flowlog entered it is in no log; nothing is to be raised",
        ),
        "ebpf" => (
            "by eBPF",
            "raise ring_buffer_size, or set attach=fentry where the log names missed probes",
        ),
        "both" => {
            ("by eBPF and netlink", "raise ring_buffer_size and netlink_socket_buffer_maxsize")
        }
        "netlink" => ("by netlink", "raise netlink_socket_buffer_maxsize"),
        "netlink_malformed" | "ebpf_malformed" => (
            "because they cannot be decoded",
            "run `flowlog check`, and report this kernel: it may be newer than flowlog",
        ),
        _ => ("in capture", "see the log"),
    };
    let number = match by {
        "netns" => "an unknown number of events was lost".to_owned(),
        _ => format!("{events} events lost"),
    };
    (events > 0).then(|| format!("{id}: {number} in the last 5 minutes {what}; {remedy}"))
}

/// A sink.
struct Watched {
    /// The index of its source.
    source: usize,
    instance: Instance,
    stats: SinkStats,
    /// Its losses are reported as those of another one, which counts with it.
    shared: bool,
    losses: [Lost; Measure::WARNED.len()],
    /// Values that warnings have named, and when the last one was.
    named: [u64; Measure::WARNED.len()],
    warned: Option<Instant>,
    progress: Progress,
    /// It was reported that one of its threads does not run.
    reported_dead: bool,
    /// Its output has a place for losses.
    shows_losses: bool,
    /// Losses that stand in the output already.
    shown: u64,
    /// The output works, and has room.
    has_room: bool,
}

impl Watched {
    fn new(
        source: usize,
        instance: Instance,
        stats: SinkStats,
        shared: bool,
        shows_losses: bool,
        now: Instant,
    ) -> Self {
        let in_line =
            matches!(instance.plugin, SinkPlugin::Logemu | SinkPlugin::Syslog | SinkPlugin::Json);
        Self {
            source,
            progress: Progress::new(instance.plugin, now),
            reported_dead: false,
            instance,
            stats,
            shared,
            losses: Default::default(),
            named: Default::default(),
            warned: None,
            shows_losses: shows_losses && in_line,
            shown: 0,
            has_room: false,
        }
    }

    fn look(&mut self, now: Instant, output: &Output) {
        for (lost, measure) in self.losses.iter_mut().zip(Measure::WARNED) {
            lost.add(now, self.stats.get(measure));
        }
        let (waiting, limit) = output.fill();
        let (stalled, dead) = match output {
            Output::Shipped(shipment) => (shipment.stalled_for(), shipment.dead_thread()),
            Output::Database(database) => (None, database.dead_thread()),
            _ => (None, None),
        };
        self.progress.look(now, &self.stats, waiting, stalled);
        if let Some((part, what)) = dead {
            self.report_dead(part, what);
        }
        self.has_room = !output.is_failing() && waiting <= limit / 2;
    }

    /// A thread of it does not run: no other one says so. /healthz and the metrics show what is
    /// noted here.
    #[cold]
    fn report_dead(&mut self, part: Part, what: String) {
        if !std::mem::replace(&mut self.reported_dead, true) {
            warn!("{}: {what}", self.instance);
        }
        self.stats.set_trouble(part, Some(what));
    }

    /// Warns of losses that no warning has named, unless the last one is not long ago.
    fn warn(&mut self, now: Instant) {
        let early = self.warned.is_some_and(|at| now.duration_since(at) < WARN_INTERVAL);
        if self.shared || early {
            return;
        }
        let each = Measure::WARNED.into_iter().zip(&self.losses).zip(&self.named);
        let parts: Vec<String> = each
            .filter(|((_, lost), named)| lost.total > **named)
            .map(|((measure, lost), named)| {
                let (what, remedy) = self.describe(measure);
                format!("{} {what} ({} so far); {remedy}", lost.total - named, lost.total)
            })
            .collect();
        if parts.is_empty() {
            return;
        }
        warn!("{}: {}", self.instance, parts.join(". "));
        self.warned = Some(now);
        for (named, lost) in self.named.iter_mut().zip(&self.losses) {
            *named = lost.total;
        }
    }

    /// What was lost lately, a line for each measure.
    fn lost_lately(&self, now: Instant) -> impl Iterator<Item = String> + '_ {
        let each = Measure::WARNED.into_iter().zip(&self.losses).filter(|_| !self.shared);
        each.filter_map(move |(measure, lost)| {
            let records = lost.lately(now);
            let (what, remedy) = self.describe(measure);
            (records > 0).then(|| {
                format!("{}: {records} {what} in the last 5 minutes; {remedy}", self.instance)
            })
        })
    }

    /// What the number of a measure counts, and what to do.
    fn describe(&self, measure: Measure) -> (String, &'static str) {
        let noun = self.instance.plugin.noun();
        match measure {
            Measure::Dropped => (
                format!("{noun} dropped because the spool was full"),
                "raise spool_max_bytes, or see why the destination takes no records",
            ),
            Measure::Refused => {
                let why = self.stats.refusal();
                let why = why.map_or_else(String::new, |why| format!(" ({why})"));
                (
                    format!("{noun} refused by the destination{why}"),
                    "they are lost; change what it refuses",
                )
            }
            Measure::Unsure => (
                format!("{noun} written that may not have reached the disk or the peer"),
                "look after the disk, whose errors the kernel's log names, or after the peer",
            ),
            _ => (
                format!("{noun} lost because they could not be kept any longer"),
                "see why they cannot be written, or raise buffer_max_bytes",
            ),
        }
    }

    fn stalled(&self, now: Instant) -> Option<String> {
        let time = self.progress.stalled(now, &self.stats);
        if time < STALLED {
            return None;
        }
        let (instance, seconds) = (&self.instance, time.as_secs());
        if self.stats.unanswered().is_some_and(|owed| owed >= STALLED) {
            let records = self.stats.kept().records;
            return Some(format!(
                "{instance} has stood still for {seconds} s: the destination does not answer; \
                 {records} records wait in the spool. See why it hangs"
            ));
        }
        let (waiting, records) = (self.progress.waiting(), self.stats.kept().records);
        if waiting == 0 && records > 0 {
            return Some(format!(
                "{instance} has stood still for {seconds} s: {records} records wait in the spool \
                 and none is delivered. Send SIGHUP, which connects anew; if that does not help, \
                 restart flowlog and report its log"
            ));
        }
        Some(format!(
            "{instance} has stood still for {seconds} s: {waiting} bytes wait and none is written. \
             See what keeps its reader or its disk"
        ))
    }

    /// Records whose loss is to stand in the output: once it works again.
    fn take_settled(&mut self, now: Instant) -> Option<u64> {
        if !self.shows_losses || !self.has_room {
            return None;
        }
        let place = Measure::WARNED.iter().position(|measure| *measure == Measure::Lost)?;
        let lost = self.losses.get(place)?;
        let records = lost.total - self.shown;
        let settled = lost.last.is_some_and(|last| now.duration_since(last) >= SETTLED);
        if records == 0 || !settled {
            return None;
        }
        self.shown = lost.total;
        Some(records)
    }
}

/// A counter of losses, and how it has grown lately.
#[derive(Debug, Default)]
struct Lost {
    total: u64,
    /// When it has grown for the last time.
    last: Option<Instant>,
    lately: VecDeque<(Instant, u64)>,
}

impl Lost {
    /// The counter has this value now.
    fn add(&mut self, now: Instant, total: u64) {
        while self.lately.front().is_some_and(|(at, _)| now.duration_since(*at) > MEMORY) {
            self.lately.pop_front();
        }
        let more = total.saturating_sub(self.total);
        self.total = total;
        if more == 0 {
            return;
        }
        self.last = Some(now);
        match self.lately.back_mut() {
            Some((at, events)) if now.duration_since(*at) < COALESCE => *events += more,
            _ => self.lately.push_back((now, more)),
        }
    }

    /// What was lost in the last minutes.
    fn lately(&self, now: Instant) -> u64 {
        let young = self.lately.iter().filter(|(at, _)| now.duration_since(*at) <= MEMORY);
        young.map(|(_, events)| events).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_forgotten_after_five_minutes() {
        let begin = Instant::now();
        let mut lost = Lost::default();
        lost.add(begin, 0);
        assert_eq!(lost.lately(begin), 0);
        for second in 0..60 {
            lost.add(begin + Duration::from_secs(second), 10 * second);
        }
        let end = begin + Duration::from_secs(59);
        assert_eq!((lost.lately(end), lost.total, lost.last), (590, 590, Some(end)));
        assert!(lost.lately.len() <= 6, "{lost:?}");
        assert!(lost.lately(begin + MEMORY + Duration::from_secs(30)) < 590);
        assert_eq!(lost.lately(end + MEMORY + Duration::from_secs(1)), 0);
        lost.add(end + 2 * MEMORY, 591);
        assert_eq!((lost.lately(end + 2 * MEMORY), lost.lately.len()), (1, 1));
    }

    #[test]
    fn each_loss_of_a_capture_has_the_remedy_of_what_lost_it() {
        let line = |by| captured("ct1", by, 7).unwrap();
        for (by, remedy) in [
            ("netlink", "netlink_socket_buffer_maxsize"),
            ("ebpf", "ring_buffer_size"),
            ("both", "ring_buffer_size and netlink_socket_buffer_maxsize"),
        ] {
            assert!(line(by).starts_with("ct1: 7 events lost in the last 5 minutes "), "{by}");
            assert!(line(by).contains(remedy), "{by}");
        }
        assert!(!line("netns").contains("size"), "no buffer helps: {}", line("netns"));
        assert!(line("netns").contains("made anew"), "{}", line("netns"));
        assert_eq!(captured("ct1", "ebpf", 0), None);
    }

    fn watched(plugin: SinkPlugin, now: Instant) -> Watched {
        let instance =
            Instance { source: "ct1".to_owned(), stack: 2, sink: "s1".to_owned(), plugin };
        Watched::new(0, instance, SinkStats::default(), false, true, now)
    }

    impl Watched {
        fn count(&mut self, now: Instant) {
            for (lost, measure) in self.losses.iter_mut().zip(Measure::WARNED) {
                lost.add(now, self.stats.get(measure));
            }
        }
    }

    #[test]
    fn each_loss_has_its_number_its_instance_and_its_remedy() {
        let now = Instant::now();
        for (measure, reason, remedy) in [
            (Measure::Dropped, "dropped because the spool was full", "raise spool_max_bytes"),
            (Measure::Lost, "lost because they could not be kept", "raise buffer_max_bytes"),
            (Measure::Unsure, "may not have reached the disk or the peer", "look after the disk"),
            (Measure::Refused, "refused by the destination", "change what it refuses"),
        ] {
            let mut sink = watched(SinkPlugin::Nats, now);
            sink.stats.add(measure, 7);
            sink.count(now);
            let lines: Vec<_> = sink.lost_lately(now).collect();
            let [line] = &lines[..] else { panic!("{lines:?}") };
            assert!(line.starts_with("ct1/2/s1:NATS: 7 records "), "{line}");
            assert!(line.contains(reason) && line.contains(remedy), "{line}");
        }
        let mut sink = watched(SinkPlugin::Pgsql, now);
        sink.stats.add_refused(1, "value too long");
        sink.count(now);
        let line = sink.lost_lately(now).next().unwrap();
        assert!(line.contains("1 records refused by the destination (value too long)"), "{line}");
    }

    /// What is noted as trouble is shown by /healthz and in the metrics.
    #[test]
    fn a_thread_that_has_ended_is_a_trouble_of_its_sink() {
        let mut sink = watched(SinkPlugin::Nats, Instant::now());
        for _ in 0..2 {
            sink.report_dead(Part::Destination, "its thread has ended; restart flowlog".to_owned());
            let trouble = sink.stats.trouble().unwrap();
            assert_eq!(trouble, "its thread has ended; restart flowlog");
            // One of before does not hide it.
            sink.stats.set_trouble(Part::Destination, None);
        }
        assert!(sink.reported_dead);
    }

    #[test]
    fn records_that_stand_still_in_the_spool_are_named() {
        let now = Instant::now();
        let mut sink = watched(SinkPlugin::Parquet, now);
        sink.stats.add_kept(crate::stats::Amount { bytes: 70, records: 7 });
        sink.progress.look(now, &sink.stats, 0, Some(STALLED));
        let line = sink.stalled(now).unwrap();
        assert!(line.contains("for 10 s: 7 records wait in the spool"), "{line}");
        sink.progress.look(now, &sink.stats, 0, None);
        assert_eq!(sink.stalled(now), None);
    }

    #[test]
    fn every_measure_that_is_warned_of_has_words_of_its_own() {
        let sink = watched(SinkPlugin::Nats, Instant::now());
        let mut words: Vec<_> = Measure::WARNED.map(|measure| sink.describe(measure).0).into();
        words.sort();
        words.dedup();
        assert_eq!(words.len(), Measure::WARNED.len());
        for loss in Measure::LOSSES {
            assert!(Measure::WARNED.contains(&loss), "{loss:?}");
        }
    }

    #[test]
    fn a_loss_stands_in_the_output_once_it_works_and_once() {
        let begin = Instant::now();
        let mut sink = watched(SinkPlugin::Logemu, begin);
        sink.stats.add(Measure::Lost, 5);
        sink.count(begin);
        let later = begin + SETTLED;
        assert_eq!(sink.take_settled(later), None, "there is no room");
        sink.has_room = true;
        assert_eq!(sink.take_settled(begin), None, "more may be lost yet");
        assert_eq!(sink.take_settled(later), Some(5));
        assert_eq!(sink.take_settled(later), None);
        let mut spooled = watched(SinkPlugin::Nats, begin);
        spooled.stats.add(Measure::Lost, 5);
        spooled.count(begin);
        spooled.has_room = true;
        assert_eq!(spooled.take_settled(later), None, "what is spooled has another order");
    }
}
