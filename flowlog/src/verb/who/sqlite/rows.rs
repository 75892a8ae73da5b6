//! Rows of a table, each verified before any of its values decides whether it matters: a changed
//! value would else hide its row from the check that finds the change.
//!
//! So SQL selects by columns of an index only, which SQLite's own check compares with the table
//! (`verify::structure`); all other conditions are for Rust.

use std::ops::ControlFlow;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params};

use super::super::asked::Trouble;
use super::super::record::{Record, Row, end_to_end, icmp_answer, is_icmp};
use super::verify;
use crate::flow::Tuple;
use crate::plugin::record_id::RecordId;
use crate::plugin::sqlite3;

/// Columns of the table coverage, which is not one of records.
const COVERAGE: [&str; 5] = ["kind", "since", "until", "records", "detail"];

/// A table of the database.
pub(super) struct Table {
    name: &'static str,
    /// All columns but generated ones, in the order that checksums take them in.
    columns: Vec<String>,
}

impl Table {
    /// # Errors
    /// The table is not there, or a column of it. A checksum covers values and not the names of
    /// columns, so a changed name would make its values unknown without a word.
    pub(super) fn find(connection: &Connection, name: &'static str) -> Result<Self, Trouble> {
        connection.prepare(&format!("SELECT 1 FROM {name}"))?;
        let mut query = connection.prepare("SELECT name FROM pragma_table_info(?)")?;
        let columns: Vec<String> =
            query.query_map([name], |row| row.get(0))?.collect::<Result<_, _>>()?;
        let ours = sqlite3::own_names().find(|(table, _)| *table == name);
        let mut needed = ours.map_or_else(|| COVERAGE.to_vec(), |(_, columns)| columns).into_iter();
        if let Some(lacking) = needed.find(|needed| columns.iter().all(|column| column != needed)) {
            return Err(Trouble::Archive(format!(
                "its table {name} has no column {lacking}: it is damaged, or another version of \
                 flowlog has written it"
            )));
        }
        Ok(Self { name, columns })
    }

    /// The rows of a condition, until `take` has enough. It gets those that are as they were
    /// written, `damaged` the ids of the others.
    pub(super) fn each(
        &self,
        connection: &Connection,
        condition: &str,
        given: impl Params,
        damaged: &mut impl FnMut(Id),
        mut take: impl FnMut(&Values<'_>) -> Result<ControlFlow<()>, Trouble>,
    ) -> Result<(), Trouble> {
        let sql = format!("SELECT {} FROM {} {condition}", self.list(), self.name);
        let mut query = connection.prepare(&sql)?;
        let mut rows = query.query(given)?;
        while let Some(row) = rows.next()? {
            let values = self.values(row, 0)?;
            if !values.is_whole() {
                damaged(values.key());
            } else if take(&values)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Its columns, for a query. The names that a statement has for them are of no use: rusqlite
    /// panics where a damaged one is no UTF-8.
    pub(super) fn list(&self) -> String {
        let quoted = |column: &String| format!("\"{}\"", column.replace('"', "\"\""));
        self.columns.iter().map(quoted).collect::<Vec<_>>().join(", ")
    }

    /// The values of a row, from that one of the query on.
    pub(super) fn values<'r>(
        &'r self,
        row: &'r rusqlite::Row<'_>,
        first: usize,
    ) -> Result<Values<'r>, Trouble> {
        let values = (first..first + self.columns.len()).map(|column| row.get_ref(column));
        Ok(Values { names: &self.columns, values: values.collect::<Result<_, _>>()? })
    }
}

/// The halves of a record id, which identify a row.
pub(super) type Id = [Option<u64>; 2];

/// A row: its values by the names of their columns.
pub(super) struct Values<'r> {
    names: &'r [String],
    values: Vec<ValueRef<'r>>,
}

impl<'r> Values<'r> {
    fn value(&self, column: &str) -> ValueRef<'r> {
        let place = self.names.iter().position(|name| name == column);
        place.and_then(|place| self.values.get(place)).map_or(ValueRef::Null, |value| *value)
    }

    pub(super) fn is_whole(&self) -> bool {
        verify::is_whole(self.names, &self.values)
    }

    fn key(&self) -> Id {
        ["time", "hash"].map(|half| self.number(half))
    }
}

impl Row for Values<'_> {
    fn number(&self, column: &str) -> Option<u64> {
        // Numbers without a sign, which SQLite has not.
        self.value(column).as_i64().ok().map(|number| number as u64)
    }

    fn text(&self, column: &str) -> Option<&str> {
        self.value(column).as_str().ok()
    }

    fn labels(&self) -> Option<[u8; 16]> {
        self.value("labels").as_blob().ok()?.try_into().ok()
    }

    fn reply(&self, orig: &Tuple) -> Option<Tuple> {
        let columns = ["reply_src", "reply_sport", "reply_dst", "reply_dport"];
        let reply = end_to_end(self, columns)?;
        let dst_l4 =
            if is_icmp(orig.proto) { icmp_answer(orig.proto, orig.dst_l4) } else { reply.dst_l4 };
        Some(Tuple { dst_l4, ..reply })
    }

    fn id(&self, record: &Record) -> RecordId {
        RecordId { hash: self.number("hash").unwrap_or_default(), ..record.id }
    }
}
