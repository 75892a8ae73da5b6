//! When a file is closed, what time it covers, and which rows of the spool are in
//! closed files.
//!
//! A file covers the time from the end of the one before to its own end, also
//! where nothing happened. Records that an earlier run has left in the spool
//! stand in a file of their own, which ends with the last of them: nobody knows
//! of the time between the runs.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::about::{self, About};
use super::directory::{Directory, Removed};
use super::part::Part;
use super::properties::ROW_GROUP;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

/// What closed files have of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The last row of the spool that they have.
    pub(super) last: Option<i64>,
    /// The time up to which they have all.
    pub(super) to: u64,
}

/// An archive that is written. All times are nanoseconds since the epoch.
pub struct Archive {
    settings: Settings,
    host: Host,
    directory: Directory,
    part: Option<Part>,
    /// When this run has begun, which is its name.
    own: u64,
    /// The run of which the records in the file are.
    run: u64,
    kept: HashMap<u64, Kept>,
    /// The last row that was pushed of this run.
    last: Option<i64>,
    due: u64,
    /// Rows of a row group.
    group: usize,
    closed: Closed,
}

impl Archive {
    /// Opens it for the run that has begun at `run`.
    ///
    /// # Errors
    /// The directory cannot be used; says what to do.
    pub fn open(settings: Settings, host: Host, run: u64, now: u64) -> Result<Self, Error> {
        let directory = Directory::open(&settings.directory)?;
        let kept = about::kept(&directory.files()?);
        let mut archive = Self {
            settings,
            host,
            directory,
            part: None,
            own: run,
            run,
            kept,
            last: None,
            due: 0,
            group: ROW_GROUP,
            closed: Closed::default(),
        };
        archive.due = archive.next_due(now);
        Ok(archive)
    }

    /// Whether a closed file has that row of the spool, which that run has made.
    pub fn has(&self, run: u64, row: i64) -> bool {
        self.kept.get(&run).is_some_and(|kept| kept.last.is_some_and(|last| row <= last))
    }

    /// What is pushed from now on is of that run.
    ///
    /// # Errors
    /// As [`Archive::push`].
    pub fn begin(&mut self, run: u64) -> Result<(), Error> {
        if run != self.run {
            self.end_with_rows()?;
            (self.run, self.last) = (run, None);
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

    /// All records of that row of the spool were pushed, and of those before.
    pub fn end_row(&mut self, row: i64) {
        self.last = Some(row);
    }

    /// The file has as many bytes as it may have.
    pub fn is_full(&self) -> bool {
        self.part.as_ref().is_some_and(|part| part.bytes() >= self.settings.rotate_size)
    }

    /// When the file is to be closed.
    pub fn due(&self) -> u64 {
        self.due
    }

    /// Closes the file, and removes old ones. With `complete` all that happened
    /// before `now` was pushed: the file covers that, though it may be empty. Else
    /// more may wait, and it covers what it has.
    ///
    /// # Errors
    /// As [`Archive::push`].
    pub fn close(&mut self, now: u64, complete: bool) -> Result<(), Error> {
        if self.run == self.own && complete {
            let to = self.end_of_rows().map_or(now, |end| end.max(now));
            self.end_part(to)?;
        } else {
            self.end_with_rows()?;
            self.begin(self.own)?;
        }
        self.due = self.next_due(now);
        let Settings { keep_for, keep_bytes, .. } = self.settings;
        let removed = self.directory.tidy(now, keep_for, keep_bytes)?;
        self.closed.removed.files += removed.files;
        self.closed.removed.bytes += removed.bytes;
        Ok(())
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

    /// Ends the file with the last of its rows, if it has any.
    fn end_with_rows(&mut self) -> Result<(), Error> {
        match self.end_of_rows() {
            Some(end) => self.end_part(end),
            None => Ok(()),
        }
    }

    /// After the last row.
    fn end_of_rows(&self) -> Option<u64> {
        let told = self.part.as_ref()?.told();
        (told.rows > 0).then(|| told.times.1 + 1)
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

    fn end_part(&mut self, to: u64) -> Result<(), Error> {
        self.part()?;
        let Some(part) = self.part.take() else { return Ok(()) };
        let Self { run, last, ref host, .. } = *self;
        let before = self.kept.get(&run).copied().unwrap_or(Kept { last: None, to: run });
        let from = before.to.min(part.told().times.0).min(to);
        let last = last.or(before.last);
        let (told, bytes) = part.end(&About { host, run, from, to, last })?;
        self.directory.keep(from, to)?;
        self.kept.insert(run, Kept { last, to: to.max(before.to) });
        self.closed.files += 1;
        self.closed.records += told.rows;
        self.closed.bytes += bytes;
        self.closed.malformed += told.malformed;
        Ok(())
    }

    fn next_due(&self, now: u64) -> u64 {
        let interval = self.settings.rotate_interval.as_nanos().max(1) as u64;
        (now / interval + 1).saturating_mul(interval)
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
