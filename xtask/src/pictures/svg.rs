//! A screen as SVG: text that can be selected, in a frame, below the command that made it. It
//! follows the reader's choice of a dark or light page.
//!
//! Each run of characters that look alike is a `text` of its own, stretched to the columns that it
//! takes, so that columns stand below each other whatever font the reader has.

use std::fmt::Write as _;

use vt100::{Cell, Color, Screen};

/// Size of the font, and of a character's place in it: most fonts of fixed width have 0.6 of it.
const FONT: u16 = 14;
const WIDTH: f64 = 8.4;
const HEIGHT: f64 = 18.0;
/// From the top of a row to the line that letters stand on.
const BASE: f64 = 13.5;
/// Around everything.
const MARGIN: f64 = 12.0;

/// What is the same on all pages.
const RULES: &str = "\
text{font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre}\
.b{font-weight:bold}.d{opacity:.7}.i{font-style:italic}.u{text-decoration:underline}";

/// The colours of a page.
struct Palette {
    ground: &'static str,
    frame: &'static str,
    text: &'static str,
    /// The sixteen of a terminal.
    named: [&'static str; 16],
}

const LIGHT: Palette = Palette {
    ground: "#ffffff",
    frame: "#d0d7de",
    text: "#24292f",
    named: [
        "#24292f", "#cf222e", "#116329", "#7d4e00", "#0969da", "#8250df", "#1b7c83", "#6e7781",
        "#57606a", "#a40e26", "#1a7f37", "#633c01", "#218bff", "#a475f9", "#3192aa", "#8c959f",
    ],
};
const DARK: Palette = Palette {
    ground: "#0d1117",
    frame: "#30363d",
    text: "#e6edf3",
    named: [
        "#484f58", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
        "#6e7681", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
    ],
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colour {
    /// That of text where nothing else is said.
    Text,
    /// That of the page.
    Ground,
    /// One of the sixteen.
    Named(u8),
    /// The same on all pages.
    Fixed(u8, u8, u8),
}

/// How a run of characters looks.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Style {
    text: Colour,
    /// Absent: the page's.
    ground: Option<Colour>,
    /// Classes: bold, dim, italic, underlined.
    classes: Vec<&'static str>,
}

/// Draws what is on the screen, down to its last line that is not empty.
pub(super) fn draw(screen: &Screen, command: &str) -> String {
    let (_, columns) = screen.size();
    let lines: Vec<_> = screen.rows(0, columns).collect();
    let filled = lines.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |row| row + 1);
    let filled = u16::try_from(filled).unwrap_or(u16::MAX);
    let mut picture = Picture { elements: String::new() };
    let prompt = format!("$ {command}");
    let length = u16::try_from(prompt.chars().count()).unwrap_or(columns);
    let bold = Style { text: Colour::Text, ground: None, classes: vec!["b"] };
    picture.run(0, 0, &prompt, length, &bold);
    for row in 0..filled {
        picture.row(screen, row, columns);
    }
    let width = 2.0 * MARGIN + f64::from(columns) * WIDTH;
    let height = 2.0 * MARGIN + f64::from(filled + 1) * HEIGHT;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-size=\"{FONT}\" \
         xml:space=\"preserve\">\n\
         {}\n\
         <style>\n{RULES}\n{}\n@media (prefers-color-scheme:dark){{{}}}\n</style>\n\
         <rect class=\"frame\" x=\".5\" y=\".5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n\
         {}</svg>\n",
        number(width),
        number(height),
        title(command),
        LIGHT.rules(),
        DARK.rules(),
        number(width - 1.0),
        number(height - 1.0),
        picture.elements,
    )
}

/// The element that names the command.
pub(super) fn title(command: &str) -> String {
    format!("<title>{}</title>", escaped(command))
}

struct Picture {
    elements: String,
}

impl Picture {
    /// Draws a row of the screen, which has the prompt above it, run by run.
    fn row(&mut self, screen: &Screen, row: u16, columns: u16) {
        let cell = |column| screen.cell(row, column).filter(|cell| !cell.is_wide_continuation());
        let mut cells = (0..columns).filter_map(|column| Some((column, cell(column)?))).peekable();
        while let Some((start, first)) = cells.next() {
            let style = Style::of(first);
            let mut text = content(first).to_owned();
            let mut end = start + width(first);
            while let Some((column, next)) = cells.next_if(|(_, next)| Style::of(next) == style) {
                text += content(next);
                end = column + width(next);
            }
            self.run(row + 1, start, &text, end - start, &style);
        }
    }

    /// Draws a run that takes so many columns: its ground, and its text without the blanks around.
    fn run(&mut self, row: u16, start: u16, text: &str, columns: u16, style: &Style) {
        let at = |column: u16| number(MARGIN + f64::from(column) * WIDTH);
        let length = |columns: u16| number(f64::from(columns) * WIDTH);
        let top = MARGIN + f64::from(row) * HEIGHT;
        if let Some(ground) = style.ground {
            self.element(format_args!(
                "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{HEIGHT}\"{}/>",
                at(start),
                number(top),
                length(columns),
                attributes(ground, &[])
            ));
        }
        let shown = text.trim();
        if shown.is_empty() {
            return;
        }
        // A blank is a byte, and a column.
        let before = (text.len() - text.trim_start().len()) as u16;
        let after = (text.len() - text.trim_end().len()) as u16;
        self.element(format_args!(
            "<text x=\"{}\" y=\"{}\" textLength=\"{}\"{}>{}</text>",
            at(start + before),
            number(top + BASE),
            length(columns - before - after),
            attributes(style.text, &style.classes),
            escaped(shown)
        ));
    }

    fn element(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.elements, "{element}");
    }
}

impl Style {
    fn of(cell: &Cell) -> Self {
        let (text, ground) = (colour(cell.fgcolor()), colour(cell.bgcolor()));
        let (text, ground) = if cell.inverse() {
            (ground.unwrap_or(Colour::Ground), Some(text.unwrap_or(Colour::Text)))
        } else {
            (text.unwrap_or(Colour::Text), ground)
        };
        let classes =
            [(cell.bold(), "b"), (cell.dim(), "d"), (cell.italic(), "i"), (cell.underline(), "u")];
        let classes = classes.into_iter().filter_map(|(set, class)| set.then_some(class)).collect();
        Self { text, ground, classes }
    }
}

impl Palette {
    /// The rules of classes and of what has none.
    fn rules(&self) -> String {
        let Self { ground, frame, text, named } = self;
        let mut rules = format!(
            ".frame{{fill:{ground};stroke:{frame}}}text,.t{{fill:{text}}}.g{{fill:{ground}}}"
        );
        for (number, colour) in named.iter().enumerate() {
            let _ = write!(rules, ".c{number}{{fill:{colour}}}");
        }
        rules
    }
}

/// The attributes for a colour and other classes, each behind a blank.
fn attributes(colour: Colour, classes: &[&str]) -> String {
    let mut classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
    let mut style = String::new();
    match colour {
        Colour::Text => classes.push("t".to_owned()),
        Colour::Ground => classes.push("g".to_owned()),
        Colour::Named(number) => classes.push(format!("c{number}")),
        // The rule for all texts outranks an attribute `fill`.
        Colour::Fixed(r, g, b) => style = format!(" style=\"fill:#{r:02x}{g:02x}{b:02x}\""),
    }
    if classes.is_empty() { style } else { format!(" class=\"{}\"{style}", classes.join(" ")) }
}

/// What a cell asks for; nothing: the default.
fn colour(color: Color) -> Option<Colour> {
    Some(match color {
        Color::Default => return None,
        Color::Idx(number @ 0..16) => Colour::Named(number),
        // xterm's cube of 6 × 6 × 6 colours, and its greys.
        Color::Idx(number @ 16..232) => {
            let part = |part: u8| if part == 0 { 0 } else { 55 + 40 * part };
            let number = number - 16;
            Colour::Fixed(part(number / 36), part(number / 6 % 6), part(number % 6))
        }
        Color::Idx(number) => {
            let grey = 8 + 10 * (number - 232);
            Colour::Fixed(grey, grey, grey)
        }
        Color::Rgb(r, g, b) => Colour::Fixed(r, g, b),
    })
}

/// The text of a cell; one that was never written to is blank.
fn content(cell: &Cell) -> &str {
    if cell.has_contents() { cell.contents() } else { " " }
}

fn width(cell: &Cell) -> u16 {
    if cell.is_wide() { 2 } else { 1 }
}

/// With at most one digit behind the point, lest sums of tenths show their errors.
fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::draw;

    /// The elements of a screen that shows `bytes`.
    fn elements(bytes: &str) -> Vec<String> {
        let mut terminal = vt100::Parser::new(4, 20, 0);
        terminal.process(bytes.as_bytes());
        let svg = draw(terminal.screen(), "x <y>");
        let drawn = |line: &&str| line.starts_with("<text") || line.starts_with("<rect x");
        svg.lines().filter(drawn).map(str::to_owned).collect()
    }

    #[test]
    fn runs_stand_in_their_columns() {
        let drawn = elements("\x1b[32m[NEW]\x1b[0m  a → b\r\n\n   1 < 2");
        assert_eq!(
            drawn,
            [
                r#"<text x="12" y="25.5" textLength="58.8" class="b t">$ x &lt;y&gt;</text>"#,
                r#"<text x="12" y="43.5" textLength="42" class="c2">[NEW]</text>"#,
                r#"<text x="70.8" y="43.5" textLength="42" class="t">a → b</text>"#,
                r#"<text x="37.2" y="79.5" textLength="42" class="t">1 &lt; 2</text>"#,
            ]
        );
    }

    #[test]
    fn grounds_are_drawn_below_their_text_and_also_without_any() {
        let drawn = elements("\x1b[7mab\x1b[0m \x1b[1;31;44mc\x1b[0m\x1b[48;5;196m  \x1b[0m");
        assert_eq!(
            drawn[1..],
            [
                r#"<rect x="12" y="30" width="16.8" height="18" class="t"/>"#,
                r#"<text x="12" y="43.5" textLength="16.8" class="g">ab</text>"#,
                r#"<rect x="37.2" y="30" width="8.4" height="18" class="c4"/>"#,
                r#"<text x="37.2" y="43.5" textLength="8.4" class="b c1">c</text>"#,
                r#"<rect x="45.6" y="30" width="16.8" height="18" style="fill:#ff0000"/>"#,
            ]
        );
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let drawn = elements("流x");
        assert_eq!(drawn[1], r#"<text x="12" y="43.5" textLength="25.2" class="t">流x</text>"#);
    }

    #[test]
    fn empty_rows_at_the_end_are_left_out() {
        let mut terminal = vt100::Parser::new(40, 20, 0);
        terminal.process(b"one\r\ntwo\r\n");
        assert!(draw(terminal.screen(), "x").contains("viewBox=\"0 0 192 78\""));
    }
}
