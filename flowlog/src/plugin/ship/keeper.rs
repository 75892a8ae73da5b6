//! The thread that alone writes the spool. What comes together is one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Full;
use super::failure::Failure;
use super::losses::{Loss, Taken};
use super::spool::{Job, Sink};
use super::store::{Change, Gone, Store, Wrong};
use crate::ratelimit::RateLimit;
use crate::stats::{Amount, Measure, Part};

/// How often a transaction that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How often the file is looked for under its name.
const LOOK: Duration = Duration::from_secs(1);
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
    looked: Instant,
    complaints: RateLimit,
}

/// What a transaction has done, to be counted once it is on disk.
#[derive(Default)]
struct Effects {
    appended: Vec<(usize, i64)>,
    acknowledged: Vec<(usize, Amount)>,
    dropped: Vec<Gone>,
    /// Chunks that found no room.
    refused: Vec<usize>,
}

impl Keeper {
    pub(super) fn new(store: Store, max_bytes: u64, full: Full, receiver: Receiver<Job>) -> Self {
        let complaints = RateLimit::per_second();
        let (pending, peak, looked) = (Vec::new(), 0, Instant::now());
        Self { store, max_bytes, full, receiver, pending, peak, failing: false, looked, complaints }
    }

    pub(super) fn run(mut self, sinks: &HashMap<String, Arc<Sink>>) {
        loop {
            let go_on = self.receive();
            self.look(sinks);
            self.turn(sinks);
            if !go_on {
                break;
            }
        }
    }

    /// Takes what there is to do; returns whether more may come.
    fn receive(&mut self) -> bool {
        match self.receiver.recv_timeout(if self.failing { RETRY } else { LOOK }) {
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

    /// Looks whether the file is what it was, also when the daemon ends.
    fn look(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        let ends = |job: &Job| matches!(job, Job::Answer(_) | Job::Stop(..));
        if self.looked.elapsed() < LOOK && !self.pending.iter().any(ends) {
            return;
        }
        self.looked = Instant::now();
        if let Some(wrong) = self.store.wrong() {
            self.replace(wrong, sinks);
        }
    }

    /// Makes a new file; returns whether that worked.
    #[cold]
    fn replace(&mut self, wrong: Wrong, sinks: &HashMap<String, Arc<Sink>>) -> bool {
        match self.store.replace(wrong) {
            Ok(given_up) => {
                let sinks = || sinks.iter().map(|(name, sink)| (name.as_str(), sink));
                given_up.count(self.store.path(), sinks());
                for (_, sink) in sinks() {
                    sink.stats.set_trouble(Part::Spool, None);
                    // One that has found the new file before its rows waits for others.
                    sink.newest.send_modify(|_| {});
                }
                true
            }
            Err(failure) => {
                let path = self.store.path().display();
                let what = match wrong {
                    Wrong::Damaged => format!("the spool {path} is damaged: {failure}"),
                    Wrong::Replaced => format!("the spool {path} was removed: {failure}"),
                };
                for sink in sinks.values() {
                    sink.stats.add(Measure::Errors, 1);
                    sink.stats.set_trouble(Part::Spool, Some(what.clone()));
                }
                if self.complaints.allow() {
                    let kept: u64 = sinks.values().map(|sink| sink.stats.kept().records).sum();
                    warn!(
                        "{what}. {kept} records are lost when flowlog ends before that is mended"
                    );
                }
                false
            }
        }
    }

    fn turn(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        let noted: Vec<(&Arc<Sink>, Taken)> =
            sinks.values().map(|sink| (sink, sink.losses.take())).collect();
        let mut done = self.transact(|_| true, &noted);
        if done.as_ref().is_err_and(Failure::is_damage) && self.replace(Wrong::Damaged, sinks) {
            done = self.transact(|_| true, &noted);
        }
        match done {
            Ok((effects, bytes)) => {
                self.count(&effects, sinks);
                noted.iter().for_each(|(sink, taken)| sink.losses.put(taken));
                self.succeeded(bytes);
            }
            Err(failure) => {
                self.failed(&failure);
                self.make_room(noted, sinks);
            }
        }
    }

    /// What has arrived makes room, perhaps the only room that there is. Losses go with it, if they
    /// can: workers wait until they are there.
    fn make_room(&mut self, noted: Vec<(&Arc<Sink>, Taken)>, sinks: &HashMap<String, Arc<Sink>>) {
        let with_losses = self.transact(Job::makes_room, &noted);
        let are_put = with_losses.is_ok();
        let done = with_losses.or_else(|_| self.transact(Job::makes_room, &[]));
        if let Ok((effects, _)) = done {
            self.count(&effects, sinks);
            self.pending.retain(|job| {
                if let Job::Forget(sink, _) = job {
                    sink.losses.forgotten();
                }
                !job.makes_room()
            });
        }
        for (sink, taken) in noted {
            if are_put {
                sink.losses.put(&taken);
            } else {
                sink.losses.give_back(taken);
            }
        }
    }

    /// Does the jobs that are `wanted`, all or none; returns what that did, and how
    /// many bytes are there then.
    fn transact(
        &mut self,
        wanted: fn(&Job) -> bool,
        noted: &[(&Arc<Sink>, Taken)],
    ) -> Result<(Effects, u64), Failure> {
        let Self { store, max_bytes, full, pending, .. } = self;
        let room = Room { max_bytes: *max_bytes, full: *full };
        store.transact(|change| {
            let mut effects = Effects::default();
            for (place, job) in pending.iter().enumerate().filter(|(_, job)| wanted(job)) {
                room.apply(place, job, change, &mut effects)?;
            }
            for (sink, taken) in noted {
                taken.losses.iter().try_for_each(|loss| change.lose(&sink.name, loss))?;
            }
            Ok((effects, change.bytes()))
        })
    }

    fn count(&self, effects: &Effects, sinks: &HashMap<String, Arc<Sink>>) {
        let Effects { appended, acknowledged, dropped, refused } = effects;
        for (place, number) in appended {
            let Some(Job::Append(sink, chunk)) = self.pending.get(*place) else { continue };
            sink.stats.add(Measure::Spooled, chunk.records);
            sink.stats.add_kept(chunk.amount());
            sink.undelivered.wait();
            // Before it waits no more: who sees that nothing waits knows the newest row.
            sink.newest.send_replace(*number);
            sink.waits_no_more(chunk.amount());
        }
        for (place, amount) in acknowledged {
            if let Some(Job::Acknowledge(sink, _)) = self.pending.get(*place) {
                sink.stats.take_kept(*amount);
            }
        }
        for place in refused {
            let Some(Job::Append(sink, chunk)) = self.pending.get(*place) else { continue };
            sink.stats.add(Measure::Dropped, chunk.records);
            sink.waits_no_more(chunk.amount());
        }
        for Gone { sink, amount, span: _ } in dropped {
            if let Some(sink) = sinks.get(sink) {
                sink.stats.add(Measure::Dropped, amount.records);
                sink.stats.take_kept(*amount);
            }
        }
    }

    fn succeeded(&mut self, bytes: u64) {
        // Then it works on, in a file without a name.
        let detached = self.store.health().is_detached();
        for job in self.pending.drain(..) {
            match job {
                Job::Append(sink, _) if !detached => sink.stats.set_trouble(Part::Spool, None),
                Job::Append(..) => {}
                Job::Acknowledge(..) => {}
                Job::Forget(sink, _) => sink.losses.forgotten(),
                Job::Stop(control, deadline) => control.stop(deadline),
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
                sink.stats.set_trouble(Part::Spool, Some(failure.to_string()));
                true
            }
            Job::Acknowledge(..) | Job::Forget(..) => true,
            Job::Stop(control, deadline) => {
                control.stop(*deadline);
                false
            }
            Job::Answer(answer) => {
                let _ = answer.send(());
                false
            }
        });
        if let Some(Job::Append(sink, _)) = self.pending.first() {
            sink.stats.add(Measure::Errors, 1);
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
                    return lose(&sink.name, chunk.records, chunk.span, change);
                }
                let number = change.append(&sink.name, chunk)?;
                effects.appended.push((place, number));
            }
            Job::Acknowledge(sink, last) => {
                effects.acknowledged.push((place, change.acknowledge(&sink.name, *last)?));
            }
            Job::Forget(_, said) => change.forget(said)?,
            Job::Stop(..) | Job::Answer(_) => {}
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
                    Some(gone) => {
                        lose(&gone.sink, gone.amount.records, gone.span, change)?;
                        effects.dropped.push(gone);
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
    span: (u64, u64),
    change: &mut Change<'_>,
) -> rusqlite::Result<()> {
    // Bytes that cannot be read may be of any time.
    let (since, until) = if span == (0, 0) { (0, i64::MAX as u64) } else { span };
    change.lose(sink, &Loss { measure: Measure::Dropped, since, until, records })
}
