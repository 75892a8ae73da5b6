//! What is traced → what is shown of it, counted.

use super::chain::Chain;
use super::kind::{Kind, Reason, Refusal};
use super::life::{Known, Lives};
use super::summary::Summary;
use super::told::{Subject, Told};
use super::{Format, Options, json, line};
use crate::capture::ebpf::symbols::Symbols;
use crate::capture::ebpf::trace::{Place, TraceSink, What};
use crate::capture::ebpf::witness::Losses;
use crate::capture::netlink::now_ns;
use crate::event::{Kinds, Lost};
use crate::plugin::clock::PerSecond;
use crate::verb::live::Lines;
use crate::verb::live::output::Output;
use crate::verb::watch::colour::Paint;
use crate::verb::watch::line::Style;
use crate::verb::watch::names::Names;

/// Shows what is traced.
pub(super) struct View {
    options: Options,
    style: Style,
    symbols: Symbols,
    names: Names,
    lives: Lives,
    summary: Summary,
    /// What is shown.
    pub(super) lines: Lines,
}

impl View {
    pub(super) fn new(options: &Options, paint: Paint, symbols: Symbols, output: Output) -> Self {
        Self {
            style: Style::new(paint, PerSecond::local()),
            symbols,
            names: Names::new(),
            lives: Lives::default(),
            summary: Summary::default(),
            lines: Lines::new(output, options.count),
            options: options.clone(),
        }
    }

    /// Puts out what has been made.
    pub(super) fn flush(&mut self) {
        let dropped = self.lines.take_dropped();
        if dropped > 0 {
            self.loss("output", dropped);
        }
        self.lines.put_out();
    }

    /// Adds the counts of all that was shown.
    pub(super) fn summarize(&mut self) {
        let text = match self.options.format {
            Format::Text => self.summary.text(),
            Format::Json => self.summary.object().to_string(),
        };
        if !text.is_empty() {
            self.lines.text.push_str(&text);
            self.lines.end();
        }
        self.lines.put_out();
    }

    /// Events of flows that were too many to be remembered, since this was last
    /// asked.
    pub(super) fn take_forgotten(&mut self) -> u64 {
        self.lives.take_forgotten()
    }

    /// What was lost.
    pub(super) fn losses(&self) -> Losses {
        self.summary.losses
    }

    fn loss(&mut self, source: &'static str, events: u64) {
        let lost = Lost::noticed(source, events, now_ns());
        self.lines.lost += events;
        let text = &mut self.lines.text;
        match self.options.format {
            Format::Text => self.style.loss(lost, text),
            Format::Json => text.push_str(&crate::verb::watch::json::loss(lost).to_string()),
        }
        self.lines.end();
    }

    /// What is known of it, whether or not it is shown.
    fn known(&mut self, what: &What<'_>, kind: Kind) -> Known {
        match what {
            What::Event { event, entry, .. } => self.lives.of(kind, *entry, event),
            What::Unconfirmed(_) | What::Unallocated { .. } => self.lives.stillborn(),
            What::Expectation(..) => Known { flow: None, before: None },
        }
    }
}

impl TraceSink for View {
    fn traced(&mut self, what: &What<'_>, place: &Place) {
        if self.lines.has_enough() {
            return;
        }
        let kind = kind(what);
        let known = self.known(what, kind);
        let subject = match what {
            What::Event { event, .. } | What::Unconfirmed(event) => Subject::Flow(event),
            What::Unallocated { event, .. } => Subject::Flow(event),
            What::Expectation(expectation, _) => Subject::Expectation(expectation),
        };
        let (at, netns) = match (what, &subject) {
            (What::Expectation(_, at), Subject::Expectation(expected)) => (*at, expected.netns),
            (_, Subject::Flow(event)) => (event.at, event.flow.netns),
            _ => (now_ns(), None),
        };
        let chain = Chain::new(place, &self.symbols);
        let (reason, hook) = reason(what, &chain);
        if !self.options.selection.shows(kind, reason, &subject) {
            self.lines.filtered += 1;
            return;
        }
        if !self.lines.has_room() {
            return;
        }
        let (changes, portid) = match what {
            What::Event { changes, portid, .. } => (*changes, *portid),
            _ => (0, None),
        };
        let error = match what {
            What::Unallocated { error, .. } => Some(*error),
            _ => None,
        };
        let told = Told {
            kind,
            at,
            subject,
            known,
            changes,
            portid,
            reason,
            hook,
            error,
            place,
            chain: &chain,
            netns: netns.map(|netns| self.names.named(netns)),
        };
        self.summary.add(&told);
        let text = &mut self.lines.text;
        match self.options.format {
            Format::Text => line::line(&told, &mut self.style, self.options.callers, text),
            Format::Json => text.push_str(&json::object(&told).to_string()),
        }
        self.lines.end_event();
    }

    fn lost(&mut self, losses: Losses) {
        if self.lines.has_enough() {
            return;
        }
        self.summary.losses += losses;
        if losses.events() > 0 {
            self.loss("ebpf", losses.events());
        }
    }
}

fn kind(what: &What<'_>) -> Kind {
    match what {
        What::Event { event, .. } if event.kinds.contains(Kinds::NEW) => Kind::New,
        What::Event { event, .. } if event.kinds.contains(Kinds::DESTROY) => Kind::Destroy,
        What::Event { .. } => Kind::Update,
        What::Unconfirmed(_) => Kind::Refused,
        What::Unallocated { .. } => Kind::Full,
        What::Expectation(..) => Kind::Expect,
    }
}

/// Why a flow ended or did not begin, and the netfilter hook that refused it.
fn reason(what: &What<'_>, chain: &Chain<'_>) -> (Option<Reason>, Option<&'static str>) {
    match what {
        What::Event { event, .. } => (event.end.as_ref().map(|end| Reason::End(end.cause)), None),
        What::Unconfirmed(_) => {
            let (refusal, hook) = chain.refusal();
            (Some(Reason::Refusal(refusal)), hook)
        }
        What::Unallocated { full: true, .. } => (Some(Reason::Refusal(Refusal::TableFull)), None),
        What::Unallocated { full: false, .. } => (Some(Reason::Refusal(Refusal::NoMemory)), None),
        What::Expectation(..) => (None, None),
    }
}
