//! Databases that are renamed while they are open.

use super::*;

/// Renamed while it is open: what was written is in the old file, and no file of
/// SQLite's is left behind.
#[test]
fn a_renamed_database_is_whole() {
    for create in [None, Some(ULOG_CT)] {
        let place = create.map_or_else(Place::new, Place::with_table);
        let table = if create.is_some() { "ulog_ct" } else { "flow" };
        let count = |connection: &Connection| {
            rows(connection, &format!("SELECT count(*) FROM {table}")).concat()
        };
        let mut sink = place.sink();
        push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
        settle(&mut sink);
        let old = place.path("flow.db.1");
        fs::rename(&place.settings.db, &old).unwrap();
        push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
        settle(&mut sink);
        push(&mut sink, &item(Kinds::NEW, &tcp(3), None));
        sink.output.reopen();
        push(&mut sink, &item(Kinds::NEW, &tcp(4), None));
        sink.output.close();
        let old = Connection::open(old).unwrap();
        assert_eq!(count(&old), "3", "{table}");
        assert_eq!(rows(&old, "PRAGMA integrity_check"), ["ok"]);
        assert_eq!(count(&place.other()), "1", "{table}");
        drop(old);
        let mut left: Vec<_> = fs::read_dir(place.directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["flow.db", "flow.db.1"]);
    }
}

/// Renamed while somebody reads, so that the log cannot be brought in: it follows.
#[test]
fn a_log_follows_its_database() {
    let place = Place::new();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    let reader = place.other();
    reader.execute_batch("BEGIN; SELECT count(*) FROM flow").unwrap();
    push(&mut sink, &item(Kinds::NEW, &tcp(2), None));
    settle(&mut sink);
    let old = place.path("flow.db.1");
    fs::rename(&place.settings.db, &old).unwrap();
    sink.output.reopen();
    push(&mut sink, &item(Kinds::NEW, &tcp(3), None));
    sink.output.close();
    assert!(place.path("flow.db.1-wal").exists(), "there was nothing to bring in");
    drop(reader);
    let old = Connection::open(old).unwrap();
    assert_eq!(rows(&old, "SELECT orig_sport FROM flow ORDER BY 1"), ["1", "2"]);
    assert_eq!(rows(&old, "PRAGMA integrity_check"), ["ok"]);
    assert_eq!(place.ask("SELECT orig_sport FROM flow"), ["3"]);
}

/// Renamed, and the daemon killed before it heard of it: the log waits beside.
#[test]
fn a_log_that_was_left_behind_is_set_aside() {
    let place = Place::new();
    let mut sink = place.sink();
    push(&mut sink, &item(Kinds::NEW, &tcp(1), None));
    settle(&mut sink);
    // As a killed process leaves it.
    let copies = place.path("killed");
    fs::create_dir(&copies).unwrap();
    fs::copy(&place.settings.db, copies.join("flow.db.1")).unwrap();
    fs::copy(place.path("flow.db-wal"), copies.join("flow.db-wal")).unwrap();
    let db = copies.join("flow.db");
    let settings = Settings { db, ..place.settings.clone() };
    drop(Sqlite3::open(&settings, place.stats.clone()).unwrap());
    assert!(copies.join("flow.db-wal.left").exists());
    fs::rename(copies.join("flow.db-wal.left"), copies.join("flow.db.1-wal")).unwrap();
    let old = Connection::open(copies.join("flow.db.1")).unwrap();
    assert_eq!(rows(&old, "SELECT count(*) FROM flow"), ["1"]);
}
