//! Sinks that write files on this host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ::tests::python::duckdb_by;
use ::tests::sqlite;
use anyhow::{Context as _, Result, ensure};

use super::far::{Far, Place};

/// LOGEMU.
///
/// # Errors
/// None.
pub(super) fn lines<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(Lines { file: place.dir.join("flows.log"), keys: "" }))
}

/// JSON.
///
/// # Errors
/// None.
pub(super) fn json<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(Lines { file: place.dir.join("flows.json"), keys: "schema=full" }))
}

/// SQLITE3.
///
/// # Errors
/// None.
pub(super) fn sqlite3<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(Database(place.dir.join("flow.db"))))
}

/// PARQUET.
///
/// # Errors
/// None.
pub(super) fn parquet<'p>(place: &'p Place<'p>) -> Result<Box<dyn Far + 'p>> {
    Ok(Box::new(Archive { directory: place.dir.join("archive"), python: &place.programs.python }))
}

/// A file of lines.
struct Lines {
    file: PathBuf,
    keys: &'static str,
}

impl Far for Lines {
    fn keys(&self) -> String {
        format!("file=\"{}\"\n{}", self.file.display(), self.keys)
    }

    fn flows(&mut self) -> Result<u64> {
        let output = Command::new("wc").arg("-l").arg(&self.file).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.split_whitespace().next().context("wc says nothing")?.parse()?)
    }

    fn disk(&self) -> Result<Option<u64>> {
        Ok(Some(fs::metadata(&self.file)?.len()))
    }
}

/// A database of SQLite.
struct Database(PathBuf);

impl Far for Database {
    fn keys(&self) -> String {
        format!("db=\"{}\"", self.0.display())
    }

    fn flows(&mut self) -> Result<u64> {
        Ok(sqlite::count(&self.0, "flow")? as u64)
    }

    fn disk(&self) -> Result<Option<u64>> {
        ensure!(!self.0.with_extension("db-wal").exists(), "its log of changes is left");
        Ok(Some(fs::metadata(&self.0)?.len()))
    }
}

/// An archive, as DuckDB reads it.
struct Archive<'p> {
    directory: PathBuf,
    python: &'p Path,
}

impl Far for Archive<'_> {
    fn keys(&self) -> String {
        format!("directory=\"{}\"", self.directory.display())
    }

    fn flows(&mut self) -> Result<u64> {
        let files = self.directory.join("*.parquet");
        let sql = format!("SELECT count(*) FROM '{}' WHERE orig_src IS NOT NULL", files.display());
        Ok(duckdb_by(self.python, &sql)?.concat().parse()?)
    }

    fn disk(&self) -> Result<Option<u64>> {
        bytes_in(&self.directory).map(Some)
    }
}

/// Bytes of all files in a directory, at any depth.
///
/// # Errors
/// It cannot be read.
pub(super) fn bytes_in(directory: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_in(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
