//! The grammar of ulogd.conf as ulogd2 2.0.8 reads it: lines, words, sections.
//! Knows nothing of what the keys mean.

/// What separates words within a section.
const IN_SECTION: &[char] = &[' ', '=', '\t', '\n', '\r'];
/// What separates words when a section is looked for.
const IN_HEADER: &[char] = &[' ', '\t', '\n', '\r', '[', ']'];

/// A configuration file, as lines.
#[derive(Debug)]
pub struct Document<'a> {
    lines: Vec<&'a str>,
}

/// One `key value` line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Line number, from 1.
    pub line: usize,
    /// First word.
    pub key: &'a str,
    /// Second word.
    pub value: Value<'a>,
    /// What follows the value on the line, trimmed.
    pub rest: &'a str,
}

/// The value of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// A word, quoted or not.
    Given(&'a str),
    /// A quoted word whose quote does not end; up to the end of the line.
    Unterminated(&'a str),
    /// Nothing follows the key.
    Missing,
}

/// A section: its header's line and its entries.
#[derive(Clone, Debug)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Line number of the header, from 1.
    pub line: usize,
    /// Its entries in order.
    pub entries: Vec<Entry<'a>>,
}

impl<'a> Document<'a> {
    /// Splits `text` into lines. Unlike ulogd2 it takes lines of any length,
    /// and a last line without a line feed.
    pub fn new(text: &'a str) -> Self {
        Self { lines: text.lines().collect() }
    }

    /// Finds the first section of that name. Like ulogd2 it takes a bare word
    /// for a header too, and ends the section at the next line whose first
    /// word starts with `[`.
    pub fn section(&self, name: &str) -> Option<Section<'a>> {
        let mut lines = self.numbered();
        let (line, name) = lines.find_map(|(line, text)| {
            let (word, _) = word(text, IN_HEADER)?;
            (word.text == name).then_some((line, word.text))
        })?;
        let entries = lines
            .map_while(|(line, text)| match entry(line, text) {
                Some(entry) if entry.key.starts_with('[') => None,
                entry => Some(entry),
            })
            .flatten()
            .collect();
        Some(Section { name, line, entries })
    }

    /// All bracketed headers with their line numbers, and the number of the
    /// first header of the same name when it is a repetition.
    pub fn headers(&self) -> Vec<Header<'a>> {
        let mut headers: Vec<Header<'a>> = Vec::new();
        for (line, text) in self.numbered() {
            if !text.trim_start().starts_with('[') {
                continue;
            }
            let Some((word, _)) = word(text, IN_HEADER) else { continue };
            let first = headers.iter().find(|h| h.name == word.text).map(|h| h.line);
            headers.push(Header { line, name: word.text, first });
        }
        headers
    }

    /// The values of `#stack=` lines: stacks that somebody switched off, whose
    /// sections are not unknown.
    pub fn disabled_stacks(&self) -> impl Iterator<Item = &'a str> {
        self.lines.iter().filter_map(|text| {
            let text = text.trim_start().strip_prefix('#')?;
            let entry = entry(0, text)?;
            match entry.value {
                Value::Given(value) if entry.key == "stack" => Some(value),
                _ => None,
            }
        })
    }

    /// Lines that say something: number, first word, all of it.
    pub fn said(&self) -> impl Iterator<Item = (usize, &'a str, &'a str)> {
        self.numbered().filter_map(|(line, text)| {
            let (word, _) = word(text, IN_SECTION)?;
            Some((line, word.text, text)).filter(|_| !word.text.starts_with(';'))
        })
    }

    /// Lines that are not comments, numbered from 1. ulogd2 knows a comment
    /// only by `#` in the first column; blanks before it are forgiven here.
    fn numbered(&self) -> impl Iterator<Item = (usize, &'a str)> {
        let lines = self.lines.iter().enumerate().map(|(index, text)| (index + 1, *text));
        lines.filter(|(_, text)| !text.trim_start().starts_with('#'))
    }
}

/// A bracketed section header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its line, from 1.
    pub line: usize,
    /// The name in brackets.
    pub name: &'a str,
    /// Line of the first header of this name, if this is not the first.
    pub first: Option<usize>,
}

fn entry(line: usize, text: &str) -> Option<Entry<'_>> {
    let (key, rest) = word(text, IN_SECTION)?;
    let (value, rest) = match word(rest, IN_SECTION) {
        None => (Value::Missing, ""),
        // A comment is no value: `file= # the log`.
        Some((word, _)) if !word.quoted && word.text.starts_with('#') => (Value::Missing, ""),
        Some((word, rest)) if word.terminated => (Value::Given(word.text), rest),
        Some((word, rest)) => (Value::Unterminated(word.text), rest),
    };
    Some(Entry { line, key: key.text, value, rest: rest.trim() })
}

struct Word<'a> {
    text: &'a str,
    quoted: bool,
    terminated: bool,
}

/// The next word of `text` and what follows it. A word begins at the first
/// quote or at the first character that is no separator.
fn word<'a>(text: &'a str, separators: &[char]) -> Option<(Word<'a>, &'a str)> {
    let start = text.find(|c| c == '"' || !separators.contains(&c))?;
    let text = &text[start..];
    if let Some(quoted) = text.strip_prefix('"') {
        return Some(match quoted.split_once('"') {
            Some((text, rest)) => (Word { text, quoted: true, terminated: true }, rest),
            None => (Word { text: quoted.trim_end(), quoted: true, terminated: false }, ""),
        });
    }
    let end = text.find(|c| separators.contains(&c)).unwrap_or(text.len());
    let (text, rest) = text.split_at(end);
    Some((Word { text, quoted: false, terminated: true }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Entry<'_> {
        entry(1, text).unwrap()
    }

    #[test]
    fn key_and_value_are_separated_by_blanks_equals_signs_or_both() {
        for text in ["sync=1", "sync = 1", "sync 1", "\tsync\t1", "sync==1", "sync=1\r"] {
            assert_eq!(only(text).key, "sync", "{text:?}");
            assert_eq!(only(text).value, Value::Given("1"), "{text:?}");
        }
    }

    #[test]
    fn quotes_keep_blanks_and_equals_signs() {
        let entry = only(r#"file="/var/log/a b=c.log" trailing"#);
        assert_eq!(entry.value, Value::Given("/var/log/a b=c.log"));
        assert_eq!(entry.rest, "trailing");
        assert_eq!(only("file=/tmp/t=x").value, Value::Given("/tmp/t"));
        assert_eq!(only("file='a b'").value, Value::Given("'a"));
    }

    #[test]
    fn missing_and_unterminated_values_are_told_apart() {
        assert_eq!(only("file=").value, Value::Missing);
        assert_eq!(only("file").value, Value::Missing);
        assert_eq!(only("file= # a note").value, Value::Missing);
        assert_eq!(only(r#"file="/x y"#).value, Value::Unterminated("/x y"));
        assert_eq!(only(r#"file="""#).value, Value::Given(""));
    }

    #[test]
    fn sections_begin_and_end_as_in_ulogd2() {
        let text =
            "[global]\nstack=a\n  # note\n[ ct1 ]\nevent_mask=1\nemu1\nfile=x\n[ct1]\nlate=1";
        let document = Document::new(text);
        let keys = |name: &str| -> Vec<String> {
            let section = document.section(name).unwrap();
            section.entries.iter().map(|e| e.key.to_owned()).collect()
        };
        assert_eq!(keys("global"), ["stack"]);
        assert_eq!(keys("ct1"), ["event_mask", "emu1", "file"]);
        assert_eq!(keys("emu1"), ["file"], "a bare word is a header too");
        assert!(document.section("nothing").is_none());
        let headers = document.headers();
        assert_eq!(headers.last(), Some(&Header { line: 8, name: "ct1", first: Some(4) }));
    }

    #[test]
    fn a_last_line_without_line_feed_and_long_lines_are_read() {
        let long = format!("[emu1]\nfile=/{}", "x".repeat(1000));
        let document = Document::new(&long);
        let entry = document.section("emu1").unwrap().entries[0];
        assert!(matches!(entry.value, Value::Given(v) if v.len() == 1001));
    }

    #[test]
    fn stacks_that_are_commented_out_are_found() {
        let document = Document::new("#stack=log1:NFLOG,emu1:LOGEMU\n# stack is a word\n");
        let stacks: Vec<&str> = document.disabled_stacks().collect();
        assert_eq!(stacks, ["log1:NFLOG,emu1:LOGEMU", "is"]);
    }
}
