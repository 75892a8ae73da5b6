use super::super::rescue::Amounts;
use super::*;
use crate::stats::Amount;

fn note() -> Note {
    let amounts =
        |records| Amounts::from([("a:NATS".to_owned(), Amount { bytes: 10 * records, records })]);
    Note::of(Some(&amounts(9)), amounts(4), true)
}

/// A directory with these files, and a note.
fn killed(new: bool, old: bool, state: New) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    if new {
        fs::write(path.with_file_name(NEW), "new").unwrap();
    }
    if old {
        fs::write(&path, "old").unwrap();
    }
    note::write(&path, &note(), state).unwrap();
    (directory, path)
}

/// Killed at each step.
#[test]
fn what_was_begun_is_ended_or_begun_anew() {
    for (new, old, state) in [
        (true, true, New::Whole),
        (true, false, New::Whole),
        (false, true, New::Whole),
        (true, true, New::Part),
        (false, true, New::Part),
    ] {
        let (_directory, path) = killed(new, old, state);
        let GivenUp { aside, note: noted, .. } = resume(&path).unwrap().unwrap();
        let is_new = fs::read_to_string(&path).unwrap() == "new";
        let ended = new && state == New::Whole;
        assert_eq!(is_new, ended, "{new} {old} {state:?}");
        assert_eq!((aside.is_some(), noted), (ended && old, note()));
        assert!(!path.with_file_name(NEW).exists());
        if ended {
            // What the new one holds, and not what the old one held.
            assert_eq!(held::read(path.parent().unwrap()), Some(note().copied));
        }
        // It stays until it is counted.
        assert_eq!(resume(&path).unwrap().unwrap().note, note());
        note::forget(&path).unwrap();
        assert!(resume(&path).unwrap().is_none(), "it is counted twice");
    }
    // No note: the new file may be a part.
    let (_directory, path) = killed(true, false, New::Whole);
    note::forget(&path).unwrap();
    assert!(resume(&path).unwrap().is_none());
    assert!(!path.with_file_name(NEW).exists() && !path.exists());
}

/// What it counted is not known, and the start goes on.
#[test]
fn a_note_that_is_damaged_is_an_unknown_loss() {
    for (new, old) in [(true, true), (true, false), (false, true)] {
        let (_directory, path) = killed(new, old, New::Whole);
        fs::write(path.with_file_name(NOTE), [0xff, 0xfe, b'{']).unwrap();
        let given_up = resume(&path).unwrap().unwrap();
        assert_eq!(given_up.note, Note::unknown());
        let stands = if old { "old" } else { "new" };
        assert_eq!(fs::read_to_string(&path).unwrap(), stands);
        assert!(!path.with_file_name(NEW).exists());
    }
}

/// Of a database that has another table; the log is valid by itself.
fn leave_log(path: &Path) {
    let other = path.with_file_name("other.db");
    let connection = Connection::open(&other).unwrap();
    connection.pragma_update(None, "page_size", 16384).unwrap();
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())).unwrap();
    connection.execute_batch("CREATE TABLE other (a); INSERT INTO other VALUES (1)").unwrap();
    for suffix in ["-wal", "-shm"] {
        fs::copy(beside(&other, suffix), beside(path, suffix)).unwrap();
    }
    assert!(beside(path, "-wal").metadata().unwrap().len() > 16384, "it has no page");
}

fn tables(path: &Path) -> Vec<String> {
    let connection = Connection::open(path).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table'";
    let mut query = connection.prepare(sql).unwrap();
    query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Killed between the renames of the old file and of its log; or the file alone was removed.
#[test]
fn a_log_that_was_left_is_not_played_into_the_new_file() {
    for renamed in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool.db");
        let aside = path.with_file_name("spool.db.damaged-20260101T000000Z");
        let before = path.with_file_name("spool.db.damaged-20250101T000000Z");
        fs::write(&before, "of another time").unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        drop(OpenFile::open(&path.with_file_name(NEW)).unwrap());
        leave_log(&path);
        let log = fs::read(beside(&path, "-wal")).unwrap();
        note::write(&path, &note(), New::Whole).unwrap();
        if renamed {
            fs::write(&aside, "old").unwrap();
        }
        let given_up = resume(&path).unwrap().unwrap();
        assert_eq!(given_up.aside, renamed.then_some(aside.clone()));
        for file in [&path, &path.with_file_name(NEW), &before] {
            assert!(!beside(file, "-wal").exists(), "{file:?}");
        }
        let kept = fs::read(beside(&aside, "-wal")).ok();
        assert_eq!(kept, renamed.then_some(log), "a file has lost its log");
        drop(OpenFile::open(&path).unwrap());
        let tables = tables(&path);
        assert!(tables.iter().any(|name| name == "batch"), "{tables:?}");
        assert!(!tables.iter().any(|name| name == "other"), "{tables:?}");
    }
}

/// The new file cannot get its name: the old one has its own again, with its log.
#[test]
fn what_stood_there_comes_back() {
    for stood in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool.db");
        if stood {
            fs::write(&path, "old").unwrap();
        }
        fs::write(beside(&path, "-wal"), "log").unwrap();
        // The new one does not exist.
        exchange(&path, DAMAGED).unwrap_err();
        assert_eq!(path.exists(), stood);
        assert_eq!(fs::read(beside(&path, "-wal")).unwrap(), b"log");
    }
}

/// Of one that was given up before and is not counted yet.
#[test]
fn a_note_outlasts_an_attempt_that_fails() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    let old = OpenFile::open(&path).unwrap().connection;
    note::write(&path, &note(), New::Whole).unwrap();
    let in_the_way = path.with_file_name(NEW);
    fs::create_dir(&in_the_way).unwrap();
    assert!(Replacement::make(&path, &old, 0, Some(note())).is_err());
    assert_eq!(note::read(&path).unwrap(), Found::Note(note(), New::Part));
    fs::remove_dir(&in_the_way).unwrap();
    // Killed before the new one has its place, and after.
    let made = Replacement::make(&path, &old, 0, Some(note())).unwrap();
    assert!(in_the_way.exists());
    assert_eq!(note::read(&path).unwrap(), Found::Note(note(), New::Part));
    let (_, given_up) = made.install(DAMAGED).unwrap();
    let all = Note::of(Some(&Amounts::new()), Amounts::new(), true).behind(&note());
    assert_eq!(given_up.all(), all);
    assert_eq!(note::read(&path).unwrap(), Found::Note(all, New::Whole));
}

/// One of another file would make a part of the new one the spool, after a kill.
#[test]
fn no_file_is_made_beside_a_note_that_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    let old = OpenFile::open(&path).unwrap().connection;
    fs::create_dir(path.with_file_name(NOTE)).unwrap();
    let failure = Replacement::make(&path, &old, 0, None).err();
    assert!(matches!(failure, Some(Failure::Beside(..))), "{failure:?}");
    assert!(!path.with_file_name(NEW).exists());
}

/// As if there were no descriptors: what the old one holds is not counted, as it is delivered.
#[test]
fn a_new_file_that_cannot_be_opened_gives_way_to_the_old_one() {
    for earlier in [None, Some(note())] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool.db");
        let old = OpenFile::open(&path).unwrap().connection;
        let inode = |path: &Path| path.metadata().unwrap().ino();
        let files = [path.clone(), beside(&path, "-wal")];
        let before = files.each_ref().map(|path| inode(path));
        held::write(directory.path(), &note().lost);
        let made = Replacement::make(&path, &old, 0, earlier.clone()).unwrap();
        let failed = |_: &Path| Err(Failure::full(&path));
        made.install_by(DAMAGED, failed).map(|_| ()).unwrap_err();
        assert_eq!(files.each_ref().map(|path| inode(path)), before);
        assert_eq!(held::read(directory.path()), Some(note().lost));
        let noted = match earlier {
            Some(earlier) => Found::Note(earlier, New::Part),
            None => Found::Nothing,
        };
        assert_eq!(note::read(&path).unwrap(), noted);
        let names = fs::read_dir(directory.path()).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        let strange = |name: &&std::ffi::OsString| {
            let name = name.to_str().unwrap();
            name.starts_with(NEW) || name.contains(DAMAGED)
        };
        assert_eq!(names.iter().filter(strange).count(), 0, "{names:?}");
    }
}

/// What a kill has left of the copy of a removed file, also where something else was given up.
#[test]
fn what_has_vanished_is_given_up_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("spool.db");
    // A first start.
    assert!(vanished(&path, None).unwrap().is_none());
    held::write(directory.path(), &Amounts::new());
    assert!(vanished(&path, None).unwrap().is_none());
    let held = note().lost;
    held::write(directory.path(), &held);
    // A link whose target is away, and may come back.
    std::os::unix::fs::symlink("missing/spool.db", &path).unwrap();
    assert!(vanished(&path, None).unwrap().is_none());
    fs::remove_file(&path).unwrap();
    note::write(&path, &note(), New::Part).unwrap();
    let given_up = vanished(&path, resume(&path).unwrap()).unwrap().unwrap();
    let all = Note::vanished(&held).behind(&note());
    assert_eq!((given_up.all(), all.files), (all.clone(), 1));
    assert_eq!(all.lost["a:NATS"].records, 10);
    // The start that counts it is killed before it has, and the next one too.
    for _ in 0..2 {
        let given_up = vanished(&path, resume(&path).unwrap()).unwrap().unwrap();
        assert_eq!(given_up.all(), all);
    }
}
