//! Rows to a database, as the engine's thread sees it: they gather, and are handed to the
//! writer's thread. Nothing here waits for a disk or a lock.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::warn;

use super::CLOSE_TIMEOUT;
use crate::archive::clock::Moment;
use crate::archive::coverage::{Gap, Gaps, Reason};
use crate::archive::origin::Origin;
use crate::event::Lost;
use crate::plugin::sqlite3::{COVER_IDLE, Chunk, Failure, Job, Progress, Schema, Settings, Writer};
use crate::plugin::threads;
use crate::stats::{Amount, Measure, Part, SinkStats};

/// How long rows gather where nobody asks for each batch to be on disk, and how
/// many: they spread over the pages of indexes, and a transaction writes each page
/// that it touches once.
const GATHER: Duration = Duration::from_millis(250);
const GATHERED: u64 = 16384;
/// Bytes that are handed over at most; less if the buffer is small.
const CHUNK: usize = 4 << 20;
/// How long the thread may take beyond its deadline before it is left alone.
const GRACE: Duration = Duration::from_millis(300);

/// A database, and the rows that wait for it.
pub struct DatabaseOutput {
    path: PathBuf,
    sync: bool,
    buffer_max: usize,
    chunk_max: usize,
    chunk: Chunk,
    /// When the first of its rows came.
    since: Instant,
    /// When rows were handed over last.
    handed: Instant,
    /// What was lost since.
    gaps: Gaps,
    /// Everything that happened before was pushed, or happened before it was opened.
    complete: u64,
    /// When the clocks were looked at last.
    looked: Moment,
    jobs: Sender<Job>,
    /// Present until the thread has begun.
    idle: Option<Box<(Writer, Receiver<Job>)>>,
    thread: Option<JoinHandle<()>>,
    progress: Progress,
    /// When to have ended, once the daemon ends.
    deadline: Option<Instant>,
    stats: SinkStats,
}

impl DatabaseOutput {
    /// Opens the database, or awaits it. Nothing is written before [`DatabaseOutput::begin`].
    ///
    /// # Errors
    /// It cannot be used, and that does not pass.
    pub fn open(settings: &Settings, stats: SinkStats) -> Result<Self, Failure> {
        let Settings { sync, buffer_max, .. } = settings;
        let writer = Writer::open(settings, stats.clone())?;
        let looked = Moment::now();
        let (jobs, receiver) = mpsc::channel();
        let now = Instant::now();
        Ok(Self {
            path: writer.path().clone(),
            sync: *sync,
            buffer_max: *buffer_max,
            chunk_max: CHUNK.min(buffer_max / 4),
            chunk: Chunk::default(),
            since: now,
            handed: now,
            gaps: Gaps::default(),
            complete: looked.wall,
            looked,
            jobs,
            progress: writer.progress(),
            idle: Some(Box::new((writer, receiver))),
            thread: None,
            deadline: None,
            stats,
        })
    }

    /// Has the database state where its records come from. Before [`DatabaseOutput::begin`].
    pub fn state(&mut self, origin: &Origin) {
        if let Some(idle) = &mut self.idle {
            idle.0.state(origin);
        }
    }

    /// Starts the thread: when no process is forked and no privilege dropped any more.
    pub fn begin(&mut self) {
        let Some(idle) = self.idle.take() else { return };
        let since = Moment::now().wall;
        let (writer, jobs) = *idle;
        self.thread = threads::spawn("sqlite3", move || writer.run(&jobs, since));
    }

    /// Which tables are written, once that is known.
    #[inline]
    pub(in crate::plugin) fn schema(&self) -> Option<&Schema> {
        self.progress.schema.get()
    }

    fn is_ulogd(&self) -> bool {
        matches!(self.schema(), Some(Schema::Ulogd(_)))
    }

    /// Takes the row of a record of that time, nanoseconds since the epoch.
    #[inline]
    pub fn push(&mut self, row: &[u8], at: u64) {
        if self.chunk.amount().bytes as usize + row.len() > self.chunk_max {
            self.hand_over();
        }
        if self.waiting() + row.len() > self.buffer_max {
            self.refuse(at);
            return;
        }
        if self.chunk.is_empty() {
            self.since = Instant::now();
        }
        self.chunk.push(row);
    }

    #[cold]
    fn refuse(&mut self, at: u64) {
        self.stats.add(Measure::Lost, 1);
        self.gaps.push(Gap::new(Reason::Lost, (at, at), 1).at("buffer_max_bytes"));
    }

    /// Events were lost before they came here.
    #[cold]
    pub fn lost_before(&mut self, lost: &Lost) {
        if !self.is_ulogd() {
            let Lost { source, events, since, at } = *lost;
            self.gaps.push(Gap::new(Reason::Lost, (since, at), events).at(source));
        }
    }

    /// Bytes that are not committed.
    fn waiting(&self) -> usize {
        (self.chunk.amount().bytes + self.stats.waiting().bytes) as usize
    }

    fn hand_over(&mut self) {
        let until = self.complete;
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.gaps = std::mem::take(&mut self.gaps);
        let amount = chunk.amount();
        self.stats.add_waiting(amount);
        if amount.records > 0 {
            self.progress.stall.wait();
        }
        if self.jobs.send(Job::Write(chunk, until)).is_err() {
            // The thread could not be started, which was told.
            self.stats.take_waiting(amount);
            self.stats.add(Measure::Lost, amount.records);
        }
        self.handed = Instant::now();
    }

    /// Everything that happened before `complete` was pushed.
    pub fn caught_up(&mut self, complete: u64) {
        self.caught_up_at(complete, Moment::now());
    }

    /// The same, at that moment.
    pub(in crate::plugin) fn caught_up_at(&mut self, complete: u64, now: Moment) {
        let before = std::mem::replace(&mut self.looked, now);
        if now.was_set_since(before) {
            self.clock_was_set(before, now);
        }
        // A time of before the clock was set back is none.
        if complete <= now.wall {
            self.complete = complete;
        }
    }

    /// What was pushed so far has its times by the old clock.
    #[cold]
    fn clock_was_set(&mut self, before: Moment, now: Moment) {
        self.hand_over();
        // It fails where the thread could not be started.
        let _ = self.jobs.send(Job::ClockSet(now));
        // The same time by the new clock.
        let age = before.wall.saturating_sub(self.complete);
        let passed = now.steady.saturating_sub(before.steady);
        self.complete = now.wall.saturating_sub(age.saturating_add(passed));
    }

    /// Ends a batch: what has gathered long enough is handed over.
    pub fn flush(&mut self) {
        if self.retry_in() == Some(Duration::ZERO) {
            self.hand_over();
        }
    }

    /// When to flush again though nothing new has come: also so that the time that the
    /// database covers goes on while nothing happens.
    pub fn retry_in(&self) -> Option<Duration> {
        let rows = self.chunk.amount().records;
        if rows > 0 {
            let due = if self.sync || rows >= GATHERED { Duration::ZERO } else { GATHER };
            return Some(due.saturating_sub(self.since.elapsed()));
        }
        // Neither waits in a queue while rows do.
        let caught_up = self.stats.waiting() == Amount::default();
        let period = match self.gaps.is_empty() {
            false => GATHER,
            true if caught_up && !self.is_ulogd() => COVER_IDLE,
            true => return None,
        };
        let due = period.saturating_sub(self.handed.elapsed());
        Some(if caught_up { due } else { GATHER })
    }

    /// The file, by its full path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// See [`super::Output::fill`].
    pub fn fill(&self) -> (usize, usize) {
        (self.waiting(), self.buffer_max)
    }

    /// Why the last transaction failed.
    pub fn failure(&self) -> Option<String> {
        self.stats.trouble()
    }

    /// How long rows have waited without any that was committed.
    pub fn stalled_for(&self) -> Option<Duration> {
        self.progress.stall.stalled_for()
    }

    /// Its thread does not run, though the daemon does: it could not be started, or a fault in
    /// flowlog or a library has ended it.
    pub fn dead_thread(&self) -> Option<(Part, String)> {
        if self.idle.is_some() || self.deadline.is_some() {
            return None;
        }
        self.thread.as_ref().is_none_or(JoinHandle::is_finished).then(|| {
            let what = "the thread that writes rows has ended: rows are lost; restart flowlog, \
                        and see its log for why";
            (Part::Destination, what.to_owned())
        })
    }

    /// The daemon ends: hands over what there is, to be written until `deadline`.
    pub fn end(&mut self, deadline: Instant) {
        if self.deadline.is_some() {
            return;
        }
        self.begin();
        self.deadline = Some(deadline);
        self.hand_over();
        // It fails where the thread could not be started.
        let _ = self.jobs.send(Job::End(deadline));
    }

    /// See [`super::Output::close`].
    pub fn close(&mut self) {
        self.end(Instant::now() + CLOSE_TIMEOUT);
        if let (Some(thread), Some(deadline)) = (self.thread.take(), self.deadline) {
            threads::join(thread, deadline + GRACE);
        }
        let (mut lost, mut unsure) = (0, 0);
        // From here on nothing is committed, and what may be is known.
        self.progress.commits.give_up(|in_doubt| {
            let waiting = self.stats.waiting();
            unsure = in_doubt.min(waiting.records);
            lost = waiting.records - unsure;
            self.stats.add(Measure::Unsure, unsure);
            self.stats.add(Measure::Lost, lost);
            self.stats.take_waiting(waiting);
        });
        if lost + unsure == 0 {
            return;
        }
        let why = self.failure().unwrap_or_else(|| "the disk is too slow".to_owned());
        warn!(
            "{lost} records for {} are lost at exit, {unsure} are perhaps: {why}",
            self.path.display()
        );
    }

    /// Opens the file anew, for rotation.
    pub fn reopen(&mut self) {
        // What was logged before belongs into the old file.
        self.hand_over();
        let _ = self.jobs.send(Job::Reopen);
    }

    /// Hands the files to `user`, if flowlog has created them, so that they can
    /// be opened anew after privileges were dropped.
    pub fn give_to(&self, uid: nix::unistd::Uid, gid: nix::unistd::Gid) {
        if let Some(idle) = &self.idle {
            idle.0.give_to(uid, gid);
        }
    }

    /// The writer, before the thread has begun.
    #[cfg(test)]
    pub(in crate::plugin) fn writer(&self) -> &Writer {
        &self.idle.as_ref().unwrap().0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_that_has_ended_is_noticed_while_the_daemon_runs() {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("flow.db");
        let settings = Settings { db, table: String::new(), sync: false, buffer_max: 1 << 20 };
        let mut output = DatabaseOutput::open(&settings, SinkStats::default()).unwrap();
        assert!(output.dead_thread().is_none(), "it has not begun");
        output.begin();
        assert!(output.dead_thread().is_none());
        // As if a fault ended it.
        output.jobs.send(Job::End(Instant::now())).unwrap();
        let start = Instant::now();
        while output.dead_thread().is_none() {
            assert!(start.elapsed() < Duration::from_secs(30), "it was not noticed");
            std::thread::sleep(Duration::from_millis(1));
        }
        let (part, what) = output.dead_thread().unwrap();
        assert!(part == Part::Destination && what.contains("restart flowlog"), "{what}");
        output.close();
        assert!(output.dead_thread().is_none(), "the daemon has ended");
    }

    /// Rows that were handed over before it should have begun.
    #[test]
    fn what_waits_for_a_thread_that_cannot_be_started_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let db = directory.path().join("flow.db");
        let settings = Settings { db, table: String::new(), sync: true, buffer_max: 1 << 20 };
        let stats = SinkStats::default();
        let mut output = DatabaseOutput::open(&settings, stats.clone()).unwrap();
        output.push(b"row", 1);
        output.flush();
        assert_eq!(stats.waiting().records, 1);
        output.idle = None;
        assert!(output.dead_thread().is_some(), "no thread runs");
        for _ in 0..2 {
            output.close();
            assert_eq!((stats.waiting().records, stats.get(Measure::Lost)), (0, 1));
        }
    }
}
