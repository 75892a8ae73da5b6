//! The database of SQLITE3 and the archive of PARQUET, which are directories of files: renamed,
//! removed with a copy kept, and read in the end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::received::Received;
use super::record::Form;
use super::rows::{add_parquet, add_sqlite};

/// A directory that flowlog writes, and one with what it has left there.
#[derive(Debug)]
pub(super) struct Store {
    live: PathBuf,
    kept: PathBuf,
    number: u32,
}

/// The file of the database, and those that SQLite has beside it.
const DATABASE: &str = "flow.db";
const BESIDE: [&str; 2] = ["-wal", "-shm"];

impl Store {
    /// A store in this directory of its disk; what is kept goes elsewhere.
    ///
    /// # Errors
    /// The directories cannot be made.
    pub(super) fn new(disk: &Path, kept: PathBuf) -> Result<Self> {
        let live = disk.join("live");
        fs::create_dir_all(&live)?;
        fs::create_dir_all(&kept)?;
        Ok(Self { live, kept, number: 0 })
    }

    /// The directories with all that was logged; one without a file would say nothing.
    pub(super) fn directories(&self) -> Vec<&Path> {
        let has_files = |path: &&Path| {
            let is_archive = |entry: fs::DirEntry| {
                let extension = entry.path().extension().map(|name| name.to_owned());
                extension.is_some_and(|name| name == "db" || name == "parquet")
            };
            fs::read_dir(path).is_ok_and(|mut all| all.any(|one| one.is_ok_and(is_archive)))
        };
        [&*self.live, &*self.kept].into_iter().filter(has_files).collect()
    }

    /// Renames the database; HUP follows.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn rotate(&mut self) -> Result<()> {
        let database = self.live.join(DATABASE);
        if database.exists() {
            self.number += 1;
            fs::rename(database, self.live.join(format!("former-{}.db", self.number)))?;
        }
        Ok(())
    }

    /// Removes the database, and keeps a copy. The daemon stands still.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove_database(&mut self) -> Result<()> {
        self.number += 1;
        let copy = self.kept.join(format!("removed-{}.db", self.number));
        let beside =
            |path: &Path, suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
        let database = self.live.join(DATABASE);
        for suffix in [""].into_iter().chain(BESIDE) {
            let file = beside(&database, suffix);
            if file.exists() {
                if suffix != "-shm" {
                    fs::copy(&file, beside(&copy, suffix)).context("keeping a copy")?;
                }
                fs::remove_file(&file)?;
            }
        }
        Ok(())
    }

    /// Removes the directory, and keeps the archives in it. The daemon stands still.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn remove_directory(&mut self) -> Result<()> {
        for entry in fs::read_dir(&self.live)?.flatten() {
            if entry.path().extension() == Some("parquet".as_ref()) {
                fs::copy(entry.path(), self.kept.join(entry.file_name()))?;
            }
        }
        fs::remove_dir_all(&self.live).context("removing the directory")
    }

    /// Makes the directory again.
    ///
    /// # Errors
    /// The disk refuses.
    pub(super) fn make_directory(&self) -> Result<()> {
        Ok(fs::create_dir_all(&self.live)?)
    }

    /// The rows of all databases, once flowlog has ended.
    ///
    /// # Errors
    /// One is damaged.
    pub(super) fn databases(&self, directory: &Path) -> Result<Received> {
        let mut received = Received::new(directory, "sqlite", Form::Columns)?;
        for directory in self.directories() {
            for entry in fs::read_dir(directory)?.flatten() {
                if entry.path().extension() == Some("db".as_ref()) {
                    add_sqlite(&entry.path(), &mut received)?;
                }
            }
        }
        Ok(received)
    }

    /// The rows of all archives, once flowlog has ended.
    ///
    /// # Errors
    /// One is damaged.
    pub(super) fn archives(&self, directory: &Path) -> Result<Received> {
        let mut received = Received::new(directory, "parquet", Form::Columns)?;
        for directory in self.directories() {
            add_parquet(directory, &mut received)?;
        }
        Ok(received)
    }
}
