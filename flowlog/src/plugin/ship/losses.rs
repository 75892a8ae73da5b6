//! What a sink has lost on its way to the client, with the time that it is of.
//!
//! Only a client that says what it does not have needs it ([`Client::COVERS`]).
//! A loss is noted in memory where it happens, and put into the spool by the next
//! transaction, beside what was not lost: a kill forgets neither. It leaves the
//! spool when the client has said it.
//!
//! [`Client::COVERS`]: super::Client::COVERS

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::capture::netlink::now_ns;
use crate::stats::Measure;

/// A loss within that time of another is a part of it, nanoseconds.
pub(super) const NEAR: u64 = 1_000_000_000;
/// Losses that are kept one by one, in memory and in the spool, of each sink.
pub(super) const MOST: usize = 256;
/// Records that the client will not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// What is counted of it: [`Measure::Lost`], [`Measure::Dropped`] or
    /// [`Measure::Refused`].
    pub measure: Measure,
    /// The time of the first of them at the earliest, nanoseconds since the epoch.
    pub since: u64,
    /// The time of the last of them at the latest.
    pub until: u64,
    /// How many there are; 0: not known.
    pub records: u64,
}

impl Loss {
    /// Records of which neither the number nor the time is known: what stood in a file that cannot
    /// be read any more.
    pub(super) fn unknown() -> Self {
        Self { measure: Measure::Lost, since: 0, until: now_ns(), records: 0 }
    }

    /// Both may be one, whatever their times are.
    fn is_like(&self, other: &Self) -> bool {
        // A sum with a number that is not known would look like one that is.
        self.measure == other.measure && (self.records == 0) == (other.records == 0)
    }

    pub(super) fn is_near(&self, other: &Self) -> bool {
        self.is_like(other)
            && other.since <= self.until.saturating_add(NEAR)
            && self.since <= other.until.saturating_add(NEAR)
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        let known = self.records > 0 && other.records > 0;
        self.records = if known { self.records.saturating_add(other.records) } else { 0 };
    }
}

/// Losses of one sink that are not in the spool yet, and up to when it has been
/// given everything.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// The client wants them.
    wanted: AtomicBool,
    /// Held for a moment only, never while anything is read or written.
    noted: Mutex<Vec<Loss>>,
    /// How many were noted so far, and how many of those are in the spool.
    count: AtomicU64,
    spooled: AtomicU64,
    /// Times that the client has said some which are not removed from the spool yet.
    said: AtomicU64,
    /// See [`Losses::caught_up`].
    complete: AtomicU64,
}

impl Losses {
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    pub(super) fn are_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed)
    }

    /// Notes one.
    #[cold]
    pub(super) fn note(&self, loss: Loss) {
        let mut noted = self.lock();
        self.count.fetch_add(1, Ordering::AcqRel);
        add(&mut noted, loss);
    }

    /// There are some that are not in the spool yet, also while they are put there.
    pub(super) fn are_noted(&self) -> bool {
        self.are_wanted() && !self.are_spooled(self.count())
    }

    /// How many were noted so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The first `count` of them are in the spool.
    pub(super) fn are_spooled(&self, count: u64) -> bool {
        self.spooled.load(Ordering::Acquire) >= count
    }

    /// Takes them, to be put into the spool, where somebody wants them.
    pub(super) fn take(&self) -> Taken {
        if !self.are_wanted() {
            return Taken::default();
        }
        let mut noted = self.lock();
        Taken { losses: std::mem::take(&mut *noted), count: self.count() }
    }

    /// They could not be put there. They were counted when they were noted, and stand before those
    /// that were noted since.
    pub(super) fn give_back(&self, Taken { losses, .. }: Taken) {
        let mut noted = self.lock();
        let since = std::mem::replace(&mut *noted, losses);
        since.into_iter().for_each(|loss| add(&mut noted, loss));
    }

    /// They are in the spool.
    pub(super) fn put(&self, taken: &Taken) {
        self.spooled.fetch_max(taken.count, Ordering::AcqRel);
    }

    /// The client has said some: they are to be removed from the spool.
    pub(super) fn say(&self) {
        self.said.fetch_add(1, Ordering::AcqRel);
    }

    /// They are.
    pub(super) fn forgotten(&self) {
        self.said.fetch_sub(1, Ordering::AcqRel);
    }

    /// Some in the spool were said already: to read them now would have them said twice.
    pub(super) fn are_said(&self) -> bool {
        self.said.load(Ordering::Acquire) > 0
    }

    /// Whatever happened before `complete` has been handed over, or was counted as
    /// lost.
    pub(super) fn caught_up(&self, complete: u64) {
        self.complete.store(complete, Ordering::Release);
    }

    /// What was said last.
    pub(super) fn complete(&self) -> Option<u64> {
        Some(self.complete.load(Ordering::Acquire)).filter(|complete| *complete > 0)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Loss>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a loss to those that are kept: as a part of one, where that is near or there are too many.
fn add(noted: &mut Vec<Loss>, loss: Loss) {
    // The last one, where there are too many: then it has more time than it should.
    let full = noted.len() >= MOST;
    let mut kept = noted.iter_mut().rev();
    match kept.find(|kept| kept.is_near(&loss) || full && kept.is_like(&loss)) {
        Some(kept) => kept.join(&loss),
        None => noted.push(loss),
    }
}

/// Losses on their way into the spool.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) losses: Vec<Loss>,
    /// How many had been noted by then, so far.
    count: u64,
}

/// The name of a measure in the spool.
pub(super) fn word(measure: Measure) -> &'static str {
    match measure {
        Measure::Dropped => "dropped",
        Measure::Refused => "refused",
        _ => "lost",
    }
}

/// The measure of that name.
pub(super) fn named(name: &str) -> Measure {
    let known = Measure::LOSSES.into_iter().find(|measure| word(*measure) == name);
    known.unwrap_or(Measure::Lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(measure: Measure, since: u64, until: u64, records: u64) -> Loss {
        Loss { measure, since, until, records }
    }

    #[test]
    fn losses_are_noted_where_somebody_wants_them() {
        let losses = Losses::default();
        losses.note(loss(Measure::Lost, 5, 5, 1));
        assert!(!losses.are_noted());
        assert!(losses.take().losses.is_empty(), "nobody wants them");
        losses.want();
        losses.note(loss(Measure::Lost, 5, 5, 1));
        losses.note(loss(Measure::Lost, 4, 6, 1));
        losses.note(loss(Measure::Dropped, 5, 5, 1));
        losses.note(loss(Measure::Lost, 6 + 3 * NEAR, 6 + 3 * NEAR, 7));
        assert!(losses.are_noted());
        let taken = losses.take();
        assert!(losses.are_noted(), "they are on their way");
        losses.give_back(taken);
        losses.note(loss(Measure::Dropped, 6, 7, 1));
        let taken = losses.take();
        losses.put(&taken);
        assert!(!losses.are_noted());
        losses.note(loss(Measure::Lost, 5, 5, 1));
        losses.put(&taken);
        assert!(losses.are_noted(), "another one is not in the spool");
        losses.put(&losses.take());
        assert_eq!(
            taken.losses,
            [
                loss(Measure::Lost, 4, 6, 3),
                loss(Measure::Dropped, 5, 7, 2),
                loss(Measure::Lost, 6 + 3 * NEAR, 6 + 3 * NEAR, 7),
            ]
        );
        for number in 0..10 * MOST as u64 {
            losses.note(loss(Measure::Lost, 3 * NEAR * number, 3 * NEAR * number, 1));
        }
        let noted = losses.take().losses;
        assert_eq!(noted.len(), MOST);
        assert_eq!(noted.iter().map(|loss| loss.records).sum::<u64>(), 10 * MOST as u64);
    }

    /// A spool that cannot be written is tried again and again.
    #[test]
    fn what_is_given_back_is_joined_and_bounded() {
        let losses = Losses::default();
        losses.want();
        let mut made = 0;
        for attempt in 0..4 * MOST as u64 {
            let taken = losses.take();
            // Near that of the attempt before, and far from all others.
            for at in [5, 9 * NEAR * attempt] {
                losses.note(loss(Measure::Dropped, at, at, 1));
                made += 1;
            }
            losses.give_back(taken);
        }
        let noted = losses.take().losses;
        assert!(noted.len() <= MOST, "{} are kept", noted.len());
        assert_eq!(noted.iter().map(|loss| loss.records).sum::<u64>(), made);
        assert_eq!(losses.count(), made, "some count twice");
    }
}
