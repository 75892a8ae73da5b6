//! The thread that alone writes a database: it commits, brings the log into the database and
//! waits for disks and locks, so that the engine's thread waits for none of them.

use std::mem;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid};
use tracing::{info, warn};

use super::commits::Commits;
use super::coverage::Cover;
use super::database::{self, Database, Notes, Written};
use super::failure::Failure;
use super::queue::{Job, Queue};
use super::synchronized::is_synchronized;
use super::{Schema, Settings};
use crate::archive::clock::Moment;
use crate::archive::coverage::Gaps;
use crate::archive::origin::Origin;
use crate::plugin::beneath::{self, Fate};
use crate::plugin::stall::Stall;
use crate::ratelimit::RateLimit;
use crate::stats::{Amount, Measure, Part, SinkStats};

/// After which time what failed is tried again: at first, and at the most where the file cannot
/// be opened; at the end of the daemon.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_OPEN: Duration = Duration::from_secs(8);
const RETRY_AT_END: Duration = Duration::from_millis(100);
/// How often the file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);
/// How often the time that is covered is written: together with rows, and without any.
const COVER: Duration = Duration::from_secs(1);
pub(crate) const COVER_IDLE: Duration = Duration::from_secs(10);
/// Bytes that are taken before they are written.
const TAKEN: u64 = 16 << 20;

/// What the writer's thread tells the engine's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Since when rows wait.
    pub(crate) stall: Stall,
    /// Which rows are written, and which may be.
    pub(crate) commits: Commits,
    /// Which tables are written, once that is known.
    pub(crate) schema: Arc<OnceLock<Schema>>,
}

/// The writer of a database.
pub(crate) struct Writer {
    path: PathBuf,
    sync: bool,
    /// The table of ulogd2 that is written if it is there.
    table: String,
    /// Absent while it cannot be opened.
    database: Option<Database>,
    /// Nothing stood there at start.
    created: bool,
    /// Rows were made before it was known which tables are written.
    was_unknown: bool,
    queue: Queue,
    gaps: Gaps,
    cover: Cover,
    /// Where the records come from, as the coverage states it.
    origin: Option<String>,
    failing: bool,
    /// Failures since it worked.
    failures: u32,
    retry: Instant,
    looked: Instant,
    /// When to end at the latest, once it is to end.
    end: Option<Instant>,
    /// It is to end, and what failed does not pass by itself.
    hopeless: bool,
    complaints: RateLimit,
    replacements: RateLimit,
    progress: Progress,
    stats: SinkStats,
}

impl Writer {
    /// Opens the database, at start. One that is damaged is set aside; one that is locked, or whose
    /// disk is full, is awaited.
    ///
    /// # Errors
    /// It cannot be used, and that does not pass.
    pub(crate) fn open(settings: &Settings, stats: SinkStats) -> Result<Self, Failure> {
        let Settings { db, table, sync, .. } = settings;
        // A daemon leaves its directory; the file is opened anew by this path.
        let path = std::path::absolute(db).unwrap_or_else(|_| db.clone());
        let now = Instant::now();
        let mut writer = Self {
            created: !path.exists(),
            path,
            sync: *sync,
            table: table.clone(),
            database: None,
            was_unknown: false,
            queue: Queue::default(),
            gaps: Gaps::default(),
            cover: Cover::default(),
            origin: None,
            failing: false,
            failures: 0,
            retry: now,
            looked: now,
            end: None,
            hopeless: false,
            complaints: RateLimit::per_second(),
            replacements: RateLimit::per_second(),
            progress: Progress::default(),
            stats,
        };
        if table.is_empty() {
            writer.decide(&Schema::Own);
        }
        let opened = match writer.open_database() {
            Err(failure) if failure.is_damage_of(&writer.path) => {
                writer.set_aside(&failure)?;
                writer.created = true;
                writer.open_database()
            }
            opened => opened,
        };
        match opened {
            Err(failure) if failure.may_pass(&writer.path) => writer.failed(failure),
            opened => opened?,
        }
        writer.was_unknown = writer.schema().is_none();
        Ok(writer)
    }

    /// Has the coverage state where records come from.
    pub(crate) fn state(&mut self, origin: &Origin) {
        self.origin = Some(origin.to_string());
    }

    /// The file, by its full path.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    fn schema(&self) -> Option<&Schema> {
        self.progress.schema.get()
    }

    #[cfg(test)]
    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    /// Hands the files that were made at start to a user.
    pub(crate) fn give_to(&self, uid: Uid, gid: Gid) {
        if !self.created {
            return;
        }
        for file in beneath::files(&self.path) {
            match nix::unistd::chown(&file, Some(uid), Some(gid)) {
                Ok(()) | Err(nix::errno::Errno::ENOENT) => {}
                Err(error) => {
                    warn!("the owner of {} could not be changed: {error}", file.display());
                }
            }
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Writes until the daemon ends. Events were taken since `since`, nanoseconds since the
    /// epoch.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>, since: u64) {
        if !matches!(self.schema(), Some(Schema::Ulogd(_))) {
            self.cover.begin(since);
        }
        loop {
            self.receive(jobs);
            self.look();
            if self.is_due() && Instant::now() >= self.retry {
                self.write(if self.end.is_some() { Duration::ZERO } else { COVER });
            }
            if let Some(end) = self.end
                && (self.hopeless || !self.is_due() || Instant::now() >= end)
            {
                break;
            }
        }
        self.leave();
    }

    /// Takes what there is to do, and waits for it if there is nothing.
    fn receive(&mut self, jobs: &Receiver<Job>) {
        let now = Instant::now();
        let wait = match self.is_due() {
            true => self.retry.saturating_duration_since(now),
            false => LOOK,
        };
        let mut bytes = 0;
        let mut job = match jobs.recv_timeout(wait.min(LOOK)) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => {
                // The sink was dropped.
                self.end.get_or_insert(now);
                None
            }
        };
        while let Some(taken) = job {
            bytes += self.take(taken);
            job = if bytes < TAKEN { jobs.try_recv().ok() } else { None };
        }
    }

    /// Takes a job; returns its bytes.
    fn take(&mut self, job: Job) -> u64 {
        match job {
            Job::Write(mut chunk, until) => {
                self.gaps.append(mem::take(&mut chunk.gaps));
                let amount = chunk.amount();
                if self.was_unknown
                    && let Some(schema) = self.progress.schema.get()
                {
                    chunk = chunk.decided(schema);
                    let Amount { bytes, records } = chunk.amount();
                    self.stats.take_waiting(Amount {
                        bytes: amount.bytes - bytes,
                        records: amount.records - records,
                    });
                }
                self.queue.push(chunk, until);
                self.release(0);
                amount.bytes
            }
            Job::ClockSet(now) => {
                self.queue.push_clock_set(now);
                self.release(0);
                0
            }
            Job::Reopen => {
                self.reopen();
                0
            }
            Job::End(deadline) => {
                self.end = Some(deadline);
                // Once more, whatever the last attempt was.
                self.retry = Instant::now();
                0
            }
        }
    }

    /// Forgets rows, and goes past the marks that follow them; returns how much that is.
    fn release(&mut self, rows: u64) -> Amount {
        let (released, marks) = self.queue.release(rows);
        marks.into_iter().for_each(|mark| self.cover.pass(mark));
        released
    }

    /// There is something to write, or the file is to be opened.
    fn is_due(&self) -> bool {
        if !self.queue.is_empty() || !self.gaps.is_empty() {
            return true;
        }
        match (&self.database, self.end) {
            // At the end it is not awaited for nothing.
            (None, end) => end.is_none(),
            (Some(_), None) => self.cover.is_due(COVER_IDLE),
            (Some(_), Some(_)) => self.cover.is_due(Duration::ZERO),
        }
    }

    /// Looks whether the file still has its name.
    fn look(&mut self) {
        if self.looked.elapsed() < LOOK {
            return;
        }
        self.looked = Instant::now();
        match self.database.as_ref().map(Database::fate) {
            None | Some(Fate::InPlace) => {}
            Some(Fate::Removed) => self.failed(Failure::removed()),
            Some(Fate::Renamed) => {
                info!("{} was renamed", self.path.display());
                self.stats.add(Measure::Replaced, 1);
                self.reopen();
            }
        }
    }

    /// Opens the file anew, for rotation: what stands in its place now, or a new one. If that
    /// fails rows wait.
    fn reopen(&mut self) {
        if Instant::now() < self.retry {
            // The last attempt has just failed: it is opened anew with the next.
            self.leave();
            return;
        }
        // What was logged before belongs into the old file, and up to when that is.
        while (!self.queue.is_empty() || self.cover.is_due(Duration::ZERO))
            && self.write(Duration::ZERO)
        {}
        self.leave();
        match self.connect() {
            Ok(()) => info!("{} opened anew", self.path.display()),
            Err(failure) => self.failed(failure),
        }
    }

    /// Closes the database. What was moved away takes its log with it.
    fn leave(&mut self) {
        if let Some(database) = self.database.take() {
            database.leave();
        }
    }

    fn connect(&mut self) -> Result<(), Failure> {
        if self.database.is_some() {
            return Ok(());
        }
        // Its directory may have been removed with it; what is missing is told by SQLite.
        let _ = beneath::make_directory_of(&self.path);
        self.open_database()
    }

    fn open_database(&mut self) -> Result<(), Failure> {
        let known = self.progress.schema.get();
        let (database, schema) = Database::open(&self.path, self.sync, &self.table, known)?;
        self.decide(&schema);
        if self.progress.commits.in_doubt() > 0 {
            database.settle()?;
        }
        self.cover.goes_on_in(&database, Moment::now().wall);
        self.database = Some(database);
        Ok(())
    }

    /// These tables are written, from now on always.
    fn decide(&mut self, schema: &Schema) {
        if self.progress.schema.set(schema.clone()).is_err() {
            return;
        }
        let (path, table) = (self.path.display(), &self.table);
        match schema {
            Schema::Ulogd(found) => {
                let columns = found.columns();
                info!("{path}: the {columns} columns of its table {table} are written");
                self.cover.clear();
            }
            Schema::Own if table.is_empty() => {}
            Schema::Own => info!("{path} has no table {table}: flowlog's own tables are written"),
        }
        let less = self.queue.decide(schema);
        self.stats.take_waiting(less);
    }

    /// Writes what can be written in a moment, and the time that is covered if it was not for
    /// `period`; returns whether that worked.
    fn write(&mut self, period: Duration) -> bool {
        match self.transact(period) {
            Ok(written) => {
                self.count(written);
                true
            }
            Err(failure) => {
                self.failed(failure);
                false
            }
        }
    }

    fn transact(&mut self, period: Duration) -> Result<Written, Failure> {
        self.connect()?;
        let Self { database, queue, gaps, cover, origin, progress, .. } = self;
        let Some(database) = database else { return Ok(Written::default()) };
        let now = Moment::now();
        let runs = cover.due(period, now);
        let is_right = || !runs.is_empty() && is_synchronized();
        let ahead = cover.ahead(now, is_right);
        let notes = Notes { gaps, runs: &runs, origin: origin.as_deref(), ahead };
        let written = database.write(queue.each(), notes, &progress.commits)?;
        if ahead.is_some() {
            cover.has_looked();
        }
        Ok(written)
    }

    fn count(&mut self, written: Written) {
        let Written { rows, repeated, refused, why, runs, .. } = written;
        let new = rows - repeated - refused;
        let commits = self.progress.commits.clone();
        let counted = commits.done(rows, || {
            self.stats.add(Measure::Records, new);
            self.stats.add(Measure::Repeated, repeated);
            self.stats.add(Measure::Refused, refused);
            self.gaps = Gaps::default();
            self.cover.written(new, &runs, self.database.as_ref());
            let released = self.release(rows);
            self.stats.take_waiting(released);
        });
        if !counted {
            self.hopeless = true;
            return;
        }
        self.failures = 0;
        if self.stats.waiting() == Amount::default() {
            self.progress.stall.clear();
        } else {
            self.progress.stall.progress();
        }
        if let Some(why) = why
            && self.complaints.allow()
        {
            warn!(
                "{} refuses rows, {refused} are lost: {why}; see what the table demands",
                self.path.display()
            );
        }
        if mem::take(&mut self.failing) {
            self.stats.set_trouble(Part::Destination, None);
            info!("{} can be written again", self.path.display());
        }
    }

    #[cold]
    fn failed(&mut self, failure: Failure) {
        if failure.is_given_up() {
            self.hopeless = true;
            return;
        }
        self.stats.add(Measure::Errors, 1);
        if failure.is_removal() || failure.is_damage() {
            self.cover.rows_have_gone();
        }
        let failure = if failure.is_removal() {
            self.leave();
            self.stats.add(Measure::Replaced, 1);
            failure
        } else if failure.is_damage() {
            match self.set_aside(&failure) {
                Ok(()) => failure,
                Err(failure) => failure,
            }
        } else {
            if !failure.passes() {
                // The file may be another one by then.
                self.leave();
            } else if let Some(database) = &self.database {
                // The disk may be full of it.
                database.use_log_again();
            }
            failure
        };
        if self.complaints.allow() {
            let Amount { bytes, records } = self.stats.waiting();
            let lost = self.stats.get(Measure::Lost);
            warn!(
                "{} cannot be written: {failure}. {records} records ({bytes} bytes) wait, {lost} \
                 are lost so far",
                self.path.display()
            );
        }
        self.stats.set_trouble(Part::Destination, Some(failure.to_string()));
        self.failing = true;
        // A file that is not there any more is made anew at once, but not in a loop.
        let anew = self.database.is_none() && (failure.is_removal() || failure.is_damage());
        let again = anew && self.replacements.allow();
        self.hopeless = self.end.is_some() && !again && failure.is_lasting();
        let wait = match self.end {
            _ if again => Duration::ZERO,
            Some(_) => RETRY_AT_END,
            None if self.database.is_none() => {
                RETRY.saturating_mul(1 << self.failures.min(4)).min(RETRY_OPEN)
            }
            None => RETRY,
        };
        self.failures += 1;
        self.retry = Instant::now() + wait;
    }

    /// Renames a database that is damaged.
    fn set_aside(&mut self, why: &Failure) -> Result<(), Failure> {
        let aside = match self.database.take() {
            Some(database) if database.fate() == Fate::InPlace => database.set_aside()?,
            // Another file stands there by now.
            Some(database) => {
                drop(database);
                return Ok(());
            }
            // It was found when it was opened.
            None if why.is_damage_of(&self.path) => database::set_aside(&self.path)?,
            None => return Ok(()),
        };
        self.stats.add(Measure::SetAside, 1);
        warn!(
            "{} was damaged. It is {} now, with the rows that can be read, and a new one is begun",
            self.path.display(),
            aside.display()
        );
        Ok(())
    }
}
