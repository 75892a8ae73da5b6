//! What a worker knows of its sink: what was handed to the client, what has arrived, and which
//! losses the client has learned of.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::health::Health;
use super::losses::Loss;
use super::reader::Reader;
use super::spool::{Failure, Job, Sink, Spool};
use super::{Client, Upstream};
use crate::stats::{Amount, Measure};

/// A sink's end of the spool.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) sink: Arc<Sink>,
    jobs: Sender<Job>,
    pub(super) path: PathBuf,
    pub(super) health: Health,
    /// See [`Spool::share`].
    pub(super) share: usize,
    /// The newest row that has arrived.
    pub(super) arrived: i64,
    /// What the client has got since.
    pub(super) unsettled: Amount,
    /// The newest row that was ever handed to a client.
    pub(super) handed: i64,
    /// Losses that the client knows and has not stated yet; absent: it knows nothing yet.
    pub(super) losses: Option<Vec<(i64, Loss)>>,
    /// Losses that must be in the spool before a batch is delivered: of rows before it.
    pub(super) noted: u64,
    /// The latest time of a record that was handed to a client.
    pub(super) latest: u64,
}

impl Link {
    pub(super) fn new(sink: Arc<Sink>, jobs: Sender<Job>, spool: &Spool) -> Self {
        let (path, health) = (spool.path().to_owned(), spool.health().clone());
        Self {
            sink,
            jobs,
            path,
            health,
            share: spool.share(),
            arrived: 0,
            unsettled: Amount::default(),
            handed: 0,
            losses: None,
            noted: 0,
            latest: 0,
        }
    }

    pub(super) fn count(&self, measure: Measure, n: u64) {
        self.sink.stats.add(measure, n);
    }

    /// All up to that row has arrived.
    pub(super) fn acknowledge(&mut self, last: i64) {
        if last > self.arrived {
            self.arrived = last;
            // It fails when the daemon has ended: then it is delivered again.
            let arrived = std::mem::take(&mut self.unsettled);
            let _ = self.jobs.send(Job::Acknowledge(self.sink.clone(), last, arrived));
        }
        if let Some(said) = &mut self.losses
            && !said.is_empty()
        {
            // The same: it is said once more then.
            self.sink.losses.say();
            let job = Job::Forget(self.sink.clone(), std::mem::take(said));
            if self.jobs.send(job).is_err() {
                self.sink.losses.forgotten();
            }
        }
    }

    /// All records up to then were delivered up to the row `after`, or were lost: none
    /// waits before the spool, and none in it.
    fn complete(&self, after: i64) -> Option<u64> {
        let losses = &self.sink.losses;
        // First: what is handed over later does not matter.
        let complete = losses.complete()?;
        let waits =
            self.sink.stats.waiting().records > 0 || losses.are_noted() || losses.are_said();
        (!waits && *self.sink.newest.borrow() <= after).then_some(complete)
    }

    /// Has the client learn what comes to it, if it wants to; returns whether that is all that
    /// there is to learn.
    ///
    /// Behind rows that it takes next: with them it may state that it has all of their time, and
    /// losses that were noted before them are in the spool since the same transaction at the
    /// latest. So they are read anew each time, and not while the spool still has some that were
    /// stated, or has not yet those of damaged rows.
    pub(super) fn teach<C: Client>(
        &mut self,
        client: &mut C,
        reader: &Reader,
        after: i64,
    ) -> Result<bool, Failure> {
        if !C::COVERS {
            return Ok(true);
        }
        // First: what is lost later does not matter.
        let complete = self.complete(after);
        if !self.are_settled() {
            client.learn(Upstream { complete: None, losses: None });
            return Ok(false);
        }
        let losses = reader.losses(&self.sink.name)?;
        // The same are stated already, or will be.
        let is_new = self.losses.as_ref() != Some(&losses);
        let losses = &*self.losses.insert(losses);
        client.learn(Upstream { complete, losses: is_new.then_some(losses) });
        Ok(true)
    }

    /// The spool has forgotten what the client has stated, and has what was noted of damaged
    /// rows: before that it is not known what there is to state.
    pub(super) fn are_settled(&self) -> bool {
        let losses = &self.sink.losses;
        !losses.are_said() && losses.are_spooled(self.noted)
    }
}
