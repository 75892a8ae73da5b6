//! SQLITE3: rows of a database in a file: of a table of ulogd2 if there is one,
//! else of tables of its own, with all that is known.
//!
//! The engine's thread makes rows as bytes (`row`) and hands them over in chunks
//! (`queue`, [`DatabaseOutput`]); a thread of its own writes them (`writer`).

use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

pub use self::failure::Failure;
pub use self::obstacle::obstacle;
pub use self::own::{checksum, names as own_names};
pub(super) use self::queue::{Chunk, Job};
use self::row::Row;
pub(super) use self::writer::{COVER_IDLE, Progress, Writer};
use super::ip2str::Addresses;
use super::output::Output;
use super::output::database::DatabaseOutput;
use super::record_id::Identifier;
use super::{Body, Item, Scratch};
use crate::stats::SinkStats;

mod commits;
mod coverage;
mod database;
mod failure;
mod obstacle;
mod own;
mod queue;
mod row;
mod synchronized;
mod ulogd;
mod writer;

/// How SQLITE3 is to write.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub db: PathBuf,
    /// The table that is written if it is there; empty: none.
    pub table: String,
    /// Each batch is on disk before the next is taken.
    pub sync: bool,
    /// Rows kept while they cannot be written, bytes.
    pub buffer_max: usize,
}

/// Which tables are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    /// flowlog's own.
    Own,
    /// One of ulogd2.
    Ulogd(ulogd::Table),
}

impl Schema {
    fn find(connection: &Connection, table: &str) -> Result<Self, Failure> {
        if table.is_empty() {
            return Ok(Self::Own);
        }
        let view = "SELECT count(*) FROM sqlite_schema WHERE type = 'view' AND name = ?1 \
                    COLLATE NOCASE";
        if connection.query_row(view, [table], |row| row.get::<_, i64>(0))? > 0 {
            return Err(Failure::is_view(table));
        }
        Ok(ulogd::Table::find(connection, table)?.map_or(Self::Own, Self::Ulogd))
    }

    /// Makes the tables where they are missing, as after a rotation.
    fn create(&self, connection: &Connection) -> Result<(), Failure> {
        match self {
            Self::Own => own::create(connection)?,
            Self::Ulogd(table) => {
                let empty = "SELECT count(*) FROM sqlite_schema";
                if connection.query_row(empty, [], |row| row.get::<_, i64>(0))? == 0 {
                    connection.execute_batch(&table.create)?;
                }
            }
        }
        Ok(())
    }

    fn inserts(&self) -> Vec<String> {
        match self {
            Self::Own => own::inserts(),
            Self::Ulogd(table) => table.inserts(),
        }
    }
}

/// Says which tables of the database would be written, and changes nothing.
///
/// # Errors
/// It cannot be used.
pub fn look(path: &Path, table: &str) -> Result<Schema, Failure> {
    // As it stands in the file, without its log: to read that takes files beside it.
    let text = path.to_string_lossy();
    let text = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(format!("file:{text}?immutable=1"), flags)?;
    let schema = Schema::find(&connection, table)?;
    let there = "SELECT count(*) FROM sqlite_schema WHERE name = 'flow'";
    let there = connection.query_row(there, [], |row| row.get::<_, i64>(0))? > 0;
    let inserts = match schema {
        Schema::Own if !there => Vec::new(),
        Schema::Own => own::inserts_as_found(&connection)?,
        Schema::Ulogd(_) => schema.inserts(),
    };
    for insert in inserts {
        connection.prepare(&insert)?;
    }
    Ok(schema)
}

/// The sink.
pub struct Sqlite3 {
    identifier: Identifier,
    /// Where IP2STR does not stand before.
    addresses: Addresses,
    row: Row,
    /// While it is not known which tables are written.
    undecided: Undecided,
    output: Output,
}

/// Makes rows of both kinds of tables.
struct Undecided {
    table: ulogd::Table,
    own: Row,
    ulogd: Row,
}

impl Sqlite3 {
    /// Opens the database.
    ///
    /// # Errors
    /// It cannot be used, and that does not pass; says why and what to do.
    pub fn open(settings: &Settings, stats: SinkStats) -> anyhow::Result<Self> {
        let output = DatabaseOutput::open(settings, stats);
        let output = output.map_err(|failure| {
            anyhow::anyhow!("the database {} cannot be used: {failure}", settings.db.display())
        })?;
        Ok(Self {
            identifier: Identifier::of_this_host(),
            addresses: Addresses::default(),
            row: Row::default(),
            undecided: Undecided {
                table: ulogd::Table::of_all_keys(),
                own: Row::default(),
                ulogd: Row::default(),
            },
            output: Output::Database(Box::new(output)),
        })
    }

    /// Takes an item. Not inlined, as [`Addresses::set`] is not.
    #[inline(never)]
    pub fn push(&mut self, item: &Item<'_>, scratch: &Scratch) {
        let Self { identifier, addresses, row, undecided, output } = self;
        let Output::Database(output) = output else { return };
        if let Body::Lost(lost) = &item.body {
            output.lost_before(lost);
        }
        let addresses = if scratch.addresses.are_set() {
            &scratch.addresses
        } else {
            addresses.set(item);
            addresses
        };
        match output.schema() {
            Some(Schema::Own) => own::fill(item, identifier.id(item), addresses, row),
            Some(Schema::Ulogd(table)) => {
                if !table.fill(item, scratch, addresses, row) {
                    return;
                }
            }
            None => {
                let Undecided { table, own, ulogd } = undecided;
                own::fill(item, identifier.id(item), addresses, own);
                if !table.fill(item, scratch, addresses, ulogd) {
                    ulogd.clear();
                }
                row.either(own, ulogd);
            }
        }
        output.push(row.as_bytes(), item.at);
    }

    /// Where it writes.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Where it writes, to be written to.
    pub fn output_mut(&mut self) -> &mut Output {
        &mut self.output
    }
}

#[cfg(test)]
mod tests;
