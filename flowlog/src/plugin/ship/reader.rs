//! The spool's file as a worker reads it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::batch::{Batch, Row};
use super::failure::{Failure, is_damage};
use super::health::Health;
use super::loss_table;
use super::losses::Loss;
use super::store::PATIENCE;
use super::stored::{self, Stored};

/// The spool's file, open for one worker to read.
pub(super) struct Reader {
    /// With the generation that it reads.
    connection: RefCell<(u64, Connection)>,
    path: PathBuf,
    health: Health,
}

/// What a reader found.
#[derive(Debug)]
pub(super) enum Found {
    /// Rows, as many as were asked for, or all that there are of an encoding.
    Batch(Batch),
    /// A row whose payload is not what was written: its number and its records.
    Damaged(i64, u64),
    /// No row.
    Nothing,
}

impl Reader {
    /// Opens the file, which is there.
    pub(super) fn open(path: &Path, health: &Health) -> Result<Self, Failure> {
        let generation = health.generation();
        let connection = RefCell::new((generation, connect(path)?));
        Ok(Self { connection, path: path.to_owned(), health: health.clone() })
    }

    /// The rows of `sink` behind the number `after`, of one encoding, until they
    /// hold `bytes`.
    pub(super) fn next(&self, sink: &str, after: i64, bytes: usize) -> Result<Found, Failure> {
        self.with(|connection| read(connection, sink, after, bytes))
    }

    /// Losses of `sink`, each with its number.
    pub(super) fn losses(&self, sink: &str) -> Result<Vec<(i64, Loss)>, Failure> {
        self.with(|connection| loss_table::read(connection, sink))
    }

    /// Reads the file that is in use now; reports damage of it to the writer.
    fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let generation = self.health.generation();
        if self.connection.borrow().0 != generation {
            *self.connection.borrow_mut() = (generation, connect(&self.path)?);
        }
        let (_, connection) = &*self.connection.borrow();
        read(connection).map_err(|error| {
            if is_damage(&error) {
                self.health.found_damage(generation);
            }
            Failure::Database(self.path.clone(), error)
        })
    }
}

fn read(connection: &Connection, sink: &str, after: i64, bytes: usize) -> rusqlite::Result<Found> {
    let mut query = connection.prepare_cached(&format!(
        "SELECT {} FROM batch WHERE sink = ? AND sequence > ? ORDER BY sequence",
        stored::COLUMNS
    ))?;
    let mut rows = query.query(params![sink, after])?;
    let mut batch = Batch::default();
    while let Some(row) = rows.next()? {
        let row = Stored::read(row)?;
        if !batch.is_empty() && row.encoding != batch.encoding {
            break;
        }
        if !row.is_sound() {
            if batch.is_empty() {
                return Ok(Found::Damaged(row.number, row.records_if_damaged(connection, sink)));
            }
            break;
        }
        let Stored { number, encoding, records, complete, payload, .. } = row;
        if batch.is_empty() {
            batch.first = number;
            batch.encoding = encoding;
        }
        batch.last = number;
        batch.records += records;
        batch.bytes += payload.len();
        batch.rows.push(Row { number, complete, payload });
        if batch.bytes >= bytes {
            break;
        }
    }
    Ok(if batch.is_empty() { Found::Nothing } else { Found::Batch(batch) })
}

fn connect(path: &Path) -> Result<Connection, Failure> {
    let failed = |error| Failure::Database(path.to_owned(), error);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok(connection)
}
