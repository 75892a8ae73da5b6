//! The thread that alone writes the spool. What comes together is one transaction.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::Full;
use super::backoff::Pause;
use super::failure::Failure;
use super::gate::Gates;
use super::losses::Taken;
use super::rescue::Amounts;
use super::room::{Effects, Room};
use super::spool::{Job, Sink};
use super::store::{Gone, Store, Wrong};
use crate::ratelimit::RateLimit;
use crate::stats::{Measure, Part};

mod replacing;

/// How soon a transaction that failed is tried again, first and at most.
pub(super) const RETRY: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];
/// How often the same failure is reported.
pub(super) const REMIND: Duration = Duration::from_mins(1);
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
    pub(super) pending: Vec<Job>,
    /// The most that was there since the file shrank, bytes.
    peak: u64,
    /// Present while the spool cannot be written.
    failing: Option<Failing>,
    /// Present while the file is damaged and could not be replaced.
    irreplaceable: Option<Pause>,
    /// Present while the file has no name, and a long copy of what it holds has failed.
    put_off: Option<Pause>,
    /// What was said to be wrong with the file.
    announced: Option<Wrong>,
    /// The failure that was reported last, and when.
    reported: Option<(String, Instant)>,
    looked: Instant,
    complaints: RateLimit,
    /// What was noted beside the spool last; absent: nothing, or in another directory.
    held: Option<Amounts>,
}

/// The spool cannot be written.
struct Failing {
    /// How long the next attempt waits.
    wait: Duration,
    /// When it is made.
    at: Instant,
    /// It was reported.
    reported: bool,
}

impl Keeper {
    pub(super) fn new(store: Store, max_bytes: u64, full: Full, receiver: Receiver<Job>) -> Self {
        Self {
            store,
            max_bytes,
            full,
            receiver,
            pending: Vec::new(),
            peak: 0,
            failing: None,
            irreplaceable: None,
            put_off: None,
            announced: None,
            reported: None,
            looked: Instant::now(),
            complaints: RateLimit::per_second(),
            held: None,
        }
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
        self.note_held(sinks);
        self.forget_given_up(sinks);
    }

    /// Takes what there is to do; returns whether more may come.
    fn receive(&mut self) -> bool {
        let wait = match &self.failing {
            Some(failing) => failing.at.saturating_duration_since(Instant::now()),
            None if self.pending.is_empty() => LOOK,
            // What has waited for the spool to be opened.
            None => Duration::ZERO,
        };
        match self.receiver.recv_timeout(wait.min(LOOK)) {
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
        let ends = self.pending.iter().any(Job::is_urgent);
        if self.looked.elapsed() < LOOK && !ends {
            return;
        }
        self.looked = Instant::now();
        match self.store.wrong() {
            // It has its name, and the next start replaces it: to copy it would take the time in
            // which what waits can be written.
            Some(Wrong::Damaged) if ends => {}
            Some(wrong) if self.pauses(wrong) && !ends => {}
            Some(wrong) => {
                self.replace(wrong, sinks);
            }
            None if self.store.attach() => {
                info!("the spool {} is in its place again", self.store.path().display());
                for sink in sinks.values() {
                    sink.stats.set_trouble(Part::Spool, None);
                }
                (self.held, self.put_off, self.announced) = (None, None, None);
            }
            None => {}
        }
        self.note_held(sinks);
        self.forget_given_up(sinks);
    }

    /// What was given up was counted; once those who want to know it find it in the spool, a kill
    /// cannot make it unknown any more.
    fn forget_given_up(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        if self.store.has_noted() && !sinks.values().any(|sink| sink.losses.are_noted()) {
            self.store.forget_given_up();
        }
    }

    /// Notes beside the spool what it holds, where that is not what was noted last.
    fn note_held(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        let held = kept(sinks);
        if self.held.as_ref() != Some(&held) {
            self.store.note_held(&held);
            self.held = Some(held);
        }
    }

    /// Does what is to be done, unless an attempt has failed just before. After a failure the first
    /// job shows whether it is over; then twice as many each time.
    fn turn(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        let waits = self.failing.as_ref().is_some_and(|failing| Instant::now() < failing.at);
        if waits && !self.pending.iter().any(Job::is_urgent) {
            return;
        }
        let mut jobs = if self.failing.is_some() { 1 } else { usize::MAX };
        loop {
            let count = jobs.min(self.pending.len());
            match self.attempt(count, sinks) {
                Ok(bytes) => self.succeeded(count, bytes),
                Err(failure) => return self.failed(&failure, sinks),
            }
            if self.pending.is_empty() {
                return self.recovered();
            }
            jobs = jobs.saturating_mul(2);
        }
    }

    /// Does the first `jobs`; returns how many bytes are there then.
    fn attempt(&mut self, jobs: usize, sinks: &HashMap<String, Arc<Sink>>) -> Result<u64, Failure> {
        let mut noted = take_noted(sinks);
        let first = |place: usize, _: &Job| place < jobs;
        let mut done = self.transact(first, &noted, sinks);
        let damaged = done.as_ref().is_err_and(Failure::is_damage);
        if damaged && self.replace_damaged(sinks) {
            // With those that it has noted itself.
            give_back(noted);
            noted = take_noted(sinks);
            done = self.transact(first, &noted, sinks);
        }
        match done {
            Ok((effects, bytes)) => {
                self.count(&effects, sinks);
                noted.iter().for_each(|(sink, taken)| sink.losses.put(taken));
                Ok(bytes)
            }
            Err(failure) => {
                give_back(noted);
                Err(failure)
            }
        }
    }

    /// What has arrived makes room, perhaps the only room that there is. Losses go with it, if they
    /// can: workers wait until they are there.
    fn make_room(&mut self, sinks: &HashMap<String, Arc<Sink>>) {
        let noted = take_noted(sinks);
        let none_noted = noted.iter().all(|(_, taken)| taken.losses.is_empty());
        if none_noted && !self.pending.iter().any(Job::makes_room) {
            return give_back(noted);
        }
        let makes_room = |_: usize, job: &Job| job.makes_room();
        let with_losses = self.transact(makes_room, &noted, sinks);
        let are_put = with_losses.is_ok();
        let done = with_losses.or_else(|_| self.transact(makes_room, &[], sinks));
        if let Ok((effects, _)) = done {
            self.count(&effects, sinks);
            self.pending.retain(|job| {
                if let Job::Forget(sink, _) = job {
                    sink.losses.forgotten();
                }
                !job.makes_room()
            });
        }
        if are_put {
            noted.iter().for_each(|(sink, taken)| sink.losses.put(taken));
        } else {
            give_back(noted);
        }
    }

    /// Does the jobs that are `wanted`, all or none; returns what that did, and how
    /// many bytes are there then.
    fn transact(
        &mut self,
        wanted: impl Fn(usize, &Job) -> bool,
        noted: &[(&Arc<Sink>, Taken)],
        sinks: &HashMap<String, Arc<Sink>>,
    ) -> Result<(Effects, u64), Failure> {
        let Self { store, max_bytes, full, pending, .. } = self;
        let health = store.health().clone();
        // Until rows that are dropped are gone.
        let room = Room::new(*max_bytes, *full, sinks, &health);
        let jobs = || pending.iter().enumerate().filter(|(place, job)| wanted(*place, job));
        // Until they are committed: then they are in the spool, or not.
        let gates = Gates::close(jobs().map(|(_, job)| job));
        store.transact(|change| {
            let mut effects = Effects::default();
            for (place, job) in jobs().filter(|(_, job)| !gates.have_given_up(job)) {
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
            sink.waits_no_more(chunk.held());
        }
        for (place, amount) in acknowledged {
            if let Some(Job::Acknowledge(sink, ..)) = self.pending.get(*place) {
                sink.stats.take_kept(*amount);
            }
        }
        for place in refused {
            let Some(Job::Append(sink, chunk)) = self.pending.get(*place) else { continue };
            sink.stats.add(Measure::Dropped, chunk.records);
            sink.waits_no_more(chunk.held());
        }
        for (Gone { sink, amount, .. }, counted) in dropped {
            if let Some(sink) = sinks.get(sink) {
                sink.stats.add(Measure::Dropped, if *counted { 0 } else { amount.records });
                sink.stats.take_kept(*amount);
            }
        }
    }

    /// The first `jobs` are done.
    fn succeeded(&mut self, jobs: usize, bytes: u64) {
        // Else it works on, in a file without a name, or one that nobody can read.
        let sound = !self.store.health().is_detached() && self.irreplaceable.is_none();
        for job in self.pending.drain(..jobs) {
            match job {
                Job::Append(sink, _) if sound => sink.stats.set_trouble(Part::Spool, None),
                Job::Append(..) => {}
                Job::Acknowledge(..) => {}
                Job::Forget(sink, _) => sink.losses.forgotten(),
                Job::Stop(control, deadline) => control.stop(deadline),
                // The sender of the job may have ended.
                Job::Answer(answer) => drop(answer.send(())),
            }
        }
        self.peak = self.peak.max(bytes);
        if bytes == 0 && self.peak > SHRINK {
            self.peak = 0;
            self.store.shrink();
        }
    }

    /// All is done.
    fn recovered(&mut self) {
        if self.failing.take().is_some_and(|failing| failing.reported) {
            info!("{} can be written again", self.store.path().display());
        }
    }

    #[cold]
    fn failed(&mut self, failure: &Failure, sinks: &HashMap<String, Arc<Sink>>) {
        let text = match &self.irreplaceable {
            // It says what to do.
            Some(pause) if failure.is_damage() => pause.why.clone(),
            _ => failure.to_string(),
        };
        let mut waiting = 0;
        for job in &self.pending {
            if let Job::Append(sink, chunk) = job {
                waiting += chunk.records;
                sink.stats.set_trouble(Part::Spool, Some(text.clone()));
            }
        }
        self.pending.retain(Job::outlasts_failure);
        if let Some(Job::Append(sink, _)) = self.pending.first() {
            sink.stats.add(Measure::Errors, 1);
        }
        let reported = self.report(text, waiting);
        let failing = self.failing.get_or_insert(Failing {
            wait: RETRY[0],
            at: Instant::now(),
            reported: false,
        });
        failing.reported |= reported;
        failing.at = Instant::now() + failing.wait;
        failing.wait = (failing.wait * 2).min(RETRY[1]);
        if failure.is_full() {
            self.store.use_log_again();
        }
        self.make_room(sinks);
    }

    /// Says so, unless it was said a moment ago; returns whether it did.
    fn report(&mut self, text: String, waiting: u64) -> bool {
        let known = |(said, at): &(String, Instant)| *said == text && at.elapsed() < REMIND;
        if self.reported.as_ref().is_some_and(known) || !self.complaints.allow() {
            return false;
        }
        warn!("{text}. {waiting} records wait in memory");
        self.reported = Some((text, Instant::now()));
        true
    }
}

/// What the spool holds of each sink.
fn kept(sinks: &HashMap<String, Arc<Sink>>) -> Amounts {
    let kept = sinks.iter().map(|(name, sink)| (name.clone(), sink.stats.kept()));
    kept.filter(|(_, amount)| amount.records > 0).collect()
}

/// Losses that are to be put into the spool.
fn take_noted(sinks: &HashMap<String, Arc<Sink>>) -> Vec<(&Arc<Sink>, Taken)> {
    sinks.values().map(|sink| (sink, sink.losses.take())).collect()
}

/// They could not be put there.
fn give_back(noted: Vec<(&Arc<Sink>, Taken)>) {
    noted.into_iter().for_each(|(sink, taken)| sink.losses.give_back(taken));
}
