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

use rusqlite::{Connection, OptionalExtension as _, params};

use crate::stats::Measure;

/// Beside the batches; a spool of an earlier version has none yet.
pub(super) const TABLE: &str = "
CREATE TABLE IF NOT EXISTS loss (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    measure TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    records INTEGER NOT NULL
) STRICT;
";

/// A loss within that time of another is a part of it, nanoseconds.
const NEAR: u64 = 1_000_000_000;
/// Losses that are kept one by one, in memory and in the spool, of each sink.
const MOST: usize = 256;

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
    /// How many there are.
    pub records: u64,
}

impl Loss {
    fn is_near(&self, other: &Self) -> bool {
        self.measure == other.measure
            && other.since <= self.until.saturating_add(NEAR)
            && self.since <= other.until.saturating_add(NEAR)
    }

    fn join(&mut self, other: &Self) {
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        self.records = self.records.saturating_add(other.records);
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
        if loss.records == 0 {
            return;
        }
        let mut noted = self.lock();
        self.count.fetch_add(1, Ordering::AcqRel);
        // The last one, where there are too many: then it has more time than it should.
        let full = noted.len() >= MOST;
        let known = noted
            .iter_mut()
            .rev()
            .find(|known| known.is_near(&loss) || full && known.measure == loss.measure);
        match known {
            Some(known) => known.join(&loss),
            None => noted.push(loss),
        }
    }

    /// There are some that are not in the spool yet, also while they are put there.
    pub(super) fn are_noted(&self) -> bool {
        self.are_wanted() && !self.are_spooled(self.count())
    }

    /// How many were noted so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The first so many of them are in the spool.
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

    /// They could not be put there.
    pub(super) fn give_back(&self, Taken { losses, .. }: Taken) {
        let mut noted = self.lock();
        noted.splice(0..0, losses);
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

/// Losses on their way into the spool.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) losses: Vec<Loss>,
    /// How many had been noted by then, so far.
    count: u64,
}

/// The name of a measure in the spool.
fn word(measure: Measure) -> &'static str {
    match measure {
        Measure::Dropped => "dropped",
        Measure::Refused => "refused",
        _ => "lost",
    }
}

/// The measure of that name.
fn named(name: &str) -> Measure {
    let known = Measure::LOSSES.into_iter().find(|measure| word(*measure) == name);
    known.unwrap_or(Measure::Lost)
}

/// Puts one into the spool.
pub(super) fn insert(connection: &Connection, sink: &str, loss: &Loss) -> rusqlite::Result<()> {
    let measure = word(loss.measure);
    let mut last = connection.prepare_cached(
        "SELECT id, since, until, records, (SELECT count(*) FROM loss WHERE sink = ?1) FROM loss \
         WHERE sink = ?1 AND measure = ?2 ORDER BY id DESC LIMIT 1",
    )?;
    let last = last.query_row(params![sink, measure], |row| {
        let [since, until, records] = [row.get(1)?, row.get(2)?, row.get(3)?];
        let known = Loss { measure: loss.measure, since, until, records };
        Ok((row.get::<_, i64>(0)?, known, row.get::<_, usize>(4)?))
    });
    match last.optional()? {
        Some((id, mut known, count)) if known.is_near(loss) || count >= MOST => {
            known.join(loss);
            let Loss { since, until, records, .. } = known;
            let sql = "UPDATE loss SET since = ?, until = ?, records = ? WHERE id = ?";
            connection.prepare_cached(sql)?.execute(params![since, until, records, id])?;
        }
        _ => {
            let Loss { since, until, records, .. } = *loss;
            let sql = "INSERT INTO loss (sink, measure, since, until, records) \
                       VALUES (?, ?, ?, ?, ?)";
            let mut insert = connection.prepare_cached(sql)?;
            insert.execute(params![sink, measure, since, until, records])?;
        }
    }
    Ok(())
}

/// Those of a sink that are in the spool, each with its number.
pub(super) fn read(connection: &Connection, sink: &str) -> rusqlite::Result<Vec<(i64, Loss)>> {
    let sql = "SELECT id, measure, since, until, records FROM loss WHERE sink = ? ORDER BY id";
    let mut query = connection.prepare_cached(sql)?;
    let rows = query.query_map([sink], |row| {
        let measure = named(&row.get::<_, String>(1)?);
        let [since, until, records] = [row.get(2)?, row.get(3)?, row.get(4)?];
        Ok((row.get(0)?, Loss { measure, since, until, records }))
    })?;
    rows.collect()
}

/// Copies those that can be read into another spool.
///
/// # Errors
/// The other one cannot be written.
pub(super) fn copy(from: &Connection, to: &Connection) -> rusqlite::Result<()> {
    let sql = "SELECT sink, measure, since, until, records FROM loss ORDER BY id";
    // A spool of an earlier version has none, and what is damaged cannot be read.
    let Ok(mut query) = from.prepare(sql) else { return Ok(()) };
    let rows = query.query_map([], |row| {
        let measure = named(&row.get::<_, String>(1)?);
        let [since, until, records] = [row.get(2)?, row.get(3)?, row.get(4)?];
        Ok((row.get::<_, String>(0)?, Loss { measure, since, until, records }))
    });
    let Ok(rows) = rows else { return Ok(()) };
    rows.map_while(Result::ok).try_for_each(|(sink, loss)| insert(to, &sink, &loss))
}

/// Removes those that the client has said. Of one that has grown since, what it has grown by
/// stays, so that no record is said twice.
pub(super) fn forget(connection: &Connection, said: &[(i64, Loss)]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM loss WHERE id = ? AND records <= ?")?;
    let mut less =
        connection.prepare_cached("UPDATE loss SET records = records - ?2 WHERE id = ?1")?;
    for (id, loss) in said {
        if delete.execute(params![id, loss.records])? == 0 {
            less.execute(params![id, loss.records])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(measure: Measure, since: u64, until: u64, records: u64) -> Loss {
        Loss { measure, since, until, records }
    }

    fn spool() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(TABLE).unwrap();
        connection
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

    #[test]
    fn losses_stay_in_the_spool_until_they_are_said() {
        let spool = spool();
        insert(&spool, "a", &loss(Measure::Dropped, 10, 20, 3)).unwrap();
        insert(&spool, "b", &loss(Measure::Dropped, 10, 20, 3)).unwrap();
        insert(&spool, "a", &loss(Measure::Lost, 10, 20, 4)).unwrap();
        let said = read(&spool, "a").unwrap();
        // Meanwhile one of them grows.
        insert(&spool, "a", &loss(Measure::Dropped, 21, 30, 1)).unwrap();
        forget(&spool, &said).unwrap();
        let left = read(&spool, "a").unwrap();
        assert_eq!(left, [(1, loss(Measure::Dropped, 10, 30, 1))]);
        assert_eq!(read(&spool, "b").unwrap().len(), 1);
        let other = self::spool();
        copy(&spool, &other).unwrap();
        assert_eq!(read(&other, "a").unwrap()[0].1, left[0].1);
        forget(&spool, &left).unwrap();
        assert!(read(&spool, "a").unwrap().is_empty());
        for number in 0..3 * MOST as u64 {
            let at = 3 * NEAR * number;
            insert(&spool, "a", &loss(Measure::Dropped, at, at, 1)).unwrap();
        }
        let all = read(&spool, "a").unwrap();
        assert_eq!(all.len(), MOST);
        assert_eq!(all.iter().map(|(_, loss)| loss.records).sum::<u64>(), 3 * MOST as u64);
    }
}
