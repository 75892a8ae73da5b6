//! The thread that alone writes the spool. What comes together is one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use tracing::{info, warn};

use super::Full;
use super::batch;
use super::losses::Loss;
use super::spool::{Chunk, Job, Sink};
use super::store::{Change, Dropped, Failure, Store};
use super::tally::{Amount, Measure, Part};
use crate::ratelimit::RateLimit;

/// How often a transaction that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes that one transaction takes at most: the rest comes with the next.
const TURN: usize = 16 << 20;
/// Bytes that the spool must have held for its file to shrink when it is empty.
const SHRINK: u64 = 64 << 20;

/// The thread that writes.
pub(super) struct Keeper {
    pub(super) store: Store,
    max_bytes: u64,
    full: Full,
    receiver: Receiver<Job>,
    pending: Vec<Job>,
    /// The most that was there since the file shrank, bytes.
    peak: u64,
    failing: bool,
    /// Losses wait to be put into the spool.
    noted: bool,
    complaints: RateLimit,
}

/// What a transaction has done, to be counted once it is on disk.
#[derive(Default)]
struct Effects {
    appended: Vec<(usize, i64)>,
    acknowledged: Vec<(usize, Amount)>,
    dropped: Vec<(String, Amount)>,
    /// Sinks whose losses in the spool are others now.
    lost: Vec<String>,
    /// Chunks that found no room.
    refused: Vec<usize>,
}

impl Keeper {
    pub(super) fn new(store: Store, max_bytes: u64, full: Full, receiver: Receiver<Job>) -> Self {
        let complaints = RateLimit::per_second();
        let (pending, peak, failing, noted) = (Vec::new(), 0, false, false);
        Self { store, max_bytes, full, receiver, pending, peak, failing, noted, complaints }
    }

    pub(super) fn run(mut self, sinks: &HashMap<String, Arc<Sink>>) {
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
        let first = if self.failing || self.noted {
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
        let noted: Vec<(&Arc<Sink>, Vec<Loss>)> =
            sinks.values().map(|sink| (sink, sink.tally.losses.take())).collect();
        match self.transact(|_| true, &noted) {
            Ok((effects, bytes)) => {
                self.count(&effects, sinks);
                self.succeeded(bytes);
            }
            Err(failure) => {
                for (sink, losses) in noted {
                    losses.into_iter().for_each(|loss| sink.tally.losses.note(loss));
                }
                self.failed(&failure);
                // What has arrived makes room, perhaps the only room that there is.
                if let Ok((effects, _)) = self.transact(Job::makes_room, &[]) {
                    self.count(&effects, sinks);
                    self.pending.retain(|job| !job.makes_room());
                }
            }
        }
        self.noted = sinks.values().any(|sink| sink.tally.losses.are_noted());
    }

    /// Does the jobs that are `wanted`, all or none; returns what that did, and how
    /// many bytes are there then.
    fn transact(
        &mut self,
        wanted: fn(&Job) -> bool,
        noted: &[(&Arc<Sink>, Vec<Loss>)],
    ) -> Result<(Effects, u64), Failure> {
        let Self { store, max_bytes, full, pending, .. } = self;
        let room = Room { max_bytes: *max_bytes, full: *full };
        store.transact(|change| {
            let mut effects = Effects::default();
            for (place, job) in pending.iter().enumerate().filter(|(_, job)| wanted(job)) {
                room.apply(place, job, change, &mut effects)?;
            }
            for (sink, losses) in noted.iter().filter(|(_, losses)| !losses.is_empty()) {
                losses.iter().try_for_each(|loss| change.lose(&sink.name, loss))?;
                effects.lost.push(sink.name.clone());
            }
            Ok((effects, change.bytes()))
        })
    }

    fn count(&self, effects: &Effects, sinks: &HashMap<String, Arc<Sink>>) {
        let Effects { appended, acknowledged, dropped, refused, lost } = effects;
        for (place, number) in appended {
            let Some(Job::Append(sink, chunk)) = self.pending.get(*place) else { continue };
            sink.tally.add(Measure::Spooled, chunk.records);
            sink.tally.add_kept(chunk.amount());
            // Before it waits no more: who sees that nothing waits knows the newest row.
            sink.newest.send_replace(*number);
            sink.tally.take_waiting(chunk.amount());
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
        for sink in lost.iter().filter_map(|name| sinks.get(name)) {
            sink.tally.losses.changed();
        }
    }

    fn succeeded(&mut self, bytes: u64) {
        for job in self.pending.drain(..) {
            match job {
                Job::Append(sink, _) => sink.tally.set_trouble(Part::Spool, None),
                Job::Acknowledge(..) | Job::Forget(..) => {}
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
            Job::Acknowledge(..) | Job::Forget(..) => true,
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
                    let times = batch::times(&chunk.payload);
                    return lose(&sink.name, chunk.records, times, change, effects);
                }
                let Chunk { encoding, records, payload } = chunk;
                let number = change.append(&sink.name, encoding, *records, payload)?;
                effects.appended.push((place, number));
            }
            Job::Acknowledge(sink, last) => {
                effects.acknowledged.push((place, change.acknowledge(&sink.name, *last)?));
            }
            Job::Forget(sink, said) => {
                change.forget(said)?;
                effects.lost.push(sink.name.clone());
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
                    Some(Dropped { sink, amount, times }) => {
                        lose(&sink, amount.records, times, change, effects)?;
                        effects.dropped.push((sink, amount));
                    }
                    None => break,
                },
            }
        }
        Ok(true)
    }
}

/// Notes in the spool that records found no room there.
fn lose(
    sink: &str,
    records: u64,
    times: Option<(u64, u64)>,
    change: &mut Change<'_>,
    effects: &mut Effects,
) -> rusqlite::Result<()> {
    // Of bytes that nobody can read nobody knows when they were: at any time.
    let (since, until) = times.unwrap_or((0, i64::MAX as u64));
    change.lose(sink, &Loss { measure: Measure::Dropped, since, until, records })?;
    effects.lost.push(sink.to_owned());
    Ok(())
}
