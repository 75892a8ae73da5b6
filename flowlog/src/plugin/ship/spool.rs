//! The spool as sinks see it; the thread behind it is in [`keeper`].
//!
//! [`keeper`]: super::keeper

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, chown};
use tokio::sync::watch;
use tracing::warn;

use super::Settings;
use super::control::Control;
pub use super::failure::Failure;
use super::gate::Gate;
use super::given_up::GivenUp;
use super::health::Health;
use super::keeper::Keeper;
use super::losses::{Loss, Losses};
use super::opening::{Awaiting, Opening};
use super::store::{FILES, OnDamage};
use crate::plugin::stall::Stall;
use crate::plugin::threads;
use crate::stats::{Amount, SinkStats};

/// How long the keeper may take to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// A sink as the spool knows it.
#[derive(Debug)]
pub(super) struct Sink {
    /// The id of its section and its plugin, as in the stack: `nats1:NATS`.
    pub(super) name: String,
    pub(super) stats: SinkStats,
    /// The number of its newest row.
    pub(super) newest: watch::Sender<i64>,
    /// Since when records wait for the spool, and in it.
    pub(super) unspooled: Stall,
    pub(super) undelivered: Stall,
    /// Of which time records are lost.
    pub(super) losses: Losses,
    /// The newest row that the client has, or had before it was delivered: rows up to it are not
    /// dropped.
    taken: AtomicI64,
    /// The newest row that was found to be damaged, and was counted then.
    damaged: AtomicI64,
    /// Times that rows were lost which the client may still hold.
    taken_back: AtomicU64,
    /// Whether chunks may still be put into the spool.
    pub(super) gate: Gate,
}

impl Sink {
    pub(super) fn new(name: &str) -> Arc<Self> {
        let (newest, _) = watch::channel(0);
        Arc::new(Self {
            name: name.to_owned(),
            stats: SinkStats::default(),
            newest,
            unspooled: Stall::default(),
            undelivered: Stall::default(),
            losses: Losses::default(),
            taken: AtomicI64::new(0),
            damaged: AtomicI64::new(0),
            taken_back: AtomicU64::new(0),
            gate: Gate::default(),
        })
    }

    /// The client gets the rows up to `last`, or has no more than those: to be called while rows
    /// are kept ([`Health::rows`]), unless there are fewer than before.
    pub(super) fn take_rows(&self, last: i64) {
        self.taken.store(last, Ordering::Release);
    }

    /// Rows up to that number are not dropped.
    pub(super) fn taken(&self) -> i64 {
        self.taken.load(Ordering::Acquire)
    }

    /// Counts a damaged row; returns whether it was not counted before. To be called while rows are
    /// kept.
    pub(super) fn count_damaged(&self, row: i64) -> bool {
        self.damaged.fetch_max(row, Ordering::AcqRel) < row
    }

    /// The newest damaged row that was counted.
    pub(super) fn damaged(&self) -> i64 {
        self.damaged.load(Ordering::Acquire)
    }

    /// Rows were lost that the client may still hold: it has to give up what is not delivered.
    pub(super) fn take_back(&self) {
        self.taken_back.fetch_add(1, Ordering::AcqRel);
    }

    /// How often that was.
    pub(super) fn taken_back(&self) -> u64 {
        self.taken_back.load(Ordering::Acquire)
    }

    /// A chunk is on its way to the spool.
    pub(super) fn waits(&self, chunk: &Chunk) {
        self.stats.add_waiting(chunk.held());
        self.unspooled.wait();
    }

    /// The oldest chunk that was on its way, which has [`Chunk::held`] that much, is in the spool,
    /// or lost.
    pub(super) fn waits_no_more(&self, held: Amount) {
        self.stats.take_waiting(held);
        if self.stats.waiting().records == 0 {
            self.unspooled.clear();
        } else {
            self.unspooled.progress();
        }
    }

    /// Counts records that are lost, and notes of which time they are.
    #[cold]
    pub(super) fn loses(&self, loss: Loss) {
        self.stats.add(loss.measure, loss.records);
        self.losses.note(loss);
    }

    /// How long records have waited, in memory or in the spool, without any that went on.
    pub(super) fn stalled_for(&self) -> Option<Duration> {
        self.unspooled.stalled_for().max(self.undelivered.stalled_for())
    }
}

/// Records on their way to the spool.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) encoding: Arc<str>,
    pub(super) records: u64,
    /// The times of its first and last record.
    pub(super) span: (u64, u64),
    /// What happened before that time is in it or in one before, as far as it was not lost.
    pub(super) complete: u64,
    pub(super) payload: Vec<u8>,
}

impl Chunk {
    /// What it takes besides its records on its way to the spool, bytes.
    pub(super) const OVERHEAD: usize = size_of::<Job>();

    /// An empty one, with room for `bytes`.
    pub(super) fn empty(encoding: Arc<str>, bytes: usize) -> Self {
        let payload = Vec::with_capacity(bytes);
        Self { encoding, records: 0, span: (0, 0), complete: 0, payload }
    }

    /// What the spool will hold of it.
    pub(super) fn amount(&self) -> Amount {
        Amount { bytes: self.payload.len() as u64, records: self.records }
    }

    /// The memory that it takes on its way to the spool, of which the records may be the smallest
    /// part: a chunk is handed over for each of them if they are few.
    pub(super) fn held(&self) -> Amount {
        let bytes = (self.payload.capacity() + Self::OVERHEAD) as u64;
        Amount { bytes, records: self.records }
    }
}

/// What the keeper is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Append(Arc<Sink>, Chunk),
    /// The rows of the sink up to that number have arrived; with what is in those of them that
    /// arrived since the last time.
    Acknowledge(Arc<Sink>, i64, Amount),
    /// The worker is to end when it has delivered what was asked for before, or then.
    Stop(Control, Instant),
    /// The client has said these losses.
    Forget(Arc<Sink>, Vec<(i64, Loss)>),
    /// An answer when all that was asked for before is done, or has failed once.
    Answer(Sender<()>),
}

impl Job {
    pub(super) fn makes_room(&self) -> bool {
        matches!(self, Self::Acknowledge(..) | Self::Forget(..))
    }

    /// Whether it is to be done later, after it has failed. A job that is not gets its answer.
    pub(super) fn outlasts_failure(&self) -> bool {
        match self {
            Self::Append(..) | Self::Acknowledge(..) | Self::Forget(..) => true,
            Self::Stop(control, deadline) => {
                control.stop(*deadline);
                false
            }
            Self::Answer(answer) => {
                // The sender of the job may have ended.
                let _ = answer.send(());
                false
            }
        }
    }

    /// Somebody waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        matches!(self, Self::Stop(..) | Self::Answer(_))
    }
}

/// The spool of the daemon; clones are the same one.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// Bytes of records that it may hold.
    max_bytes: u64,
    health: Health,
    /// A damaged file was set aside before the sinks were known, at this start or another one.
    given_up: Option<GivenUp>,
    /// The directory was not there before.
    made_directory: bool,
    sinks: Mutex<HashMap<String, (Arc<Sink>, Claimed)>>,
    /// Absent when the spool is given up.
    jobs: Mutex<Option<Sender<Job>>>,
    keeper: Mutex<State>,
}

/// Whether a stack names the sink.
type Claimed = bool;

enum State {
    Idle(Box<Keeper>),
    /// It cannot be opened yet.
    Awaits(Box<Awaiting>),
    Works(JoinHandle<()>),
    Gone,
}

impl State {
    fn of(thread: Option<JoinHandle<()>>) -> Self {
        thread.map_or(Self::Gone, Self::Works)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle(_) => "Idle",
            Self::Awaits(_) => "Awaits",
            Self::Works(_) => "Works",
            Self::Gone => "Gone",
        })
    }
}

impl Spool {
    /// Opens the spool, and makes it where there is none. Nothing is written yet. One that is
    /// damaged is replaced.
    ///
    /// # Errors
    /// It cannot be used; says what to do.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        Self::start(settings, OnDamage::Replace, |_| false)
    }

    /// The same; a spool that is only away, as its disk is full or another process locks it, is
    /// awaited: records wait in memory until it can be opened. So is one that is damaged, until
    /// what can be read of it is copied: a start that takes too long is killed, and begins anew.
    /// Where it can be replaced by the start alone, that tries it.
    ///
    /// # Errors
    /// It cannot be used, and waiting does not help.
    pub fn open_or_await(settings: &Settings, on_damage: OnDamage) -> Result<Self, Failure> {
        let is_awaited = |failure: &Failure| {
            failure.may_pass() || failure.is_damage() || failure.is_irreplaceable()
        };
        Self::start(settings, on_damage, is_awaited)
    }

    fn start(
        settings: &Settings,
        on_damage: OnDamage,
        is_awaited: impl FnOnce(&Failure) -> bool,
    ) -> Result<Self, Failure> {
        let Settings { directory, max_bytes, full } = settings;
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
        let mut opening = Opening::of(&directory);
        let mut sinks = HashMap::new();
        let (path, health) = (opening.path(), opening.health().clone());
        let (jobs, receiver) = mpsc::channel();
        let attempt = opening.attempt(&mut sinks, on_damage);
        let made_directory = opening.made_directory();
        let (keeper, given_up) = match attempt {
            Ok((store, given_up)) => {
                let keeper = Keeper::new(store, *max_bytes, *full, receiver);
                (State::Idle(Box::new(keeper)), given_up)
            }
            Err(failure) if is_awaited(&failure) => {
                let awaiting = Awaiting::new(opening, failure, (*max_bytes, *full), receiver);
                (State::Awaits(Box::new(awaiting)), None)
            }
            Err(failure) => return Err(failure),
        };
        let sinks = sinks.into_iter().map(|(name, sink)| (name, (sink, false))).collect();
        Ok(Self(Arc::new(Shared {
            path,
            max_bytes: *max_bytes,
            health,
            given_up,
            made_directory,
            sinks: Mutex::new(sinks),
            jobs: Mutex::new(Some(jobs)),
            keeper: Mutex::new(keeper),
        })))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Bytes that a client may take at once: what it has is not dropped, and the newest records are
    /// to find room.
    pub(super) fn share(&self) -> usize {
        usize::try_from(self.0.max_bytes / 4).unwrap_or(usize::MAX)
    }

    /// What the threads know of the file.
    pub(super) fn health(&self) -> &Health {
        &self.0.health
    }

    #[cfg(test)]
    pub(super) fn made_directory(&self) -> bool {
        self.0.made_directory
    }

    /// A disk that is full after so many pages.
    #[cfg(test)]
    pub(super) fn limit_pages(&self, pages: Option<i64>) {
        if let State::Idle(keeper) = &*lock(&self.0.keeper) {
            keeper.store.limit_pages(pages);
        }
    }

    /// Hands the files to a user, so that they can be written after privileges
    /// were dropped; the directory only if flowlog has made it. Best effort: what
    /// cannot be handed over is told when it is written.
    pub fn give_to(&self, uid: Uid, gid: Gid) {
        let Some(directory) = self.0.path.parent() else { return };
        let files = FILES.map(|name| directory.join(name)).into_iter();
        let made = self.0.made_directory.then(|| directory.to_owned());
        for path in files.filter(|path| path.exists()).chain(made) {
            if let Err(error) = chown(&path, Some(uid), Some(gid)) {
                warn!("{} cannot be handed to the user: {error}", path.display());
            }
        }
    }

    /// The sink of that name, which a stack has. A second stack with the same section has rows of
    /// its own, under another name: each worker delivers its own and no other.
    pub(super) fn claim(&self, name: &str) -> Arc<Sink> {
        let mut sinks = lock(&self.0.sinks);
        let is_claimed = |name: &str| sinks.get(name).is_some_and(|(_, claimed)| *claimed);
        let mut own = name.to_owned();
        for number in 2_u32.. {
            if !is_claimed(&own) {
                break;
            }
            own = format!("{name}/{number}");
        }
        let (sink, claimed) = sinks.entry(own).or_insert_with_key(|name| {
            let sink = Sink::new(name);
            if let Some(given_up) = &self.0.given_up {
                given_up.count_of_new(&sink);
            }
            (sink, false)
        });
        *claimed = true;
        sink.clone()
    }

    /// Begins to write, once: to be called when no process is forked and no
    /// privilege dropped any more.
    pub(super) fn begin(&self) {
        let mut state = lock(&self.0.keeper);
        *state = match std::mem::replace(&mut *state, State::Gone) {
            State::Idle(keeper) => {
                let sinks = lock(&self.0.sinks);
                let unclaimed = sinks.values().filter(|(_, claimed)| !claimed);
                tell_unclaimed(&self.0.path, unclaimed.map(|(sink, _)| sink));
                let sinks = sinks_of(&sinks);
                State::of(threads::spawn("spool", move || keeper.run(&sinks)))
            }
            State::Awaits(awaiting) => {
                let sinks = sinks_of(&lock(&self.0.sinks));
                State::of(threads::spawn("spool", move || awaiting.run(&sinks)))
            }
            other => other,
        };
    }

    /// Its thread does not run, after it was to begin.
    pub(super) fn is_dead(&self) -> bool {
        match &*lock(&self.0.keeper) {
            State::Idle(_) | State::Awaits(_) => false,
            State::Works(keeper) => keeper.is_finished(),
            State::Gone => true,
        }
    }

    /// Where to ask the keeper; `None` after the end.
    pub(super) fn jobs(&self) -> Option<Sender<Job>> {
        lock(&self.0.jobs).clone()
    }

    /// Waits until the keeper has done all that it was asked for, or failed at it,
    /// for no longer than until `deadline`.
    pub(super) fn settle(&self, deadline: Instant) {
        let (answer, answered) = mpsc::channel();
        if let Some(jobs) = self.jobs()
            && jobs.send(Job::Answer(answer)).is_ok()
        {
            let _ = answered.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // The keeper ends when nobody can ask it any more.
        lock(&self.jobs).take();
        if let State::Works(keeper) = std::mem::replace(&mut *lock(&self.keeper), State::Gone) {
            threads::join(keeper, Instant::now() + PATIENCE);
        }
    }
}

/// Says which records nobody delivers.
pub(super) fn tell_unclaimed<'s>(path: &Path, sinks: impl Iterator<Item = &'s Arc<Sink>>) {
    for sink in sinks {
        let Amount { bytes, records } = sink.stats.kept();
        warn!(
            "{} holds {records} records ({bytes} bytes) for {}, which no stack names: they stay \
             there until a stack does",
            path.display(),
            sink.name
        );
    }
}

fn sinks_of(sinks: &HashMap<String, (Arc<Sink>, Claimed)>) -> HashMap<String, Arc<Sink>> {
    sinks.iter().map(|(name, (sink, _))| (name.clone(), sink.clone())).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
