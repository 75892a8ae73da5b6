//! Databases that cannot be written at start, for a while: rows gather until they can.

use super::*;
use crate::event::{ExpectAction, Expectation};

/// How long a start may take.
const START: Duration = Duration::from_secs(2);

/// Every kind of item: a beginning, an end, an expectation, a loss.
fn push_all(sink: &mut Sqlite3) {
    let flow = tcp(40001);
    push(sink, &item(Kinds::NEW, &flow, None));
    push(sink, &item(Kinds::DESTROY, &flow, Some(&END)));
    let expectation = Expectation {
        action: ExpectAction::New,
        tuple: Tuple { src_l4: 0, dst_l4: 5000, ..flow.orig },
        master: flow.orig,
        zone: 0,
        helper: None,
        netns: None,
    };
    push(sink, &Item { tag: Kinds::EXPECT, at: AT, body: Body::Expectation(&expectation) });
    let lost = Body::Lost(Lost::noticed("ebpf", 9, AT));
    push(sink, &Item { tag: Kinds::empty(), at: AT, body: lost });
}

/// The rows of each table, without those that say when it ran.
fn all_rows(place: &Place) -> Vec<String> {
    let tables = place.ask("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name");
    let mut all = Vec::new();
    for table in tables {
        let which = if table == "coverage" { " WHERE kind <> 'run'" } else { "" };
        all.extend(place.ask(&format!("SELECT '{table}', * FROM {table}{which}")));
    }
    all
}

/// With which lock, and what stands in the database: it starts at once, says why it waits, and
/// then writes what it would have written.
#[test]
fn a_locked_database_does_not_stop_the_start() {
    let other = "CREATE TABLE mine (a)";
    for (create, table) in [(other, ""), (other, "ulog_ct"), (ULOG_CT, "ulog_ct"), (ULOG_CT, "")] {
        let made = |lock: Option<&str>| {
            let mut place = Place::with_table(create);
            place.settings.table = table.to_owned();
            let locker = place.other();
            if let Some(lock) = lock {
                locker.execute_batch(lock).unwrap();
            }
            let begin = Instant::now();
            let mut sink = place.sink();
            assert!(begin.elapsed() < START, "{:?}", begin.elapsed());
            if lock.is_some() {
                let why = database(&sink).failure().unwrap();
                assert!(why.contains("locked; another process writes it"), "{why}");
            }
            sink.output.caught_up(AT);
            push_all(&mut sink);
            sink.output.begin();
            sink.output.flush();
            if lock.is_some() {
                locker.execute_batch("ROLLBACK").unwrap();
            }
            settle(&mut sink);
            assert!(!sink.output.is_failing());
            // From now on it is known which tables are written.
            push(&mut sink, &item(Kinds::NEW, &tcp(40002), None));
            sink.output.close();
            assert_eq!(sink.output.fill().0, 0);
            let counts = [Measure::Records, Measure::Lost, Measure::Refused, Measure::Unsure];
            (all_rows(&place), counts.map(|measure| place.count(measure)))
        };
        let expected = made(None);
        assert!(expected.0.len() >= 3, "{expected:?}");
        for lock in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
            assert_eq!(made(Some(lock)), expected, "{lock}, table={table}, {create}");
        }
    }
}

/// Where the tables are there, a start takes no lock.
#[test]
fn a_writer_does_not_delay_the_start_of_a_database_that_is_complete() {
    for table in [None, Some(ULOG_CT)] {
        let place = table.map_or_else(Place::new, Place::with_table);
        let mut sink = place.sink();
        push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
        sink.output.close();
        let writer = place.other();
        writer.execute_batch("BEGIN IMMEDIATE").unwrap();
        let mut sink = place.sink();
        assert_eq!(database(&sink).failure(), None, "{table:?}");
        writer.execute_batch("ROLLBACK").unwrap();
        push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
        sink.output.close();
        assert_eq!(place.count(Measure::Records), 2);
    }
}

/// What waits is bounded, and what is lost is counted and named in the database.
#[test]
fn rows_that_await_a_database_are_bounded() {
    let mut place = Place::with_table("CREATE TABLE mine (a)");
    place.settings = Settings { table: String::new(), buffer_max: 4096, ..place.settings };
    let locker = place.other();
    locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut sink = place.sink();
    sink.output.begin();
    for port in 1..=100 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    let lost = place.count(Measure::Lost);
    assert!(lost > 50 && sink.output.fill().0 <= 4096, "{lost} lost");
    locker.execute_batch("ROLLBACK").unwrap();
    settle(&mut sink);
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), [(100 - lost).to_string()]);
    let gaps = "SELECT records, detail FROM coverage WHERE kind = 'lost'";
    assert_eq!(place.ask(gaps), [format!("{lost} buffer_max_bytes")]);
    // It is covered from the start on, not from when it could be opened.
    assert_eq!(place.ask("SELECT count(*) FROM coverage WHERE kind = 'run'"), ["1"]);
}

/// It stays locked: the exit ends in time, and counts.
#[test]
fn an_exit_counts_what_awaits_a_database() {
    let place = Place::with_table("CREATE TABLE mine (a)");
    let locker = place.other();
    locker.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    let begin = Instant::now();
    sink.output.end(begin + Duration::from_millis(400));
    sink.output.close();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!((place.count(Measure::Lost), place.count(Measure::Records)), (1, 0));
    locker.execute_batch("ROLLBACK").unwrap();
    assert!(place.ask("SELECT name FROM sqlite_schema WHERE name = 'flow'").is_empty());
}

/// What is wrong by itself is refused, as before.
#[test]
fn what_does_not_pass_is_not_awaited() {
    use crate::plugin::sqlite3::failure::Failure;
    let place = Place::new();
    let file = &place.settings.db;
    let code =
        |code| Failure::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
    for passes in [
        rusqlite::ffi::SQLITE_BUSY,
        rusqlite::ffi::SQLITE_LOCKED,
        rusqlite::ffi::SQLITE_FULL,
        rusqlite::ffi::SQLITE_IOERR_FSYNC,
        rusqlite::ffi::SQLITE_NOMEM,
        rusqlite::ffi::SQLITE_CANTOPEN,
    ] {
        assert!(code(passes).may_pass(file) && !code(passes).is_lasting(), "{passes}");
    }
    for stays in
        [rusqlite::ffi::SQLITE_READONLY, rusqlite::ffi::SQLITE_PERM, rusqlite::ffi::SQLITE_ERROR]
    {
        assert!(!code(stays).may_pass(file) && code(stays).is_lasting(), "{stays}");
    }
    assert!(!code(rusqlite::ffi::SQLITE_NOTADB).may_pass(file));
    // The directory is missing.
    assert!(!code(rusqlite::ffi::SQLITE_CANTOPEN).may_pass(&place.path("missing/flow.db")));
    let mut place = Place::new();
    place.settings.db = "/dev/null".into();
    assert!(place.refusal().contains("it is not a file; name another"), "{}", place.refusal());
}
