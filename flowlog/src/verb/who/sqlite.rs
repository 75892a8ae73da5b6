//! Databases that SQLITE3 writes, its own tables of them: asked by their indexes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, ErrorCode, OpenFlags, Params};

use super::asked::{Answers, Loss, Trouble};
use super::question::Question;
use super::record::{Record, Row, end_to_end, icmp_answer, is_icmp};
use super::times::Span;
use crate::flow::Tuple;
use crate::plugin::record_id::RecordId;

mod coverage;
mod verify;

/// How long a writer's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is asked of each end, by an index each: for the address, and for the port
/// if there is one. Of flows without NAT the reply tuple has nothing that the
/// original one has not.
const ENDS: [(&str, &str); 4] = [
    ("orig_src = ?1", "orig_sport = ?2"),
    ("orig_dst = ?1", "orig_dport = ?2"),
    ("nat <> 0 AND reply_src = ?1", "reply_sport = ?2"),
    ("nat <> 0 AND reply_dst = ?1", "reply_dport = ?2"),
];
/// Pings have their identifier with the source of both directions.
const PING: (&str, &str) = (
    "nat <> 0 AND reply_dst = ?1",
    "reply_dport IS NULL AND protocol IN (1, 58) AND reply_sport = ?2",
);

/// Asks the database at `path`.
///
/// # Errors
/// What is wrong with it. What was found before is in `answers`.
pub(super) fn ask(
    path: &Path,
    question: &Question,
    answers: &mut Answers<'_>,
) -> Result<(), Trouble> {
    ask_checked(path, verify::structure, question, answers)
}

/// As [`ask`], with that check of the database.
fn ask_checked(
    path: &Path,
    check: fn(&Connection) -> Result<Option<()>, Trouble>,
    question: &Question,
    answers: &mut Answers<'_>,
) -> Result<(), Trouble> {
    let connection = open(path)?;
    // What can be found is of use also if something is wrong.
    let structure = check(&connection);
    let damaged = within(&connection, path, question, answers)?;
    if structure?.is_none() {
        answers.unchecked(path);
    }
    if !has_checksums(&connection)? {
        answers.unverified(path);
    }
    damaged.check()
}

/// Whether rows have checksums, those of the table coverage also, where there is one.
fn has_checksums(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 AND count(*) FILTER (WHERE name = ?2) = 0 \
               FROM pragma_table_info(?1)";
    let lacks = |table: &str| -> rusqlite::Result<bool> {
        connection.query_row(sql, [table, verify::CHECKSUM], |row| row.get(0))
    };
    Ok(!lacks("flow")? && !lacks("coverage")?)
}

/// Rows that are not as they were written.
#[derive(Debug, Default)]
struct Damaged {
    /// Those of records.
    records: u64,
    /// Those of the table coverage, by their numbers.
    coverage: Vec<i64>,
}

impl Damaged {
    /// # Errors
    /// There are any; names them.
    fn check(&self) -> Result<(), Trouble> {
        let Self { records, coverage } = self;
        let mut parts = Vec::new();
        if *records > 0 {
            parts.push(format!("{records} rows are not as they were written"));
        }
        if let Some(first) = coverage.first() {
            let rows = coverage.len();
            parts.push(format!(
                "{rows} rows of its table coverage are not as they were written, the first is \
                 that with rowid {first}"
            ));
        }
        if parts.is_empty() { Ok(()) } else { Err(verify::damaged(&parts.join(", "))) }
    }
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Archive(told(&error))
    }
}

fn told(error: &rusqlite::Error) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt) => {
            format!("it is damaged: {error}; `sqlite3 FILE .recover` saves what can be read")
        }
        Some(ErrorCode::NotADatabase) => format!("it is no database of SQLite: {error}"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            format!("another process holds it: {error}; ask again, or end that process")
        }
        _ if error.to_string().contains("no such") => {
            format!("it has not flowlog's own tables: {error}; those of ulogd2 cannot be asked")
        }
        _ => format!("it cannot be read: {error}"),
    }
}

/// Reads only. Without a right to write there SQLite needs to be told that
/// nobody else does, which is so where there is no log.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let text = path.to_string_lossy();
    let text = text.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let open = |mode: &str| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(format!("file:{text}?{mode}"), flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    };
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    match open("mode=ro") {
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly)
            ) && !PathBuf::from(log).exists() =>
        {
            open("immutable=1")
        }
        opened => opened,
    }
}

/// Returns the rows that are not as they were written.
fn within(
    connection: &Connection,
    path: &Path,
    question: &Question,
    answers: &mut Answers<'_>,
) -> Result<Damaged, Trouble> {
    // What is asked is of one moment.
    connection.execute_batch("BEGIN")?;
    let coverage = coverage::read(connection, path, question.span, answers)?;
    losses(connection, question.span, answers)?;
    let ping = question.wanted.port.map(|_| PING);
    let ends: Vec<String> =
        ENDS.into_iter().chain(ping).map(|end| condition(question, end)).collect();
    let records = by_ends(connection, question, &ends, answers)?;
    Ok(Damaged { records, coverage })
}

fn losses(
    connection: &Connection,
    Span { first, last }: Span,
    answers: &mut Answers<'_>,
) -> Result<(), Trouble> {
    let sql = "SELECT time, source, events FROM lost WHERE time BETWEEN ? AND ?";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([signed(first), signed(last)])?;
    while let Some(row) = rows.next()? {
        let [at, events] = [0, 2].map(|column| row.get::<_, i64>(column));
        answers.loss(Loss { at: at? as u64, source: row.get(1)?, events: events? as u64 });
    }
    Ok(())
}

/// Times beyond what a signed number holds are those of no record.
fn signed(time: u64) -> i64 {
    time.try_into().unwrap_or(i64::MAX)
}

/// What is asked of an end. All four parameters are in it.
fn condition(question: &Question, (address, port): (&str, &str)) -> String {
    let port = if question.wanted.port.is_some() { port } else { "?2 IS NULL" };
    let protocol = if question.protocol.is_some() { "protocol = ?3" } else { "?3 IS NULL" };
    format!("FROM flow WHERE {address} AND {port} AND {protocol}")
}

/// From that time on, of flows that had begun by then.
fn later(condition: &str, latest: u64) -> String {
    let latest = signed(latest);
    format!("SELECT * {condition} AND time >= ?4 AND (start IS NULL OR start <= {latest})")
}

/// Asks by each of the indexes. Two flows that have one tuple in turn may have the address at
/// different ends.
fn by_ends(
    connection: &Connection,
    question: &Question,
    ends: &[String],
    answers: &mut Answers<'_>,
) -> Result<u64, Trouble> {
    let Span { first, last } = question.span;
    let given = |moment: u64| {
        (question.wanted.text(), question.wanted.port, question.protocol, signed(moment))
    };
    let is_there = |rows: &str, moment: u64| -> rusqlite::Result<bool> {
        for sql in ends {
            let any = format!("SELECT 1 {sql} AND {rows} LIMIT 1");
            if connection.prepare(&any)?.exists(given(moment))? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let latest = question.span.latest_start();
    let mut damaged = 0;
    for sql in ends {
        damaged += read(connection, &later(sql, latest), given(first), question, answers)?;
    }
    // Where a start is not known there may be a record of the beginning, also of later, and one
    // of another flow's end between them.
    if is_there("time > ?4 AND start IS NULL", last)? {
        for sql in ends {
            let others = format!("SELECT * {sql} AND time > ?4");
            damaged += read(connection, &others, given(last), question, answers)?;
        }
    }
    // An end before that time is of interest only if it is that of another record.
    if first > 0 && is_there("time < ?4 AND kind NOT LIKE '%destroy%'", first)? {
        for sql in ends {
            let before = format!("SELECT * {sql} AND time < ?4");
            damaged += read(connection, &before, given(first), question, answers)?;
        }
    }
    Ok(damaged)
}

/// Reads rows; returns how many are not as they were written.
fn read(
    connection: &Connection,
    sql: &str,
    given: impl Params,
    question: &Question,
    answers: &mut Answers<'_>,
) -> Result<u64, Trouble> {
    let mut statement = connection.prepare(sql)?;
    let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
    let mut rows = statement.query(given)?;
    let mut damaged = 0;
    while let Some(row) = rows.next()? {
        let values: rusqlite::Result<Vec<Value>> = (0..names.len())
            .map(|column| row.get_ref(column)?.try_into().map_err(Into::into))
            .collect();
        let values = values?;
        if !verify::is_whole(&names, &values) {
            damaged += 1;
            continue;
        }
        let row = Values { names: &names, values };
        let Some(record) = Record::read(&row) else {
            answers.unreadable();
            continue;
        };
        if !question.ends(&record.flow).is_empty() {
            answers.record(record)?;
        }
    }
    Ok(damaged)
}

struct Values<'n> {
    names: &'n [String],
    values: Vec<Value>,
}

impl Values<'_> {
    fn value(&self, column: &str) -> ValueRef<'_> {
        let place = self.names.iter().position(|name| name == column);
        place.and_then(|place| self.values.get(place)).map_or(ValueRef::Null, ValueRef::from)
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

#[cfg(test)]
mod tests {
    use super::super::answer::{Answer, Verdict};
    use super::super::asked::Room;
    use super::super::tests::{Place, at, ended, natted, question};
    use super::*;
    use crate::archive::origin::Origin;

    /// Of an index that is damaged rows may be missing, whatever the coverage says.
    #[test]
    fn a_database_that_was_not_checked_denies_nothing() {
        let place = Place::new();
        let origin = Origin { sink: "db1".to_owned(), beginnings: true };
        let made = [ended(natted(1), at(10), at(20))];
        let db = place.sqlite_from(&[(origin, Span { first: at(0), last: at(99) })], "a.db", &made);
        for (checked, wanted, verdict) in [
            (Some(()), "203.0.113.7:2", Verdict::Nothing),
            (Some(()), "203.0.113.7:1", Verdict::Found),
            (None, "203.0.113.7:2", Verdict::Incomplete),
            (None, "203.0.113.7:1", Verdict::Found),
        ] {
            let check = if checked.is_some() { verify::structure } else { |_: &_| Ok(None) };
            let question = question(wanted, at(11), at(12));
            let room = Room::new(10);
            let mut answers = Answers::new(&room);
            ask_checked(&db, check, &question, &mut answers).unwrap();
            let answer = Answer::new(&question, answers, Vec::new());
            assert_eq!(answer.verdict(), verdict, "{checked:?} {wanted}");
            assert_eq!(answer.unchecked.is_empty(), checked.is_some());
        }
    }

    /// Or else a database of a month is read from its first row to its last.
    #[test]
    fn each_end_is_asked_by_its_index() {
        let place = Place::new();
        let made = [ended(natted(1), 1, 2)];
        let connection = Connection::open(place.sqlite("a.db", &made)).unwrap();
        let plan = |wanted: &str, end| {
            let sql = later(&condition(&question(wanted, 5, 6), end), 6);
            let given = ("203.0.113.7", Some(1), None::<u8>, 5);
            let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
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
