//! Databases that SQLITE3 writes, its own tables of them: asked by their indexes.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use self::rows::Table;
use super::asked::{Answers, Loss, Trouble};
use super::question::Question;
use super::record::Row as _;

mod coverage;
mod flows;
mod rows;
mod verify;

/// How long a writer's lock is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks the database at `path`, and checks it for as long as `limit` says.
///
/// # Errors
/// What is wrong with it. What was found before is in `answers`.
pub(super) fn ask(
    path: &Path,
    limit: Option<Duration>,
    question: &Question,
    answers: &mut Answers<'_>,
) -> Result<(), Trouble> {
    ask_checked(path, |connection| verify::structure(connection, limit), question, answers)
}

/// As [`ask`], with that check of the database.
fn ask_checked(
    path: &Path,
    check: impl Fn(&Connection) -> Result<Option<()>, Trouble>,
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

/// Whether the rows of each table that is there have checksums.
fn has_checksums(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT count(*) > 0 AND count(*) FILTER (WHERE name = ?2) = 0 \
               FROM pragma_table_info(?1)";
    for table in ["flow", "expectation", "lost", "coverage"] {
        let lacks: bool = connection.query_row(sql, [table, verify::CHECKSUM], |row| row.get(0))?;
        if lacks {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Rows that are not as they were written.
#[derive(Debug, Default)]
struct Damaged {
    /// Those of records.
    records: usize,
    /// Those of the table lost.
    losses: usize,
    /// Those of the table coverage, by their numbers.
    coverage: Vec<i64>,
}

impl Damaged {
    /// # Errors
    /// There are any; names them.
    fn check(&self) -> Result<(), Trouble> {
        let Self { records, losses, coverage } = self;
        let mut parts = Vec::new();
        if *records > 0 {
            parts.push(format!("{records} rows are not as they were written"));
        }
        if *losses > 0 {
            parts.push(format!("{losses} rows of its table lost are not as they were written"));
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
    let mut damaged = Damaged::default();
    let losses = losses(connection, &mut damaged)?;
    coverage::read(connection, path, question.span, &losses, answers, &mut damaged)?;
    let span = question.span;
    losses
        .into_iter()
        .filter(|loss| (span.first..=span.last).contains(&loss.at))
        .for_each(|loss| answers.loss(loss));
    damaged.records += flows::read(connection, question, answers)?;
    Ok(damaged)
}

/// All losses, in the order of time. The table has no index besides its order, so that of a row
/// whose time is another nothing but its checksum shows it: all of them are read.
fn losses(connection: &Connection, damaged: &mut Damaged) -> Result<Vec<Loss>, Trouble> {
    let table = Table::find(connection, "lost")?;
    let mut losses = Vec::new();
    let mut count = |_| damaged.losses += 1;
    table.each(connection, "ORDER BY time", [], &mut count, |row| {
        let [at, events] = ["time", "events"].map(|column| row.number(column).unwrap_or_default());
        let source = row.text("source").unwrap_or_default().to_owned();
        losses.push(Loss { at, source, events });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(losses)
}

/// Times beyond what a signed number holds are those of no record.
fn signed(time: u64) -> i64 {
    time.try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::answer::{Answer, Verdict};
    use super::super::asked::Room;
    use super::super::tests::{Place, at, ended, natted, question};
    use super::super::times::Span;
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
            (None, "203.0.113.7:1", Verdict::Incomplete),
        ] {
            let check = |connection: &Connection| match checked {
                Some(()) => verify::structure(connection, None),
                None => Ok(None),
            };
            let question = question(wanted, at(11), at(12));
            let room = Room::new(10);
            let mut answers = Answers::new(&room);
            ask_checked(&db, check, &question, &mut answers).unwrap();
            let answer = Answer::new(&question, answers, Vec::new());
            assert_eq!(answer.verdict(), verdict, "{checked:?} {wanted}");
            assert_eq!(answer.unchecked.is_empty(), checked.is_some());
        }
    }
}
