//! The spool, and its keeper: the thread that alone writes it. What comes together
//! is one transaction.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, chown};
use tokio::sync::watch;
use tracing::{error, info, warn};

pub use super::store::Failure;
use super::store::{Change, FILES, Store};
use super::tally::{Amount, Measure, Part, Tally};
use super::{Full, Settings};
use crate::ratelimit::RateLimit;

/// How often a transaction that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that one transaction takes at most: the rest comes with the next.
const TURN: usize = 16 << 20;
/// Bytes that the spool must have held for its file to shrink when it is empty.
const SHRINK: u64 = 64 << 20;
/// How long the keeper may take to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A sink as the spool knows it.
#[derive(Debug)]
pub(super) struct Sink {
    /// The id of its section and its plugin, as in the stack: `nats1:NATS`.
    pub(super) name: String,
    pub(super) tally: Arc<Tally>,
    /// The number of its newest row.
    pub(super) newest: watch::Sender<i64>,
}

impl Sink {
    fn new(name: &str) -> Arc<Self> {
        let (newest, _) = watch::channel(0);
        Arc::new(Self { name: name.to_owned(), tally: Arc::default(), newest })
    }
}

/// Records on their way to the spool.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) encoding: Arc<str>,
    pub(super) records: u64,
    pub(super) payload: Vec<u8>,
}

impl Chunk {
    pub(super) fn amount(&self) -> Amount {
        Amount { bytes: self.payload.len() as u64, records: self.records }
    }
}

/// What the keeper is asked for.
#[derive(Debug)]
pub(super) enum Job {
    Append(Arc<Sink>, Chunk),
    /// The rows of the sink up to that number have arrived.
    Acknowledge(Arc<Sink>, i64),
    /// An answer when all that was asked for before is done, or has failed once.
    Answer(Sender<()>),
}

impl Job {
    fn makes_room(&self) -> bool {
        matches!(self, Self::Acknowledge(..))
    }
}

/// The spool of the daemon; clones are the same one.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    /// The directory was not there before.
    made_directory: bool,
    sinks: Mutex<HashMap<String, (Arc<Sink>, Claimed)>>,
    /// Absent when the spool is given up.
    jobs: Mutex<Option<Sender<Job>>>,
    keeper: Mutex<State>,
    /// When the daemon ends at the latest, once it does.
    deadline: OnceLock<Instant>,
}

/// Whether a stack names the sink.
type Claimed = bool;

enum State {
    Idle(Box<Keeper>),
    Works(JoinHandle<()>),
    Gone,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Idle(_) => "Idle",
            Self::Works(_) => "Works",
            Self::Gone => "Gone",
        })
    }
}

impl Spool {
    /// Opens the spool, and makes it where there is none. Nothing is written yet.
    ///
    /// # Errors
    /// It cannot be used; says what to do.
    pub fn open(settings: &Settings) -> Result<Self, Failure> {
        let Settings { directory, max_bytes, full } = settings;
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.clone());
        let store = Store::open(&directory)?;
        let mut sinks = HashMap::new();
        for (name, amount) in store.amounts()? {
            let sink = Sink::new(&name);
            sink.tally.add_kept(amount);
            sinks.insert(name, (sink, false));
        }
        let (jobs, receiver) = mpsc::channel();
        let path = store.path().to_owned();
        let made_directory = store.made_directory();
        let keeper = Keeper::new(store, *max_bytes, *full, receiver);
        Ok(Self(Arc::new(Shared {
            path,
            made_directory,
            sinks: Mutex::new(sinks),
            jobs: Mutex::new(Some(jobs)),
            keeper: Mutex::new(State::Idle(Box::new(keeper))),
            deadline: OnceLock::new(),
        })))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.0.path
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

    /// The sink of that name, which a stack has.
    pub(super) fn claim(&self, name: &str) -> Arc<Sink> {
        let mut sinks = lock(&self.0.sinks);
        let (sink, claimed) =
            sinks.entry(name.to_owned()).or_insert_with(|| (Sink::new(name), false));
        *claimed = true;
        sink.clone()
    }

    /// Begins to write, once: to be called when no process is forked and no
    /// privilege dropped any more.
    pub(super) fn begin(&self) {
        let mut state = lock(&self.0.keeper);
        *state = match std::mem::replace(&mut *state, State::Gone) {
            State::Idle(keeper) => {
                self.tell_unclaimed();
                let sinks: HashMap<_, _> = lock(&self.0.sinks)
                    .iter()
                    .map(|(name, (sink, _))| (name.clone(), sink.clone()))
                    .collect();
                match spawn("spool", move || keeper.run(&sinks)) {
                    Some(handle) => State::Works(handle),
                    None => State::Gone,
                }
            }
            other => other,
        };
    }

    fn tell_unclaimed(&self) {
        for (sink, _) in lock(&self.0.sinks).values().filter(|(_, claimed)| !claimed) {
            let Amount { bytes, records } = sink.tally.kept();
            warn!(
                "{} holds {records} records ({bytes} bytes) for {}, which no stack names: they \
                 stay there until a stack does",
                self.0.path.display(),
                sink.name
            );
        }
    }

    /// Where to ask the keeper; `None` after the end.
    pub(super) fn jobs(&self) -> Option<Sender<Job>> {
        lock(&self.0.jobs).clone()
    }

    /// When the end must have come: `patience` from the first call on, for all sinks
    /// together.
    pub(super) fn deadline(&self, patience: Duration) -> Instant {
        *self.0.deadline.get_or_init(|| Instant::now() + patience)
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
            join(keeper, Instant::now() + PATIENCE);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread that needs no signals: those are the engine's.
pub(super) fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    match thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(handle) => Some(handle),
        Err(why) => {
            error!("the thread {name} cannot be started: {why}; raise the limit of tasks");
            None
        }
    }
}

/// Waits for the end of a thread, but not beyond `deadline`; returns whether it came.
pub(super) fn join(thread: JoinHandle<()>, deadline: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    thread.join().is_ok()
}

/// The thread that writes.
pub(super) struct Keeper {
    store: Store,
    max_bytes: u64,
    full: Full,
    receiver: Receiver<Job>,
    pending: Vec<Job>,
    /// The most that was there since the file shrank, bytes.
    peak: u64,
    failing: bool,
    complaints: RateLimit,
}

/// What a transaction has done, to be counted once it is on disk.
#[derive(Default)]
struct Effects {
    appended: Vec<(usize, i64)>,
    acknowledged: Vec<(usize, Amount)>,
    dropped: Vec<(String, Amount)>,
    /// Chunks that found no room.
    refused: Vec<usize>,
}

impl Keeper {
    fn new(store: Store, max_bytes: u64, full: Full, receiver: Receiver<Job>) -> Self {
        let complaints = RateLimit::per_second();
        let (pending, peak, failing) = (Vec::new(), 0, false);
        Self { store, max_bytes, full, receiver, pending, peak, failing, complaints }
    }

    fn run(mut self, sinks: &HashMap<String, Arc<Sink>>) {
        loop {
            let go_on = self.receive();
            self.turn(sinks);
            if !go_on {
                break;
            }
        }
    }

    /// Takes what there is to do; returns whether more may come.
    fn receive(&mut self) -> bool {
        let first = if self.failing {
            self.receiver.recv_timeout(RETRY)
        } else {
            self.receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match first {
            Ok(job) => self.pending.push(job),
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        let mut bytes = 0;
        while bytes < TURN {
            match self.receiver.try_recv() {
                Ok(job) => {
                    if let Job::Append(_, chunk) = &job {
                        bytes += chunk.payload.len();
                    }
                    self.pending.push(job);
                }
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn turn(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        match self.transact(|_| true) {
            Ok((effects, bytes)) => {
                self.count(&effects, sinks);
                self.succeeded(bytes);
            }
            Err(failure) => {
                self.failed(&failure);
                // What has arrived makes room, perhaps the only room that there is.
                if let Ok((effects, _)) = self.transact(Job::makes_room) {
                    self.count(&effects, sinks);
                    self.pending.retain(|job| !job.makes_room());
                }
            }
        }
    }

    /// Does the jobs that are `wanted`, all or none; returns what that did, and how
    /// many bytes are there then.
    fn transact(&mut self, wanted: fn(&Job) -> bool) -> Result<(Effects, u64), Failure> {
        let Self { store, max_bytes, full, pending, .. } = self;
        let room = Room { max_bytes: *max_bytes, full: *full };
        store.transact(|change| {
            let mut effects = Effects::default();
            for (place, job) in pending.iter().enumerate().filter(|(_, job)| wanted(job)) {
                room.apply(place, job, change, &mut effects)?;
            }
            Ok((effects, change.bytes()))
        })
    }

    fn count(&self, effects: &Effects, sinks: &HashMap<String, Arc<Sink>>) {
        let Effects { appended, acknowledged, dropped, refused } = effects;
        for (place, number) in appended {
            let Some(Job::Append(sink, chunk)) = self.pending.get(*place) else { continue };
            sink.tally.add(Measure::Spooled, chunk.records);
            sink.tally.add_kept(chunk.amount());
            sink.tally.take_waiting(chunk.amount());
            sink.newest.send_replace(*number);
        }
        for (place, amount) in acknowledged {
            if let Some(Job::Acknowledge(sink, _)) = self.pending.get(*place) {
                sink.tally.take_kept(*amount);
            }
        }
        for place in refused {
            let Some(Job::Append(sink, chunk)) = self.pending.get(*place) else { continue };
            sink.tally.add(Measure::Dropped, chunk.records);
            sink.tally.take_waiting(chunk.amount());
        }
        for (name, amount) in dropped {
            if let Some(sink) = sinks.get(name) {
                sink.tally.add(Measure::Dropped, amount.records);
                sink.tally.take_kept(*amount);
            }
        }
    }

    fn succeeded(&mut self, bytes: u64) {
        for job in self.pending.drain(..) {
            match job {
                Job::Append(sink, _) => sink.tally.set_trouble(Part::Spool, None),
                Job::Acknowledge(..) => {}
                // Whoever asked may have left.
                Job::Answer(answer) => drop(answer.send(())),
            }
        }
        if std::mem::take(&mut self.failing) {
            info!("{} can be written again", self.store.path().display());
        }
        self.peak = self.peak.max(bytes);
        if bytes == 0 && self.peak > SHRINK {
            self.peak = 0;
            self.store.shrink();
        }
    }

    #[cold]
    fn failed(&mut self, failure: &Failure) {
        let mut waiting = 0;
        self.pending.retain(|job| match job {
            Job::Append(sink, chunk) => {
                waiting += chunk.records;
                sink.tally.set_trouble(Part::Spool, Some(failure.to_string()));
                true
            }
            Job::Acknowledge(..) => true,
            Job::Answer(answer) => {
                let _ = answer.send(());
                false
            }
        });
        if let Some(Job::Append(sink, _)) = self.pending.first() {
            sink.tally.add(Measure::Errors, 1);
        }
        if self.complaints.allow() {
            warn!("{failure}. {waiting} records wait in memory");
        }
        if failure.is_full() {
            self.store.use_log_again();
        }
        self.failing = true;
    }
}

/// How much room there is, and who makes it.
struct Room {
    max_bytes: u64,
    full: Full,
}

impl Room {
    fn apply(
        &self,
        place: usize,
        job: &Job,
        change: &mut Change<'_>,
        effects: &mut Effects,
    ) -> rusqlite::Result<()> {
        match job {
            Job::Append(sink, chunk) => {
                if !self.make(chunk.payload.len() as u64, change, effects)? {
                    effects.refused.push(place);
                    return Ok(());
                }
                let Chunk { encoding, records, payload } = chunk;
                let number = change.append(&sink.name, encoding, *records, payload)?;
                effects.appended.push((place, number));
            }
            Job::Acknowledge(sink, last) => {
                effects.acknowledged.push((place, change.acknowledge(&sink.name, *last)?));
            }
            Job::Answer(_) => {}
        }
        Ok(())
    }

    /// Makes room for `bytes`, if it can be had.
    fn make(
        &self,
        bytes: u64,
        change: &mut Change<'_>,
        effects: &mut Effects,
    ) -> rusqlite::Result<bool> {
        if bytes > self.max_bytes {
            return Ok(false);
        }
        while change.bytes() + bytes > self.max_bytes {
            match self.full {
                Full::DropNewest => return Ok(false),
                Full::DropOldest => match change.drop_oldest()? {
                    Some(gone) => effects.dropped.push(gone),
                    None => break,
                },
            }
        }
        Ok(true)
    }
}
