//! A new file in the place of one that is given up.
//!
//! It is made under another name, and all that can be read of the old one is copied. Once it is on
//! disk, and with it a note of what is given up, the old one is renamed and the new one gets its
//! name. So a full disk or a kill costs no record and no count: before the note the old file is in
//! its place, and all begins anew; after it the next start goes on there. The note stays until
//! what is given up was counted.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use serde_json::{Value, json};

use super::failure::Failure;
use super::held;
use super::rescue::{self, Amounts, Rescued};
use super::store::{GivenUp, OpenFile};
use crate::plugin::beneath::{self, beside};

/// The names of the new file while it is made, and of the note.
pub(super) const NEW: &str = "spool.db.new";
pub(super) const NOTE: &str = "spool.given-up";
/// In the name of a file that was damaged, and of one that was found in the place of the spool.
pub(super) const DAMAGED: &str = "damaged";
pub(super) const FOUND: &str = "found";

/// A new file that is whole, and not in its place yet.
pub(super) struct Replacement<'a> {
    path: &'a Path,
    note: Note,
}

/// What is given up.
#[derive(Debug, Default, PartialEq, Eq)]
struct Note {
    held: Option<Amounts>,
    copied: Amounts,
    losses: bool,
}

impl<'a> Replacement<'a> {
    /// Makes a file in the place of that at `path`, of which `from` reads.
    ///
    /// # Errors
    /// None can be made: nothing has changed.
    pub(super) fn make(path: &'a Path, from: &Connection, highest: i64) -> Result<Self, Failure> {
        // First the note: a new file that stands beside it counts as whole.
        remove(path);
        let made = copy(&path.with_file_name(NEW), from, highest);
        let Rescued { rows: copied, losses } = made.inspect_err(|_| remove(path))?;
        let held = rescue::amounts(from).ok().or_else(|| held::read(path.parent()?));
        Ok(Self { path, note: Note { held, copied, losses } })
    }

    /// Puts it in its place. What stands there is renamed, with the word in its name.
    ///
    /// # Errors
    /// It cannot be put there, and the old one stays; or it is there and cannot be opened, and the
    /// next attempt finds it.
    pub(super) fn install(self, word: &str) -> Result<(OpenFile, GivenUp), Failure> {
        let Self { path, note } = self;
        let noted = write(&path.with_file_name(NOTE), &note);
        let aside = noted.and_then(|()| exchange(path, word)).inspect_err(|_| remove(path))?;
        Ok((OpenFile::open(path)?, note.given_up(aside)))
    }
}

/// Ends what was begun and not ended; returns what was given up with it and is not known to have
/// been counted.
pub(super) fn resume(path: &Path) -> Result<Option<GivenUp>, Failure> {
    let (new, note) = (path.with_file_name(NEW), path.with_file_name(NOTE));
    let text = match fs::read_to_string(&note) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // It may not be whole.
            remove(path);
            return Ok(None);
        }
        Err(error) => return Err(Failure::Beside(note, error)),
    };
    let known = parse(&text);
    let aside = match (new.exists(), path.exists()) {
        // The note was being written: the old file is in its place.
        (true, true) if known.is_none() => {
            remove(path);
            return Ok(None);
        }
        (true, _) => exchange(path, DAMAGED)?,
        (false, _) => None,
    };
    let aside = aside.or_else(|| newest_aside(path));
    Ok(Some(known.unwrap_or_default().given_up(aside)))
}

/// What was given up was counted.
pub(super) fn forget(path: &Path) {
    // Where that fails it is counted once more, by the next start.
    let _ = fs::remove_file(path.with_file_name(NOTE));
}

/// Removes what is not in use yet. What is not there need not be removed.
fn remove(path: &Path) {
    forget(path);
    for file in beneath::files(&path.with_file_name(NEW)) {
        let _ = fs::remove_file(file);
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

/// Renames what stands at `path`, and the new file to that name; returns the other one's name.
fn exchange(path: &Path, word: &str) -> Result<Option<PathBuf>, Failure> {
    let in_the_way = |error| Failure::InTheWay(path.to_owned(), error);
    let aside = if path.exists() {
        Some(beneath::set_aside(path, word).map_err(in_the_way)?)
    } else {
        None
    };
    fs::rename(path.with_file_name(NEW), path).map_err(|error| {
        for (aside, file) in aside
            .iter()
            .flat_map(|aside| beneath::files(aside).into_iter().zip(beneath::files(path)))
        {
            // Absent where the database was closed in order.
            let _ = fs::rename(aside, file);
        }
        in_the_way(error)
    })?;
    // Of a file that is not there any more.
    for suffix in ["-wal", "-shm"] {
        let _ = fs::remove_file(beside(&path.with_file_name(NEW), suffix));
    }
    Ok(aside)
}

/// The file that was renamed last.
fn newest_aside(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let begins = [DAMAGED, FOUND].map(|word| format!("{name}.{word}-"));
    let entries = fs::read_dir(path.parent()?).ok()?.flatten();
    let is_aside = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        begins.iter().any(|begin| name.starts_with(begin))
            && !name.ends_with("-wal")
            && !name.ends_with("-shm")
    };
    let renamed = |path: &PathBuf| {
        path.metadata().map(|file| (file.ctime(), file.ctime_nsec())).unwrap_or_default()
    };
    entries.map(|entry| entry.path()).filter(is_aside).max_by_key(renamed)
}

impl Note {
    fn given_up(self, aside: Option<PathBuf>) -> GivenUp {
        let Self { held, copied, losses } = self;
        GivenUp { aside, held, copied, losses }
    }
}

fn write(path: &Path, note: &Note) -> Result<(), Failure> {
    let Note { held, copied, losses } = note;
    let held = held.as_ref().map(held::text);
    let text = json!({ "held": held, "copied": held::text(copied), "losses": losses }).to_string();
    let run = || {
        let mut file = File::create(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    run().map_err(|error| Failure::Beside(path.to_owned(), error))
}

/// Absent if it is not whole.
fn parse(text: &str) -> Option<Note> {
    let note: Value = serde_json::from_str(text).ok()?;
    let held = match note.get("held")? {
        Value::Null => None,
        held => Some(held::parse(held.as_str()?)?),
    };
    let copied = held::parse(note.get("copied")?.as_str()?)?;
    Some(Note { held, copied, losses: note.get("losses")?.as_bool()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::Amount;

    fn note() -> Note {
        let amount = |records| Amount { bytes: 10 * records, records };
        let held = Some(Amounts::from([("a:NATS".to_owned(), amount(9))]));
        Note { held, copied: Amounts::from([("a:NATS".to_owned(), amount(4))]), losses: true }
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_a_part_of_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(NOTE);
        for note in [note(), Note { held: None, ..note() }, Note::default()] {
            write(&path, &note).unwrap();
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(parse(&text), Some(note));
            for length in 0..text.len() {
                assert_eq!(parse(&text[..length]), None, "{length} bytes");
            }
        }
    }

    /// Killed at each step.
    #[test]
    fn what_was_begun_is_ended_or_begun_anew() {
        for (new, old, whole) in
            [(true, true, true), (true, true, false), (true, false, true), (false, true, true)]
        {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("spool.db");
            if new {
                fs::write(path.with_file_name(NEW), "new").unwrap();
            }
            if old {
                fs::write(&path, if new { "old" } else { "new" }).unwrap();
            }
            write(&path.with_file_name(NOTE), &note()).unwrap();
            if !whole {
                fs::write(path.with_file_name(NOTE), "{").unwrap();
            }
            let given_up = resume(&path).unwrap();
            let is_new = fs::read_to_string(&path).unwrap() == "new";
            assert_eq!((given_up.is_some(), is_new), (whole, whole), "{new} {old} {whole}");
            assert!(!path.with_file_name(NEW).exists());
            if let Some(GivenUp { aside, held, copied, losses }) = given_up {
                assert_eq!(aside.is_some(), new && old);
                assert_eq!(Note { held, copied, losses }, note());
                forget(&path);
            }
            assert!(resume(&path).unwrap().is_none(), "it is counted twice");
        }
        // No note: the new file may be a part.
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool.db");
        fs::write(path.with_file_name(NEW), "new").unwrap();
        assert!(resume(&path).unwrap().is_none());
        assert!(!path.with_file_name(NEW).exists() && !path.exists());
    }
}
