//! What a file does not have, though it covers the time: spans of time in which
//! records were lost, how many, and for which reason.

use std::fmt::{self, Display, Formatter};

/// Reason records are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The kernel lost events before flowlog read them, or memory was full while
    /// the spool could not be written.
    Lost,
    /// The spool was full.
    Dropped,
    /// They could not be written, as they were damaged or of another version.
    Refused,
    /// They may be written or not.
    Unsure,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Dropped, Self::Refused, Self::Unsure];

    /// Its name in archives.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Unsure => "unsure",
        }
    }

    /// That of the name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

/// A span of time of which records are missing. It never ends before it begins, whatever
/// a clock did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    since: u64,
    until: u64,
    /// Reason they are missing.
    pub reason: Reason,
    /// How many there are; 0: not known.
    pub records: u64,
    /// Where: the source that lost events, in a database also the bound or the table; else
    /// empty.
    pub source: String,
}

/// A gap within that time of another is a part of it.
const NEAR: u64 = 1_000_000_000;

impl Gap {
    /// The same, with where that was.
    #[must_use]
    pub fn at(self, place: &str) -> Self {
        Self { source: place.to_owned(), ..self }
    }

    /// One of the time between two moments, nanoseconds since the epoch. Where a clock was set
    /// back between them the second one is the earlier.
    pub fn new(reason: Reason, (one, other): (u64, u64), records: u64) -> Self {
        let (since, until) = (one.min(other), one.max(other));
        Self { since, until, reason, records, source: String::new() }
    }

    /// The time of the first of the records at the earliest, nanoseconds since the epoch.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// The time of the last of them at the latest.
    pub fn until(&self) -> u64 {
        self.until
    }

    /// A record of that time is missing too.
    pub fn include(&mut self, time: u64) {
        self.since = self.since.min(time);
        self.until = self.until.max(time);
    }

    /// Takes over one of the same kind that is near; returns whether it has.
    pub fn join(&mut self, other: &Self) -> bool {
        let near = other.since <= self.until.saturating_add(NEAR)
            && self.since <= other.until.saturating_add(NEAR);
        // A sum with a number that is not known would look like one that is.
        let alike = (self.records == 0) == (other.records == 0);
        if !near || !alike || self.reason != other.reason || self.source != other.source {
            return false;
        }
        self.merge(other);
        true
    }

    fn merge(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        let known = self.records > 0 && other.records > 0;
        self.records = if known { self.records.saturating_add(other.records) } else { 0 };
    }
}

/// As in a file: reason, first time, last time, records, source.
impl Display for Gap {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { since, until, reason, records, source } = self;
        write!(f, "{} {since} {until} {records} {source}", reason.name())
    }
}

/// Gaps, in a bounded number.
#[derive(Clone, Debug, Default)]
pub struct Gaps(Vec<Gap>);

impl Gaps {
    /// Of more than these the nearest two of a kind are one.
    const MOST: usize = 256;

    /// Adds one.
    pub fn push(&mut self, gap: Gap) {
        let Self(gaps) = self;
        if gaps.iter_mut().rev().any(|known| known.join(&gap)) {
            return;
        }
        let is_full = gaps.len() >= Self::MOST;
        let alike = |last: &&mut Gap| last.reason == gap.reason && last.source == gap.source;
        match gaps.iter_mut().rev().find(alike) {
            Some(last) if is_full => last.merge(&gap),
            _ => gaps.push(gap),
        }
    }

    /// All of them.
    pub fn all(&self) -> &[Gap] {
        &self.0
    }

    /// Adds all of another.
    pub fn append(&mut self, Self(others): Self) {
        others.into_iter().for_each(|gap| self.push(gap));
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As a file keeps them: a line each.
    pub fn text(&self) -> String {
        self.0.iter().map(|gap| format!("{gap}\n")).collect()
    }

    /// Reads what [`Gaps::text`] has written; `None` if it is something else.
    pub fn parse(text: &str) -> Option<Vec<Gap>> {
        text.lines().map(gap).collect()
    }
}

fn gap(line: &str) -> Option<Gap> {
    let mut words = line.splitn(5, ' ');
    let reason = Reason::of(words.next()?)?;
    let mut number = || words.next()?.parse::<u64>().ok();
    let (since, until, records) = (number()?, number()?, number()?);
    Some(Gap::new(reason, (since, until), records).at(words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(reason: Reason, since: u64, until: u64, records: u64) -> Gap {
        Gap::new(reason, (since, until), records)
    }

    #[test]
    fn gaps_are_read_as_they_were_written() {
        let mut gaps = Gaps::default();
        for (number, reason) in (1..).zip(Reason::ALL) {
            gaps.push(of(reason, number, number * 10, number * 100));
        }
        gaps.push(of(Reason::Lost, 1, 2, 3).at("both sources"));
        assert_eq!(Gaps::parse(&gaps.text()).unwrap(), gaps.all());
        assert_eq!(Gaps::parse(""), Some(Vec::new()));
        for wrong in ["lost 1 2", "gone 1 2 3 ", "lost 1 2 -3 ", "lost one 2 3 "] {
            assert_eq!(Gaps::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_number_that_is_not_known_is_in_no_sum() {
        let mut gaps = Gaps::default();
        for records in [5, 0, 7, 0] {
            gaps.push(of(Reason::Lost, 10, 20, records));
        }
        assert_eq!(gaps.all(), [of(Reason::Lost, 10, 20, 12), of(Reason::Lost, 10, 20, 0)]);
        assert_eq!(Gaps::parse(&gaps.text()).unwrap(), gaps.all());
    }

    #[test]
    fn no_gap_ends_before_it_begins() {
        let gap = of(Reason::Refused, 20, 10, 1);
        assert_eq!((gap.since(), gap.until()), (10, 20));
        let mut joined = of(Reason::Refused, 12, 13, 1);
        assert!(joined.join(&gap));
        assert_eq!((joined.since(), joined.until(), joined.records), (10, 20, 2));
        joined.include(5);
        joined.include(30);
        assert_eq!((joined.since(), joined.until()), (5, 30));
        assert_eq!(
            Gaps::parse("lost 9 4 1 ebpf\n").unwrap(),
            [of(Reason::Lost, 4, 9, 1).at("ebpf")]
        );
    }

    #[test]
    fn near_ones_are_one_and_there_are_not_too_many() {
        let mut gaps = Gaps::default();
        gaps.push(of(Reason::Lost, 10, 20, 1));
        gaps.push(of(Reason::Dropped, 15, 25, 2));
        gaps.push(of(Reason::Lost, 20 + NEAR, 30 + NEAR, 4));
        assert_eq!(
            gaps.all(),
            [of(Reason::Lost, 10, 30 + NEAR, 5), of(Reason::Dropped, 15, 25, 2)]
        );
        for number in 10..10_000 {
            gaps.push(of(Reason::Lost, number * 3 * NEAR, number * 3 * NEAR, 1));
        }
        assert_eq!(gaps.all().len(), Gaps::MOST);
        let all: u64 = gaps.all().iter().map(|gap| gap.records).sum();
        assert_eq!(all, 5 + 2 + 9990);
        assert!(gaps.all().iter().any(|gap| gap.until == 9999 * 3 * NEAR));
    }
}
