//! Entries of one section → typed values. A wrong value is an error with its
//! line; a trap of ulogd2 is a note that says what was understood.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::catalog::{Key, is_secret};
use super::diagnostic::{Diagnostics, Severity, nearest};
use super::grammar::{Entry, Section, Value};
use super::lines::Reading;
use super::loglevel::{LEVEL_FORMS, level_named};

/// A section whose keys have been checked against those that are known.
pub struct Values<'a> {
    name: String,
    entries: Vec<Entry<'a>>,
}

impl<'a> Values<'a> {
    /// Checks the keys of `section`: unknown and repeated ones are found here.
    pub fn new(section: Section<'a>, known: &'static [Key], found: &mut Diagnostics) -> Self {
        let mut entries: Vec<Entry<'a>> = Vec::new();
        // Of a section that is missing the line is another's.
        if !section.name.is_empty() {
            found.read(section.line, Reading::Section);
        }
        for entry in section.entries {
            let Some(key) = known.iter().find(|key| key.name == entry.key) else {
                unknown(section.name, &entry, known, found);
                continue;
            };
            found.read(entry.line, Reading::Key(key));
            let first = entries.iter().find(|e| e.key == entry.key).map(|e| e.line);
            if let (Some(first), false) = (first, key.repeats) {
                found.error(
                    entry.line,
                    format!(
                        "`{}` stands in [{}] for the second time, first in line {first}; \
                         remove one of them",
                        entry.key, section.name
                    ),
                );
                continue;
            }
            let takes_one = !key.repeats && !key.is_expression();
            if takes_one && !entry.rest.is_empty() && !is_comment(entry.rest) {
                found.note(
                    entry.line,
                    format!(
                        "`{}` after the value of `{}` is ignored; put a value with blanks or \
                         `=` into double quotes, and `#` before a comment",
                        entry.rest, entry.key
                    ),
                );
            }
            entries.push(entry);
        }
        Self { name: section.name.to_owned(), entries }
    }

    /// All entries of a key that may repeat.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &Entry<'a>> {
        self.entries.iter().filter(move |entry| entry.key == key)
    }

    /// The line of a key, if it is there.
    pub fn line(&self, key: &str) -> Option<usize> {
        self.all(key).next().map(|entry| entry.line)
    }

    /// A value as written; `None` when the key is absent or has no value.
    pub fn string(&self, key: &str, found: &mut Diagnostics) -> Option<&'a str> {
        let entry = *self.all(key).next()?;
        match entry.value {
            Value::Given(value) => Some(value),
            Value::Unterminated(value) => {
                let used =
                    if is_secret(key) { "the rest of the line" } else { &format!("`{value}`") };
                found.note(
                    entry.line,
                    format!(
                        "the quote of `{key}` does not end; {used} is used. Add the closing quote"
                    ),
                );
                Some(value)
            }
            Value::Missing => {
                found.note(
                    entry.line,
                    format!("`{key}` has no value; its default is used. Give it one, or remove it"),
                );
                None
            }
        }
    }

    /// What follows the value on its line and is no comment; empty: nothing.
    pub fn rest(&self, key: &str) -> &'a str {
        let rest = self.all(key).next().map_or("", |entry| entry.rest);
        if is_comment(rest) { "" } else { rest }
    }

    /// A number in C notation (decimal, `0x` hexadecimal, `0` octal).
    pub fn integer(
        &self,
        key: &str,
        range: RangeInclusive<i64>,
        found: &mut Diagnostics,
    ) -> Option<i64> {
        let text = self.string(key, found)?;
        let line = self.line(key);
        match parse_integer(text) {
            Ok((value, rest)) => {
                if !rest.is_empty() {
                    found.note(
                        line,
                        format!("`{key}={text}`: {value} is used, `{rest}` is ignored; remove it"),
                    );
                }
                if range.contains(&value) {
                    return Some(value);
                }
                found.error(
                    line,
                    format!(
                        "`{key}={text}` is out of range; give a number from {} to {}",
                        range.start(),
                        range.end()
                    ),
                );
                None
            }
            Err(why) => {
                found.error(
                    line,
                    format!(
                        "`{key}={text}` in [{}] is no number: {why}; write a decimal, 0x \
                         hexadecimal or 0 octal number",
                        self.name
                    ),
                );
                None
            }
        }
    }

    /// A level of messages: a name, or a number as [`Values::integer`] reads it.
    pub fn level(&self, key: &str, found: &mut Diagnostics) -> Option<u8> {
        let text = self.string(key, found)?;
        if let Some(level) = level_named(text) {
            return Some(level);
        }
        if parse_integer(text).is_err() {
            let message = format!("`{key}={text}` is not known; write {LEVEL_FORMS}");
            found.error(self.line(key), message);
            return None;
        }
        // The range is that of a level.
        self.integer(key, 0..=8, found).map(|level| level as u8)
    }

    /// A time such as `10m`; a plain number is seconds.
    pub fn duration(&self, key: &str, found: &mut Diagnostics) -> Option<Duration> {
        let text = self.string(key, found).filter(|text| !text.is_empty())?;
        let why = match parse_duration(text) {
            Ok(duration) => return Some(duration),
            Err(why) => why,
        };
        found.error(self.line(key), format!("`{key}={text}` in [{}] is no time: {why}", self.name));
        None
    }

    /// A switch: 0 is off, 1 on. Any other number is on too, as in ulogd2, and
    /// probably a mistake.
    pub fn switch(&self, key: &str, found: &mut Diagnostics) -> Option<bool> {
        let range = i64::from(i32::MIN)..=i64::from(u32::MAX);
        let value = self.integer(key, range, found)?;
        if !(0..=1).contains(&value) {
            found.note(
                self.line(key),
                format!(
                    "`{key}={value}` is taken as 1, as ulogd2 takes any number but 0; write \
                     {key}=1, or {key}=0 to turn it off"
                ),
            );
        }
        Some(value != 0)
    }

    /// One word out of `choices`.
    pub fn choice<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        found: &mut Diagnostics,
    ) -> Option<T> {
        self.chosen(key, choices, |name, text| name == text, found)
    }

    /// One word out of `choices`, in upper or lower case.
    pub fn choice_in_any_case<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        found: &mut Diagnostics,
    ) -> Option<T> {
        self.chosen(key, choices, |name, text| name.eq_ignore_ascii_case(text), found)
    }

    fn chosen<T: Copy>(
        &self,
        key: &str,
        choices: &[(&str, T)],
        equal: impl Fn(&str, &str) -> bool,
        found: &mut Diagnostics,
    ) -> Option<T> {
        let text = self.string(key, found)?;
        if let Some((_, value)) = choices.iter().find(|(name, _)| equal(name, text)) {
            return Some(*value);
        }
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        found.error(
            self.line(key),
            format!("`{key}={text}` is not known; write {}", names.join(" or ")),
        );
        None
    }

    /// A list separated by commas, each item parsed by `parse`.
    pub fn list<T>(
        &self,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        found: &mut Diagnostics,
    ) -> Vec<T> {
        let Some(text) = self.string(key, found) else { return Vec::new() };
        let mut list = Vec::new();
        for item in items(text) {
            match parse(item) {
                Ok(value) => list.push(value),
                Err(why) => found.error(self.line(key), format!("`{key}`: {why}")),
            }
        }
        list
    }
}

/// The members of a list separated by commas, without the blanks around them.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn is_comment(rest: &str) -> bool {
    rest.starts_with(['#', ';'])
}

fn unknown(section: &str, entry: &Entry<'_>, known: &[Key], found: &mut Diagnostics) {
    if entry.key.starts_with(';') {
        return;
    }
    found.add(
        Severity::Unknown,
        entry.line,
        format!(
            "`{}` is no key of [{section}], and is ignored{}",
            entry.key,
            nearest(entry.key, known.iter().map(|key| key.name))
        ),
    );
}

/// Reads a number as C's `strtol` with base 0 does, and returns what follows.
fn parse_integer(text: &str) -> Result<(i64, &str), &'static str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let hex = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let (radix, digits) = match hex {
        Some(hex) => (16, hex),
        None if digits.starts_with('0') => (8, digits),
        None => (10, digits),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(end);
    if digits.is_empty() {
        return Err("it has no digits");
    }
    if radix == 8 && rest.starts_with(['8', '9']) {
        return Err("a number that begins with 0 is octal");
    }
    let value = i64::from_str_radix(digits, radix).map_err(|_| "it is too large")?;
    Ok((if negative { -value } else { value }, rest))
}

/// Units of time, and how many milliseconds each has.
const UNITS: [(&str, u64); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("", 1000)];
/// The longest time: a year.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// Reads a time: a decimal number and its unit, seconds where there is none.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const REMEDY: &str = "write a number with ms, s, m, h or d, such as 10m";
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    if digits.is_empty() {
        return Err(format!("it does not begin with a digit; {REMEDY}"));
    }
    let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("`{unit}` is no unit; {REMEDY}"));
    };
    let milliseconds = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
    milliseconds
        .map(Duration::from_millis)
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| "it is longer than a year; write at most 366d".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{parse_duration, parse_integer};

    #[test]
    fn times_have_a_unit_or_are_seconds() {
        let ms = |text| parse_duration(text).map(|duration| duration.as_millis());
        for (text, expected) in [
            ("0", 0),
            ("250ms", 250),
            ("90", 90_000),
            ("90s", 90_000),
            ("010m", 600_000),
            ("1h", 3_600_000),
            ("1d", 86_400_000),
        ] {
            assert_eq!(ms(text), Ok(expected), "{text}");
        }
        assert_eq!(parse_duration("366d"), Ok(Duration::from_secs(366 * 24 * 3600)));
        for text in ["", "m", "-1s", "1.5s", "10 m", "10min", "1h30m", "10M", "367d"] {
            assert!(ms(text).is_err(), "{text}");
        }
        assert!(ms("99999999999999999999").unwrap_err().contains("longer than a year"));
        assert!(ms("18446744073709551615d").is_err());
        let why = ms("10min").unwrap_err();
        assert_eq!(why, "`min` is no unit; write a number with ms, s, m, h or d, such as 10m");
    }

    #[test]
    fn numbers_are_read_as_c_reads_them() {
        assert_eq!(parse_integer("0x10"), Ok((16, "")));
        assert_eq!(parse_integer("010"), Ok((8, "")));
        assert_eq!(parse_integer("-1"), Ok((-1, "")));
        assert_eq!(parse_integer("0"), Ok((0, "")));
        assert_eq!(parse_integer("5;"), Ok((5, ";")));
        assert!(parse_integer("yes").is_err());
        assert!(parse_integer("08").is_err());
        assert!(parse_integer("0x").is_err());
        assert!(parse_integer("99999999999999999999").is_err());
    }
}
