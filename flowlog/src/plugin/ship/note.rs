//! The note of what is given up with a spool that another takes the place of: so that the next
//! start counts it, should this one end before it has.
//!
//! It is written under another name and renamed, so that one which counts something is never lost
//! to a kill or a full disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use super::failure::Failure;
use super::held;
use super::rescue::Amounts;
use crate::stats::Amount;

/// Its name beside the spool.
pub(super) const NOTE: &str = "spool.given-up";
/// Its name while it is written.
const PART: &str = "spool.given-up.part";

/// What is given up with a file, or with several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    /// How many files. One that has vanished while no flowlog ran is none.
    pub(super) files: u64,
    /// What they held and was not copied, as far as that is known.
    pub(super) lost: Amounts,
    /// All of that is known.
    pub(super) known: bool,
    /// What was copied from the last of them.
    pub(super) copied: Amounts,
    /// All losses that they named were copied.
    pub(super) losses: bool,
}

/// What a new file is that stands beside the note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum New {
    /// It is whole, and gets its place: the note counts what is given up for it.
    Whole,
    /// It is being made: the note counts what was given up before.
    Part,
}

/// What stands beside the spool.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Note(Note, New),
    /// A note that is damaged.
    Damaged,
}

impl Note {
    /// Of one file, of what it held, if that is known, and what was copied.
    pub(super) fn of(held: Option<&Amounts>, copied: Amounts, losses: bool) -> Self {
        let mut lost = Amounts::new();
        for (name, held) in held.into_iter().flatten() {
            let copied = copied.get(name).copied().unwrap_or_default();
            let amount = Amount {
                bytes: held.bytes.saturating_sub(copied.bytes),
                records: held.records.saturating_sub(copied.records),
            };
            if amount.records > 0 {
                lost.insert(name.clone(), amount);
            }
        }
        Self { files: 1, lost, known: held.is_some(), copied, losses }
    }

    /// Of a file that has vanished, which held that much.
    pub(super) fn vanished(held: &Amounts) -> Self {
        Self { files: 0, ..Self::of(Some(held), Amounts::new(), false) }
    }

    /// Of one file of which nothing is known.
    pub(super) fn unknown() -> Self {
        Self::of(None, Amounts::new(), false)
    }

    /// With what was given up before it, and was not counted.
    pub(super) fn behind(mut self, earlier: &Self) -> Self {
        self.files += earlier.files;
        self.known &= earlier.known;
        self.losses &= earlier.losses;
        for (name, amount) in &earlier.lost {
            let lost = self.lost.entry(name.clone()).or_default();
            lost.bytes = lost.bytes.saturating_add(amount.bytes);
            lost.records = lost.records.saturating_add(amount.records);
        }
        self
    }
}

/// Notes it beside the spool.
///
/// # Errors
/// It cannot be written: what was noted before stays.
pub(super) fn write(spool: &Path, note: &Note, new: New) -> Result<(), Failure> {
    let Note { files, lost, known, copied, losses } = note;
    let (lost, copied) = (held::text(lost), held::text(copied));
    let whole = new == New::Whole;
    let text = json!({
        "files": files, "lost": lost, "known": known, "copied": copied, "losses": losses,
        "whole": whole,
    });
    let (path, part) = (spool.with_file_name(NOTE), spool.with_file_name(PART));
    // One that a kill has left may be another user's.
    let _ = fs::remove_file(&part);
    let run = || {
        let mut file = File::create(&part)?;
        file.write_all(text.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)
    };
    run().map_err(|error| {
        let _ = fs::remove_file(&part);
        Failure::Beside(path.clone(), error)
    })
}

/// What is noted beside the spool.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(spool: &Path) -> Result<Found, Failure> {
    let path = spool.with_file_name(NOTE);
    match fs::read(&path) {
        // See `forget`.
        Ok(bytes) if bytes.is_empty() => Ok(Found::Nothing),
        Ok(bytes) => Ok(match parse(&String::from_utf8_lossy(&bytes)) {
            Some((note, new)) => Found::Note(note, new),
            None => Found::Damaged,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(Failure::Beside(path, error)),
    }
}

/// What was given up was counted.
///
/// # Errors
/// The note stays, and is counted once more by the next start.
pub(super) fn forget(spool: &Path) -> Result<(), Failure> {
    let path = spool.with_file_name(NOTE);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            // A user to whom the note was handed over may write it, but not its directory.
            let empty = OpenOptions::new().write(true).truncate(true).open(&path);
            empty.map(drop).map_err(|_| Failure::Beside(path, error))
        }
        _ => Ok(()),
    }
}

/// Absent if it is not whole.
fn parse(text: &str) -> Option<(Note, New)> {
    let note: Value = serde_json::from_str(text).ok()?;
    let amounts = |key: &str| held::parse(note.get(key)?.as_str()?);
    let flag = |key: &str| note.get(key)?.as_bool();
    let new = if flag("whole")? { New::Whole } else { New::Part };
    let note = Note {
        files: note.get("files")?.as_u64()?,
        lost: amounts("lost")?,
        known: flag("known")?,
        copied: amounts("copied")?,
        losses: flag("losses")?,
    };
    Some((note, new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn amounts(records: u64) -> Amounts {
        let amount = Amount { bytes: 10 * records, records };
        Amounts::from([("a:NATS".to_owned(), amount)])
    }

    fn note() -> Note {
        Note::of(Some(&amounts(9)), amounts(4), true)
    }

    #[test]
    fn a_note_is_read_as_it_was_written_and_a_part_of_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool.db");
        assert_eq!(read(&spool).unwrap(), Found::Nothing);
        for note in [note(), Note { known: false, ..note() }, Note::unknown()] {
            for new in [New::Whole, New::Part] {
                write(&spool, &note, new).unwrap();
                assert_eq!(read(&spool).unwrap(), Found::Note(note.clone(), new));
            }
            let text = fs::read_to_string(spool.with_file_name(NOTE)).unwrap();
            for length in 0..text.len() {
                assert_eq!(parse(&text[..length]), None, "{length} bytes");
            }
        }
        assert!(!spool.with_file_name(PART).exists());
        forget(&spool).unwrap();
        assert_eq!(read(&spool).unwrap(), Found::Nothing);
        // What is not there is forgotten.
        forget(&spool).unwrap();
        fs::write(spool.with_file_name(NOTE), "").unwrap();
        assert_eq!(read(&spool).unwrap(), Found::Nothing);
    }

    /// As a byte that the disk has changed may be.
    #[test]
    fn a_note_that_is_no_text_is_damaged() {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool.db");
        write(&spool, &note(), New::Whole).unwrap();
        let path = spool.with_file_name(NOTE);
        let whole = fs::read(&path).unwrap();
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut changed = whole.clone();
            changed[at] = 0xff;
            fs::write(&path, &changed).unwrap();
            assert_eq!(read(&spool).unwrap(), Found::Damaged, "byte {at}");
        }
    }

    /// The disk is full.
    #[test]
    fn a_note_that_cannot_be_written_leaves_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let spool = directory.path().join("spool.db");
        write(&spool, &note(), New::Whole).unwrap();
        fs::create_dir(spool.with_file_name(PART)).unwrap();
        write(&spool, &Note::unknown(), New::Whole).unwrap_err();
        assert_eq!(read(&spool).unwrap(), Found::Note(note(), New::Whole));
    }

    #[test]
    fn what_was_given_up_before_is_a_part_of_it() {
        assert_eq!((note().lost, note().known), (amounts(5), true));
        let all = note().behind(&Note::of(Some(&amounts(100)), Amounts::new(), true));
        assert_eq!((all.files, &all.lost, &all.copied), (2, &amounts(105), &amounts(4)));
        assert!(all.known && all.losses);
        // Not all of one is known, whichever it is.
        for all in [note().behind(&Note::unknown()), Note::unknown().behind(&note())] {
            assert_eq!((all.files, all.lost), (2, amounts(5)));
            assert!(!all.known && !all.losses);
        }
    }
}
