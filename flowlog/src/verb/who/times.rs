//! Times as people write them. A time is as long as it is precise: 14:05 is a
//! minute, 14:05:07 a second, 2026-11-20 a day.

use std::time::Duration;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Timestamp, ToSpan as _};

use crate::config::values::parse_duration;

const FORMS: &str = "write for example 14:05, \"2026-11-20 14:05\", 2026-11-20T14:05:07+01:00, \
                     \"yesterday 14:05\", 2026-11-20 or \"5m ago\"";
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// Nanoseconds since the epoch, the first and the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub first: u64,
    /// The last, which belongs to it.
    pub last: u64,
}

impl Span {
    /// Without a time: each archive is asked for the time that it is of.
    pub const ALL: Self = Self { first: 0, last: i64::MAX as u64 };

    /// Flows that were alive then say that they began until that time.
    pub fn latest_start(self) -> u64 {
        self.last.saturating_add(AHEAD)
    }
}

/// What is told of a flow may be older than its start by so much, nanoseconds: since
/// Linux 6.14 a message has the time of the first change of its packet, and the start
/// is that of the entry's insertion, after all rules were asked
/// (`nf_conntrack_event_cache`, include/net/netfilter/nf_conntrack_ecache.h, and
/// `__nf_conntrack_confirm`, net/netfilter/nf_conntrack_core.c).
pub(super) const AHEAD: u64 = SECOND / 2;

const SECOND: u64 = 1_000_000_000;

/// The time that `text` means at `now`, in `zone` where it names none.
///
/// # Errors
/// What is wrong with it, and what to write.
pub fn parse(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Span, String> {
    let text = text.trim();
    if text == "now" {
        return since(now, SECOND);
    }
    if let Some(ago) = text.strip_suffix("ago").filter(|ago| ago.ends_with(' ')) {
        let ago: Duration = parse_duration(&ago.replace(' ', ""))?;
        let then = now.checked_sub(ago).map_err(|error| error.to_string())?;
        return since(then, SECOND);
    }
    let today = now.to_zoned(zone.clone()).date();
    let (date, rest) = date(text, today).ok_or_else(unknown)?;
    let (clock, named) = own_zone(rest).ok_or_else(unknown)?;
    let zone = named.map_or_else(|| zone.clone(), TimeZone::fixed);
    if clock.is_empty() {
        let begin = date.filter(|_| rest.is_empty()).ok_or_else(unknown)?;
        return day(begin, &zone);
    }
    let (time, precision) = self::clock(clock).ok_or_else(unknown)?;
    let at = |date: Date| moment(date.to_datetime(time), text, &zone);
    let Some(date) = date else {
        // The last one that there has been.
        let today = now.to_zoned(zone.clone()).date();
        let then = at(today).and_then(|then| {
            let before = today.yesterday().map_err(|error| error.to_string());
            if then > now { before.and_then(at) } else { Ok(then) }
        })?;
        return since(then, precision);
    };
    since(at(date)?, precision)
}

fn unknown() -> String {
    format!("it is no time that flowlog knows; {FORMS}")
}

/// From `begin` on, for so many nanoseconds.
fn since(begin: Timestamp, length: u64) -> Result<Span, String> {
    let first = u64::try_from(begin.as_nanosecond()).map_err(|_| "it is before 1970".to_owned())?;
    let first = first - first % length.min(SECOND);
    Ok(Span { first, last: first.saturating_add(length - 1) })
}

/// From midnight to midnight, which need not be 24 hours.
fn day(date: Date, zone: &TimeZone) -> Result<Span, String> {
    let begin = |date: Date| {
        let begin = date.to_zoned(zone.clone()).map_err(|error| error.to_string())?;
        u64::try_from(begin.timestamp().as_nanosecond()).map_err(|_| "it is before 1970".to_owned())
    };
    let next = date.checked_add(1.day()).map_err(|error| error.to_string())?;
    Ok(Span { first: begin(date)?, last: begin(next)? - 1 })
}

/// The date at the beginning, if there is one, and what follows it.
fn date(text: &str, today: Date) -> Option<(Option<Date>, &str)> {
    let (word, rest) = text.split_once([' ', 'T', 't']).unwrap_or((text, ""));
    let rest = rest.trim_start();
    match word {
        // `today`, split at its t.
        "" => {
            let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
            return (word == "today").then_some((Some(today), rest.trim_start()));
        }
        "yes" => {
            let rest = text.strip_prefix("yesterday")?;
            let is_word = rest.is_empty() || rest.starts_with(' ');
            return is_word.then_some((Some(today.yesterday().ok()?), rest.trim_start()));
        }
        _ => {}
    }
    if let Some(month) = MONTHS.iter().position(|month| word.eq_ignore_ascii_case(month)) {
        // As lines of syslog begin: without a year, so it is the last one.
        let (number, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = number.parse().ok()?;
        let of = |year| Date::new(year, month as i8 + 1, number).ok();
        let date = of(today.year()).filter(|date| *date <= today);
        return Some((Some(date.or_else(|| of(today.year() - 1))?), rest.trim_start()));
    }
    if word.contains(':') {
        return Some((None, text));
    }
    let parts: Vec<&str> = word.split('-').collect();
    let [year, month, day] = parts.try_into().ok()?;
    let date = Date::new(digits(year, 4)? as i16, digits(month, 2)? as i8, digits(day, 2)? as i8);
    Some((Some(date.ok()?), rest))
}

/// The clock without the zone behind it, which is told as an offset.
fn own_zone(text: &str) -> Option<(&str, Option<Offset>)> {
    for utc in ["Z", "z", "UTC"] {
        if let Some(clock) = text.strip_suffix(utc) {
            return Some((clock.trim_end(), Some(Offset::UTC)));
        }
    }
    let Some(place) = text.rfind(['+', '-']) else { return Some((text, None)) };
    let (clock, offset) = text.split_at(place);
    let (sign, offset) = offset.split_at(1);
    let offset = offset.replace(':', "");
    let (hours, minutes) = offset.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { 0 } else { digits(minutes, 2)? };
    let seconds = (digits(hours, 2)? * 3600 + minutes * 60) as i32;
    let seconds = if sign == "-" { -seconds } else { seconds };
    Some((clock.trim_end(), Some(Offset::from_seconds(seconds).ok()?)))
}

/// `14:05`, `14:05:07`, `14:05:07.25`, and how many nanoseconds that is precise to.
fn clock(text: &str) -> Option<(Time, u64)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let parts: Vec<&str> = whole.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if !text.contains('.') => (hour, minute, None),
        [hour, minute, second] => (hour, minute, Some(second)),
        _ => return None,
    };
    let hour = digits(hour, hour.len().clamp(1, 2))? as i8;
    let (minute, seconds) = (digits(minute, 2)? as i8, digits(second.unwrap_or("00"), 2)? as i8);
    let nanoseconds = match fraction.len() {
        0 if text.ends_with('.') => return None,
        0 => 0,
        length @ 1..=9 => digits(fraction, length)? * 10_u32.pow(9 - length as u32),
        _ => return None,
    };
    let precision = match second {
        None => 60 * SECOND,
        Some(_) => SECOND / 10_u64.pow(fraction.len() as u32),
    };
    Some((Time::new(hour, minute, seconds, nanoseconds as i32).ok()?, precision))
}

/// A number of exactly so many digits.
fn digits(text: &str, count: usize) -> Option<u32> {
    let right = text.len() == count && text.bytes().all(|byte| byte.is_ascii_digit());
    if right { text.parse().ok() } else { None }
}

/// Where clocks are set there are times that are twice, and times that are not.
fn moment(time: DateTime, text: &str, zone: &TimeZone) -> Result<Timestamp, String> {
    let there = zone.to_ambiguous_timestamp(time);
    match there.offset() {
        AmbiguousOffset::Unambiguous { offset } => {
            offset.to_timestamp(time).map_err(|error| error.to_string())
        }
        AmbiguousOffset::Gap { .. } => Err(format!("{text} was passed over when clocks were set")),
        AmbiguousOffset::Fold { before, after } => Err(format!(
            "{text} was twice when clocks were set: add {before} or {after} to say which"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 13:14:15.5 in a zone that is two hours ahead.
    fn ask(text: &str) -> Result<(String, String), String> {
        let zone = TimeZone::fixed(Offset::from_seconds(7200).unwrap());
        let now: Timestamp = "2026-11-22T11:14:15.5Z".parse().unwrap();
        parse(text, now, &zone).map(|Span { first, last }| {
            let text = |at: u64| Timestamp::from_nanosecond(at.into()).unwrap().to_string();
            (text(first), text(last))
        })
    }

    fn is(text: &str, first: &str, last: &str) {
        assert_eq!(ask(text), Ok((first.to_owned(), last.to_owned())), "{text}");
    }

    #[test]
    fn a_time_is_as_long_as_it_is_precise() {
        is("2026-11-20 14:05", "2026-11-20T12:05:00Z", "2026-11-20T12:05:59.999999999Z");
        is("2026-11-20T14:05:07", "2026-11-20T12:05:07Z", "2026-11-20T12:05:07.999999999Z");
        is("2026-11-20T14:05:07.25", "2026-11-20T12:05:07.25Z", "2026-11-20T12:05:07.259999999Z");
        let exact = "2026-11-20T12:05:07.123456789Z";
        is("2026-11-20T14:05:07.123456789", exact, exact);
        is("2026-11-20", "2026-11-19T22:00:00Z", "2026-11-20T21:59:59.999999999Z");
    }

    #[test]
    fn a_zone_may_be_named() {
        for text in [
            "2026-11-20T14:05:07Z",
            "2026-11-20 14:05:07 UTC",
            "2026-11-20T15:05:07+01:00",
            "2026-11-20T15:05:07 +0100",
            "2026-11-20 15:05:07+01",
            "2026-11-20t10:35:07-03:30",
        ] {
            is(text, "2026-11-20T14:05:07Z", "2026-11-20T14:05:07.999999999Z");
        }
        is("10:05Z", "2026-11-22T10:05:00Z", "2026-11-22T10:05:59.999999999Z");
    }

    #[test]
    fn what_people_type() {
        is("13:05", "2026-11-22T11:05:00Z", "2026-11-22T11:05:59.999999999Z");
        is("9:05", "2026-11-22T07:05:00Z", "2026-11-22T07:05:59.999999999Z");
        // Not yet today.
        is("13:15", "2026-11-21T11:15:00Z", "2026-11-21T11:15:59.999999999Z");
        is("13:14", "2026-11-22T11:14:00Z", "2026-11-22T11:14:59.999999999Z");
        is("today 13:15", "2026-11-22T11:15:00Z", "2026-11-22T11:15:59.999999999Z");
        is("yesterday 14:05:07", "2026-11-21T12:05:07Z", "2026-11-21T12:05:07.999999999Z");
        is("yesterday", "2026-11-20T22:00:00Z", "2026-11-21T21:59:59.999999999Z");
        is("now", "2026-11-22T11:14:15Z", "2026-11-22T11:14:15.999999999Z");
        is("5m ago", "2026-11-22T11:09:15Z", "2026-11-22T11:09:15.999999999Z");
        is("2 d ago", "2026-11-20T11:14:15Z", "2026-11-20T11:14:15.999999999Z");
        is("Nov  2 14:05:07", "2026-11-02T12:05:07Z", "2026-11-02T12:05:07.999999999Z");
        is("dec 24 14:05", "2025-12-24T12:05:00Z", "2025-12-24T12:05:59.999999999Z");
    }

    #[test]
    fn what_is_no_time_is_refused_with_the_forms() {
        for text in [
            "",
            "14",
            "14.05",
            "24:00",
            "14:60",
            "14:5",
            "14:05:07.",
            "14:05.5",
            "2026-11-31",
            "2026-11-20 ",
            "20.11.2026",
            "2026-11-20T",
            "2026-11-20 14:05 CET",
            "2026-11-20 14:05 Europe/Berlin",
            "tomorrow",
            "todays",
            "yesterdays",
            "nov",
            "noon",
            "Z",
            "+01:00",
            "2026-11-20Z",
            "2026-11-20 14:05:07.1234567891",
        ] {
            if text == "2026-11-20 " || text == "2026-11-20T" {
                // Blanks at the end are nothing, and an empty time is a day's.
                assert!(ask(text).is_ok(), "{text}");
                continue;
            }
            let refused = ask(text).unwrap_err();
            assert!(refused.contains(FORMS), "{text}: {refused}");
        }
        assert!(ask("5 parsecs ago").unwrap_err().contains("`parsecs` is no unit"));
        assert!(ask("1969-12-31").unwrap_err().contains("before 1970"));
        assert!(ask("1969-12-31 14:05").unwrap_err().contains("before 1970"));
    }

    #[test]
    fn where_clocks_are_set_a_time_must_be_clear() {
        let rule = "CET-1CEST,M3.5.0,M10.5.0/3";
        let zone = TimeZone::posix(rule).unwrap();
        let now: Timestamp = "2026-11-22T11:14:15Z".parse().unwrap();
        let ask = |text: &str| parse(text, now, &zone);
        let twice = ask("2026-10-25 02:30").unwrap_err();
        assert!(twice.contains("was twice") && twice.contains("add +02 or +01"), "{twice}");
        assert!(ask("2026-10-25 02:30+01").is_ok());
        assert!(ask("2026-03-29 02:30").unwrap_err().contains("was passed over"));
        let Span { first, last } = ask("2026-10-25").unwrap();
        assert_eq!((last + 1 - first) / SECOND, 25 * 3600);
    }
}
