//! Whether chunks may still be put into the spool. At the exit of the daemon each record is in the
//! spool or counts as lost, or as unsure where neither is known.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::spool::{Job, Sink};

/// The gate of a sink: the keeper holds it while it commits its chunks.
#[derive(Debug, Default)]
pub(super) struct Gate(Mutex<bool>);

/// What became of chunks that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// They will not be in the spool.
    Out,
    /// They are being put there at this moment.
    Unsure,
}

impl Gate {
    /// Gives up what waits. Does not wait for a commit that is under way.
    pub(super) fn give_up(&self) -> Outcome {
        match self.0.try_lock() {
            Ok(mut given_up) => {
                *given_up = true;
                Outcome::Out
            }
            // A plain value is whole, whatever became of the other thread.
            Err(TryLockError::Poisoned(mut poisoned)) => {
                **poisoned.get_mut() = true;
                Outcome::Out
            }
            Err(TryLockError::WouldBlock) => Outcome::Unsure,
        }
    }

    /// The engine has counted what waited, and its totals are made then.
    pub(super) fn is_given_up(&self) -> bool {
        *self.close()
    }

    fn close(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is counted from now on may not be in the totals of the daemon any more.
pub(super) fn have_ended<'s>(mut sinks: impl Iterator<Item = &'s Arc<Sink>>) -> bool {
    sinks.any(|sink| sink.gate.is_given_up())
}

/// The gates of all sinks whose chunks are being committed.
pub(super) struct Gates<'a>(Vec<(&'a Arc<Sink>, MutexGuard<'a, bool>)>);

impl<'a> Gates<'a> {
    /// Closes them. The keeper alone closes more than one, so that no two threads wait for each other.
    pub(super) fn close(jobs: impl Iterator<Item = &'a Job>) -> Self {
        let mut gates: Vec<(&Arc<Sink>, MutexGuard<'_, bool>)> = Vec::new();
        for job in jobs {
            if let Job::Append(sink, _) = job
                && !gates.iter().any(|(known, _)| Arc::ptr_eq(known, sink))
            {
                gates.push((sink, sink.gate.close()));
            }
        }
        Self(gates)
    }

    /// It is a chunk that was given up.
    pub(super) fn have_given_up(&self, job: &Job) -> bool {
        let Job::Append(sink, _) = job else { return false };
        self.0.iter().any(|(known, given_up)| Arc::ptr_eq(known, sink) && **given_up)
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::Chunk;
    use super::*;

    fn append(sink: &Arc<Sink>) -> Job {
        let encoding = Arc::from("compact 1");
        let chunk = Chunk { encoding, records: 1, span: (1, 1), complete: 1, payload: vec![1] };
        Job::Append(sink.clone(), chunk)
    }

    #[test]
    fn what_is_given_up_is_not_put_there() {
        let (one, other) = (Sink::new("one"), Sink::new("other"));
        let jobs = [append(&one), append(&other), append(&one)];
        assert_eq!(one.gate.give_up(), Outcome::Out);
        let gates = Gates::close(jobs.iter());
        assert_eq!(jobs.each_ref().map(|job| gates.have_given_up(job)), [true, false, true]);
        // It is being committed: whether it will be there is not known.
        assert_eq!(other.gate.give_up(), Outcome::Unsure);
        drop(gates);
        assert_eq!(other.gate.give_up(), Outcome::Out);
        assert!(Gates::close(jobs.iter()).have_given_up(&jobs[1]));
    }
}
