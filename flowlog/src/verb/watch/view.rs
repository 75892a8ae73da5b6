//! Records → what is shown of them, counted.

use super::colour::Paint;
use super::line::Style;
use super::names::{Named, Names};
use super::starts::Starts;
use super::{Options, Selection, extended, json};
use crate::capture::RecordSink;
use crate::capture::netlink::now_ns;
use crate::event::{Event, Expectation, Kinds, Lost, Record};
use crate::plugin::clock::PerSecond;
use crate::verb::live::Lines;
use crate::verb::live::output::Output;

/// How events are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// A compact line for people.
    #[default]
    Line,
    /// As `conntrack -E -o extended`, and more behind it.
    Extended,
    /// One JSON object per line.
    Json,
}

/// An event that is shown, and what is known besides.
pub(super) struct Shown<'a> {
    /// What of it is shown.
    pub(super) tag: Kinds,
    /// The event.
    pub(super) event: &'a Event,
    /// When its flow began, nanoseconds since the epoch.
    pub(super) start: Option<u64>,
    /// Where.
    pub(super) netns: Option<Named>,
}

impl Shown<'_> {
    /// The flow has ended.
    pub(super) fn is_end(&self) -> bool {
        self.event.kinds.contains(Kinds::DESTROY)
    }

    /// How long the flow was, nanoseconds; absent before its end.
    pub(super) fn duration(&self) -> Option<u64> {
        let end = self.event.flow.stop.unwrap_or(self.event.at);
        self.start.filter(|_| self.is_end()).map(|start| end.saturating_sub(start))
    }
}

/// Shows records.
pub(super) struct View {
    selection: Selection,
    format: Format,
    style: Style,
    names: Names,
    starts: Starts,
    /// What is shown.
    pub(super) lines: Lines,
}

impl View {
    pub(super) fn new(options: &Options, paint: Paint, output: Output) -> Self {
        Self {
            selection: options.listening.selection.clone(),
            format: options.format,
            style: Style::new(paint, PerSecond::local()),
            names: Names::new(),
            starts: Starts::default(),
            lines: Lines::new(output, options.count),
        }
    }

    /// Puts out what has been made.
    pub(super) fn flush(&mut self) {
        let dropped = self.lines.take_dropped();
        if dropped > 0 {
            self.loss(Lost::noticed("output", dropped, now_ns()));
        }
        self.lines.put_out();
    }

    fn event(&mut self, event: &Event) {
        let start = self.starts.of(event);
        let tag = self.selection.tag(event);
        if tag.is_empty() {
            self.lines.filtered += 1;
            return;
        }
        if !self.lines.has_room() {
            return;
        }
        let netns = event.flow.netns.map(|netns| self.names.named(netns));
        let shown = Shown { tag, event, start, netns };
        let (text, paint) = (&mut self.lines.text, self.style.paint);
        match self.format {
            Format::Line => self.style.event(&shown, text),
            Format::Extended => text.push_str(&extended::event(&shown, paint)),
            Format::Json => text.push_str(&json::event(&shown).to_string()),
        }
        self.lines.end_event();
    }

    fn expectation(&mut self, expectation: &Expectation, at: u64) {
        if !self.selection.shows(expectation) {
            self.lines.filtered += 1;
            return;
        }
        if !self.lines.has_room() {
            return;
        }
        let netns = expectation.netns.map(|netns| self.names.named(netns));
        let netns = netns.as_ref();
        let (text, paint) = (&mut self.lines.text, self.style.paint);
        match self.format {
            Format::Line => self.style.expectation(expectation, at, netns, text),
            Format::Extended => text.push_str(&extended::expectation(expectation, netns, paint)),
            Format::Json => text.push_str(&json::expectation(expectation, at, netns).to_string()),
        }
        self.lines.end_event();
    }

    fn loss(&mut self, lost: Lost) {
        self.lines.lost += lost.events;
        let (text, paint) = (&mut self.lines.text, self.style.paint);
        match self.format {
            Format::Line => self.style.loss(lost, text),
            Format::Extended => text.push_str(&extended::loss(lost, paint)),
            Format::Json => text.push_str(&json::loss(lost).to_string()),
        }
        self.lines.end();
    }
}

impl RecordSink for View {
    fn record(&mut self, record: Record<'_>) {
        match record {
            // Nobody looks at what comes behind the last event.
            _ if self.lines.has_enough() => {}
            Record::Event(event) => self.event(event),
            Record::Expectation(expectation, at) => self.expectation(expectation, at),
            Record::Lost(lost) => self.loss(lost),
            // Nothing is dumped or asked for.
            Record::Known(..) | Record::DumpDone { .. } | Record::QueryDone { .. } => {}
        }
    }
}
