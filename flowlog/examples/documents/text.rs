//! Words of roff for both kinds of pages.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// The title of a page, in section `section` of the manual.
pub(crate) fn title(roff: &mut Roff, name: &str, section: &str) {
    let source = concat!("flowlog ", env!("CARGO_PKG_VERSION"));
    // Without a date: what was made of the same source is the same.
    roff.control("TH", [name, section, "", source, "System Administration"]);
}

/// What stands between backquotes is bold, the rest as it is.
pub(crate) fn marked(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts
        .filter(|(_, part)| !part.is_empty())
        .map(|(number, part)| if number % 2 == 1 { bold(part) } else { roman(part) })
        .collect()
}

/// Text as a terminal shows it: paragraphs are filled, but for a line
/// that a sentence ends, and what is set in columns stays so.
pub(crate) fn paragraphs(roff: &mut Roff, text: &str) {
    for paragraph in text.split("\n\n") {
        roff.control("PP", []);
        let mut rest: Vec<&str> = paragraph.lines().collect();
        while !rest.is_empty() {
            let columns = in_columns(rest[0]);
            let end = rest.iter().position(|line| in_columns(line) != columns);
            let block: Vec<_> = rest.drain(..end.unwrap_or(rest.len())).collect();
            if columns {
                roff.control("nf", []);
                roff.text([roman(block.join("\n"))]);
                roff.control("fi", []);
            } else {
                for sentences in block.split_inclusive(|line| line.ends_with('.')) {
                    roff.text(marked(&sentences.join(" ")));
                    roff.control("br", []);
                }
            }
        }
    }
}

/// Lines that begin with a space, or have several of them between their words.
fn in_columns(line: &str) -> bool {
    line.contains("  ") || line.starts_with(' ')
}

/// The pages to read as well.
pub(crate) fn see_also<'p>(roff: &mut Roff, pages: impl IntoIterator<Item = &'p str>) {
    roff.control("SH", ["SEE ALSO"]);
    let mut words = Vec::new();
    for page in pages {
        let (name, section) = page.rsplit_once('.').unwrap_or((page, "8"));
        if !words.is_empty() {
            words.push(roman(", "));
        }
        words.extend([bold(name), roman(format!("({section})"))]);
    }
    roff.text(words);
}
