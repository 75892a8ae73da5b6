//! Those who read Parquet files besides flowlog: DuckDB and pyarrow, in the environment of Python
//! that `cargo xtask test` makes.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Where that environment is.
const PYTHON: &str = "FLOWLOG_PYTHON";

/// Prints what DuckDB answers.
const DUCKDB: &str = "\
import duckdb, sys
connection = duckdb.connect()
connection.execute(\"SET TimeZone = 'UTC'\")
for row in connection.execute(sys.argv[1]).fetchall():
    print('|'.join(map(str, row)))";

/// What DuckDB answers: a row a line, its columns joined by `|`, in UTC.
///
/// # Errors
/// It refuses the question, or there is no DuckDB.
pub fn duckdb(sql: &str) -> Result<Vec<String>> {
    run(DUCKDB, sql)
}

/// The same by this interpreter.
///
/// # Errors
/// As [`duckdb`].
pub fn duckdb_by(python: &Path, sql: &str) -> Result<Vec<String>> {
    run_by(python, DUCKDB, sql)
}

/// What a script of Python prints.
///
/// # Errors
/// It fails, or there is no Python.
pub fn run(script: &str, argument: &str) -> Result<Vec<String>> {
    let python: PathBuf = std::env::var_os(PYTHON)
        .with_context(|| {
            format!(
                "{PYTHON} is not set: cargo xtask test does it, to a Python with duckdb and \
                     pyarrow"
            )
        })?
        .into();
    run_by(&python, script, argument)
}

fn run_by(python: &Path, script: &str, argument: &str) -> Result<Vec<String>> {
    let output = Command::new(python).args(["-c", script, argument]).output();
    let output = output.with_context(|| format!("running {}", python.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{argument}: {said}");
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
