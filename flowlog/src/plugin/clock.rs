//! Times as text: the local second, as syslog and ulogd2 write it, and RFC 3339
//! with nanoseconds.

use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::zone::{self, Zone};

/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;

const DAY: u64 = 86_400;
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The generation of a zone that does not change.
static FIXED: AtomicU64 = AtomicU64::new(0);

/// A text that depends on the second and the time zone, made anew only when one
/// of them is another and not with each record. The clock may jump either way.
#[derive(Debug)]
pub struct PerSecond {
    zone: Zone,
    /// Where it is seen that the zone is another.
    source: &'static AtomicU64,
    generation: u64,
    second: u64,
    text: Vec<u8>,
}

impl PerSecond {
    /// A text in the local time zone, which is followed.
    pub fn local() -> Self {
        Self::new(zone::local(), zone::generation())
    }

    /// A text in a time zone of its own.
    pub fn fixed(zone: Zone) -> Self {
        Self::new(zone, &FIXED)
    }

    fn new(zone: Zone, source: &'static AtomicU64) -> Self {
        // No nanosecond is in the last second, so the first text is made when it is needed.
        Self { zone, source, generation: 0, second: u64::MAX, text: Vec::new() }
    }

    /// Has `make` write the text, if that of `nanoseconds` since the epoch is
    /// not the one that there is.
    #[inline]
    pub fn at(&mut self, nanoseconds: u64, make: impl FnOnce(&Zone, u64, &mut Vec<u8>)) -> &[u8] {
        let second = nanoseconds / SECOND;
        let generation = self.source.load(Ordering::Acquire);
        if second != self.second || generation != self.generation {
            if generation != self.generation {
                self.generation = generation;
                self.zone = zone::local();
            }
            self.second = second;
            self.text.clear();
            make(&self.zone, second, &mut self.text);
        }
        &self.text
    }
}

/// `Nov  2 22:46:30`, as `%b %e %T` in the C locale.
pub fn syslog(zone: &Zone, second: u64, out: &mut Vec<u8>) {
    let (time, _) = zone.civil(second as i64);
    // Writing to a vector cannot fail.
    let _ = write!(
        out,
        "{} {:2} {:02}:{:02}:{:02}",
        MONTHS[time.month() as usize - 1],
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
    );
}

/// `2026-11-21T22:48:18+0530`, the offset as ulogd2 2.0.8 writes it: none for
/// UTC, and one of less than an hour to the west as if it were to the east.
pub fn ulogd(zone: &Zone, second: u64, out: &mut Vec<u8>) {
    let (time, offset) = zone.civil(second as i64);
    let _ = write!(
        out,
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        time.year(),
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
    );
    if offset != 0 {
        let _ = write!(out, "{:+03}{:02}", offset / 3600, offset.abs() / 60 % 60);
    }
}

/// `2026-11-21T22:48:18.123456789Z`: UTC, with `digits` (at most nine) of the
/// fraction. By hand, because three of them stand in a record; jiff takes ten
/// times as long for one.
pub fn rfc3339(nanoseconds: u64, digits: usize, out: &mut Vec<u8>) {
    let (second, fraction) = (nanoseconds / SECOND, nanoseconds % SECOND);
    let (year, month, day) = date(second / DAY);
    let time = second % DAY;
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    decimal(&mut text[..4], year);
    decimal(&mut text[5..7], month);
    decimal(&mut text[8..10], day);
    decimal(&mut text[11..13], time / 3600);
    decimal(&mut text[14..16], time / 60 % 60);
    decimal(&mut text[17..19], time % 60);
    decimal(&mut text[20..29], fraction);
    out.extend_from_slice(&text[..20 + digits.min(9)]);
    out.push(b'Z');
}

/// Writes the last digits of `value`, as many as there is room for.
#[inline]
fn decimal(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month and day of a day since the epoch: years begin in March, so that
/// the day of a leap year is their last, and 400 of them have equally many days.
fn date(day: u64) -> (u64, u64, u64) {
    // From the first of March of the year 0 to the epoch.
    let day = day + 719_468;
    let (era, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months of March to July and August to December have 153 days each.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * era + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use jiff::tz::{TimeZone, offset};
    use proptest::prelude::*;

    use super::*;

    fn text(make: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        make(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn offsets_are_those_of_ulogd() {
        let at = |seconds: i32| {
            let offset = jiff::tz::Offset::from_seconds(seconds).unwrap();
            let zone = TimeZone::fixed(offset).into();
            text(|out| ulogd(&zone, 1_795_301_298, out))
        };
        assert_eq!(at(0), "2026-11-21T22:48:18");
        assert_eq!(at(19_800), "2026-11-22T04:18:18+0530");
        assert_eq!(at(-12_600), "2026-11-21T19:18:18-0330");
        assert_eq!(at(-1800), "2026-11-21T22:18:18+0030");
    }

    #[test]
    fn a_day_of_one_digit_has_a_blank_before_it() {
        let zone = TimeZone::fixed(offset(0)).into();
        assert_eq!(text(|out| syslog(&zone, 1_793_577_600, out)), "Nov  2 00:00:00");
    }

    #[test]
    fn a_clock_may_jump_back() {
        let mut clock = PerSecond::fixed(TimeZone::UTC.into());
        let mut at = |second: u64| {
            let text = clock.at(second * SECOND, syslog);
            String::from_utf8(text.to_vec()).unwrap()
        };
        assert_eq!(at(0), "Jan  1 00:00:00");
        assert_eq!(at(90_000), "Jan  2 01:00:00");
        assert_eq!(at(3600), "Jan  1 01:00:00");
        assert_eq!(at(0), "Jan  1 00:00:00");
    }

    #[test]
    fn another_zone_changes_the_text_within_a_second() {
        static GENERATION: AtomicU64 = AtomicU64::new(0);
        let five = TimeZone::fixed(offset(5)).into();
        let mut clock = PerSecond::new(five, &GENERATION);
        let mut made = || {
            let mut made = false;
            let _ = clock.at(7 * SECOND, |_, _, _| made = true);
            made
        };
        assert!(made(), "the first time");
        assert!(!made(), "in the same second");
        GENERATION.fetch_add(1, Ordering::Release);
        assert!(made(), "in another zone");
        assert!(!made(), "once");
    }

    proptest! {
        #[test]
        fn rfc3339_is_that_of_jiff(at in 0..10_000_000_000_000_000_000_u64) {
            let jiff = Timestamp::from_nanosecond(at.into()).unwrap();
            prop_assert_eq!(text(|out| rfc3339(at, 9, out)), format!("{jiff:.9}"));
            prop_assert_eq!(text(|out| rfc3339(at, 6, out)).len(), 27);
        }
    }
}
