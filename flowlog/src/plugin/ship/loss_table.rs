//! The spool's table of losses: what the clients have not said yet.

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::failure::{damage, is_damage};
use super::losses::{Loss, MOST, named, word};
use super::stored;

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

/// Numbers that are tried where a page cannot be read: more than a daemon uses in a year.
const GUESSES: u32 = 1 << 20;

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
    // Of those with a number, or of those without: a sum of both would have none.
    let last = format!(
        "SELECT {COLUMNS} FROM loss WHERE sink = ? AND measure = ? AND (records = 0) = ? \
         ORDER BY id DESC LIMIT 1"
    );
    let mut last = connection.prepare_cached(&last)?;
    let like = params![sink, word(loss.measure), loss.records == 0];
    let last = last.query_row(like, Entry::read).optional()?;
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
    use super::super::losses::{Losses, NEAR};
    use super::*;
    use crate::stats::Measure;

    fn loss(measure: Measure, since: u64, until: u64, records: u64) -> Loss {
        Loss { measure, since, until, records }
    }

    fn spool() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        prepare(&connection).unwrap();
        connection
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
        // Also where there are too many.
        for at in 1..=MOST as u64 {
            insert(&spool, "a", &loss(Measure::Lost, 3 * NEAR * at, 3 * NEAR * at, 1)).unwrap();
        }
        insert(&spool, "a", &loss(Measure::Lost, 0, 9 * MOST as u64 * NEAR, 0)).unwrap();
        let sum: u64 = read(&spool, "a").unwrap().iter().map(|(_, loss)| loss.records).sum();
        assert_eq!(sum, MOST as u64);
    }
}
