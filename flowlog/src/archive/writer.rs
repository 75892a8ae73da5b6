//! When a file is closed, what time it covers, and which rows of the spool are in
//! closed files.
//!
//! A file covers the time from the end of the one before to the time up to which
//! all records are known to have been pushed, also where nothing happened; what is
//! missing of that time it names ([`Gap`]). Where a clock was set it ends with the
//! time before and the next one begins with the time after. Records that an earlier
//! run has left in the spool stand in a file of their own: the time between the runs
//! is in none.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::about::{self, About};
use super::clock::Moment;
use super::coverage::Gap;
use super::directory::{Directory, Removed};
use super::part::Part;
use super::properties::ROW_GROUP;
use super::retention::{Retention, Rules};
use super::{Error, Host};

/// How an archive is kept.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where its files are.
    pub directory: PathBuf,
    /// A file is closed at each multiple of it.
    pub rotate_interval: Duration,
    /// And as soon as it has so many bytes.
    pub rotate_size: u64,
    /// Files that ended before are removed; absent: never.
    pub keep_for: Option<Duration>,
    /// The oldest files are removed until all have no more bytes; absent: never.
    pub keep_bytes: Option<u64>,
}

/// What was done since it was asked for last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    /// Files that were closed.
    pub files: u64,
    /// Records in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were no records, and are lost.
    pub malformed: u64,
    /// What has gone.
    pub removed: Removed,
    /// Files that are due to go all at once: each minute one more goes than are closed.
    pub crowd: u64,
    /// The clock was set.
    pub clock_was_set: bool,
    /// Why old files cannot be removed.
    pub untidy: Option<String>,
}

/// What closed files have of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The last row of the spool that they have.
    pub(super) last: Option<i64>,
    /// The time up to which they have all.
    pub(super) to: u64,
}

/// An archive that is written. Times are nanoseconds since the epoch.
pub struct Archive {
    settings: Settings,
    host: Host,
    directory: Directory,
    retention: Retention,
    part: Option<Part>,
    /// When this run has begun, which is its name.
    own: u64,
    /// The run of which the records in the file are.
    run: u64,
    kept: HashMap<u64, Kept>,
    /// The last row that was pushed of this run.
    last: Option<i64>,
    /// All up to then is in the rows that were pushed of this run, since the clock was set.
    reached: u64,
    /// All records up to then had been pushed when that was heard last.
    complete: Option<u64>,
    /// What was lost on the way here, and is in no closed file.
    lost: Vec<Gap>,
    /// When the clocks were looked at last.
    looked: Moment,
    /// When the file is to be closed, by the steady clock.
    due: u64,
    /// Rows of a row group.
    group: usize,
    closed: Closed,
}

impl Archive {
    /// Opens it for the run `run`, of which it has all since `from`: when events were first
    /// read, or up to when it was covered before it was opened anew.
    ///
    /// # Errors
    /// The directory cannot be used; says what to do.
    pub fn open(
        settings: Settings,
        host: Host,
        run: u64,
        from: u64,
        now: Moment,
    ) -> Result<Self, Error> {
        let directory = Directory::open(&settings.directory)?;
        let mut kept = about::kept(directory.files());
        // Files may have been moved away.
        let own = kept.entry(run).or_default();
        own.to = own.to.max(from);
        let Settings { rotate_interval, keep_for, keep_bytes, .. } = settings;
        let mut archive = Self {
            retention: Retention::new(Rules { rotate_interval, keep_for, keep_bytes }, now),
            settings,
            host,
            directory,
            part: None,
            own: run,
            run,
            kept,
            last: None,
            reached: 0,
            complete: None,
            lost: Vec::new(),
            looked: now,
            due: 0,
            group: ROW_GROUP,
            closed: Closed::default(),
        };
        archive.due = archive.next_due(now);
        Ok(archive)
    }

    /// Which directory it is: its device and inode.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn identity(&self) -> Result<(u64, u64), Error> {
        self.directory.identity()
    }

    /// Whether a closed file has that row of the spool, which that run has made.
    pub fn has(&self, run: u64, row: i64) -> bool {
        self.kept.get(&run).is_some_and(|kept| kept.last.is_some_and(|last| row <= last))
    }

    /// Looks at what goes on around it: whether a clock was set, which ends a file,
    /// and whether its directory is still there. To be called before records are
    /// pushed, and each second.
    ///
    /// # Errors
    /// [`Error::Gone`], or as [`Archive::push`].
    pub fn look(&mut self, now: Moment) -> Result<(), Error> {
        self.directory.is_there(self.part.as_ref().map(Part::file))?;
        let before = std::mem::replace(&mut self.looked, now);
        if now.was_set_since(before) {
            self.closed.clock_was_set = true;
            self.complete = self.complete.filter(|to| *to <= before.wall);
            self.close_by(before)?;
            (self.reached, self.complete) = (0, None);
            let last = self.kept.get(&self.own).and_then(|kept| kept.last);
            self.kept.insert(self.own, Kept { last, to: now.wall });
            self.due = self.next_due(now);
            self.retention.begin(now);
        }
        Ok(())
    }

    /// Up to which time all records have been pushed, if that is known.
    pub fn learn(&mut self, complete: Option<u64>) {
        self.complete = complete.or(self.complete);
    }

    /// What was lost on the way, and was said by no closed file: in place of what was
    /// lost before.
    pub fn lose(&mut self, lost: Vec<Gap>) {
        self.lost = lost;
    }

    /// Losses that are in no closed file yet.
    pub fn losses(&self) -> usize {
        self.lost.len()
    }

    /// What is pushed from now on is of that run.
    ///
    /// # Errors
    /// As [`Archive::push`].
    pub fn begin(&mut self, run: u64) -> Result<(), Error> {
        if run != self.run {
            self.end_with_rows(self.looked)?;
            (self.run, self.last, self.reached) = (run, None, 0);
        }
        Ok(())
    }

    /// Adds a record of that time, as bytes of `plugin/compact.rs`.
    ///
    /// # Errors
    /// It cannot be written. What came since a file was closed is in none then:
    /// it must come again, to an archive that was opened anew.
    pub fn push(&mut self, time: u64, record: &[u8]) -> Result<(), Error> {
        self.part()?.push(time, record)
    }

    /// All records of that row of the spool were pushed, and of those before: all that
    /// happened before `complete`, as far as it was not lost.
    pub fn end_row(&mut self, row: i64, complete: u64) {
        self.last = Some(row);
        self.reached = complete;
    }

    /// A row of the spool could not be read, and is in no file.
    ///
    /// # Errors
    /// As [`Archive::push`].
    pub fn refuse(&mut self, gap: Gap) -> Result<(), Error> {
        self.part()?.lose(gap);
        Ok(())
    }

    /// The file has as many bytes as it may have.
    pub fn is_full(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.bytes() >= self.settings.rotate_size)
    }

    /// When the file is to be closed, by the steady clock.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// Up to when the files of this run cover.
    pub fn covered(&self) -> u64 {
        self.kept.get(&self.own).map_or(0, |kept| kept.to)
    }

    /// Closes the file, and removes old ones. It covers the time up to which all
    /// records are known to have been pushed, and is there also without any. Rows say
    /// that too.
    ///
    /// # Errors
    /// As [`Archive::push`].
    pub fn close(&mut self, now: Moment) -> Result<(), Error> {
        self.close_by(now)?;
        self.due = self.next_due(now);
        self.retention.due_now();
        self.tidy(now);
        Ok(())
    }

    /// Removes what is old or too much, if that is due. That a file cannot be removed is no
    /// reason to write those anew that are closed.
    pub fn tidy(&mut self, now: Moment) {
        match self.retention.tidy(&mut self.directory, now) {
            Ok(done) => {
                self.closed.removed.files += done.removed.files;
                self.closed.removed.bytes += done.removed.bytes;
                self.closed.crowd = self.closed.crowd.max(done.crowd);
            }
            Err(error) => self.closed.untidy = Some(error.to_string()),
        }
    }

    /// Records that are in no closed file.
    pub fn held(&self) -> u64 {
        self.part.as_ref().map_or(0, |part| part.told().rows)
    }

    /// What was done since the last call.
    pub fn take_closed(&mut self) -> Closed {
        std::mem::take(&mut self.closed)
    }

    /// Smaller row groups.
    #[cfg(test)]
    pub(super) fn limit_group(&mut self, rows: usize) {
        self.group = rows;
    }

    fn close_by(&mut self, now: Moment) -> Result<(), Error> {
        if self.run != self.own {
            self.end_with_rows(now)?;
            return self.begin(self.own);
        }
        let complete = self.complete.unwrap_or_default();
        // One of before the clock was set is none.
        let known = [complete, self.reached].into_iter().filter(|to| *to <= now.wall);
        self.end_part(known.max().unwrap_or_default())
    }

    /// Ends the file of another run, if it has any rows. That run may have had more
    /// of the time of the last of them.
    fn end_with_rows(&mut self, now: Moment) -> Result<(), Error> {
        if self.part.is_none() {
            return Ok(());
        }
        if self.run == self.own {
            return self.close_by(now);
        }
        self.end_part(self.reached)
    }

    fn part(&mut self) -> Result<&mut Part, Error> {
        match &mut self.part {
            Some(part) => Ok(part),
            none => {
                let part = Part::begin(self.directory.begin()?, &self.host, self.group)?;
                Ok(none.insert(part))
            }
        }
    }

    /// Ends the file, which has all up to `to` that is not named as lost.
    fn end_part(&mut self, to: u64) -> Result<(), Error> {
        let Self { run, last, .. } = *self;
        // Of an earlier run whose files have gone no more is known than what is in this one.
        let first = self.part.as_ref().map_or(to, |part| part.told().times.0.min(to));
        let before = self.kept.get(&run).copied().unwrap_or(Kept { last: None, to: first });
        let (from, to) = (before.to, to.max(before.to));
        if from == to && self.part.is_none() && self.lost.is_empty() {
            return Ok(());
        }
        self.part()?;
        let Some(mut part) = self.part.take() else { return Ok(()) };
        self.lost.drain(..).for_each(|gap| part.lose(gap));
        let last = last.or(before.last);
        let host = &self.host;
        let (told, bytes) =
            part.end(&About { host, run, from, to, last, is_own: run == self.own })?;
        let rows = (told.rows > 0).then_some(told.times);
        let (first, end) = rows.map_or((from, to), |(first, last)| (first, last + 1));
        self.directory.keep(from.min(first), to.max(end))?;
        self.kept.insert(run, Kept { last, to });
        self.closed.files += 1;
        self.closed.records += told.rows;
        self.closed.bytes += bytes;
        self.closed.malformed += told.malformed;
        Ok(())
    }

    /// The next multiple of the interval, as far away as it is now.
    fn next_due(&self, now: Moment) -> u64 {
        let interval = self.settings.rotate_interval.as_nanos().max(1) as u64;
        now.steady.saturating_add(interval - now.wall % interval)
    }
}

impl Drop for Archive {
    /// Rows that are in no closed file are still in the spool.
    fn drop(&mut self) {
        self.part = None;
        // Else the next one who opens it does.
        let _ = self.directory.discard();
    }
}
