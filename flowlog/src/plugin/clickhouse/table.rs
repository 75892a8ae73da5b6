//! Whether a table has the columns that are written: of RowBinary a server could not
//! tell, and would take wrong bytes for good ones.

use super::row::COLUMNS;
use crate::plugin::ship::Trouble;

/// Compares what `DESCRIBE TABLE` has answered (as TabSeparated: a column a line, its
/// name, its type, and how it comes by a value) with what is written into `table`.
pub(super) fn check(table: &str, answer: &str) -> Result<(), Trouble> {
    let columns: Vec<Column<'_>> = answer.lines().filter_map(Column::read).collect();
    let mut missing = Vec::new();
    let mut wrong = Vec::new();
    for (name, kind) in COLUMNS {
        match columns.iter().find(|column| column.name == name) {
            None => missing.push(format!("ADD COLUMN {name} {kind}")),
            Some(column) if column.takes(kind) => {}
            Some(column) => wrong.push(format!("{name} is {}, not {kind}", column.shown())),
        }
    }
    if wrong.is_empty() && missing.is_empty() {
        return Ok(());
    }
    if wrong.is_empty() && missing.len() < COLUMNS.len() / 2 {
        return Err(Trouble::refused(format!(
            "the table {table} lacks columns; run `ALTER TABLE {table} {}`",
            missing.join(", ")
        )));
    }
    let first = wrong.into_iter().next().unwrap_or_else(|| "it lacks most columns".to_owned());
    Err(Trouble::refused(format!(
        "the table {table} is not one for flowlog: {first}; rename it, and make it by \
         conf/fleet/clickhouse.sql, or name another one with `table=`"
    )))
}

struct Column<'a> {
    name: &'a str,
    kind: String,
    /// DEFAULT, MATERIALIZED, ALIAS; empty: none.
    made: &'a str,
}

impl<'a> Column<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split('\t');
        let (name, kind) = (fields.next()?, fields.next()?);
        let kind = kind.replace("\\'", "'");
        Some(Self { name, kind, made: fields.next().unwrap_or_default() })
    }

    /// It can be written, and its bytes are those of `kind`.
    fn takes(&self, kind: &str) -> bool {
        let Self { name: _, kind: own, made } = self;
        let inner = own.strip_prefix("LowCardinality(").and_then(|own| own.strip_suffix(')'));
        let own = inner.unwrap_or(own);
        let same = own == kind || (own, kind) == ("IPv6", "FixedString(16)");
        same && matches!(*made, "" | "DEFAULT" | "EPHEMERAL")
    }

    fn shown(&self) -> String {
        format!("{}{}{}", self.made, if self.made.is_empty() { "" } else { " " }, self.kind)
    }
}

#[cfg(test)]
mod tests;
