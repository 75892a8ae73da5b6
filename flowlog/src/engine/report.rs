//! What the engine says to whoever monitors it, gathered between two turns.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Engine, Source};
use crate::metrics::family::Family;
use crate::metrics::page::Page;
use crate::metrics::{Answer, Question, Topic, counters};
use crate::plugin::output::Output;

/// Seconds since the epoch, with their fraction.
pub(super) fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

impl Engine {
    /// Answers a question; whoever asked may have left.
    pub(super) fn answer(&mut self, question: Question) {
        let answer = match question.topic {
            Topic::Metrics => Answer::Page(self.page()),
            Topic::Health => self.health(),
        };
        let _ = question.answer.send(answer);
    }

    fn page(&mut self) -> String {
        let mut page = Page::default();
        page.add(Family::BuildInfo, &[env!("CARGO_PKG_VERSION")], 1);
        page.add(Family::StartTime, &[], self.started);
        for source in &mut self.sources {
            source.capture.before_totals();
            source.stacks.tell();
            source.tell(&mut page);
        }
        counters::add(&self.stats, &mut page);
        page.finish()
    }

    /// The loop turns, or nobody would answer. What is left is sources that
    /// cannot be read, files that cannot be written, and peers that cannot be
    /// reached.
    fn health(&self) -> Answer {
        let sinks = self.sources.iter().flat_map(|source| source.stacks.each_sink());
        let failing = sinks.filter(|(_, sink)| sink.is_failing()).map(|(_, sink)| stuck(sink));
        let unread = self.sources.iter().filter_map(Source::trouble);
        let failing: String = unread.chain(failing).collect();
        if failing.is_empty() { Answer::Fit("ok\n".to_owned()) } else { Answer::Unfit(failing) }
    }
}

fn stuck(sink: &Output) -> String {
    let (waiting, limit) = sink.fill();
    let (what, remedy) = match sink {
        Output::File(_) => ("written", "make room or move the file and send SIGHUP"),
        Output::Socket(_) => ("reached", "start what listens there, or name another place"),
        Output::Database(database) => {
            let why = database.failure().map(ToString::to_string).unwrap_or_default();
            return format!("{sink} cannot be written: {why}; {waiting} of {limit} bytes wait\n");
        }
        Output::Shipped(shipment) => {
            let why = shipment.tally().trouble().unwrap_or_default();
            let kept = shipment.tally().kept();
            let (records, bytes) = (kept.records, kept.bytes);
            return format!("{sink}: {why}; {records} records ({bytes} bytes) wait in the spool\n");
        }
    };
    format!("{sink} cannot be {what}: {waiting} of {limit} bytes wait; {remedy}\n")
}

impl Source {
    /// Adds what is known of this source.
    fn tell(&self, page: &mut Page) {
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
        for (stack, sink) in self.stacks.each_sink() {
            let labels = [id, &stack.to_string(), &sink.to_string()];
            let (waiting, limit) = sink.fill();
            page.add(Family::BufferBytes, &labels, waiting);
            page.add(Family::BufferLimitBytes, &labels, limit);
            if let Output::Shipped(shipment) = sink {
                let kept = shipment.tally().kept();
                page.add(Family::SpoolRecords, &labels, kept.records);
                page.add(Family::SpoolBytes, &labels, kept.bytes);
            }
            page.add(Family::SinkFailing, &labels, u8::from(sink.is_failing()));
        }
    }
}
