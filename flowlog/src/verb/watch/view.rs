//! Records → what is shown of them, counted.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::colour::Paint;
use super::line::Style;
use super::names::{Named, Names};
use super::output::Output;
use super::starts::Starts;
use super::{Options, Selection, extended, json};
use crate::capture::RecordSink;
use crate::capture::netlink::now_ns;
use crate::event::{Event, Expectation, Kinds, Lost, Record};

/// Bytes of lines that one drain may make: several times what one with a budget
/// does. At the end the whole queue is read at once.
const MOST: usize = 8 << 20;

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
    /// Where it is shown.
    pub(super) output: Output,
    /// Lines that have not been put out, and the events in them.
    lines: String,
    unflushed: u64,
    /// Events for which there was no room.
    dropped: u64,
    /// Events to be shown at most.
    most: u64,
    shown: u64,
    filtered: u64,
    lost: u64,
}

impl View {
    pub(super) fn new(options: &Options, paint: Paint, output: Output) -> Self {
        Self {
            selection: options.selection.clone(),
            format: options.format,
            style: Style { paint, zone: TimeZone::system() },
            names: Names::new(),
            starts: Starts::default(),
            output,
            lines: String::new(),
            unflushed: 0,
            dropped: 0,
            most: options.count.unwrap_or(u64::MAX),
            shown: 0,
            filtered: 0,
            lost: 0,
        }
    }

    /// Events that have been shown.
    pub(super) fn shown(&self) -> u64 {
        self.shown
    }

    /// Events that nobody wanted to see.
    pub(super) fn filtered(&self) -> u64 {
        self.filtered
    }

    /// Events that nobody has seen.
    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    /// As many events as were asked for have been shown.
    pub(super) fn has_enough(&self) -> bool {
        self.shown >= self.most
    }

    /// Puts out what has been made.
    pub(super) fn flush(&mut self) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            self.loss(Lost { source: "output", events: dropped, at: now_ns() });
        }
        if !self.lines.is_empty() {
            self.output.put(&self.lines, self.unflushed);
            (self.lines, self.unflushed) = (String::new(), 0);
        }
    }

    /// Waits at most so long until all can be seen; what cannot is lost.
    pub(super) fn close(&mut self, limit: Duration) {
        let left = self.output.close(limit);
        self.shown = self.shown.saturating_sub(left);
        self.lost += left;
    }

    fn event(&mut self, event: &Event) {
        let start = self.starts.of(event);
        let tag = self.selection.tag(event);
        if tag.is_empty() {
            self.filtered += 1;
            return;
        }
        if !self.has_room() {
            return;
        }
        let netns = event.flow.netns.map(|netns| self.names.named(netns));
        let shown = Shown { tag, event, start, netns };
        let line = match self.format {
            Format::Line => self.style.event(&shown),
            Format::Extended => extended::event(&shown, self.style.paint),
            Format::Json => json::event(&shown).to_string(),
        };
        self.show(&line);
    }

    fn expectation(&mut self, expectation: &Expectation, at: u64) {
        if !self.selection.shows(expectation) {
            self.filtered += 1;
            return;
        }
        if !self.has_room() {
            return;
        }
        let netns = expectation.netns.map(|netns| self.names.named(netns));
        let netns = netns.as_ref();
        let line = match self.format {
            Format::Line => self.style.expectation(expectation, at, netns),
            Format::Extended => extended::expectation(expectation, netns, self.style.paint),
            Format::Json => json::expectation(expectation, at, netns).to_string(),
        };
        self.show(&line);
    }

    fn loss(&mut self, lost: Lost) {
        self.lost += lost.events;
        let line = match self.format {
            Format::Line => self.style.loss(lost),
            Format::Extended => extended::loss(lost, self.style.paint),
            Format::Json => json::loss(lost).to_string(),
        };
        self.push(&line);
    }

    /// Whether a line may still be made; if not, its event is counted.
    fn has_room(&mut self) -> bool {
        let room = self.lines.len() < MOST;
        self.dropped += u64::from(!room);
        room
    }

    fn show(&mut self, line: &str) {
        self.shown += 1;
        self.unflushed += 1;
        self.push(line);
    }

    fn push(&mut self, line: &str) {
        self.lines.push_str(line);
        self.lines.push('\n');
    }
}

impl RecordSink for View {
    fn record(&mut self, record: Record<'_>) {
        match record {
            // Nobody looks at what comes behind the last event.
            _ if self.has_enough() => {}
            Record::Event(event) => self.event(event),
            Record::Expectation(expectation, at) => self.expectation(expectation, at),
            Record::Lost(lost) => self.loss(lost),
            // Nothing is dumped or asked for.
            Record::Known(..) | Record::DumpDone { .. } | Record::QueryDone => {}
        }
    }
}
