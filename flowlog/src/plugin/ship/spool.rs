//! The spool as sinks see it; the thread behind it is in [`keeper`].
//!
//! [`keeper`]: super::keeper

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, chown};
use tokio::sync::watch;
use tracing::{error, warn};

use super::Settings;
use super::keeper::Keeper;
use super::losses::Loss;
pub use super::store::Failure;
use super::store::{FILES, Store};
use super::tally::{Amount, Tally};

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
    /// The client has said these losses.
    Forget(Arc<Sink>, Vec<(i64, Loss)>),
    /// An answer when all that was asked for before is done, or has failed once.
    Answer(Sender<()>),
}

impl Job {
    pub(super) fn makes_room(&self) -> bool {
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
