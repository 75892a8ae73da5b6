//! Which files of an archive go. Age is what the archive has logged since, not
//! what a clock says: a file goes when the files behind it cover more than
//! `keep_for`. Time that no file covers, because flowlog did not run or because the
//! clock was set, counts only when flowlog has run for a day with that clock, and
//! then slowly: one file more each minute than are closed in it.

use std::time::Duration;

use super::Error;
use super::clock::Moment;
use super::directory::{Directory, Entry, Removed};

/// More files than these, or files of more time than this, are not removed at once.
const MOST_FILES: usize = 24;
const MOST_TIME: Duration = Duration::from_hours(24);
/// One more than were closed meanwhile is removed each time, so that their number shrinks.
const PACE: Duration = Duration::from_mins(1);
/// How long flowlog must have run with a clock for time that was not logged to count.
const TRUST: Duration = Duration::from_hours(24);
/// A file may cover so much more than the interval after which it is closed.
const LATE: Duration = Duration::from_mins(1);

/// What is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// No file covers more.
    pub(super) rotate_interval: Duration,
    /// Files that ended so long ago go.
    pub(super) keep_for: Option<Duration>,
    /// Bytes of all files.
    pub(super) keep_bytes: Option<u64>,
}

/// Removes files.
#[derive(Debug)]
pub(super) struct Retention {
    rules: Rules,
    /// Since when the clock was not set.
    begun: Moment,
    /// When to look again, by the steady clock; absent: not before a file is closed.
    due: Option<u64>,
    /// Many are removed slowly, which was logged.
    slow: bool,
    /// Files that were closed since some were removed.
    closed: usize,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    pub(super) removed: Removed,
    /// Files that are to go, of which few have: logged once.
    pub(super) crowd: u64,
}

/// A file that is to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Old {
    /// Its place among the files, the oldest first.
    place: usize,
    /// Milliseconds that it covers.
    covers: u64,
    /// Only by time that nothing was logged of.
    by_clock: bool,
}

impl Retention {
    pub(super) fn new(rules: Rules, now: Moment) -> Self {
        Self { rules, begun: now, due: None, slow: false, closed: 0 }
    }

    /// The clock was set, or begins to be trusted.
    pub(super) fn begin(&mut self, now: Moment) {
        self.begun = now;
    }

    /// A file was closed.
    pub(super) fn due_now(&mut self) {
        self.closed += 1;
        self.due.get_or_insert(0);
    }

    /// Removes what is old or too much; the newest file stays.
    pub(super) fn tidy(&mut self, directory: &mut Directory, now: Moment) -> Result<Done, Error> {
        let Rules { keep_for, keep_bytes, .. } = self.rules;
        let is_due = self.due.is_some_and(|due| due <= now.steady);
        if !is_due || keep_for.is_none() && keep_bytes.is_none() {
            return Ok(Done::default());
        }
        directory.read()?;
        let trusted = now.steady.saturating_sub(self.begun.steady) >= TRUST.as_nanos() as u64;
        let old = old(directory.files(), self.rules, trusted);
        let closed = std::mem::take(&mut self.closed);
        // Once begun, the last of them go as slowly.
        let slow = is_slow(&old) || self.slow && !old.is_empty();
        let mut done = Done::default();
        if slow && !std::mem::replace(&mut self.slow, slow) {
            done.crowd = old.len() as u64;
        }
        self.slow = slow;
        self.due = slow.then(|| now.steady.saturating_add(PACE.as_nanos() as u64));
        let most = if slow { closed + 1 } else { old.len() };
        let places: Vec<usize> = old.iter().take(most).map(|old| old.place).collect();
        done.removed = directory.remove(&places)?;
        Ok(done)
    }
}

/// They do not go at once.
fn is_slow(old: &[Old]) -> bool {
    let covers: u64 = old.iter().map(|old| old.covers).sum();
    old.len() > MOST_FILES
        || old.len() > 1 && u128::from(covers) > MOST_TIME.as_millis()
        || old.iter().any(|old| old.by_clock)
}

/// The files that are to go, the oldest first.
fn old(files: &[Entry], rules: Rules, trusted: bool) -> Vec<Old> {
    let Rules { rotate_interval, keep_for, keep_bytes } = rules;
    let keep = keep_for.map_or(u128::MAX, |keep| keep.as_millis());
    let most = (rotate_interval + LATE).as_millis() as u64;
    let Some((newest, others)) = files.split_last() else { return Vec::new() };
    let mut covers = Vec::with_capacity(files.len());
    let mut to = None;
    for file in files {
        // Files overlap a little, where records came late.
        let from = to.map_or(file.from, |to| file.from.max(to));
        covers.push(u64::try_from(file.to - from).unwrap_or(0).min(most));
        to = Some(file.to);
    }
    let (mut age, mut bytes) = (0, 0);
    let mut old = Vec::new();
    let behind = files.iter().zip(&covers).skip(1).rev();
    for ((place, file), (after, covered)) in others.iter().enumerate().rev().zip(behind) {
        age += u128::from(*covered);
        bytes += after.bytes;
        let elapsed = u128::try_from(newest.to - file.to).unwrap_or(0);
        let is_old = age > keep;
        let too_much = keep_bytes.is_some_and(|most| bytes + file.bytes > most);
        let by_clock = trusted && elapsed > keep;
        if is_old || too_much || by_clock {
            let by_clock = !is_old && !too_much;
            old.push(Old { place, covers: covers[place], by_clock });
        }
    }
    old.reverse();
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    /// Files of a quarter of an hour each, from these minutes on.
    fn files(begins: &[i64]) -> Vec<Entry> {
        let file = |begin: &i64| Entry {
            path: format!("{begin}").into(),
            from: begin * MINUTE,
            to: (begin + 15) * MINUTE,
            bytes: 10,
        };
        begins.iter().map(file).collect()
    }

    fn rules(keep_for: Option<u64>, keep_bytes: Option<u64>) -> Rules {
        let rotate_interval = Duration::from_mins(15);
        Rules { rotate_interval, keep_for: keep_for.map(Duration::from_mins), keep_bytes }
    }

    fn places(files: &[Entry], rules: Rules, trusted: bool) -> Vec<usize> {
        old(files, rules, trusted).iter().map(|old| old.place).collect()
    }

    #[test]
    fn age_is_what_was_logged_since() {
        let steady = files(&[0, 15, 30, 45, 60]);
        assert_eq!(places(&steady, rules(Some(30), None), false), [0, 1]);
        assert_eq!(places(&steady, rules(Some(60), None), false), [0; 0]);
        assert_eq!(places(&steady, rules(Some(0), None), false), [0, 1, 2, 3]);
        assert_eq!(places(&steady, rules(None, Some(35)), false), [0, 1]);
        assert_eq!(places(&steady, rules(None, Some(1)), false), [0, 1, 2, 3]);
        assert_eq!(places(&[], rules(Some(0), Some(0)), true), [0; 0]);
    }

    #[test]
    fn a_clock_that_was_set_makes_nothing_old() {
        // Two days ahead; and a file whose last record is from then.
        let mut ahead = files(&[0, 15, 30, 45, 60 + 2 * 24 * 60]);
        let keep = rules(Some(24 * 60), None);
        assert_eq!(places(&ahead, keep, false), [0; 0]);
        ahead[3].to = ahead[4].from + 5;
        assert_eq!(places(&ahead, keep, false), [0; 0]);
        // Back again: names go on from there.
        let newest = ahead[4].to;
        ahead.push(Entry { from: newest, to: newest + 1, ..ahead[0].clone() });
        assert_eq!(places(&ahead, keep, false), [0; 0]);
        // After a day with that clock it is believed, and they go one by one.
        let old = old(&ahead, keep, true);
        assert_eq!(old.len(), 3);
        assert!(is_slow(&old[..1]) && is_slow(&old));
    }

    #[test]
    fn many_do_not_go_at_once() {
        let day: Vec<i64> = (0..96).map(|quarter| quarter * 15).collect();
        let keep = |minutes| old(&files(&day), rules(Some(minutes), None), false);
        let most = keep(24 * 60 - 15 * 25);
        assert_eq!((most.len(), is_slow(&most)), (24, false));
        let more = keep(24 * 60 - 15 * 26);
        assert_eq!((more.len(), is_slow(&more)), (25, true));
        // Of long files a few are a day.
        let long = |begin: i64| Old { place: begin as usize, covers: 86_400_000, by_clock: false };
        assert!(!is_slow(&[long(0)]) && is_slow(&[long(0), long(1)]));
    }
}
