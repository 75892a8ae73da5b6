//! One of the tables: its rows sorted and filtered, its columns as many as fit.

use ratatui::buffer::Buffer;
use ratatui::layout::{Alignment, Constraint, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line as Text;
use ratatui::widgets::{Cell, Paragraph, Row, Table as Grid, Widget as _};

use super::counts::Counts;
use super::draw::Screen;
use super::key::Table;
use super::numbers::{byte_rate, bytes, count, rate};
use super::picture::Line;

/// The least that a row's name gets, and the most for which columns are left out.
const NAME: u16 = 16;
const LONGEST_NAME: u16 = 40;
/// A column, with the gap before it.
const COLUMN: u16 = 10;

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    EventsPerSecond,
    Events,
    New,
    Update,
    Destroy,
    Packets,
    Bytes,
}

impl Column {
    /// In their order.
    const ALL: [Self; 7] = [
        Self::EventsPerSecond,
        Self::Events,
        Self::New,
        Self::Update,
        Self::Destroy,
        Self::Packets,
        Self::Bytes,
    ];
    /// Those that are left out where there is no room, the first one first.
    const LEAST: [Self; 6] =
        [Self::Update, Self::New, Self::Destroy, Self::Packets, Self::Bytes, Self::Events];

    fn heading(self, totals: bool) -> String {
        let name = match self {
            Self::EventsPerSecond => return "EVENTS/s".to_owned(),
            Self::Events => return "EVENTS".to_owned(),
            Self::New => "NEW",
            Self::Update => "UPDATE",
            Self::Destroy => "DESTROY",
            Self::Packets => "PACKETS",
            Self::Bytes => "BYTES",
        };
        if totals { name.to_owned() } else { format!("{name}/s") }
    }

    /// Its number, of all and of the last interval.
    fn of(self, counts: &Counts) -> u64 {
        match self {
            Self::EventsPerSecond | Self::Events => counts.events(),
            Self::New => counts.new,
            Self::Update => counts.update,
            Self::Destroy => counts.destroy,
            Self::Packets => counts.packets,
            Self::Bytes => counts.bytes,
        }
    }
}

/// Draws a table, as many rows as there is room for.
pub(super) fn draw(screen: &Screen<'_>, table: Table, area: Rect, buffer: &mut Buffer) {
    let lines = screen.picture.table(table);
    if lines.rows.is_empty() {
        return Paragraph::new(nothing(screen, table)).render(area, buffer);
    }
    let (others_total, others_recent) = lines.others;
    let has_others = others_total.events() > 0;
    // The heading, and the others.
    let room = usize::from(area.height).saturating_sub(1 + usize::from(has_others));
    let shown = top(screen, table, room);
    let longest = shown.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let columns = columns(area.width, (longest as u16).clamp(NAME, LONGEST_NAME));
    let row = |name: String, total: &Counts, recent: &Counts, partial| {
        Row::new(cells(screen, &columns, name, total, recent, partial))
    };
    let mut rows: Vec<Row<'_>> = shown
        .into_iter()
        .map(|(name, line)| row(name, &line.total, &line.recent, line.partial))
        .collect();
    if has_others {
        rows.push(row("others".to_owned(), &others_total, &others_recent, false));
    }
    let headings = columns.iter().map(|column| right(column.heading(screen.view.totals)));
    let heading = std::iter::once(Cell::from(table.heading())).chain(headings);
    let widths = std::iter::once(Constraint::Min(NAME))
        .chain(columns.iter().map(|_| Constraint::Length(COLUMN - 1)));
    Grid::new(rows, widths)
        .header(Row::new(heading).style(Style::new().add_modifier(Modifier::DIM)))
        .column_spacing(1)
        .render(area, buffer);
}

/// Rows that a table would show, with the heading and the others.
pub(super) fn height(screen: &Screen<'_>, table: Table, most: usize) -> u16 {
    let lines = screen.picture.table(table);
    let others = usize::from(lines.others.0.events() > 0);
    (1 + others + top(screen, table, most).len()).max(2) as u16
}

fn nothing(screen: &Screen<'_>, table: Table) -> &'static str {
    if table.needs_ebpf() && !screen.about.ebpf {
        return match table {
            Table::Processes => "netlink does not tell who deletes flows",
            _ => "netlink tells of one network namespace only",
        };
    }
    match table {
        Table::Processes => "no process has deleted flows",
        _ => "no events",
    }
}

/// The first rows, sorted, of those that the filter lets through.
fn top<'a>(screen: &Screen<'a>, table: Table, most: usize) -> Vec<(String, &'a Line)> {
    let view = screen.view;
    let wanted = view.filter.to_lowercase();
    let name = |line: &Line| line.key.text(screen.names);
    let mut rows: Vec<&Line> = screen.picture.table(table).rows.iter().collect();
    if !wanted.is_empty() {
        rows.retain(|line| name(line).to_lowercase().contains(&wanted));
    }
    // What is equal for now is sorted by what it was.
    rows.sort_by_key(|line| {
        let [recent, total] = [&line.recent, &line.total].map(|counts| view.sort.of(counts));
        std::cmp::Reverse(if view.totals { (total, recent) } else { (recent, total) })
    });
    rows.truncate(most);
    rows.into_iter().map(|line| (name(line), line)).collect()
}

/// Those that fit beside names of this width.
fn columns(width: u16, name: u16) -> Vec<Column> {
    let mut columns = Column::ALL.to_vec();
    for least in Column::LEAST {
        if name + COLUMN * columns.len() as u16 <= width {
            break;
        }
        columns.retain(|column| *column != least);
    }
    columns
}

fn cells(
    screen: &Screen<'_>,
    columns: &[Column],
    name: String,
    total: &Counts,
    recent: &Counts,
    partial: bool,
) -> Vec<Cell<'static>> {
    let number = |column: &Column| {
        let (total, recent) = (column.of(total), screen.picture.rate(column.of(recent)));
        match column {
            Column::EventsPerSecond => rate(recent),
            Column::Events => count(total) + if partial { "+" } else { "" },
            Column::Bytes if screen.view.totals => bytes(total),
            Column::Bytes => byte_rate(recent),
            _ if screen.view.totals => count(total),
            _ => rate(recent),
        }
    };
    let numbers = columns.iter().map(|column| right(number(column)));
    std::iter::once(Cell::from(name)).chain(numbers).collect()
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Text::from(text).alignment(Alignment::Right))
}
