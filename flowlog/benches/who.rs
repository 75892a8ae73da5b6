//! `flowlog who` over an archive of a day: how long an answer to an exact port
//! and minute takes, and whether answers are those of DuckDB, which knows nothing
//! of flowlog.
//!
//! `cargo bench --bench who -- [FLOWS]`; `cargo xtask test --full` runs it with 50
//! million. FLOWLOG_PYTHON names a python3 that has the module duckdb; TMPDIR is
//! where the archive is, for so long. It fails if an answer is wrong, or if the
//! median is above the bound.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use self::questions::Question;

#[path = "../examples/archive/mix.rs"]
mod mix;

#[path = "who/generate.rs"]
mod generate;
#[path = "who/questions.rs"]
mod questions;

const FLOWS: u64 = 2_000_000;
const QUESTIONS: usize = 1000;
/// For an exact port and minute, of 50 million flows.
const BOUND: Duration = Duration::from_secs(1);
/// The judge.
const DUCKDB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/who/duckdb_answers.py");

fn main() -> anyhow::Result<()> {
    // cargo adds a word of its own.
    let flows = std::env::args().skip(1).find_map(|word| word.parse().ok()).unwrap_or(FLOWS);
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("archive");
    let begin = Instant::now();
    let samples = generate::archive(&archive, flows)?;
    let (files, bytes) = size(&archive)?;
    say(&format!(
        "{flows} flows in {files} files, {:.1} bytes each, made in {:.0} s",
        bytes as f64 / flows as f64,
        begin.elapsed().as_secs_f64()
    ))?;
    let questions = questions::ask_for(&samples, QUESTIONS);
    let answers = ask(&archive, &questions)?;
    let medians = times(&answers)?;
    judge(directory.path(), &archive, &answers)?;
    let median = medians.get("nat").copied().unwrap_or_default();
    ensure!(median < BOUND, "the median for an exact port and minute is {median:?}");
    Ok(())
}

/// A question, what came, and after what time.
struct Answered<'q> {
    question: &'q Question,
    answer: Value,
    after: Duration,
}

/// Asks the program itself, once for each question.
fn ask<'q>(archive: &Path, questions: &'q [Question]) -> anyhow::Result<Vec<Answered<'q>>> {
    let one = |question: &'q Question| {
        let begin = Instant::now();
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowlog"));
        command.arg("who").arg(&question.wanted).args(["--from", &question.from]);
        command.args(["--to", &question.to, "--json"]).arg(archive);
        let output = command.output().context("flowlog cannot be started")?;
        let after = begin.elapsed();
        let errors = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        // 3: archives of ends alone do not show that there was none.
        let is_answer = matches!(code, Some(0 | 1 | 3)) && errors.is_empty();
        ensure!(is_answer, "{}: {code:?} {errors}", question.wanted);
        let answer: Value = serde_json::from_slice(&output.stdout)?;
        Ok(Answered { question, answer, after })
    };
    questions.iter().map(one).collect()
}

/// The medians, by what is asked for.
fn times(answers: &[Answered<'_>]) -> anyhow::Result<BTreeMap<&'static str, Duration>> {
    let mut by_kind = BTreeMap::<_, Vec<Duration>>::new();
    for Answered { question, after, .. } in answers {
        by_kind.entry(question.kind).or_default().push(*after);
    }
    let mut medians = BTreeMap::new();
    for (kind, mut times) in by_kind {
        times.sort();
        let at = |part: usize| times[(times.len() - 1) * part / 100];
        say(&format!(
            "{kind}: {} questions, median {:.0?}, of 100 the 90th {:.0?}, the longest {:.0?}",
            times.len(),
            at(50),
            at(90),
            at(100)
        ))?;
        medians.insert(kind, at(50));
    }
    Ok(medians)
}

/// Compares with what DuckDB answers.
fn judge(directory: &Path, archive: &Path, answers: &[Answered<'_>]) -> anyhow::Result<()> {
    let mut lines = String::new();
    for (id, Answered { question, answer, .. }) in answers.iter().enumerate() {
        let Question { address, port, first, last, .. } = question;
        let connections = answer["connections"].as_array().map_or(&[][..], Vec::as_slice);
        let line = json!({
            "id": id, "address": address, "port": port, "first": first, "last": last,
            "connections": connections.iter().map(told).collect::<Vec<_>>(),
        });
        writeln!(lines, "{line}")?;
    }
    let file = directory.join("answers.json");
    fs::write(&file, lines)?;
    let python = std::env::var("FLOWLOG_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(&python);
    command.arg(DUCKDB).arg(archive).arg(&file);
    let status = command.status().with_context(|| format!("{python} cannot be started"))?;
    ensure!(status.success(), "the answers are not those of DuckDB");
    Ok(())
}

/// What tells a connection.
fn told(connection: &Value) -> Value {
    let Value::Object(orig) = &connection["orig"] else { return Value::Null };
    let word = |name: &str| orig.get(name).cloned().unwrap_or_default();
    json!([
        connection["start"],
        connection["end"],
        connection["protocol"]["number"],
        word("src"),
        word("dst"),
        orig.get("sport").or(orig.get("id")),
        word("dport"),
    ])
}

fn size(directory: &Path) -> io::Result<(usize, u64)> {
    let (mut files, mut bytes) = (0, 0);
    for hour in fs::read_dir(directory)? {
        for file in fs::read_dir(hour?.path())? {
            files += 1;
            bytes += file?.metadata()?.len();
        }
    }
    Ok((files, bytes))
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}
