//! A new file in the place of one that is given up.
//!
//! It is made under another name, and all that can be read of the old one is copied. Once it is on
//! disk, and with it a note of what is given up, the old one is renamed and the new one gets its
//! name. So a full disk or a kill costs no record and no count: before the note the old file is in
//! its place, and all begins anew; after it the next start goes on there. The note stays until
//! what is given up was counted, also while another new file is made.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::disk;
use super::failure::Failure;
use super::given_up::GivenUp;
use super::held;
use super::note::{self, Found, NOTE, New, Note};
use super::rescue::{self, Rescued};
use super::store::OpenFile;
use crate::plugin::beneath::{self, beside};

/// The name of the new file while it is made. It is flowlog's own: what stands there is removed.
pub(super) const NEW: &str = "spool.db.flowlog-new";
/// In the name of a file that was damaged, and of one that was found in the place of the spool.
pub(super) const DAMAGED: &str = "damaged";
pub(super) const FOUND: &str = "found";
/// What SQLite plays into a file of that name, or maps.
const LOGS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A new file that is whole, and not in its place yet.
pub(super) struct Replacement<'a> {
    path: &'a Path,
    note: Note,
    earlier: Option<Note>,
}

impl<'a> Replacement<'a> {
    /// Makes a file in the place of that at `path`, of which `from` reads. What was given up
    /// `earlier`, and may not be counted, stays noted.
    ///
    /// # Errors
    /// None can be made: nothing has changed.
    pub(super) fn make(
        path: &'a Path,
        from: &Connection,
        highest: i64,
        earlier: Option<Note>,
    ) -> Result<Self, Failure> {
        let new = path.with_file_name(NEW);
        remove_new(path);
        let held = rescue::amounts(from).ok().or_else(|| held::read(path.parent()?));
        // A copy that ends for want of room has taken all of it, also that of others. Where no
        // number of a row is known there is nothing to copy.
        if let Some(held) = held.as_ref().filter(|_| highest > 0)
            && let Some(left) = path.parent().and_then(disk::left)
            && left < rescue::takes(from, held)
        {
            return Err(Failure::full(&new));
        }
        begin(path, earlier.as_ref())?;
        let made = copy(&new, from, highest);
        let Rescued { rows: copied, losses } = made.inspect_err(|_| remove_new(path))?;
        Ok(Self { path, note: Note::of(held.as_ref(), copied, losses), earlier })
    }

    /// Puts it in its place. What stands there is renamed, with the word in its name.
    ///
    /// # Errors
    /// It cannot be put there, and the old one stays; or it is there and cannot be opened, and the
    /// next attempt finds it.
    pub(super) fn install(self, word: &str) -> Result<(OpenFile, GivenUp), Failure> {
        let Self { path, note, earlier } = self;
        let mut given_up = GivenUp { aside: None, note, earlier };
        let all = given_up.all();
        let noted = note::write(path, &all, New::Whole);
        let placed = noted.and_then(|()| place(path, word, &all)).inspect_err(|_| {
            // Where the note cannot be written the next start counts too much.
            let _ = begin(path, given_up.earlier.as_ref());
            remove_new(path);
        });
        given_up.aside = placed?;
        Ok((OpenFile::open(path)?, given_up))
    }
}

/// Ends what was begun and not ended; returns what was given up with it and is not known to have
/// been counted.
pub(super) fn resume(path: &Path) -> Result<Option<GivenUp>, Failure> {
    let (note, new) = match note::read(path)? {
        Found::Nothing => {
            // It may not be whole.
            remove_new(path);
            return Ok(None);
        }
        Found::Note(note, new) => (note, new),
        // A new file may not be whole, and is used only where there is no other.
        Found::Damaged if path.exists() => (Note::unknown(), New::Part),
        Found::Damaged => (Note::unknown(), New::Whole),
    };
    let aside = if new == New::Whole && path.with_file_name(NEW).is_file() {
        place(path, DAMAGED, &note)?
    } else {
        remove_new(path);
        newest_aside(path)
    };
    Ok(Some(GivenUp { aside, note, earlier: None }))
}

/// From then on a new file that is found is a part of one.
fn begin(path: &Path, earlier: Option<&Note>) -> Result<(), Failure> {
    match earlier {
        Some(earlier) => note::write(path, earlier, New::Part),
        None => {
            note::forget(path);
            Ok(())
        }
    }
}

/// Removes what is not in use yet. What is not there need not be removed.
fn remove_new(path: &Path) {
    let new = path.with_file_name(NEW);
    for suffix in [""].iter().chain(&LOGS) {
        let _ = fs::remove_file(beside(&new, suffix));
    }
}

/// Makes a file, and copies what can be read of another; all of it is in one file then.
fn copy(path: &Path, from: &Connection, highest: i64) -> Result<Rescued, Failure> {
    let OpenFile { mut connection, .. } = OpenFile::open(path)?;
    let mut run = || {
        rescue::begin_behind(&connection, highest)?;
        let rescued = rescue::copy(from, highest, &mut connection)?;
        let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
        let busy: bool = connection.query_row(sql, [], |row| row.get(0))?;
        if busy {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
            return Err(rusqlite::Error::SqliteFailure(code, None));
        }
        Ok(rescued)
    };
    run().map_err(|error| Failure::Database(path.to_owned(), error))
}

/// Puts the new file at `path`; returns the name that the one which stood there has now.
fn place(path: &Path, word: &str, note: &Note) -> Result<Option<PathBuf>, Failure> {
    let aside = exchange(path, word)?;
    if let Some(directory) = path.parent() {
        // Of the old one it would be counted once more, should the new one be damaged as well.
        held::write(directory, &note.copied);
    }
    Ok(aside)
}

/// Renames what stands at `path`, and the new file to that name.
fn exchange(path: &Path, word: &str) -> Result<Option<PathBuf>, Failure> {
    let in_the_way = |error| Failure::InTheWay(path.to_owned(), error);
    let new = path.with_file_name(NEW);
    let stood = path.exists();
    let aside = if stood {
        Some(beneath::set_aside(path, word).map_err(in_the_way)?)
    } else {
        // By a start that was killed then.
        newest_aside(path)
    };
    // SQLite would play the log of a file that has lost its name into the new one. It goes with
    // its file, where that is known, and else where the new one has none.
    let away = aside.as_deref().unwrap_or(&new);
    let placed = rename_logs(path, away).and_then(|()| fs::rename(&new, path));
    placed.map_err(|error| {
        let _ = rename_logs(away, path);
        if stood {
            let _ = fs::rename(away, path);
        }
        in_the_way(error)
    })?;
    for suffix in LOGS {
        // All of it was copied.
        let _ = fs::remove_file(beside(&new, suffix));
    }
    Ok(aside)
}

/// Renames what SQLite has beside a file.
fn rename_logs(from: &Path, to: &Path) -> io::Result<()> {
    for suffix in LOGS {
        match fs::rename(beside(from, suffix), beside(to, suffix)) {
            // The database was closed in order, or they were renamed before.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The file that was renamed last, since what is noted was given up.
fn newest_aside(path: &Path) -> Option<PathBuf> {
    let noted = path.with_file_name(NOTE).metadata().ok()?;
    let noted = (noted.mtime(), noted.mtime_nsec());
    let name = path.file_name()?.to_str()?;
    let begins = [DAMAGED, FOUND].map(|word| format!("{name}.{word}-"));
    let entries = fs::read_dir(path.parent()?).ok()?.flatten();
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        begins.iter().any(|begin| name.starts_with(begin))
            && !LOGS.iter().any(|suffix| name.ends_with(suffix))
    };
    let renamed = |path: &PathBuf| {
        path.metadata().map(|file| (file.ctime(), file.ctime_nsec())).unwrap_or_default()
    };
    let asides = entries.map(|entry| entry.path()).filter(is_aside);
    asides.filter(|aside| renamed(aside) >= noted).max_by_key(renamed)
}

#[cfg(test)]
mod tests {
    use super::super::rescue::Amounts;
    use super::*;
    use crate::stats::Amount;

    fn note() -> Note {
        let amounts = |records| {
            Amounts::from([("a:NATS".to_owned(), Amount { bytes: 10 * records, records })])
        };
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
            note::forget(&path);
            assert!(resume(&path).unwrap().is_none(), "it is counted twice");
        }
        // No note: the new file may be a part.
        let (_directory, path) = killed(true, false, New::Whole);
        note::forget(&path);
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
            // There is no new one.
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
}
