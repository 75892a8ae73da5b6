//! A new file in the place of one that is given up.
//!
//! It is made under another name, and all that can be read of the old one is copied. Once it is on
//! disk, and with it a note of what is given up, the old one is renamed and the new one gets its
//! name. So a full disk or a kill costs no record and no count: before the note the old file is in
//! its place, and all begins anew; after it the next start goes on there. The note stays until
//! what is given up was counted, also while another new file is made.
//!
//! Where the old file was removed a kill loses what was not copied. What it held is noted beside
//! it, and is counted by the next start, which finds no file.

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

#[cfg(test)]
mod tests;

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
    /// It cannot be put there, or not be opened there: the old one stays.
    pub(super) fn install(self, word: &str) -> Result<(OpenFile, GivenUp), Failure> {
        self.install_by(word, OpenFile::open)
    }

    fn install_by(
        self,
        word: &str,
        open: impl FnOnce(&Path) -> Result<OpenFile, Failure>,
    ) -> Result<(OpenFile, GivenUp), Failure> {
        let Self { path, note, earlier } = self;
        let mut given_up = GivenUp { aside: None, note, earlier };
        let all = given_up.all();
        let stays = || {
            // Where the note cannot be written the next start counts too much.
            let _ = begin(path, given_up.earlier.as_ref());
            remove_new(path);
        };
        let placed = note::write(path, &all, New::Whole).and_then(|()| exchange(path, word));
        let aside = placed.inspect_err(|_| stays())?;
        let file = open(path).inspect_err(|_| {
            // Else what it holds would be lost by the count, and be delivered later. Where it
            // cannot be put back the count is right: the next attempt finds the new one.
            if put_back(path, aside.as_deref()).is_ok() {
                stays();
            }
        })?;
        note_held(path, &all);
        given_up.aside = aside;
        Ok((file, given_up))
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

/// Notes that a file has vanished while no flowlog ran: it was removed then, or was removed before
/// and a kill has ended the copy of it. Returns all that is given up then.
pub(super) fn vanished(path: &Path, earlier: Option<GivenUp>) -> Result<Option<GivenUp>, Failure> {
    // A link whose target is away is there.
    let is_gone =
        path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let held = path.parent().filter(|_| is_gone).and_then(held::read);
    let Some(held) = held.filter(|held| held.values().any(|amount| amount.records > 0)) else {
        return Ok(earlier);
    };
    let earlier = earlier.map(|given_up| given_up.all());
    let given_up = GivenUp { aside: None, note: Note::vanished(&held), earlier };
    note::write(path, &given_up.all(), New::Part)?;
    // A kill before that has it counted twice, which is better than not at all.
    note_held(path, &given_up.note);
    Ok(Some(given_up))
}

/// From then on a new file that is found is a part of one.
fn begin(path: &Path, earlier: Option<&Note>) -> Result<(), Failure> {
    match earlier {
        Some(earlier) => note::write(path, earlier, New::Part),
        // One that counts another file would make a part of this one the spool.
        None => note::forget(path),
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
    note_held(path, note);
    Ok(aside)
}

/// Notes what is held now: of the old file it would be counted once more, should the new one be
/// damaged as well.
fn note_held(path: &Path, note: &Note) {
    if let Some(directory) = path.parent() {
        held::write(directory, &note.copied);
    }
}

/// Gives the new file the name again under which it was made, and the old one its own.
fn put_back(path: &Path, aside: Option<&Path>) -> io::Result<()> {
    let new = path.with_file_name(NEW);
    for suffix in LOGS {
        // The new one was whole without it.
        let _ = fs::remove_file(beside(path, suffix));
    }
    fs::rename(path, &new)?;
    let Some(aside) = aside else { return Ok(()) };
    fs::rename(aside, path).inspect_err(|_| {
        let _ = fs::rename(&new, path);
    })?;
    rename_logs(aside, path)
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
