//! What stands in the way of a database: said with its remedy, and what waits
//! is not lost.

use std::thread::sleep;
use std::time::Duration;

use super::*;

/// A little longer than from one try to the next.
const NEXT_TRY: Duration = Duration::from_millis(1100);

#[test]
fn what_cannot_be_used_is_refused_with_a_remedy() {
    let place = Place::new();
    fs::write(&place.settings.db, "no database, but a text that is long enough".repeat(9)).unwrap();
    let found = place.refusal();
    assert!(found.contains("is not a database; it is another file: move it away"), "{found}");
    assert!(look(&place.settings.db, "").is_err());

    let mut place = Place::new();
    place.settings.db = place.path("missing/flow.db");
    let found = place.refusal();
    assert!(found.contains("unable to open") && found.contains("make its directory"), "{found}");

    place.settings.db = place.directory.path().to_owned();
    let found = place.refusal();
    assert!(found.contains("it is a directory; name a file in it"), "{found}");

    let place = Place::with_table("CREATE TABLE ulog_ct (orig_ip_saddr integer, ct_label text)");
    let found = place.refusal();
    assert!(found.contains("the column ct_label of its table ulog_ct is no key"), "{found}");
    assert_eq!(look(&place.settings.db, "ulog_ct").unwrap_err().parts().0, {
        "the column ct_label of its table ulog_ct is no key that a flow has"
    });

    let place = Place::with_table("CREATE TABLE t (a); CREATE VIEW ulog_ct AS SELECT a FROM t");
    assert!(place.refusal().contains("is a view; name a table"), "{}", place.refusal());

    let place = Place::new();
    place.other().execute_batch("CREATE TABLE flow (a, b)").unwrap();
    let found = place.refusal();
    assert!(found.contains("the tables are not flowlog's: name another file"), "{found}");
    assert!(look(&place.settings.db, "").is_err(), "a check tells it too");
}

#[test]
fn a_locked_database_is_waited_for() {
    let place = Place::new();
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    let begin = std::time::Instant::now();
    sink.output.flush();
    assert!(begin.elapsed() < Duration::from_millis(500), "the loop waits {:?}", begin.elapsed());
    let Output::Database(database) = &sink.output else { panic!() };
    let why = database.failure().unwrap().to_string();
    assert!(why.contains("locked") && why.contains("another process writes it"), "{why}");
    assert!(sink.output.is_failing() && sink.output.fill().0 > 0);
    assert_eq!(sink.output.retry_in(), Some(Duration::from_secs(1)));
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    other.execute_batch("ROLLBACK").unwrap();
    sink.output.flush();
    sleep(NEXT_TRY);
    sink.output.flush();
    assert!(!sink.output.is_failing());
    assert_eq!(sink.output.retry_in(), None);
    assert_eq!(place.ask("SELECT orig_sport FROM flow ORDER BY 1"), ["1", "2"]);
    assert!(place.count(Measure::Errors) > 0);
    assert_eq!(place.count(Measure::Lost), 0);
}

/// What is written, what waits and what is lost add up.
#[test]
fn a_full_buffer_counts_its_losses() {
    let mut place = Place::new();
    place.settings.buffer_max = 4096;
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for port in 1..=100 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    let lost = place.count(Measure::Lost);
    assert!(lost > 50 && sink.output.fill().0 <= 4096, "{lost} lost");
    other.execute_batch("ROLLBACK").unwrap();
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), [(100 - lost).to_string()]);
}

/// At the exit what cannot be written is counted.
#[test]
fn an_exit_counts_what_it_loses() {
    let place = Place::new();
    let mut sink = place.sink();
    let other = place.other();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    sink.output.close();
    assert_eq!(place.count(Measure::Lost), 1);
}

/// No page more is as a full disk: rows wait, and none is written by halves.
#[test]
fn a_full_database_is_waited_for() {
    let place = Place::new();
    let mut sink = place.sink();
    limit_pages(&mut sink, Some(20));
    for port in 1..=1000 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    sink.output.flush();
    let Output::Database(database) = &sink.output else { panic!() };
    let why = database.failure().unwrap().to_string();
    assert!(why.contains("full; make room"), "{why}");
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["0"]);
    limit_pages(&mut sink, None);
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["1000"]);
    assert_eq!(place.count(Measure::Lost), 0);
}

fn limit_pages(sink: &mut Sqlite3, pages: Option<i64>) {
    let Output::Database(output) = &mut sink.output else { panic!() };
    output.database().limit_pages(pages);
}

/// Damaged while it is open: rows wait, and a new file takes them.
#[test]
fn a_damaged_database_can_be_moved_away() {
    let place = Place::new();
    let mut sink = place.sink();
    for port in 1..=500 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
    }
    sink.output.close();
    let length = fs::metadata(&place.settings.db).unwrap().len() as usize;
    let mut bytes = fs::read(&place.settings.db).unwrap();
    bytes[4096..length].fill(0xee);
    fs::write(&place.settings.db, bytes).unwrap();
    let mut sink = match Sqlite3::open(&place.settings, place.stats.clone()) {
        Ok(sink) => sink,
        Err(why) => panic!("{why}: the schema is in the first page"),
    };
    push(&mut sink, &item(Kinds::NEW, &tcp(9), None));
    sink.output.flush();
    let Output::Database(database) = &sink.output else { panic!() };
    let why = database.failure().unwrap().to_string();
    assert!(why.contains("malformed; move it away and send SIGHUP"), "{why}");
    fs::rename(&place.settings.db, place.path("damaged")).unwrap();
    sink.output.reopen();
    sink.output.close();
    assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["9"]);
}
