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

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{damage, is_damage};
use super::stored;
use crate::capture::netlink::now_ns;
use crate::stats::Measure;

/// Beside the batches; a spool of an earlier version has none yet.
const TABLE: &str = "
CREATE TABLE IF NOT EXISTS loss (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    measure TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    records INTEGER NOT NULL,
    sum INTEGER
) STRICT;
";
/// The columns that [`Entry::read`] takes, in this order.
const COLUMNS: &str = "id, sink, measure, since, until, records, sum";

/// A loss within that time of another is a part of it, nanoseconds.
const NEAR: u64 = 1_000_000_000;
/// Losses that are kept one by one, in memory and in the spool, of each sink.
const MOST: usize = 256;
/// Numbers that are tried where a page cannot be read: more than a daemon uses in a year.
const GUESSES: u32 = 1 << 20;

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

    fn is_near(&self, other: &Self) -> bool {
        self.measure == other.measure
            // A sum with a number that is not known would look like one that is.
            && (self.records == 0) == (other.records == 0)
            && other.since <= self.until.saturating_add(NEAR)
            && self.since <= other.until.saturating_add(NEAR)
    }

    fn join(&mut self, other: &Self) {
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

/// A row of the table.
struct Entry {
    id: i64,
    sink: String,
    loss: Loss,
    /// The checksum that was stored with it; absent in rows of earlier versions.
    sum: Option<u32>,
}

impl Entry {
    /// Reads the columns [`COLUMNS`].
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let measure = named(&row.get::<_, String>(2)?);
        let [since, until, records] = [row.get(3)?, row.get(4)?, row.get(5)?];
        let loss = Loss { measure, since, until, records };
        Ok(Self { id: row.get(0)?, sink: row.get(1)?, loss, sum: row.get(6)? })
    }

    /// The same row.
    ///
    /// # Errors
    /// It is not what was written.
    fn sound(self) -> rusqlite::Result<Self> {
        let Self { id, sink, loss, sum } = &self;
        match sum {
            Some(sum) if *sum != sum_of(*id, sink, loss) => {
                Err(damage("a row of the table of losses is damaged"))
            }
            _ => Ok(self),
        }
    }
}

fn sum_of(id: i64, sink: &str, loss: &Loss) -> u32 {
    let Loss { measure, since, until, records } = *loss;
    stored::sum(&[id as u64, since, until, records], &[sink.as_bytes(), word(measure).as_bytes()])
}

/// Makes the table where there is none, and brings one of an earlier version up to date.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLE)?;
    stored::add_sums(connection, "loss")
}

/// Puts one into the spool.
pub(super) fn insert(connection: &Connection, sink: &str, loss: &Loss) -> rusqlite::Result<()> {
    let last = format!(
        "SELECT {COLUMNS} FROM loss WHERE sink = ? AND measure = ? ORDER BY id DESC LIMIT 1"
    );
    let mut last = connection.prepare_cached(&last)?;
    let last = last.query_row(params![sink, word(loss.measure)], Entry::read).optional()?;
    if let Some(last) = last.map(Entry::sound).transpose()? {
        let Entry { id, loss: mut known, .. } = last;
        if known.is_near(loss) || count(connection, sink)? >= MOST {
            known.join(loss);
            return update(connection, id, sink, &known);
        }
    }
    let id = highest(connection)?.max(newest(connection)?) + 1;
    put(connection, &Entry { id, sink: sink.to_owned(), loss: *loss, sum: None })
}

fn count(connection: &Connection, sink: &str) -> rusqlite::Result<usize> {
    let sql = "SELECT count(*) FROM loss WHERE sink = ?";
    connection.prepare_cached(sql)?.query_row([sink], |row| row.get(0))
}

/// The highest number of a row that is there.
fn newest(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT ifnull(max(id), 0) FROM loss";
    connection.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

/// The highest number that a row ever had.
fn highest(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT seq FROM sqlite_sequence WHERE name = 'loss'";
    let mut query = connection.prepare_cached(sql)?;
    Ok(query.query_row([], |row| row.get(0)).optional()?.unwrap_or(0))
}

fn put(connection: &Connection, Entry { id, sink, loss, .. }: &Entry) -> rusqlite::Result<()> {
    let Loss { measure, since, until, records } = *loss;
    let sql = format!("INSERT INTO loss ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)");
    let values = params![id, sink, word(measure), since, until, records, sum_of(*id, sink, loss)];
    connection.prepare_cached(&sql)?.execute(values)?;
    Ok(())
}

fn update(connection: &Connection, id: i64, sink: &str, loss: &Loss) -> rusqlite::Result<()> {
    let Loss { since, until, records, .. } = *loss;
    let sql = "UPDATE loss SET since = ?, until = ?, records = ?, sum = ? WHERE id = ?";
    let values = params![since, until, records, sum_of(id, sink, loss), id];
    connection.prepare_cached(sql)?.execute(values)?;
    Ok(())
}

/// Those of a sink that are in the spool, each with its number.
///
/// # Errors
/// The table cannot be read, or one of its rows is damaged, of whichever sink: the name may be what
/// is damaged.
pub(super) fn read(connection: &Connection, sink: &str) -> rusqlite::Result<Vec<(i64, Loss)>> {
    let mut query =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM loss ORDER BY id"))?;
    let mut found = Vec::new();
    for entry in query.query_map([], Entry::read)? {
        let Entry { id, sink: of, loss, .. } = entry?.sound()?;
        if of == sink {
            found.push((id, loss));
        }
    }
    Ok(found)
}

/// Reads all of them.
///
/// # Errors
/// As [`read`].
pub(super) fn verify(connection: &Connection) -> rusqlite::Result<()> {
    read(connection, "").map(|_| ())
}

/// Copies those that can be read into another spool, under the same numbers; returns whether that
/// was all of them.
///
/// # Errors
/// The other one cannot be written.
pub(super) fn copy(from: &Connection, to: &Connection) -> rusqlite::Result<bool> {
    let (mut last, mut guesses, mut whole) = (0, GUESSES, true);
    let used = highest(from);
    whole &= used.is_ok();
    let used = used.unwrap_or(0);
    loop {
        let next = "SELECT min(id) FROM loss WHERE id > ?";
        let next = from
            .prepare_cached(next)
            .and_then(|mut query| query.query_row([last], |row| row.get::<_, Option<i64>>(0)));
        last = match next {
            Ok(Some(id)) => id,
            Ok(None) => break,
            // A spool of an earlier version has no such table.
            Err(error) if !is_damage(&error) => {
                whole &= is_unknown_table(&error);
                break;
            }
            // Those behind a page that is damaged are found by trying.
            Err(_) if last < used && guesses > 0 => {
                (guesses, whole) = (guesses - 1, false);
                last + 1
            }
            Err(_) => {
                whole = false;
                break;
            }
        };
        match entry(from, last) {
            Ok(Some(entry)) => put(to, &entry)?,
            Ok(None) => {}
            Err(_) => whole = false,
        }
    }
    // No number is used twice: what the client has said is removed by its number.
    if used > newest(to)? {
        to.execute("DELETE FROM sqlite_sequence WHERE name = 'loss'", [])?;
        to.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('loss', ?)", [used])?;
    }
    Ok(whole)
}

fn is_unknown_table(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown)
}

/// The row of that number.
///
/// # Errors
/// It is damaged.
fn entry(connection: &Connection, id: i64) -> rusqlite::Result<Option<Entry>> {
    // Earlier versions have no checksums.
    let columns = [COLUMNS, "id, sink, measure, since, until, records, NULL"];
    let [with, without] = columns.map(|columns| format!("SELECT {columns} FROM loss WHERE id = ?"));
    let query = connection.prepare_cached(&with).or_else(|_| connection.prepare_cached(&without));
    query?.query_row([id], Entry::read).optional()?.map(Entry::sound).transpose()
}

/// Removes those that the client has said. Of one that has grown since, what it has grown by
/// stays, so that no record is said twice.
pub(super) fn forget(connection: &Connection, said: &[(i64, Loss)]) -> rusqlite::Result<()> {
    let mut delete = connection.prepare_cached("DELETE FROM loss WHERE id = ?")?;
    for (id, said) in said {
        let Some(Entry { sink, loss: mut left, .. }) = entry(connection, *id)? else { continue };
        if left.records <= said.records && left.until <= said.until {
            delete.execute([id])?;
            continue;
        }
        left.records = left.records.saturating_sub(said.records);
        update(connection, *id, &sink, &left)?;
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
        prepare(&connection).unwrap();
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

    #[test]
    fn a_changed_row_is_damage_and_the_others_are_copied() {
        for change in ["since = since + 1", "records = 1", "sink = 'b'", "measure = 'lost'"] {
            let spool = spool();
            for (sink, at) in [("a", 10), ("a", 9 * NEAR), ("b", 20)] {
                insert(&spool, sink, &loss(Measure::Dropped, at, at, 3)).unwrap();
            }
            verify(&spool).unwrap();
            let sql = format!("UPDATE loss SET {change} WHERE id = 2");
            assert_eq!(spool.execute(&sql, []).unwrap(), 1);
            // Whatever sink it names.
            assert!(is_damage(&read(&spool, "b").unwrap_err()), "{change}");
            let other = self::spool();
            assert!(!copy(&spool, &other).unwrap(), "{change}");
            assert_eq!(read(&other, "a").unwrap(), [(1, loss(Measure::Dropped, 10, 10, 3))]);
            assert_eq!(read(&other, "b").unwrap(), [(3, loss(Measure::Dropped, 20, 20, 3))]);
            // One that is damaged does not grow.
            let more = insert(&spool, "a", &loss(Measure::Dropped, 9 * NEAR, 9 * NEAR, 1));
            assert_eq!(more.is_err(), change.contains("since") || change.contains("records"));
        }
    }

    #[test]
    fn numbers_stay_and_are_not_used_twice() {
        let (spool, other) = (spool(), spool());
        for at in [10, 9 * NEAR] {
            insert(&spool, "a", &loss(Measure::Lost, at, at, 3)).unwrap();
        }
        forget(&spool, &read(&spool, "a").unwrap()).unwrap();
        assert!(copy(&spool, &other).unwrap());
        insert(&other, "a", &loss(Measure::Lost, 10, 10, 3)).unwrap();
        assert_eq!(read(&other, "a").unwrap(), [(3, loss(Measure::Lost, 10, 10, 3))]);
    }

    #[test]
    fn a_table_of_an_earlier_version_is_read_and_gets_checksums() {
        let spool = Connection::open_in_memory().unwrap();
        spool.execute_batch(&TABLE.replace(",\n    sum INTEGER", "")).unwrap();
        spool.execute("INSERT INTO loss VALUES (7, 'a', 'lost', 1, 2, 3)", []).unwrap();
        let other = self::spool();
        assert!(copy(&spool, &other).unwrap());
        prepare(&spool).unwrap();
        for spool in [&spool, &other] {
            assert_eq!(read(spool, "a").unwrap(), [(7, loss(Measure::Lost, 1, 2, 3))]);
        }
        let none = Connection::open_in_memory().unwrap();
        none.execute_batch("CREATE TABLE one (id INTEGER PRIMARY KEY AUTOINCREMENT)").unwrap();
        assert!(copy(&none, &other).unwrap());
    }

    #[test]
    fn a_number_that_is_not_known_is_in_no_sum() {
        let losses = Losses::default();
        losses.want();
        for records in [5, 0, 7, 0] {
            losses.note(loss(Measure::Lost, 1, 2, records));
        }
        let noted = losses.take().losses;
        assert_eq!(noted, [loss(Measure::Lost, 1, 2, 12), loss(Measure::Lost, 1, 2, 0)]);
        let spool = spool();
        noted.iter().for_each(|loss| insert(&spool, "a", loss).unwrap());
        let said = read(&spool, "a").unwrap();
        assert_eq!(said.len(), 2);
        // It grows while it is said: the rest stays.
        insert(&spool, "a", &loss(Measure::Lost, 1, 9, 0)).unwrap();
        forget(&spool, &said).unwrap();
        assert_eq!(read(&spool, "a").unwrap(), [(said[1].0, loss(Measure::Lost, 1, 9, 0))]);
    }
}
