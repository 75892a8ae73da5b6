//! The screen: what is known of the host above, a table below. What does not fit
//! is left out, the least needed first; losses stay.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph, Tabs, Widget as _};

use super::key::Table;
use super::numbers::{count, rate};
use super::picture::{Loss, Picture};
use super::table;
use super::view::View;
use crate::event::{Cause, Kinds};
use crate::verb::watch::line::Seconds;
use crate::verb::watch::names::Names;

/// What words stand under before the numbers begin.
const LABEL: usize = 10;
/// Of a column of kinds.
const COLUMN: usize = 10;
/// Columns from which on there is room beside the names of the tables.
const TABS: u16 = 80;
/// A table is nearly full, and as good as full, of a hundred.
const NEARLY: f64 = 80.0;
const FULL: f64 = 95.0;
const RED: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const KEYS: &str = "q quit  ? help  1-5 Tab table  s sort  t totals  / filter  p pause  r reset";
/// What `?` shows.
const HELP: &str = "
1 to 5, Tab, arrows   choose the table
s                     sort by events, packets or bytes
t                     numbers per second, or since the start
/                     only rows with this text; Enter ends it, Esc undoes it
p, space              the picture stands still; counting goes on
r                     count anew
q, Ctrl-C             quit

Packets and bytes are those of flows that have ended, both directions;
they need nf_conntrack_acct=1. Expectations are counted above only.
A table has room for 4096 rows (namespaces, processes: 1024). When it is
full the lightest row gives way, and what it had is told as \"others\".
A row with a + may have had more before it got its place.";

/// What is known beside the picture.
#[derive(Debug)]
pub(super) struct About {
    /// "by eBPF (fentry)", "over netlink"
    pub(super) by: String,
    /// "all network namespaces"
    pub(super) place: String,
    /// Time between two pictures; absent: there is only one.
    pub(super) every: Option<Duration>,
    /// Kinds of events that are counted.
    pub(super) kinds: Kinds,
    /// Whether eBPF tells them.
    pub(super) ebpf: bool,
    /// The last message.
    pub(super) message: Option<String>,
}

/// All that is drawn.
pub(super) struct Screen<'a> {
    pub(super) about: &'a About,
    pub(super) picture: &'a Picture,
    pub(super) view: &'a View,
    pub(super) names: &'a Names,
}

/// A part of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Title,
    Kinds,
    Fill,
    Ends,
    Losses,
    Tabs,
    Table,
    Keys,
}

impl Screen<'_> {
    /// Draws all of it.
    pub(super) fn draw(&self, area: Rect, buffer: &mut Buffer) {
        let parts = self.parts(area);
        let heights = parts.iter().map(|(part, height)| match part {
            Part::Table => Constraint::Min(*height),
            _ => Constraint::Length(*height),
        });
        let areas = Layout::vertical(heights).split(area);
        for ((part, _), area) in parts.iter().zip(areas.iter()) {
            self.part(*part, *area, buffer);
        }
        if self.view.help {
            help(area, buffer);
        }
    }

    /// What stands above the tables, for a screen without keys.
    pub(super) fn head(&self, width: u16) -> Vec<Line<'static>> {
        let width = usize::from(width);
        let mut lines = vec![self.title(width)];
        lines.extend(self.kinds(width));
        lines.push(self.fill(width));
        lines.extend(self.ends(width));
        lines.push(self.losses());
        lines
    }

    /// The parts that fit, with their heights.
    fn parts(&self, area: Rect) -> Vec<(Part, u16)> {
        let ends = self.ends(usize::from(area.width)).len() as u16;
        let mut parts = vec![
            (Part::Title, 1),
            (Part::Kinds, 3),
            (Part::Fill, 1),
            (Part::Ends, ends),
            (Part::Losses, 1),
            (Part::Tabs, 1),
            (Part::Table, 2),
            (Part::Keys, 1),
        ];
        for least in
            [Part::Keys, Part::Ends, Part::Title, Part::Kinds, Part::Fill, Part::Tabs, Part::Table]
        {
            let height: u16 = parts.iter().map(|(_, height)| height).sum();
            if height <= area.height {
                break;
            }
            parts.retain(|(part, _)| *part != least);
        }
        parts
    }

    fn part(&self, part: Part, area: Rect, buffer: &mut Buffer) {
        let width = usize::from(area.width);
        let lines = match part {
            Part::Title => vec![self.title(width)],
            Part::Kinds => self.kinds(width),
            Part::Fill => vec![self.fill(width)],
            Part::Ends => self.ends(width),
            Part::Losses => vec![self.losses()],
            Part::Keys => vec![self.keys()],
            Part::Tabs => return self.tabs(area, buffer),
            Part::Table => return table::draw(self, self.view.table, area, buffer),
        };
        Paragraph::new(lines).render(area, buffer);
    }

    fn title(&self, width: usize) -> Line<'static> {
        let About { by, place, .. } = self.about;
        let left = format!("flowlog top {by}, {place}");
        let paused = if self.view.paused { "paused " } else { "" };
        let lasting = self.picture.lasting;
        let right = match self.about.every {
            Some(every) => format!("{paused}{}, every {every:?}", clock(lasting)),
            None => format!("in {}", Seconds(lasting.as_nanos() as u64)),
        };
        let gap = width.saturating_sub(left.chars().count() + right.chars().count()).max(2);
        Line::styled(format!("{left}{}{right}", " ".repeat(gap)), BOLD)
    }

    /// Events per second and in all, for each kind that is counted.
    fn kinds(&self, width: usize) -> Vec<Line<'static>> {
        let Picture { events, kinds, .. } = self.picture;
        let shown = Kinds::NAMES.iter().zip(kinds);
        let shown = shown.filter(|((kind, _), _)| self.about.kinds.contains(*kind));
        let all = std::iter::once(("events".to_owned(), events))
            .chain(shown.map(|((_, name), number)| (name.to_lowercase(), number)));
        let mut rows = ["", "per second", "in all"].map(|label| format!("{label:<LABEL$}"));
        for (name, number) in all.take(width.saturating_sub(LABEL) / COLUMN) {
            rows[0] += &format!("{name:>COLUMN$}");
            rows[1] += &format!("{:>COLUMN$}", rate(self.picture.rate(number.recent())));
            rows[2] += &format!("{:>COLUMN$}", count(number.total));
        }
        let [heading, recent, total] = rows;
        vec![Line::styled(heading, DIM), Line::styled(recent, BOLD), Line::raw(total)]
    }

    /// How full the kernel's table is.
    fn fill(&self, width: usize) -> Line<'static> {
        const BAR: usize = 20;
        let label = format!("{:<LABEL$} ", "table");
        let Some((entries, most)) = self.picture.fill else {
            return Line::raw(label + "the kernel does not track connections in this namespace");
        };
        let part = if most > 0 { 100.0 * entries as f64 / most as f64 } else { 0.0 };
        let style = match part {
            _ if part >= FULL => RED,
            _ if part >= NEARLY => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        let text = format!("{entries} of {most} entries, {part:.1} %");
        let mut spans = vec![Span::raw(label), Span::styled(text, style)];
        if width > LABEL + 60 {
            let full = ((part / 100.0 * BAR as f64).round() as usize).min(BAR);
            let bar = format!(" [{}{}]", "#".repeat(full), " ".repeat(BAR - full));
            spans.push(Span::styled(bar, style));
        }
        Line::from(spans)
    }

    /// Why flows have ended, the most frequent first, on as many lines as it takes.
    fn ends(&self, width: usize) -> Vec<Line<'static>> {
        const MOST: usize = 3;
        let label = format!("{:<LABEL$}", "ends");
        if !self.about.ebpf {
            return vec![Line::raw(label + " netlink does not tell why flows end")];
        }
        let mut causes: Vec<_> = Cause::ALL.into_iter().zip(self.picture.causes).collect();
        causes.retain(|(_, number)| number.total > 0);
        causes.sort_by_key(|(_, number)| std::cmp::Reverse((number.recent(), number.total)));
        let mut lines = vec![label];
        for (cause, number) in causes {
            let recent = rate(self.picture.rate(number.recent()));
            let text = format!(" {} {recent}/s {} ", cause.name(), count(number.total));
            let last = lines.last().map_or(0, |line| line.chars().count());
            if last > LABEL && last + text.len() > width {
                lines.push(" ".repeat(LABEL));
            }
            if let Some(last) = lines.last_mut() {
                last.push_str(&text);
            }
        }
        lines.into_iter().take(MOST).map(|line| Line::raw(line.trim_end().to_owned())).collect()
    }

    /// What each source has lost: red, if anything.
    fn losses(&self) -> Line<'static> {
        let mut spans = vec![Span::raw(format!("{:<LABEL$}", "lost"))];
        for loss in &self.picture.losses {
            let Loss { source, total, recent } = loss;
            let text = if *total > 0 {
                format!(" {source} {}/s {}", rate(self.picture.rate(*recent)), count(*total))
            } else {
                format!(" {source} 0")
            };
            let style = if *total > 0 { RED } else { Style::new() };
            spans.push(Span::styled(text, style));
            spans.push(Span::raw(" "));
        }
        Line::from(spans)
    }

    fn tabs(&self, area: Rect, buffer: &mut Buffer) {
        let View { table, sort, totals, .. } = self.view;
        let titles = Table::ALL.iter().zip(1..).map(|(table, n)| format!("{n} {}", table.name()));
        let per = if *totals { "" } else { "/s" };
        let sorted = format!("by {}{per} ", sort.name());
        // Where there is not room for both the tables come first.
        let right = if area.width >= TABS { sorted.len() as u16 } else { 0 };
        let [left, right] =
            Layout::horizontal([Constraint::Min(0), Constraint::Length(right)]).areas(area);
        Tabs::new(titles)
            .select(*table as usize)
            .divider("")
            .highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .render(left, buffer);
        Line::styled(sorted, DIM).render(right, buffer);
    }

    fn keys(&self) -> Line<'static> {
        let View { filter, typing, .. } = self.view;
        if *typing {
            return Line::styled(format!("filter: {filter}_"), BOLD);
        }
        match &self.about.message {
            Some(message) => Line::styled(message.clone(), Style::new().fg(Color::Yellow)),
            None if !filter.is_empty() => {
                Line::styled(format!("filter: {filter} (Esc takes it back)  {KEYS}"), DIM)
            }
            None => Line::styled(KEYS, DIM),
        }
    }
}

/// `1:02:03`
fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn help(area: Rect, buffer: &mut Buffer) {
    Clear.render(area, buffer);
    let text = format!("flowlog top: keys (any key goes back)\n{HELP}");
    Paragraph::new(text).render(area, buffer);
}
