//! Colours of tags: by SGR sequences, for terminals.

use std::env;
use std::fmt::Display;
use std::io::IsTerminal;

use anstyle::{AnsiColor, Style};

use crate::event::Kinds;
use crate::verb::live::text::Text;

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl When {
    /// Whether what is written to `output` gets colours.
    pub(in crate::verb) fn paints(self, output: &impl IsTerminal) -> Paint {
        // As https://no-color.org has it.
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Paint(match self {
            Self::Auto => output.is_terminal() && !unwanted,
            Self::Always => true,
            Self::Never => false,
        })
    }
}

/// Whether there are colours.
#[derive(Clone, Copy, Debug)]
pub(in crate::verb) struct Paint(pub(in crate::verb) bool);

impl Paint {
    /// The text in the colour of what it tells of.
    pub(in crate::verb) fn tag(self, tag: Kinds, text: impl Display) -> String {
        self.apply(colour(tag).on_default(), text)
    }

    /// The same for what `write` writes.
    pub(super) fn tag_into(self, tag: Kinds, line: &mut Text, write: impl FnOnce(&mut Text)) {
        if !self.0 {
            return write(line);
        }
        let style = colour(tag).on_default();
        line.push_str(&style.render().to_string());
        write(line);
        line.push_str(&style.render_reset().to_string());
    }

    /// The text of a loss.
    pub(in crate::verb) fn loss(self, text: impl Display) -> String {
        self.apply(AnsiColor::Red.on_default().bold(), text)
    }

    fn apply(self, style: Style, text: impl Display) -> String {
        if self.0 { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

fn colour(tag: Kinds) -> AnsiColor {
    if tag.contains(Kinds::NEW) {
        AnsiColor::Green
    } else if tag.intersects(Kinds::DESTROY | Kinds::GC) {
        AnsiColor::Red
    } else if tag.contains(Kinds::EXPECT) {
        AnsiColor::Cyan
    } else if tag.is_empty() {
        // There is no flow that it could be an event of.
        AnsiColor::Magenta
    } else {
        AnsiColor::Yellow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_colour() {
        let paint = Paint(true);
        assert_eq!(paint.tag(Kinds::NEW | Kinds::HELPER, "x"), "\x1b[32mx\x1b[0m");
        assert_eq!(paint.tag(Kinds::UPDATE, "x"), "\x1b[33mx\x1b[0m");
        assert_eq!(paint.tag(Kinds::ASSURED, "x"), "\x1b[33mx\x1b[0m");
        assert_eq!(paint.tag(Kinds::DESTROY | Kinds::GC, "x"), "\x1b[31mx\x1b[0m");
        assert_eq!(paint.tag(Kinds::EXPECT, "x"), "\x1b[36mx\x1b[0m");
        assert_eq!(paint.tag(Kinds::empty(), "x"), "\x1b[35mx\x1b[0m");
        assert_eq!(paint.loss("x"), "\x1b[1m\x1b[31mx\x1b[0m");
        assert_eq!(Paint(false).loss("x"), "x");
        for (paint, text) in [(Paint(true), "\x1b[32mx\x1b[0m"), (Paint(false), "x")] {
            let tag = |line: &mut Text| paint.tag_into(Kinds::NEW, line, |line| line.push(b'x'));
            assert_eq!(Text::string(tag), text);
        }
    }

    #[test]
    fn what_is_no_terminal_gets_none_unless_asked_for() {
        let file = tempfile::tempfile().unwrap();
        assert!(!When::Auto.paints(&file).0 && !When::Never.paints(&file).0);
        assert!(When::Always.paints(&file).0);
    }
}
