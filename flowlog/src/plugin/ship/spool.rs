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
use super::health::Health;
use super::keeper::Keeper;
use super::losses::{Loss, Losses};
use super::store::{FILES, GivenUp, Store};
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
        self.stats.add_waiting(chunk.amount());
        self.unspooled.wait();
    }

    /// The oldest chunk that was on its way is in the spool, or lost.
    pub(super) fn waits_no_more(&self, amount: Amount) {
        self.stats.take_waiting(amount);
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

    /// How long records have waited without any that went on.
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
    pub(super) fn amount(&self) -> Amount {
        Amount { bytes: self.payload.len() as u64, records: self.records }
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
    /// A damaged file was found at start, and set aside.
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
        let (store, given_up) = Store::open(&directory)?;
        let mut sinks: HashMap<_, _> = HashMap::new();
        let mut sink = |name: &str| {
            let new = || (Sink::new(name), false);
            let (sink, _) = sinks.entry(name.to_owned()).or_insert_with(new);
            sink.clone()
        };
        for (name, amount) in store.amounts()? {
            sink(&name).stats.add_kept(amount);
        }
        if let Some(given_up) = &given_up {
            for name in given_up.held.iter().flatten().map(|(name, _)| name) {
                sink(name);
            }
            for (name, _) in given_up.copied.iter() {
                sink(name);
            }
            let sinks = sinks.iter().map(|(name, (sink, _))| (name.as_str(), sink));
            given_up.count_at_start(store.path(), sinks);
        }
        let (jobs, receiver) = mpsc::channel();
        let path = store.path().to_owned();
        let (made_directory, health) = (store.made_directory(), store.health().clone());
        let keeper = Keeper::new(store, *max_bytes, *full, receiver);
        Ok(Self(Arc::new(Shared {
            path,
            max_bytes: *max_bytes,
            health,
            given_up,
            made_directory,
            sinks: Mutex::new(sinks),
            jobs: Mutex::new(Some(jobs)),
            keeper: Mutex::new(State::Idle(Box::new(keeper))),
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
                self.tell_unclaimed();
                let sinks: HashMap<_, _> = lock(&self.0.sinks)
                    .iter()
                    .map(|(name, (sink, _))| (name.clone(), sink.clone()))
                    .collect();
                match threads::spawn("spool", move || keeper.run(&sinks)) {
                    Some(handle) => State::Works(handle),
                    None => State::Gone,
                }
            }
            other => other,
        };
    }

    fn tell_unclaimed(&self) {
        for (sink, _) in lock(&self.0.sinks).values().filter(|(_, claimed)| !claimed) {
            let Amount { bytes, records } = sink.stats.kept();
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

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
