//! Records of connections, by the index of each end.

use std::collections::HashSet;
use std::ops::ControlFlow;

use rusqlite::Connection;

use super::super::asked::{Answers, Trouble};
use super::super::question::Question;
use super::super::record::{Record, Row, kinds};
use super::super::times::Span;
use super::rows::{Id, Table, Values};
use super::signed;
use crate::event::Kinds;

/// What is asked of each end, by an index each: for the address, and for the port
/// if there is one. Of flows without NAT the reply tuple has nothing that the
/// original one has not.
const ENDS: [(&str, &str); 4] = [
    ("orig_src = ?1", "orig_sport = ?2"),
    ("orig_dst = ?1", "orig_dport = ?2"),
    ("nat <> 0 AND reply_src = ?1", "reply_sport = ?2"),
    ("nat <> 0 AND reply_dst = ?1", "reply_dport = ?2"),
];
/// Pings have their identifier with the source of both directions, and the index of the
/// destination has no port of theirs: which of them are wanted is seen in the rows.
const PING: (&str, &str) = ("nat <> 0 AND reply_dst = ?1", "reply_dport IS NULL");
/// One of them has the port of the question.
const PORTS: [&str; 4] = ["orig_sport", "orig_dport", "reply_sport", "reply_dport"];

/// Times of rows, with the moment as the third parameter.
const SINCE: &str = "time >= ?3";
const AFTER: &str = "time > ?3";
const BEFORE: &str = "time < ?3";

/// Asks by each of the indexes. Two flows that have one tuple in turn may have the address at
/// different ends. Returns how many rows are not as they were written.
pub(super) fn read(
    connection: &Connection,
    question: &Question,
    answers: &mut Answers<'_>,
) -> Result<usize, Trouble> {
    let table = Table::find(connection, "flow")?;
    let mut search = Search { connection, question, table, damaged: HashSet::new() };
    search.all(answers)?;
    Ok(search.damaged.len())
}

/// What is asked of an end at these times. All three parameters are in it.
fn condition(question: &Question, (address, port): (&str, &str), times: &str) -> String {
    let port = if question.wanted.port.is_some() { port } else { "?2 IS NULL" };
    format!("WHERE {address} AND {port} AND {times}")
}

struct Search<'s> {
    connection: &'s Connection,
    question: &'s Question,
    table: Table,
    /// Several searches may meet one row.
    damaged: HashSet<Id>,
}

impl Search<'_> {
    fn all(&mut self, answers: &mut Answers<'_>) -> Result<(), Trouble> {
        let question = self.question;
        let (Span { first, last }, latest) = (question.span, question.span.latest_start());
        let is_late = |row: &Values<'_>| row.number("start").is_some_and(|start| start > latest);
        // Of flows that had begun by then.
        let mut unknown_start_later = false;
        self.each(SINCE, first, |row| {
            let is_later = row.number("time").is_none_or(|time| time > last);
            unknown_start_later |= is_later && row.number("start").is_none();
            if is_late(row) { go_on() } else { push(question, row, answers) }
        })?;
        // Where a start is not known there may be a record of the beginning, also of later, and
        // one of another flow's end between them.
        if unknown_start_later {
            self.each(AFTER, last, |row| {
                if is_late(row) { push(question, row, answers) } else { go_on() }
            })?;
        }
        // An end before that time is of interest only if it is that of another record.
        if first > 0 && self.has_others_before(first)? {
            self.each(BEFORE, first, |row| push(question, row, answers))?;
        }
        Ok(())
    }

    /// Whether there is a record before that time that is not of an end.
    fn has_others_before(&mut self, first: u64) -> Result<bool, Trouble> {
        let mut has_others = false;
        self.each(BEFORE, first, |row| {
            let kinds = row.text("kind").map_or(Kinds::empty(), kinds);
            has_others |= !kinds.intersects(Kinds::DESTROY | Kinds::GC);
            Ok(if has_others { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(has_others)
    }

    /// The rows of each end at these times that are whole and may be an answer; of an end no more
    /// once `take` has enough.
    fn each(
        &mut self,
        times: &str,
        moment: u64,
        mut take: impl FnMut(&Values<'_>) -> Result<ControlFlow<()>, Trouble>,
    ) -> Result<(), Trouble> {
        let Self { connection, question, table, damaged } = self;
        let ping = question.wanted.port.map(|_| PING);
        for end in ENDS.into_iter().chain(ping) {
            let given = (question.wanted.text(), question.wanted.port, signed(moment));
            let condition = condition(question, end, times);
            let mut damaged = |id| {
                damaged.insert(id);
            };
            table.each(connection, &condition, given, &mut damaged, |row| {
                if may_answer(question, row) { take(row) } else { go_on() }
            })?;
        }
        Ok(())
    }
}

fn go_on() -> Result<ControlFlow<()>, Trouble> {
    Ok(ControlFlow::Continue(()))
}

/// Whether the row has the protocol and the port, which is cheaper to see than to read all of it.
fn may_answer(question: &Question, row: &Values<'_>) -> bool {
    let is = |column: &str, wanted: u64| row.number(column) == Some(wanted);
    question.protocol.is_none_or(|protocol| is("protocol", protocol.into()))
        && question.wanted.port.is_none_or(|port| PORTS.iter().any(|one| is(one, port.into())))
}

/// Reads a row that is whole.
fn push(
    question: &Question,
    row: &Values<'_>,
    answers: &mut Answers<'_>,
) -> Result<ControlFlow<()>, Trouble> {
    match Record::read(row) {
        None => answers.unreadable(),
        Some(record) if question.ends(&record.flow).is_empty() => {}
        Some(record) => answers.record(record)?,
    }
    go_on()
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::{Place, ended, natted, question};
    use super::*;

    /// Or else a database of a month is read from its first row to its last. No other column
    /// decides: a change of it is not found by a check of indexes.
    #[test]
    fn each_end_is_asked_by_its_index_and_by_nothing_else() {
        let place = Place::new();
        let made = [ended(natted(1), 1, 2)];
        let connection = Connection::open(place.sqlite("a.db", &made)).unwrap();
        let plan = |wanted: &str, end| {
            let sql = condition(&question(wanted, 5, 6), end, SINCE);
            for column in ["protocol", "start", "stop", "kind"] {
                assert!(!sql.contains(column), "{sql}");
            }
            let given = ("203.0.113.7", Some(1), 5);
            let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM flow {sql}");
            let mut statement = connection.prepare(&sql).unwrap();
            let mut lines = statement.query(given).unwrap();
            let line: String = lines.next().unwrap().unwrap().get(3).unwrap();
            assert!(lines.next().unwrap().is_none());
            line
        };
        for (end, index) in ENDS.into_iter().chain([PING]).zip([
            "flow_orig_src (orig_src=? AND orig_sport=? AND time>?)",
            "flow_orig_dst (orig_dst=? AND orig_dport=? AND time>?)",
            "flow_reply_src (reply_src=? AND reply_sport=? AND time>?)",
            "flow_reply_dst (reply_dst=? AND reply_dport=? AND time>?)",
            "flow_reply_dst (reply_dst=? AND reply_dport=? AND time>?)",
        ]) {
            let with_port = plan("203.0.113.7:1", end);
            assert_eq!(with_port, format!("SEARCH flow USING INDEX {index}"));
            let without = plan("203.0.113.7", end);
            let address = index.split(" AND ").next().unwrap();
            assert_eq!(without, format!("SEARCH flow USING INDEX {address})"));
        }
    }
}
