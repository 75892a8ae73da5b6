//! The spool's file as a worker reads it.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags, params};

use super::batch::{self, Batch, Row};
use super::failure::{Failure, is_damage};
use super::losses::{self, Loss};
use super::store::{Health, PATIENCE};

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
        let generation = self.health.generation();
        if self.connection.borrow().0 != generation {
            *self.connection.borrow_mut() = (generation, connect(&self.path)?);
        }
        self.read(sink, after, bytes).map_err(|error| {
            if is_damage(&error) {
                self.health.found_damage(generation);
            }
            Failure::Database(self.path.clone(), error)
        })
    }

    /// Losses of `sink`, each with its number.
    pub(super) fn losses(&self, sink: &str) -> Result<Vec<(i64, Loss)>, Failure> {
        let (_, connection) = &*self.connection.borrow();
        losses::read(connection, sink).map_err(|error| Failure::Database(self.path.clone(), error))
    }

    fn read(&self, sink: &str, after: i64, bytes: usize) -> rusqlite::Result<Found> {
        let (_, connection) = &*self.connection.borrow();
        let mut query = connection.prepare_cached(
            "SELECT sequence, encoding, records, complete, payload FROM batch \
             WHERE sink = ? AND sequence > ? ORDER BY sequence",
        )?;
        let mut rows = query.query(params![sink, after])?;
        let mut batch = Batch::default();
        while let Some(row) = rows.next()? {
            let (number, encoding): (i64, String) = (row.get(0)?, row.get(1)?);
            let (records, complete): (u64, u64) = (row.get(2)?, row.get(3)?);
            let payload: Vec<u8> = row.get(4)?;
            if !batch.is_empty() && encoding != batch.encoding {
                break;
            }
            if !batch::is_sound(&payload, records) {
                if batch.is_empty() {
                    return Ok(Found::Damaged(number, records));
                }
                break;
            }
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
}

fn connect(path: &Path) -> Result<Connection, Failure> {
    let failed = |error| Failure::Database(path.to_owned(), error);
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    connection.busy_timeout(PATIENCE).map_err(failed)?;
    connection.pragma_update(None, "query_only", true).map_err(failed)?;
    Ok(connection)
}
