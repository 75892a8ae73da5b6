//! The engine's answers to monitoring, made between two turns.

use std::time::Instant;

use super::monitor::Monitor;
use super::{Engine, Source};
use crate::metrics::family::Family;
use crate::metrics::page::Page;
use crate::metrics::{Answer, Question, Topic, counters};
use crate::plugin::output::Output;

impl Engine {
    /// Answers a question, unless it is too late for it.
    pub(super) fn answer(&mut self, question: Question) {
        if question.answer.is_closed() {
            return;
        }
        let now = Instant::now();
        self.monitor.look(now, &self.sources);
        let answer = match question.topic {
            Topic::Metrics => Answer::Page(self.page(now)),
            Topic::Health => match self.trouble(now) {
                trouble if trouble.is_empty() => Answer::Fit("ok\n".to_owned()),
                trouble => Answer::Unfit(trouble),
            },
        };
        let _ = question.answer.send(answer);
    }

    fn page(&mut self, now: Instant) -> String {
        let mut page = Page::default();
        page.add(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
        page.add(Family::Health, &[], u8::from(self.trouble(now).is_empty()));
        for source in &mut self.sources {
            source.capture.before_totals();
            source.tell(&self.monitor, now, &mut page);
        }
        counters::add(&self.stats, &mut page);
        page.finish()
    }

    /// What is wrong, a line for each: sources that do not see all, sinks that fail or stand
    /// still, and losses of the last minutes. That the loop itself stands still is for the
    /// server to say.
    fn trouble(&self, now: Instant) -> String {
        let sources = self.sources.iter().filter_map(Source::trouble);
        let sinks = self.sources.iter().flat_map(|source| source.stacks.each_sink());
        let failing: Vec<_> = sinks.filter(|(_, sink)| sink.is_failing()).collect();
        let named = |instance: &_| failing.iter().any(|(one, _)| *one == instance);
        let lines = sources
            .chain(failing.iter().map(|(instance, sink)| format!("{instance}: {}", stuck(sink))))
            .chain(self.monitor.findings(now, &self.sources, named));
        lines.map(|line| line + "\n").collect()
    }
}

fn stuck(sink: &Output) -> String {
    let (waiting, limit) = sink.fill();
    let (what, remedy) = match sink {
        Output::File(_) => ("written", "make room or move the file and send SIGHUP"),
        Output::Stream(_) => ("written, as nobody reads it", "start what reads it"),
        Output::Socket(socket) if !socket.is_known() => {
            ("looked up", "see to the name servers, or give the address in numbers")
        }
        Output::Socket(_) => ("reached", "start what listens there, or name another place"),
        Output::Database(database) => {
            let why = database.failure().unwrap_or_default();
            return format!("{sink} cannot be written: {why}; {waiting} of {limit} bytes wait");
        }
        Output::Shipped(shipment) => {
            let why = shipment.stats().trouble().unwrap_or_default();
            let kept = shipment.stats().kept();
            let (records, bytes) = (kept.records, kept.bytes);
            let memory = match shipment.stats().waiting().records {
                0 => String::new(),
                records => format!(", and {records} in memory"),
            };
            return format!("{why}; {records} records ({bytes} bytes) wait in the spool{memory}");
        }
    };
    format!("{sink} cannot be {what}: {waiting} of {limit} bytes wait; {remedy}")
}

impl Source {
    /// Adds what is known of this source.
    fn tell(&self, monitor: &Monitor, now: Instant, page: &mut Page) {
        let id = self.id.as_str();
        page.add(Family::SourceInfo, &[id, &self.by], 1);
        let (mask, handed) = self.nfct.handed();
        for (kind, cause, count) in handed.each(mask) {
            page.add(Family::Events, &[id, &kind, cause], count);
        }
        page.add(Family::LostEvents, &[id], self.nfct.lost_total());
        page.add(Family::LossReports, &[id], handed.losses());
        if let Some(limit) = self.nfct.limit() {
            page.add(Family::LiveFlows, &[id], self.nfct.live());
            page.add(Family::LiveFlowsLimit, &[id], limit);
            page.add(Family::PreexistingFlows, &[id], self.nfct.preexisting());
        }
        if let Some(count) = self.table.count() {
            page.add(Family::ConntrackEntries, &[id], count);
        }
        if let Some(max) = self.table.max() {
            page.add(Family::ConntrackEntriesLimit, &[id], max);
        }
        for cost in self.capture.hook_costs() {
            page.add(Family::HookSeconds, &[id, &cost.hook], cost.time.as_secs_f64());
            page.add(Family::HookRuns, &[id, &cost.hook], cost.runs);
        }
        for (instance, sink) in self.stacks.each_sink() {
            let number = instance.stack.to_string();
            let labels = counters::labels(instance, &number);
            let [source, stack, id, plugin] = labels;
            page.add(Family::SinkInfo, &[source, stack, id, plugin, &sink.to_string()], 1);
            let (waiting, limit) = sink.fill();
            page.add(Family::BufferBytes, &labels, waiting);
            page.add(Family::BufferLimitBytes, &labels, limit);
            if let Output::Shipped(shipment) = sink {
                let kept = shipment.stats().kept();
                page.add(Family::SpoolRecords, &labels, kept.records);
                page.add(Family::SpoolBytes, &labels, kept.bytes);
            }
            page.add(Family::SinkFailing, &labels, u8::from(sink.is_failing()));
            let stalled = monitor.stalled(instance, now).as_secs();
            page.add(Family::SinkStalled, &labels, stalled);
        }
    }
}
