//! The thread that alone writes a database: it commits, brings the log into the database and
//! waits for disks and locks, so that the engine's thread waits for none of them.

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::coverage::Run;
use super::database::{self, Database, Notes, Written};
use super::failure::Failure;
use super::queue::{Chunk, Queue};
use super::{Schema, Settings};
use crate::archive::coverage::Gaps;
use crate::archive::origin::Origin;
use crate::plugin::beneath::{self, Fate};
use crate::plugin::stall::Stall;
use crate::ratelimit::RateLimit;
use crate::stats::{Amount, Measure, Part, SinkStats};

/// How often a transaction that failed is tried again, and that at the end of the daemon.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_AT_END: Duration = Duration::from_millis(100);
/// How often the file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);
/// How often the time that is covered is written: together with rows, and without any.
const COVER: Duration = Duration::from_secs(1);
pub(crate) const COVER_IDLE: Duration = Duration::from_secs(10);
/// Bytes that are taken before they are written.
const TAKEN: u64 = 16 << 20;

/// What the engine's thread asks for.
#[derive(Debug)]
pub(crate) enum Job {
    /// To write rows, which were handed over up to a time (nanoseconds since the epoch).
    Write(Chunk, u64),
    /// To open the file anew, once all that came before is written.
    Reopen,
    /// To end: when all is written, or at that time.
    End(Instant),
}

/// What the writer's thread tells the engine's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// Since when rows wait.
    pub(crate) stall: Stall,
    /// Rows that are being committed.
    pub(crate) in_flight: Arc<AtomicU64>,
}

/// The writer of a database.
pub(crate) struct Writer {
    path: PathBuf,
    sync: bool,
    schema: Schema,
    /// Absent while it cannot be opened.
    database: Option<Database>,
    queue: Queue,
    gaps: Gaps,
    cover: Cover,
    /// Where the records come from, as the coverage states it.
    origin: Option<String>,
    failing: bool,
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

/// What the database covers; nothing, where the tables are ulogd2's.
#[derive(Debug, Default)]
struct Cover {
    run: Option<Run>,
    /// When it was written.
    written: Option<Instant>,
    /// It has changed since.
    changed: bool,
    /// The file that has its row.
    file: Option<(u64, u64)>,
}

impl Writer {
    /// Opens the database, at start. One that is damaged is set aside.
    ///
    /// # Errors
    /// It cannot be used.
    pub(crate) fn open(settings: &Settings, stats: SinkStats) -> Result<Self, Failure> {
        let Settings { db, table, sync, .. } = settings;
        // A daemon leaves its directory; the file is opened anew by this path.
        let path = std::path::absolute(db).unwrap_or_else(|_| db.clone());
        let (database, schema) = match Database::start(&path, *sync, table) {
            Err(failure) if failure.is_damage_of(&path) => {
                let aside = database::set_aside(&path)?;
                stats.add(Measure::SetAside, 1);
                warn!(
                    "{} is damaged: {failure}. It is {} now, and a new one is begun",
                    path.display(),
                    aside.display()
                );
                Database::start(&path, *sync, table)?
            }
            started => started?,
        };
        let now = Instant::now();
        Ok(Self {
            path,
            sync: *sync,
            schema,
            database: Some(database),
            queue: Queue::default(),
            gaps: Gaps::default(),
            cover: Cover::default(),
            origin: None,
            failing: false,
            retry: now,
            looked: now,
            end: None,
            hopeless: false,
            complaints: RateLimit::per_second(),
            replacements: RateLimit::per_second(),
            progress: Progress::default(),
            stats,
        })
    }

    /// Has the coverage state where records come from.
    pub(crate) fn state(&mut self, origin: &Origin) {
        self.origin = Some(origin.to_string());
    }

    /// The file, by its full path.
    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    pub(crate) fn schema(&self) -> &Schema {
        &self.schema
    }

    pub(crate) fn database(&self) -> Option<&Database> {
        self.database.as_ref()
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Writes until the daemon ends. Events were taken since `since`, nanoseconds since the
    /// epoch.
    pub(crate) fn run(mut self, jobs: &Receiver<Job>, since: u64) {
        if self.schema == Schema::Own {
            self.cover.run = Some(Run { since, ..Run::default() });
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
                let Amount { bytes, .. } = chunk.amount();
                if let Some(until) = self.queue.push(chunk, until) {
                    self.cover.reaches(until);
                }
                bytes
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

    /// There is something to write, or the file is to be opened.
    fn is_due(&self) -> bool {
        let written = !self.queue.is_empty() || !self.gaps.is_empty() || self.database.is_none();
        written || self.cover.is_due(if self.end.is_some() { Duration::ZERO } else { COVER_IDLE })
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
        let database = Database::open(&self.path, self.sync, &self.schema)?;
        self.cover.goes_on_in(&database);
        self.database = Some(database);
        Ok(())
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
        let run = cover.run.as_ref().filter(|_| cover.is_due(period));
        database.write(
            queue.each(),
            Notes { gaps, run, origin: origin.as_deref() },
            &progress.in_flight,
        )
    }

    fn count(&mut self, written: Written) {
        let Written { rows, repeated, refused, why, run } = written;
        let new = rows - repeated - refused;
        self.stats.add(Measure::Records, new);
        self.stats.add(Measure::Repeated, repeated);
        self.stats.add(Measure::Refused, refused);
        self.gaps = Gaps::default();
        self.cover.written(new, run, self.database.as_ref());
        let (released, until) = self.queue.release(rows);
        self.stats.take_waiting(released);
        if let Some(until) = until {
            self.cover.reaches(until);
        }
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
        self.stats.add(Measure::Errors, 1);
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
        self.hopeless = self.end.is_some() && !again && !failure.passes();
        let wait = match self.end {
            _ if again => Duration::ZERO,
            Some(_) => RETRY_AT_END,
            None => RETRY,
        };
        self.retry = Instant::now() + wait;
    }

    /// Renames a database that was damaged while it was open.
    fn set_aside(&mut self, why: &Failure) -> Result<(), Failure> {
        let aside = match self.database.take() {
            Some(database) if database.fate() == Fate::InPlace => database.set_aside()?,
            // Another file stands there by now.
            Some(database) => {
                drop(database);
                return Ok(());
            }
            // It was found when it was opened anew.
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

impl Cover {
    /// All records up to that time are committed.
    fn reaches(&mut self, until: u64) {
        if let Some(run) = &mut self.run {
            // What happened before it began is not known, nor after a clock was set back.
            run.until = Some(until).filter(|until| *until >= run.since);
            self.changed = true;
        }
    }

    /// It is to be written, and has not been for `period`.
    fn is_due(&self, period: Duration) -> bool {
        let Some(run) = &self.run else { return false };
        let long_ago = self.written.is_none_or(|written| written.elapsed() >= period);
        run.row.is_none() || self.changed && long_ago
    }

    /// Records were committed, and the run in that row of the database.
    fn written(&mut self, records: u64, row: Option<i64>, database: Option<&Database>) {
        let Some(run) = &mut self.run else { return };
        run.records += records;
        self.changed |= records > 0;
        if let Some(row) = row {
            run.row = Some(row);
            self.written = Some(Instant::now());
            self.changed = false;
            self.file = database.and_then(Database::device_and_inode);
        }
    }

    /// The database was opened anew.
    fn goes_on_in(&mut self, database: &Database) {
        if database.is_another_than(self.file)
            && let Some(run) = &mut self.run
        {
            *run = run.in_another_file();
        }
    }
}
