//! What loggers wrote, as tests want it: lines without time and host, their multiset, the
//! difference of two in words, and the totals that flowlog leaves in its own log.

use std::collections::BTreeMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};

/// A line of a LOGEMU file, `Nov 21 22:46:30 host [NEW] ORIG: … `, taken apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The first 15 characters: local time without a year.
    pub time: String,
    /// The name of the host, up to its first dot.
    pub host: String,
    /// From the tag to the blank at the end of the line.
    pub text: String,
}

impl Line {
    /// What the brackets hold: `NEW`, `CONFIRMED|ASSURED`, `LOST`.
    pub fn tag(&self) -> &str {
        self.text[1..].split(']').next().unwrap_or_default()
    }

    /// Whether it holds `words`, such as `PROTO=UDP SPT=40006 `.
    pub fn has(&self, words: &str) -> bool {
        self.text.contains(words)
    }

    /// The numbers after `key=`: two for `PKTS` and `BYTES`, of the original direction and reply.
    pub fn numbers(&self, key: &str) -> Vec<u64> {
        let value = |word: &str| word.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
        self.text.split(' ').filter_map(value).collect()
    }

    /// The line with its counters set to zero, as a `[NEW]` line has them.
    pub fn without_counters(&self) -> String {
        let word = |word: &str| match word.split_once('=') {
            Some((key @ ("PKTS" | "BYTES"), _)) => format!("{key}=0"),
            _ => word.to_owned(),
        };
        self.text.split(' ').map(word).collect::<Vec<_>>().join(" ")
    }
}

/// Parses a LOGEMU file. A torn line, wherever it is torn, is an error.
///
/// # Errors
/// A line lacks its time, host, tag, trailing blank or newline.
pub fn parse(file: &str) -> Result<Vec<Line>> {
    ensure!(
        file.is_empty() || file.ends_with('\n'),
        "the last line has no end: {:?}",
        file.lines().last()
    );
    file.lines().map(|line| body(line).with_context(|| format!("torn line {line:?}"))).collect()
}

fn body(line: &str) -> Result<Line> {
    let (time, rest) = line.split_at_checked(16).context("too short")?;
    let form = time.bytes().enumerate().all(|(at, byte)| match at {
        0 => byte.is_ascii_uppercase(),
        1 | 2 => byte.is_ascii_lowercase(),
        3 | 6 | 15 => byte == b' ',
        4 => byte == b' ' || byte.is_ascii_digit(),
        9 | 12 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    ensure!(form, "no time");
    let (host, text) = rest.split_once(' ').context("no host")?;
    ensure!(text.starts_with('[') && text.ends_with(' '), "no tag or no blank at its end");
    let tags = text.matches('[').count();
    ensure!(tags == 1, "{tags} records in one line");
    Ok(Line { time: time.trim_end().to_owned(), host: host.to_owned(), text: text.to_owned() })
}

/// The events that `[LOST] EVENTS=n` lines tell of.
pub fn lost(lines: &[Line]) -> u64 {
    lines.iter().filter(|line| line.tag() == "LOST").flat_map(|line| line.numbers("EVENTS")).sum()
}

/// The lines with this tag.
pub fn tagged<'a>(lines: &'a [Line], tag: &str) -> Vec<&'a Line> {
    lines.iter().filter(|line| line.tag() == tag).collect()
}

/// Lines and how often each occurs, whatever their order.
pub type Multiset = BTreeMap<String, usize>;

/// Counts equal texts.
pub fn multiset<T: ToString>(texts: impl IntoIterator<Item = T>) -> Multiset {
    let mut counts = Multiset::new();
    for text in texts {
        *counts.entry(text.to_string()).or_default() += 1;
    }
    counts
}

/// Counts equal lines, counters aside.
pub fn uncounted<'a>(lines: impl IntoIterator<Item = &'a Line>) -> Multiset {
    multiset(lines.into_iter().map(Line::without_counters))
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// Fails unless both are equal, with every line that is missing or too much.
///
/// # Errors
/// They differ.
pub fn ensure_equal(what: &str, expected: &Multiset, actual: &Multiset) -> Result<()> {
    let mut difference = String::new();
    for text in expected.keys().chain(actual.keys().filter(|text| !expected.contains_key(*text))) {
        let count = |set: &Multiset| set.get(text).copied().unwrap_or_default();
        let (wanted, found) = (count(expected), count(actual));
        match found.cmp(&wanted) {
            std::cmp::Ordering::Less => {
                writeln!(difference, "missing {}×: {text}", wanted - found)?
            }
            std::cmp::Ordering::Greater => {
                writeln!(difference, "extra {}×: {text}", found - wanted)?
            }
            std::cmp::Ordering::Equal => {}
        }
    }
    ensure!(difference.is_empty(), "{what}: lines differ\n{difference}");
    Ok(())
}

/// The totals in flowlog's own log: `… total NAME: VALUE UNIT`, the last of each name.
pub fn totals(log: &str) -> BTreeMap<String, u64> {
    let total = |line: &str| {
        let (name, rest) = line.split_once("total ")?.1.split_once(": ")?;
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    log.lines().filter_map(total).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "Nov  2 22:46:30 vm [DESTROY] ORIG: SRC=10.77.1.2 DST=10.77.2.2 PROTO=UDP SPT=40006 DPT=9053 PKTS=1 BYTES=32 , REPLY: SRC=10.77.2.2 DST=10.77.1.2 PROTO=UDP SPT=9053 DPT=40006 PKTS=2 BYTES=36 \n";

    #[test]
    fn a_line_is_taken_apart() -> Result<()> {
        let lines = parse(LINE)?;
        assert_eq!(lines[0].tag(), "DESTROY");
        assert_eq!(lines[0].numbers("PKTS"), [1, 2]);
        assert!(lines[0].without_counters().ends_with("DPT=40006 PKTS=0 BYTES=0 "));
        Ok(())
    }

    #[test]
    fn torn_lines_are_refused() {
        for cut in 1..LINE.len() {
            assert!(parse(&LINE[..cut]).is_err(), "{:?}", &LINE[..cut]);
            assert!(parse(&LINE[cut..]).is_err() || cut == LINE.len(), "{:?}", &LINE[cut..]);
            assert!(parse(&format!("{}{LINE}", &LINE[..cut])).is_err());
        }
    }

    #[test]
    fn differences_are_named() {
        let (old, new) = (multiset(["a", "b", "b"]), multiset(["b", "c"]));
        let text = ensure_equal("x", &old, &new).unwrap_err().to_string();
        assert_eq!(text, "x: lines differ\nmissing 1×: a\nmissing 1×: b\nextra 1×: c\n");
    }

    #[test]
    fn totals_are_read() {
        let log = "Sat Nov 21 22:45:05 2026 <5> total netlink.lost: 12 events\nother\n";
        assert_eq!(totals(log)["netlink.lost"], 12);
    }
}
