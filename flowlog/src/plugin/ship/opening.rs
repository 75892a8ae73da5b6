//! Opens the spool: at start, or once that is possible.
//!
//! What is only away, such as room on the disk or the end of another process's lock, does not keep
//! the daemon from its other stacks. Until the spool is open, records wait in memory as they do
//! while it cannot be written. A damaged one is awaited as well: to copy what can be read of it may
//! take minutes.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Full;
use super::backoff::REPLACING;
use super::claim::{self, Claim};
use super::failure::Failure;
use super::gate;
use super::given_up::GivenUp;
use super::health::Health;
use super::keeper::{Keeper, REMIND, RETRY};
use super::rescue;
use super::spool::{Job, Sink, tell_unclaimed};
use super::store::{FILE, OnDamage, OpenFile, Store};
use crate::stats::{Measure, Part};

/// Opens the file of a directory.
pub(super) struct Opening {
    directory: PathBuf,
    /// Held between attempts.
    claim: Option<Claim>,
    made_directory: bool,
    health: Health,
}

impl Opening {
    pub(super) fn of(directory: &Path) -> Self {
        let (directory, health) = (directory.to_owned(), Health::default());
        Self { directory, claim: None, made_directory: false, health }
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What the threads know of it.
    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    /// Its directory was not there before; also where it could not be used then.
    pub(super) fn made_directory(&self) -> bool {
        self.made_directory
    }

    /// Opens the file; adds what it holds to what `sinks` count, with sinks that it alone knows, and
    /// counts what was given up. What is found after the daemon has counted its records at the end is
    /// left to the next start.
    ///
    /// # Errors
    /// It cannot be used. Nothing is counted then.
    pub(super) fn attempt(
        &mut self,
        sinks: &mut HashMap<String, Arc<Sink>>,
        on_damage: OnDamage,
    ) -> Result<(Store, Option<GivenUp>), Failure> {
        let mut claim = match self.claim.take() {
            Some(claim) => claim,
            None => {
                self.made_directory |= claim::make(&self.directory)?;
                Claim::take(&self.directory)?
            }
        };
        match claim.renew(&self.directory).and_then(|()| self.find(sinks, on_damage)) {
            Ok((file, given_up)) => {
                let found = (file, given_up.as_ref());
                let mut store = Store::new(found, &self.directory, claim, self.health.clone());
                if gate::have_ended(sinks.values()) {
                    store.keep_note();
                }
                Ok((store, given_up))
            }
            Err(failure) => {
                self.claim = Some(claim);
                Err(failure)
            }
        }
    }

    fn find(
        &self,
        sinks: &mut HashMap<String, Arc<Sink>>,
        on_damage: OnDamage,
    ) -> Result<(OpenFile, Option<GivenUp>), Failure> {
        let path = self.path();
        let (file, given_up) = OpenFile::find(&path, on_damage)?;
        let amounts = rescue::amounts(&file.connection);
        let amounts = amounts.map_err(|error| Failure::Database(path.clone(), error))?;
        let mut sink =
            |name: &str| sinks.entry(name.to_owned()).or_insert_with(|| Sink::new(name)).clone();
        for (name, amount) in amounts {
            sink(&name).stats.add_kept(amount);
        }
        if let Some(given_up) = &given_up {
            let all = given_up.all();
            for name in all.lost.keys().chain(all.copied.keys()) {
                sink(name);
            }
            if !gate::have_ended(sinks.values()) {
                let sinks = sinks.iter().map(|(name, sink)| (name.as_str(), sink));
                given_up.count_at_start(&path, sinks);
            }
        }
        Ok((file, given_up))
    }
}

/// The spool cannot be opened yet, and is awaited.
pub(super) struct Awaiting {
    opening: Opening,
    /// Why not, when that was tried last.
    failure: Failure,
    max_bytes: u64,
    full: Full,
    receiver: Receiver<Job>,
    pending: Vec<Job>,
    /// How long the next attempt waits.
    wait: Duration,
    /// The failure that was reported last, and when.
    reported: Option<(String, Instant)>,
}

impl Awaiting {
    pub(super) fn new(
        opening: Opening,
        failure: Failure,
        (max_bytes, full): (u64, Full),
        receiver: Receiver<Job>,
    ) -> Self {
        // What was in the way at the start may have passed; a damaged file is replaced now.
        let (pending, wait, reported) = (Vec::new(), Duration::ZERO, None);
        Self { opening, failure, max_bytes, full, receiver, pending, wait, reported }
    }

    /// Opens the spool as soon as that is possible, and writes it from then on.
    pub(super) fn run(mut self, sinks: &HashMap<String, Arc<Sink>>) {
        loop {
            self.failed(sinks);
            let go_on = self.receive();
            let mut known = sinks.clone();
            match self.opening.attempt(&mut known, OnDamage::Replace) {
                Ok((store, _)) => return self.opened(store, sinks, &known),
                Err(failure) => self.failure = failure,
            }
            if !go_on {
                return self.failed(sinks);
            }
        }
    }

    /// Waits until it is tried again: for some time, or until somebody waits for that. Returns
    /// whether more may come.
    fn receive(&mut self) -> bool {
        let at = Instant::now() + self.wait;
        let most = if self.failure.is_irreplaceable() { REPLACING[1] } else { RETRY[1] };
        self.wait = (self.wait * 2).clamp(RETRY[0], most);
        loop {
            match self.receiver.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(job) => self.pending.push(job),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
            if self.pending.last().is_some_and(Job::is_urgent) {
                // An attempt may take seconds: one for all.
                self.pending.extend(self.receiver.try_iter());
                return true;
            }
        }
    }

    #[cold]
    fn failed(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        let text = self.failure.to_string();
        for sink in sinks.values() {
            sink.stats.add(Measure::Errors, 1);
            sink.stats.set_trouble(Part::Spool, Some(text.clone()));
        }
        self.pending.retain(Job::outlasts_failure);
        let known = |(before, at): &(String, Instant)| *before == text && at.elapsed() < REMIND;
        if !self.reported.as_ref().is_some_and(known) {
            let waiting: u64 = sinks.values().map(|sink| sink.stats.waiting().records).sum();
            let next = if self.failure.is_damage() {
                "What can be read of it is copied to a new one"
            } else {
                "flowlog opens it as soon as that is possible"
            };
            warn!("{text}. {next}; {waiting} records wait in memory");
            self.reported = Some((text, Instant::now()));
        }
    }

    /// It is open, with what is known of `sinks` and of others that no stack names.
    fn opened(
        self,
        store: Store,
        sinks: &HashMap<String, Arc<Sink>>,
        known: &HashMap<String, Arc<Sink>>,
    ) {
        let Self { max_bytes, full, receiver, pending, .. } = self;
        info!("the spool {} is open", store.path().display());
        sinks.values().for_each(|sink| sink.stats.set_trouble(Part::Spool, None));
        let unclaimed = known.iter().filter(|(name, _)| !sinks.contains_key(*name));
        tell_unclaimed(store.path(), unclaimed.map(|(_, sink)| sink));
        let mut keeper = Keeper::new(store, max_bytes, full, receiver);
        keeper.pending = pending;
        keeper.run(known);
    }
}
