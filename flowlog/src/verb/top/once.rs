//! The screen as text: all tables, one below the other.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget as _};

use super::draw::Screen;
use super::key::Table;
use super::table;
use crate::verb::watch::colour::Paint;

/// Rows of each table.
const ROWS: usize = 10;

/// The text, so wide at most; losses are red if there is paint.
pub(super) fn text(screen: &Screen<'_>, width: u16, paint: Paint) -> String {
    let head = screen.head(width);
    let mut text = rendered(width, head.len() as u16, paint, |area, buffer| {
        Paragraph::new(head).render(area, buffer);
    });
    for table in Table::ALL {
        let height = 2 + table::height(screen, table, ROWS);
        text += &rendered(width, height, paint, |area, buffer| {
            let [_, title, rows] = [0, 1, 2].map(|y| Rect { y, height: 1, ..area });
            Line::raw(table.name()).render(title, buffer);
            table::draw(screen, table, Rect { height: height - 2, ..rows }, buffer);
        });
    }
    text
}

/// What is drawn, as lines without blanks at their ends.
fn rendered(width: u16, height: u16, paint: Paint, draw: impl FnOnce(Rect, &mut Buffer)) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    draw(area, &mut buffer);
    let mut text = String::new();
    for y in 0..height {
        text += line(&buffer, y, paint).trim_end();
        text.push('\n');
    }
    text
}

fn line(buffer: &Buffer, y: u16, paint: Paint) -> String {
    let (mut text, mut red) = (String::new(), String::new());
    for x in 0..buffer.area.width {
        let cell = &buffer[(x, y)];
        if cell.fg == Color::Red && cell.modifier.contains(Modifier::BOLD) {
            red += cell.symbol();
            continue;
        }
        text += &painted(&mut red, paint);
        text += cell.symbol();
    }
    text + &painted(&mut red, paint)
}

/// What has been gathered to be shown as a loss.
fn painted(red: &mut String, paint: Paint) -> String {
    let text = std::mem::take(red);
    if text.is_empty() { text } else { paint.loss(text) }
}
