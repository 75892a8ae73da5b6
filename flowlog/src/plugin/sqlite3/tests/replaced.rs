//! Databases that are removed or replaced beneath the daemon.

use super::*;
use crate::plugin::beneath::beside;

/// Another file than the first has its name, soon after what was done to it.
fn is_made_anew(place: &Place, sink: &mut Sqlite3) {
    let begin = Instant::now();
    until(sink, "it is noticed", |_| place.count(Measure::Replaced) == 1);
    until(sink, "it is made anew", |_| place.settings.db.exists() && !sink_fails(place));
    assert!(begin.elapsed() < Duration::from_secs(2), "after {:?}", begin.elapsed());
}

fn sink_fails(place: &Place) -> bool {
    place.stats.trouble().is_some()
}

/// No row comes meanwhile.
#[test]
fn a_removed_database_is_made_anew() {
    let place = Place::new();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(beside(&place.settings.db, suffix)).unwrap();
    }
    is_made_anew(&place, &mut sink);
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    sink.output.close();
    assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["2"]);
    assert_eq!(place.count(Measure::Lost), 0);
}

/// What is written to a file that has no name any more is written to the next.
#[test]
fn a_directory_is_made_anew_with_its_database() {
    let mut place = Place::new();
    let directory = place.path("logs");
    fs::create_dir(&directory).unwrap();
    place.settings.db = directory.join("flow.db");
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    fs::remove_dir_all(&directory).unwrap();
    for port in 2..=50 {
        push(&mut sink, &item(Kinds::NEW, &tcp(port), None));
        settle(&mut sink);
    }
    is_made_anew(&place, &mut sink);
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*), min(orig_sport) FROM flow"), ["49 2"]);
    let covered = "SELECT count(*), sum(records) FROM coverage WHERE kind = 'run'";
    assert_eq!(place.ask(covered), ["1 49"], "of this file alone");
}

/// A database without its directory: rows wait, and nothing else happens.
#[test]
fn rows_wait_for_a_directory() {
    let mut place = Place::new();
    let above = place.path("above");
    fs::create_dir_all(above.join("logs")).unwrap();
    place.settings.db = above.join("logs/flow.db");
    let mut sink = place.sink();
    settle(&mut sink);
    fs::remove_dir_all(&above).unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    until(&mut sink, "it fails", |sink| {
        database(sink).failure().is_some_and(|why| why.contains("make its directory"))
    });
    fs::create_dir(&above).unwrap();
    settle(&mut sink);
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["1"]);
    sink.output.close();
}

/// A database whose directory, and the one above, are removed.
fn without_directory() -> (Place, Sqlite3, PathBuf) {
    let mut place = Place::new();
    let above = place.path("above");
    fs::create_dir_all(above.join("logs")).unwrap();
    place.settings.db = above.join("logs/flow.db");
    let mut sink = place.sink();
    settle(&mut sink);
    fs::remove_dir_all(&above).unwrap();
    (place, sink, above)
}

/// What cannot be opened is tried again until the deadline of the exit.
#[test]
fn an_exit_waits_for_a_directory() {
    let (place, mut sink, above) = without_directory();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    until(&mut sink, "it fails", |_| sink_fails(&place));
    let errors = place.count(Measure::Errors);
    sink.output.end(Instant::now() + Duration::from_secs(20));
    until(&mut sink, "attempts at the exit", |_| place.count(Measure::Errors) > errors + 2);
    fs::create_dir(&above).unwrap();
    sink.output.close();
    assert_eq!(place.ask("SELECT count(*) FROM flow"), ["1"]);
    assert_eq!((place.count(Measure::Lost), place.count(Measure::Unsure)), (0, 0));
}

/// And counted as lost then.
#[test]
fn an_exit_counts_what_waits_for_a_directory() {
    let (place, mut sink, _) = without_directory();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    let begin = Instant::now();
    sink.output.end(begin + Duration::from_millis(400));
    sink.output.close();
    assert!(begin.elapsed() > Duration::from_millis(390), "{:?}", begin.elapsed());
    assert_eq!((place.count(Measure::Lost), place.count(Measure::Unsure)), (1, 0));
}

/// Without rows it is not awaited.
#[test]
fn an_exit_without_rows_waits_for_no_directory() {
    let (place, mut sink, _) = without_directory();
    until(&mut sink, "it is noticed", |_| sink_fails(&place));
    let begin = Instant::now();
    sink.output.close();
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(place.count(Measure::Lost), 0);
}

/// Another database takes its place: rows go there.
#[test]
fn a_database_that_was_replaced_is_left() {
    let place = Place::new();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    let other = place.path("other.db");
    Connection::open(&other).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    fs::rename(&other, &place.settings.db).unwrap();
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(beside(&place.settings.db, suffix)).unwrap();
    }
    is_made_anew(&place, &mut sink);
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    sink.output.close();
    assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["2"]);
    assert!(place.ask("SELECT * FROM mine").is_empty());
}

/// Renamed without a signal: as after HUP.
#[test]
fn a_database_that_was_renamed_is_followed_by_a_new_one() {
    let place = Place::new();
    let mut sink = place.sink();
    sink.output.begin();
    sink.output.caught_up(jiff::Timestamp::now().as_nanosecond() as u64);
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    let old = place.path("flow.db.1");
    fs::rename(&place.settings.db, &old).unwrap();
    is_made_anew(&place, &mut sink);
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    sink.output.close();
    assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["2"]);
    let old = Connection::open(old).unwrap();
    assert_eq!(rows(&old, "SELECT orig_sport FROM flow"), ["1"]);
    let until = |connection: &Connection, column: &str| {
        rows(connection, &format!("SELECT {column} FROM coverage WHERE kind = 'run'"))
    };
    // No time between the files is left out.
    assert_eq!(until(&old, "until"), until(&place.other(), "since"));
}
