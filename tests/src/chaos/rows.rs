//! Rows of databases and archives as text: kind, destination, port, record id, joined by commas.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::received::Received;
use crate::python;

/// Takes the rows of a file, and removes it.
///
/// # Errors
/// It cannot be read.
pub(super) fn of_csv(file: &Path, mut received: Received) -> Result<Received> {
    add_csv(file, &mut received)?;
    Ok(received)
}

/// The same, into records that there are already.
///
/// # Errors
/// As [`of_csv`].
pub(super) fn add_csv(file: &Path, received: &mut Received) -> Result<()> {
    let reader = BufReader::new(File::open(file).with_context(|| file.display().to_string())?);
    for line in reader.split(b'\n') {
        received.take(&line?)?;
    }
    fs::remove_file(file).with_context(|| file.display().to_string())
}

/// Takes the rows of a database of SQLITE3. It may have been renamed before flowlog had made its
/// tables.
///
/// # Errors
/// It is damaged.
pub(super) fn add_sqlite(database: &Path, received: &mut Received) -> Result<()> {
    let file = database.with_extension("csv");
    let ask = |sql: &str| -> Result<Vec<u8>> {
        let mut command = Command::new("sqlite3");
        command.args(["-readonly", "-csv", "-cmd", ".timeout 10000"]).arg(database).arg(sql);
        let output = command.output().context("sqlite3")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {said}", database.display());
        Ok(output.stdout)
    };
    if ask("SELECT count(*) FROM sqlite_schema")?.trim_ascii() == b"0" {
        return Ok(());
    }
    let rows = ask("SELECT kind, orig_dst, orig_dport, record_id FROM flow \
                    UNION ALL SELECT 'lost', '', events, '' FROM lost")?;
    fs::write(&file, rows).with_context(|| file.display().to_string())?;
    add_csv(&file, received)
}

/// Takes the rows of all archives of PARQUET in a directory. A row has no record id; its time is
/// what tells two of one flow apart.
///
/// # Errors
/// DuckDB cannot read one.
pub(super) fn add_parquet(directory: &Path, received: &mut Received) -> Result<()> {
    let is_archive = |entry: fs::DirEntry| entry.path().extension() == Some("parquet".as_ref());
    if !fs::read_dir(directory)?.flatten().any(is_archive) {
        return Ok(());
    }
    let file = directory.join("rows.csv");
    python::duckdb(&format!(
        "COPY (SELECT kind, orig_dst, coalesce(lost_events, orig_dport), epoch_ns(time) FROM '{}') \
         TO '{}' (FORMAT csv, HEADER false)",
        directory.join("*.parquet").display(),
        file.display()
    ))?;
    add_csv(&file, received)
}
