//! What a transaction of the keeper does, and how it makes room.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::MutexGuard;

use super::Full;
use super::health::Health;
use super::losses::Loss;
use super::spool::{Job, Sink};
use super::store::{Change, Gone};
use crate::capture::netlink::now_ns;
use crate::stats::{Amount, Measure};

/// What a transaction has done, to be counted once it is on disk.
#[derive(Default)]
pub(super) struct Effects {
    pub(super) appended: Vec<(usize, i64)>,
    pub(super) acknowledged: Vec<(usize, Amount)>,
    /// Rows that found no room any more, and whether they were counted before, as damaged.
    pub(super) dropped: Vec<(Gone, bool)>,
    /// Chunks that found no room.
    pub(super) refused: Vec<usize>,
}

/// How much room there is, and who makes it.
pub(super) struct Room<'a> {
    max_bytes: u64,
    full: Full,
    sinks: &'a HashMap<String, Arc<Sink>>,
    health: &'a Health,
    /// Held from the first row that is dropped on.
    kept: OnceCell<MutexGuard<'a, ()>>,
}

impl<'a> Room<'a> {
    /// For a transaction.
    pub(super) fn new(
        max_bytes: u64,
        full: Full,
        sinks: &'a HashMap<String, Arc<Sink>>,
        health: &'a Health,
    ) -> Self {
        Self { max_bytes, full, sinks, health, kept: OnceCell::new() }
    }

    /// Does a job, the one at that place.
    pub(super) fn apply(
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
                    return lose(&sink.name, chunk.records, Some(chunk.span), change);
                }
                let number = change.append(&sink.name, chunk)?;
                effects.appended.push((place, number));
            }
            Job::Acknowledge(sink, last, _) => {
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
                Full::DropOldest => match self.drop_oldest(change)? {
                    Some((gone, counted)) => {
                        if !counted {
                            lose(&gone.sink, gone.amount.records, gone.span, change)?;
                        }
                        effects.dropped.push((gone, counted));
                    }
                    // The clients have all of them.
                    None => return Ok(false),
                },
            }
        }
        Ok(true)
    }

    /// Drops the oldest row that no client has, and returns whether it was counted before, as
    /// damaged.
    fn drop_oldest(&self, change: &mut Change<'_>) -> rusqlite::Result<Option<(Gone, bool)>> {
        self.kept.get_or_init(|| self.health.rows().blocking_lock());
        let taken = self.sinks.iter().map(|(name, sink)| (name.as_str(), sink.taken()));
        let Some(gone) = change.drop_oldest(taken)? else { return Ok(None) };
        let found = self.sinks.get(&gone.sink).map_or(0, |sink| sink.damaged());
        let counted = gone.span.is_none() && gone.number <= found;
        Ok(Some((gone, counted)))
    }
}

/// Notes in the spool that records found no room there.
fn lose(
    sink: &str,
    records: u64,
    span: Option<(u64, u64)>,
    change: &mut Change<'_>,
) -> rusqlite::Result<()> {
    // Bytes that are damaged may be of any time until now.
    let (since, until) = span.unwrap_or_else(|| (0, now_ns()));
    change.lose(sink, &Loss { measure: Measure::Dropped, since, until, records })
}
